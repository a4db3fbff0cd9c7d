package replica

import (
	"context"
	"io"
	"slices"
	"time"

	"redoubt"
	"redoubt/bundle"
)

// A version that does not read, as on a damaged disk, holds up no raise, and nothing that a partner is given. The bundle that it was to be in comes to nothing; the next one is made with care:
// each version is fetched by itself and read to its end before any of it is written, and what is Corrupt is left out, on record. Whatever else fails ends
// the bundle, for that passes. What is larger than any bundle may be is left out at once, for its size is known before it is read.

// maxOne is the largest content of a version that goes into a bundle, with all that sealing and what stands around it add.
const maxOne = bundle.MaxSealedBytes / 1024 * 1023

// care is about which bundles are to be made with care: those that again gives, and 0 for what is new.
type care []uint64

// after notes how a bundle ended. A number is with care until it was made: it may have its next turn behind others.
func (c *care) after(again uint64, err error) {
	switch {
	case err == nil:
		*c = slices.DeleteFunc(*c, func(n uint64) bool { return n == again })
	case redoubt.KindOf(err) == redoubt.Corrupt && !slices.Contains(*c, again):
		*c = append(*c, again)
		*c = (*c)[max(0, len(*c)-redoubt.MaxRaisedBundles):] // no more are known by number
	}
}

// withCare says whether a bundle is to be made so.
func (b *Bundles) withCare(peer redoubt.NodeName, again uint64) (with bool) {
	b.replan(peer, func(r *raisePlan) { with = slices.Contains(r.care, again) })
	return with
}

// What was left out is tried again with the first bundle since the node began, and then with one an hour, but for what is large: reading that in vain
// would hold up the others.
const raiseRetry = time.Hour

// leftOut is what is to be tried again now. It is due no more, whatever comes of it.
func (b *Bundles) leftOut(ctx context.Context, peer redoubt.NodeName, again uint64) (map[string][]redoubt.Stamp, error) {
	due := false
	b.replan(peer, func(r *raisePlan) {
		if due = again == 0 && !time.Now().Before(r.retry); due {
			r.retry = time.Now().Add(raiseRetry)
		}
	})
	if !due {
		return nil, nil
	}
	return b.o.Raises.LeftOut(ctx, peer)
}

// retries writes what was left out earlier and reads by now. What does not is on record already.
func (x *exporter) retries(ctx context.Context, sets []string) error {
	defer func() { x.unread = map[string][]redoubt.Stamp{} }()
	for _, set := range sets {
		refs, err := x.b.o.Journal.Refs(ctx, x.peer, set, x.retry[set])
		if redoubt.KindOf(err) == redoubt.Corrupt {
			continue
		}
		if err != nil {
			return err
		}
		for _, ref := range refs {
			if ref.SizeBytes > maxRaiseBytes {
				continue
			}
			if x.full() {
				return nil
			}
			if ok, err := x.fits(set, ref); !ok {
				return err
			}
			if err := x.carefully(ctx, set, []redoubt.Stamp{ref.Stamp}); err != nil {
				return err
			}
			x.tried[ref.Stamp] = true
		}
	}
	return nil
}

// carefully writes entries that read, and notes the others.
func (x *exporter) carefully(ctx context.Context, set string, stamps []redoubt.Stamp) error {
	for _, s := range stamps {
		if x.tried[s] { // it is left of a bundle that came to nothing
			continue
		}
		fetched, err := x.readable(ctx, set, s)
		if redoubt.KindOf(err) == redoubt.Corrupt && ctx.Err() == nil {
			x.unread[set] = append(x.unread[set], s)
			x.stamps++
			continue
		}
		if err == nil {
			err = x.page(ctx, set, fetched)
		}
		letGo(fetched)
		if err != nil {
			return err
		}
	}
	return nil
}

// readable fetches what a stamp names and reads it. What fails is looked up once more: its place and its key may have changed since.
func (x *exporter) readable(ctx context.Context, set string, s redoubt.Stamp) (fetched []redoubt.JournalItem, err error) {
	for range 2 {
		letGo(fetched)
		fetched, err = x.b.o.Journal.Fetch(ctx, x.peer, set, []redoubt.Stamp{s})
		for i := range fetched {
			if err == nil && !fetched[i].Superseded {
				err = reads(ctx, &fetched[i])
			}
		}
		if redoubt.KindOf(err) != redoubt.Corrupt {
			break
		}
	}
	return fetched, err
}

// reads reads content to its end, but for what lies in memory, where it was read before.
func reads(ctx context.Context, item *redoubt.JournalItem) error {
	if item.Open == nil {
		return nil
	}
	content, err := item.Open()
	if err != nil {
		return err
	}
	defer content.Close()
	if _, held := content.(interface{ Whole() []byte }); held {
		return nil
	}
	r, buf := content.Reader(0, -1), make([]byte, min(bundlePiece, max(item.Entry.SizeBytes, 1)))
	for err == nil {
		if err = ctx.Err(); err == nil {
			_, err = r.Read(buf)
		}
	}
	return nilIf(err, io.EOF)
}

// letGo gives back the memory of what is not read any more.
func letGo(fetched []redoubt.JournalItem) {
	for i := range fetched {
		if release := fetched[i].Release; release != nil {
			release()
		}
	}
}
