package main

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"redoubt"
	"redoubt/bundle"
	"redoubt/carry/diode"
)

// sending is what diode send was asked for.
type sending struct {
	to, rate, loss, keyFile, only, blocks string
	once                                  bool
	plan                                  diode.Plan
	numbers, parts                        []diode.Span
	flags                                 string // as they were given, to be typed again
}

func (a *app) diodeSend() *cobra.Command {
	q := sending{plan: diode.Plan{Datagram: diode.DefaultDatagram, Interleave: diode.DefaultInterleave, Passes: 1}}
	c := &cobra.Command{Use: "send FILE|DIR...", Short: "Send bundles one way, at a rate, with parity for what is lost",
		Long: `Sends each file, or watches a folder and sends each new bundle in it once, in the order of their numbers, until it is ended.
It never learns what arrives. --loss says how many datagrams may be lost without a bundle suffering; --passes repeats
everything, and what the first pass lacks the next fills in. --only sends numbers again that the far side's operator asked
for, whatever was sent before, and --blocks less than that, with the same --datagram and --loss as before. The rate counts
the headers of IP and UDP. With --json there is one document a bundle, each on a line.`,
		Example: `  redoubt diode send out.rbundle --to 10.0.9.2:4790 --rate 1Mbit
  redoubt diode send out --to 10.0.9.2:4790 --rate 100Mbit --passes 2 --diode-key diode.key
  redoubt diode send out --only 5-6,8 --to 10.0.9.2:4790 --rate 1Mbit --loss 25%
  redoubt diode send out.rbundle --blocks 12,40-43 --to 10.0.9.2:4790 --rate 1Mbit`, Args: between(1, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q.flags = typedAgain(cmd, "to", "rate", "loss", "passes", "datagram", "interleave", "diode-key", "only", "blocks")
			return a.sendOneWay(cmd.Context(), &q, args)
		}}
	c.Flags().StringVar(&q.to, "to", "", "`address` to send to, HOST:PORT")
	c.Flags().StringVar(&q.rate, "rate", "", "bits a second, a `rate` such as 1Mbit")
	c.Flags().StringVar(&q.loss, "loss", "10%", "`share` of the datagrams that may be lost")
	c.Flags().IntVar(&q.plan.Passes, "passes", 1, "`times` that everything is sent")
	c.Flags().IntVar(&q.plan.Datagram, "datagram", diode.DefaultDatagram, "UDP payload of a datagram, in `bytes`")
	c.Flags().IntVar(&q.plan.Interleave, "interleave", diode.DefaultInterleave, "`blocks` of 4 MiB that are sent mixed, so that a burst takes a little of each")
	c.Flags().StringVar(&q.keyFile, "diode-key", "", "`file` with the key that both sides share")
	c.Flags().StringVar(&q.only, "only", "", "`numbers` of bundles to send, such as 5-6,8")
	c.Flags().StringVar(&q.blocks, "blocks", "", "`numbers` of blocks of one file to send, such as 12,40-43")
	c.Flags().BoolVar(&q.once, "once", false, "of a folder: send what is new in it now, and end")
	required(c, "to", "rate")
	return a.jsonFlag(c)
}

// read takes apart what was typed.
func (q *sending) read(args []string) (watch string, err error) {
	if q.plan.Rate, err = parseRate(q.rate); err != nil {
		return "", err
	}
	if q.plan.Loss, err = parseShare(q.loss); err != nil {
		return "", err
	}
	for _, f := range []struct {
		text string
		to   *[]diode.Span
	}{{q.only, &q.numbers}, {q.blocks, &q.parts}} {
		if f.text == "" {
			continue
		}
		if *f.to, err = diode.ParseSpans(f.text); err != nil {
			return "", &usageError{message: err.Error(), hint: "redoubt diode send --help"}
		}
	}
	if st, err := os.Stat(args[0]); err == nil && st.IsDir() {
		watch = args[0]
	}
	if watch != "" && len(args) > 1 {
		return "", &usageError{message: "one folder is sent at a time", hint: "a sender for each folder, the rates together no more than the road's"}
	}
	if q.parts != nil && (watch != "" || len(args) > 1) {
		return "", &usageError{message: "--blocks are of one file", hint: "--only names the bundles of a folder"}
	}
	q.plan.Key, err = diodeKeyFile(q.keyFile)
	return watch, err
}

func (a *app) sendOneWay(ctx context.Context, q *sending, args []string) error {
	watch, err := q.read(args)
	if err != nil {
		return err
	}
	socket, err := diode.Dial(q.to, "")
	if err != nil {
		return err
	}
	defer socket.Close()
	s, err := diode.NewSender(socket, q.plan)
	if errors.Is(err, redoubt.Invalid) {
		return &usageError{message: plain(err), hint: "redoubt diode send --help"}
	}
	if err != nil {
		return err
	}
	if watch == "" {
		return a.sendFiles(ctx, s, q, args)
	}
	return a.sendFolder(ctx, s, q, watch)
}

// sendFiles sends files in the order that they are named.
func (a *app) sendFiles(ctx context.Context, s *diode.Sender, q *sending, names []string) error {
	sent := 0
	for i, name := range names {
		if q.numbers != nil {
			if sheet, err := diode.Inspect(name); err != nil || !wanted(&sheet, q.numbers) {
				continue
			}
		}
		if err := a.sendFile(ctx, s, q, name); err != nil {
			if ctx.Err() != nil {
				return sendingStopped(q, name, names[i:])
			}
			return err
		}
		sent++
	}
	if sent == 0 {
		return &redoubt.Error{Kind: redoubt.NotFound, Err: errors.New("no bundle here has such a number"), Hint: "redoubt bundle inspect FILE tells its number; redoubt bundle export writes everything again that is not acknowledged"}
	}
	return nil
}

// sendingStopped is Ctrl-C in the middle of a file: rest are it and those behind it, or the folder, which keeps no record of it.
func sendingStopped(q *sending, name string, rest []string) error {
	flags := q.flags
	if q.once {
		flags += " --once"
	}
	words := make([]string, len(rest))
	for i, r := range rest {
		words[i] = shellQuote(r)
	}
	return &halfDone{message: "interrupted: " + name + " was not sent whole",
		hint: "the far side keeps what came; this sends it again from its beginning: redoubt diode send " + strings.Join(words, " ") + flags}
}

// typedAgain are those of some flags that were given, for the same call again, each with a space before it.
func typedAgain(c *cobra.Command, names ...string) (text string) {
	for _, name := range names {
		if f := c.Flags().Lookup(name); f.Changed {
			text += " --" + name + " " + shellQuote(f.Value.String())
		}
	}
	return text
}

func wanted(s *bundle.Sheet, numbers []diode.Span) bool {
	return slices.ContainsFunc(s.To, func(t bundle.Addressee) bool { return redoubt.InSpans(numbers, t.Serial) })
}

// sentView is a bundle that was sent.
type sentView struct {
	File   string           `json:"file"`
	Kind   string           `json:"kind"`
	Maker  redoubt.NodeName `json:"maker"`
	For    redoubt.NodeName `json:"for"`
	Number uint64           `json:"number"`
	ID     string           `json:"id"`
	Passes int              `json:"passes"`
	diode.Tally
}

func (a *app) sendFile(ctx context.Context, s *diode.Sender, q *sending, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return &redoubt.Error{Object: name, Kind: redoubt.NotFound, Err: errors.Unwrap(err), Hint: "name a file that redoubt bundle export wrote, or a folder of them"}
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	var only []int
	for _, span := range q.parts {
		for b := span.From; b <= span.To && b <= uint64(st.Size()/bundle.LeafBytes); b++ {
			only = append(only, int(b))
		}
		if span.To > uint64(st.Size()/bundle.LeafBytes) {
			return &usageError{message: name + " has no block " + strconv.FormatUint(span.To, 10), hint: "redoubt diode status DIR at the far side names its missing blocks"}
		}
	}
	load, err := s.Load(ctx, f, st.Size(), only, nil)
	if err != nil {
		return &redoubt.Error{Object: name, Kind: redoubt.KindOf(err), Rule: ruleOf(err), Err: errors.Unwrap(err), Hint: ownHint(err)}
	}
	before, size := s.Tally, int64(q.plan.Datagram+diode.UDPOverhead)
	show := a.progress("sending "+name, load.Datagrams()*int64(q.plan.Passes)*size)
	err = s.Send(ctx, load, func(done int64) { show.at((done - before.Datagrams) * size) })
	show.end()
	if err != nil {
		return err
	}
	o := load.Outline()
	view := sentView{File: name, Kind: o.Kind.String(), Maker: o.Maker, For: o.To[0].Node, Number: o.To[0].Serial, ID: hex.EncodeToString(o.ID[:]), Passes: q.plan.Passes,
		Tally: diode.Tally{Datagrams: s.Datagrams - before.Datagrams, Bytes: s.Tally.Bytes - before.Bytes}}
	a.say("%s was sent: %s of %s for %s, number %d, in %d datagrams; whether it came is seen at the far side", name, view.Kind, view.Maker, view.For, view.Number, view.Datagrams)
	if a.json {
		return a.line(view)
	}
	return nil
}

// outboxEvery is how often a folder is looked at.
const outboxEvery = time.Second

// sendFolder sends what is new in a folder, and with --only what is named; until ctx ends, or once.
func (a *app) sendFolder(ctx context.Context, s *diode.Sender, q *sending, dir string) error {
	box, err := openOutbox(dir)
	if err != nil {
		return err
	}
	if q.numbers != nil {
		names, err := box.all()
		if err != nil {
			return err
		}
		return a.sendFiles(ctx, s, q, names)
	}
	tick := time.NewTicker(outboxEvery)
	defer tick.Stop()
	for {
		waiting, err := box.fresh()
		if err != nil {
			return err
		}
		for _, w := range waiting {
			err := a.sendFile(ctx, s, q, w.path)
			switch {
			case err != nil && ctx.Err() != nil && q.once:
				return sendingStopped(q, w.path, []string{dir})
			case err != nil && ctx.Err() != nil: // that is how a watch ends
				a.say("%s was not sent whole: it is sent again, from its beginning, when the folder is", w.path)
				return nil
			case err != nil:
				a.report(err) // the others are not held up
				box.spurned[w.id] = true
				continue
			}
			if err := box.sent(w.id); err != nil {
				return err
			}
		}
		if q.once {
			return interrupted(ctx, ctx.Err())
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

var rates = regexp.MustCompile(`^([0-9]{1,9}(?:\.[0-9]{1,6})?)(bit|kbit|Mbit|Gbit)(?:/s)?$`)

// parseRate reads bits a second.
func parseRate(text string) (int64, error) {
	m := rates.FindStringSubmatch(text)
	if m == nil {
		return 0, &usageError{message: "want a rate such as 1Mbit, got " + text, hint: "bit, kbit, Mbit or Gbit, each of a second"}
	}
	n, err := strconv.ParseFloat(m[1], 64)
	return int64(n * map[string]float64{"bit": 1, "kbit": 1e3, "Mbit": 1e6, "Gbit": 1e9}[m[2]]), err
}

// parseShare reads a share such as 10%.
func parseShare(text string) (float64, error) {
	number, isShare := strings.CutSuffix(text, "%")
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || !isShare || !(n >= 0 && n <= 100) {
		return 0, &usageError{message: "want a share such as 10%, got " + text, hint: "--loss 10%"}
	}
	return n / 100, nil
}

// outbox is a folder of which each bundle is sent once. What was sent is on record beside the files.
type outbox struct {
	dir     string
	record  sentRecord
	spurned map[string]bool // bundles that could not be sent, by ID: told once
}

// sentRecord names the bundles of the folder that were sent; of files that are gone it is not kept.
type sentRecord struct {
	Format int      `json:"format"`
	Sent   []string `json:"sent"` // IDs, hex
}

const (
	sentFile       = ".diode-sent.json"
	maxSentBytes   = 16 << 20 // a quarter of a million bundles
	maxOutboxFiles = maxSentBytes / 80
)

func openOutbox(dir string) (*outbox, error) {
	b := &outbox{dir: dir, record: sentRecord{Format: 1}, spurned: map[string]bool{}}
	if err := diode.ReadRecord(filepath.Join(dir, sentFile), maxSentBytes, &b.record); err != nil {
		return nil, err
	}
	if b.record.Format != 1 {
		return nil, &redoubt.Error{Object: filepath.Join(dir, sentFile), Kind: redoubt.Corrupt, Err: fmt.Errorf("format %d, and only 1 is read", b.record.Format)}
	}
	return b, nil
}

// waiting is a bundle of the folder.
type waiting struct {
	path, id string
	bundle.Sheet
}

// bundles are the folder's whole bundles, in the order that they are to be sent in: numberings by age, each by number. What is no
// bundle, or is not whole yet, is passed over.
func (b *outbox) bundles() ([]waiting, error) {
	entries, err := os.ReadDir(b.dir)
	if err != nil {
		return nil, &redoubt.Error{Object: b.dir, Kind: redoubt.NotFound, Err: err}
	}
	if len(entries) > maxOutboxFiles {
		return nil, &redoubt.Error{Object: b.dir, Kind: redoubt.TooLarge, Err: fmt.Errorf("more than %d files", maxOutboxFiles), Hint: "move away what was sent"}
	}
	var all []waiting
	began := map[string]time.Time{} // of each numbering, its oldest here
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		path := filepath.Join(b.dir, e.Name())
		sheet, err := diode.Inspect(path)
		if err != nil {
			continue
		}
		w := waiting{path, hex.EncodeToString(sheet.ID[:]), sheet}
		all = append(all, w)
		if t, ok := began[w.numbering()]; !ok || w.Created.Before(t) {
			began[w.numbering()] = w.Created
		}
	}
	slices.SortFunc(all, func(x, y waiting) int {
		return cmp.Or(began[x.numbering()].Compare(began[y.numbering()]), cmp.Compare(x.numbering(), y.numbering()),
			cmp.Compare(x.To[0].Serial, y.To[0].Serial), x.Created.Compare(y.Created), cmp.Compare(x.path, y.path))
	})
	return all, nil
}

func (w *waiting) numbering() string {
	return fmt.Sprintf("%s %s %x", w.Maker, w.To[0].Node, w.To[0].Numbering)
}

func (b *outbox) all() (names []string, err error) {
	all, err := b.bundles()
	for _, w := range all {
		names = append(names, w.path)
	}
	return names, err
}

// fresh are those that were not sent.
func (b *outbox) fresh() ([]waiting, error) {
	all, err := b.bundles()
	if err != nil {
		return nil, err
	}
	b.record.Sent = slices.DeleteFunc(b.record.Sent, func(id string) bool {
		return !slices.ContainsFunc(all, func(w waiting) bool { return w.id == id })
	})
	return slices.DeleteFunc(all, func(w waiting) bool { return slices.Contains(b.record.Sent, w.id) || b.spurned[w.id] }), nil
}

// sent puts a bundle on record, durable on return.
func (b *outbox) sent(id string) error {
	b.record.Sent = append(b.record.Sent, id)
	return diode.WriteRecord(filepath.Join(b.dir, sentFile), b.record)
}
