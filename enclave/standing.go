package enclave

import (
	"cmp"
	"context"
	"io"
	"time"

	"redoubt"
	"redoubt/access"
)

// standing lets a write be committed only while its credential stands, and what it was allowed is still: one that was
// revoked, or had its subject's clearance or a grant taken, while content came in commits nothing. asked are each with the entry
// that allowed it. The caller calls done after its commit; a revocation that returns has waited for it.
func (e *Enclave) standing(who redoubt.Credential, asked *ask, entry *entry) (done func(), err error) {
	e.standingMu.RLock()
	if who.ID != ownCredential {
		err := e.partnersLive(who.Subject)
		if live := e.live(who); redoubt.KindOf(live) == redoubt.Unauthenticated && live != nil {
			err = live
		}
		if err == nil && asked != nil {
			err = e.stillAllowed(asked, entry)
		}
		if err != nil {
			e.standingMu.RUnlock()
			return nil, err
		}
	}
	return e.standingMu.RUnlock, nil
}

// stillAllowed refuses what is allowed no more, and has its entry say so.
func (e *Enclave) stillAllowed(asked *ask, entry *entry) error {
	if asked.action == "" {
		return nil
	}
	d := e.again(asked, entry.Time)
	if d.Allow {
		return nil
	}
	entry.Allow, entry.Rule = false, d.Rule
	return e.refusal(d, *asked)
}

// again asks the monitor once more for what was allowed at since: by clearance, roles, grants and bucket as they are now, and at that
// time, so that what was begun before a credential expired may end.
func (e *Enclave) again(asked *ask, since time.Time) access.Decision {
	a := e.today(asked)
	req := e.request(&a, since)
	if redoubt.KindOf(req.Live) == redoubt.Expired {
		req.Live = nil
	}
	return e.monitor.Check(&req)
}

// today is the same question about the bucket as it is now.
func (e *Enclave) today(asked *ask) ask {
	a := *asked
	if b := (*e.buckets.Load())[a.name.Bucket]; b != nil {
		a.bucket = b
	}
	return a
}

// lasting is content that is read for as long as its reader may: a download ends with the right to it, and so does what a job reads as it asks for it.
type lasting struct {
	r io.Reader
	o *object
}

func (l *lasting) Read(p []byte) (int, error) {
	if err := l.o.stands(); err != nil {
		return 0, err
	}
	return l.r.Read(p)
}

// WriteTo asks before each piece that is handed over, which is half a MiB at most.
func (l *lasting) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(lastingWriter{w, l.o}, l.r)
}

type lastingWriter struct {
	w io.Writer
	o *object
}

func (l lastingWriter) Write(p []byte) (int, error) {
	if err := l.o.stands(); err != nil {
		return 0, err
	}
	return l.w.Write(p)
}

// stands refuses to go on with what its reader may read no more, or what was taken out meanwhile, on the record.
func (o *object) stands() error {
	if d := o.e.again(&o.asked, o.since); d.Allow {
		return o.stays()
	}
	d, ent := o.judge()
	if d.Allow {
		return nil
	}
	ent.Kind = d.Kind.Error()
	if err := o.e.record(context.Background(), ent); err != nil {
		return err
	}
	return o.e.refusal(d, o.asked)
}

// judge takes the decision anew, and describes it where the one that it was opened by is on record.
func (o *object) judge() (access.Decision, *entry) {
	d, ent := o.e.judge(redoubt.WithRequest(context.Background(), o.request), o.e.today(&o.asked))
	ent.Label = cmp.Or(o.told, ent.Label)
	return d, ent
}

// ruleTakenOut ends the reading of a version that a spill report takes out, or whose keys went with an erasure.
const ruleTakenOut = "taken-out (2.7)"

// stays refuses to go on with what a spill report takes out, or what it was made of, and with what is gone and has no key any more: as one that is asked for
// then is not there. What was only removed, and may be opened as far as its keys go, is given to its end; but what was rebuilt of a release ends with that.
func (o *object) stays() error {
	e := o.e
	if e.readers.taken.Load() == o.taken {
		return nil
	}
	out := e.readers.takes(o.rec.id) || e.readers.closes(o.rec, o.set.label) != ""
	if !out {
		var err error
		if out, err = o.erased(); err != nil {
			return err
		}
	}
	if !out {
		return nil
	}
	_, ent := o.judge()
	ent.Allow, ent.Rule = false, ruleTakenOut
	return e.noted(context.Background(), ent, &redoubt.Error{Op: o.asked.op, Object: o.asked.name.String(), Kind: redoubt.NotFound})
}

// erased says whether an open version is in the catalogue no more, and its keys are gone; of what was rebuilt, whether it was let go of.
func (o *object) erased() (bool, error) {
	if b := (*o.e.buckets.Load())[o.name.Bucket]; b != nil {
		view := o.e.engine.View() // it may be the current one again meanwhile
		defer view.Close()
		f, err := o.e.byID(view, b, o.set.label, o.name.Key, o.e.ids.versionID(o.rec.id))
		if err != nil || f.rec != nil { // a rotation wrapped its key anew
			return false, err
		}
	}
	if o.name.Bucket == RebuiltBucket {
		return true, nil
	}
	for _, p := range o.rec.pieces {
		key, err := o.e.keyring.DataKey(o.set.text, p.wrapped)
		key.Wipe()
		if redoubt.KindOf(err) == redoubt.Erased {
			return true, nil
		}
		if err != nil {
			return false, err
		}
	}
	return false, nil
}
