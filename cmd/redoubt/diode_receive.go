package main

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"redoubt"
	"redoubt/bundle"
	"redoubt/carry/diode"
)

// receiving is what diode receive was asked for.
type receiving struct {
	listen, to, keyFile, hold, at string
	makers                        []string
	count                         int
	take                          bool
	who                           crew
}

func (a *app) diodeReceive() *cobra.Command {
	q := receiving{who: crew{role: "admin", life: bulkLife}}
	c := &cobra.Command{Use: "receive --listen ADDR --to DIR", Short: "Put bundles together that come one way, and tell what is missing",
		Long: `Takes datagrams and answers none. Each bundle that is whole becomes a file of the folder, named by its maker, reader and
its number; what is on its way lies in DIR/.diode and goes on after a restart. It runs until it is
ended. With --import a node takes each whole bundle, in the order of their numbers, and what it took is removed from the
folder. With --diode-key only what the sender of that key sent is looked at, with --maker only what that node signed; without
either whoever can send here can hold bundles up and fill the folder, but alter none: the node verifies each. With --json
there is one document a whole bundle, each on a line.`,
		Example: `  redoubt diode receive --listen 10.0.9.2:4790 --to in --diode-key diode.key
  redoubt diode receive --listen 10.0.9.2:4790 --to in --maker secret=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=
  redoubt diode receive --listen :4790 --to in --import --at outpost
  redoubt diode receive --listen 127.0.0.1:4790 --to in --count 1 --json`, Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if q.take != (q.at != "") {
				return usage(cmd, "--import says that a node takes the bundles, and --at which")
			}
			return a.receiveOneWay(cmd.Context(), &q)
		}}
	c.Flags().StringVar(&q.listen, "listen", "", "`address` to receive at, HOST:PORT")
	c.Flags().StringVar(&q.to, "to", "", "`folder` for whole bundles, and for what is on its way")
	c.Flags().StringVar(&q.keyFile, "diode-key", "", "`file` with the key that both sides share")
	c.Flags().StringArrayVar(&q.makers, "maker", nil, "take bundles of this node only, `NODE=KEY` with its key as redoubt link status --json tells it; may be repeated")
	c.Flags().StringVar(&q.hold, "hold", "64GiB", "disk that bundles on their way may take, a `size`")
	c.Flags().IntVar(&q.count, "count", 0, "end after so many whole `bundles`; 0: go on")
	c.Flags().BoolVar(&q.take, "import", false, "have a node take what is whole")
	c.Flags().StringVar(&q.at, "at", "", "`NODE` that takes it")
	q.who.asFlags(c)
	required(c, "listen", "to")
	return a.jsonFlag(c)
}

func (q *receiving) options() (o diode.Options, err error) {
	if o.Hold, err = parseSize(q.hold); err != nil {
		return o, err
	}
	if o.Key, err = diodeKeyFile(q.keyFile); err != nil {
		return o, err
	}
	for _, m := range q.makers {
		name, text, _ := strings.Cut(m, "=")
		key, err := base64.StdEncoding.Strict().DecodeString(text)
		if name == "" || err != nil || len(key) != ed25519.PublicKeySize {
			return o, &usageError{message: "want NODE=KEY with an Ed25519 public key in base64, got " + m, hint: "redoubt link status DEVICE --json tells device_key and home_key"}
		}
		if o.Makers == nil {
			o.Makers = map[redoubt.NodeName]ed25519.PublicKey{}
		}
		o.Makers[redoubt.NodeName(name)] = key
	}
	return o, nil
}

func (a *app) receiveOneWay(ctx context.Context, q *receiving) error {
	o, err := q.options()
	if err != nil {
		return err
	}
	source, at, err := diode.Listen(q.listen)
	if err != nil {
		return err
	}
	defer source.Close()
	until, enough := context.WithCancel(ctx)
	defer enough()
	r := &receiver{app: a, q: q, wake: make(chan struct{}, 1), tried: map[string]bool{}, enough: enough}
	o.Tell = r.event
	stage, err := diode.Open(q.to, o)
	if err != nil {
		return err
	}
	a.say("receiving at %s into %s", at, q.to)
	if o.Key == nil && o.Makers == nil {
		a.say("neither --diode-key nor --maker: whoever can send here can hold bundles up, though alter none")
	}
	var beside sync.WaitGroup
	beside.Go(func() { r.report(until, stage) })
	if q.take {
		beside.Go(func() { r.importing(until) })
	}
	err = stage.Receive(until, source)
	enough()
	beside.Wait()
	err = errors.Join(err, stage.Close())
	if err == nil && q.take && ctx.Err() == nil { // what became whole at the end
		r.importAll(ctx)
	}
	if r.failed && q.count > 0 {
		return exitError(exitFailed)
	}
	return err
}

// receiver tells of what comes, and has it imported.
type receiver struct {
	*app
	q      *receiving
	wake   chan struct{} // there is something to import
	tried  map[string]bool
	failed bool // something was not imported
	whole  int  // with Stage's events, which come one at a time
	enough func()
}

// wholeView is a bundle that came whole.
type wholeView struct {
	File   string           `json:"file"`
	Kind   string           `json:"kind"`
	Maker  redoubt.NodeName `json:"maker"`
	For    redoubt.NodeName `json:"for"`
	Number uint64           `json:"number"`
	ID     string           `json:"id"`
	Bytes  int64            `json:"bytes"`
}

func sheetName(s *bundle.Sheet) string {
	if len(s.To) == 0 {
		return "what was sent"
	}
	return partialName(diode.Partial{Kind: s.Kind.String(), Maker: s.Maker, For: s.To[0].Node, Number: s.To[0].Serial})
}

func (r *receiver) event(e diode.Event) {
	name := sheetName(&e.Sheet)
	switch e.Kind {
	case diode.Began:
		r.say("%s is coming, %s", name, bytesText(e.Sheet.FileBytes))
	case diode.Spoiled:
		r.say("%s: some of what came was not what its maker signed, and is awaited again", name)
	case diode.Given:
		r.say("%s got nothing new for a day and was given up, to make room", name)
	case diode.LeftOut:
		r.say("%s like these within a minute were not told one by one", counted(e.Count, "message"))
	case diode.Refused, diode.Fault:
		r.say("%s: %s", name, plain(e.Err))
		if h := ownHint(e.Err); h != "" {
			r.say("hint: %s", h)
		}
	case diode.Whole:
		r.say("%s is whole: %s", name, e.File)
		if r.json {
			to := e.Sheet.To[0]
			_ = r.line(wholeView{e.File, e.Sheet.Kind.String(), e.Sheet.Maker, to.Node, to.Serial, hex.EncodeToString(e.Sheet.ID[:]), e.Sheet.FileBytes}) // a stdout that is gone ends nothing
		}
		select {
		case r.wake <- struct{}{}:
		default:
		}
		if r.whole++; r.whole == r.q.count {
			r.enough()
		}
	}
}

// reportEvery is how often the receiver says how far things are, where something has moved.
const reportEvery = 5 * time.Second

func (r *receiver) report(ctx context.Context, s *diode.Stage) {
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	for last := (diode.Counts{}); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := s.Counts()
		if now.Shards == last.Shards && now.Foreign == last.Foreign {
			continue
		}
		for _, p := range s.Partial() {
			r.say("%s: %.1f %%, %d of %d blocks missing", partialName(p), p.Percent, blocksIn(p.MissingBlocks), p.Blocks)
		}
		if lost, came := now.Lost-last.Lost, now.Datagrams-last.Datagrams; came > 0 {
			r.say("%d datagrams came, %.1f %% of what was sent were lost", came, 100*float64(max(0, lost))/float64(max(0, lost)+came))
		}
		if now.Foreign > last.Foreign {
			r.say("%d datagrams were of another format or key, and dropped", now.Foreign-last.Foreign)
		}
		last = now
	}
}

func blocksIn(spans []diode.Span) (n uint64) {
	for _, s := range spans {
		n += s.To - s.From + 1
	}
	return n
}

// importAgain is how long a node that could not be asked is left alone.
const importAgain = time.Minute

// importing has the node take what is whole, until ctx ends. It goes beside the receiving, which it never holds up.
func (r *receiver) importing(ctx context.Context) {
	tick := time.NewTicker(importAgain)
	defer tick.Stop()
	for ctx.Err() == nil {
		r.importAll(ctx)
		select {
		case <-ctx.Done():
		case <-r.wake:
		case <-tick.C:
		}
	}
}

// importAll has the node take every whole file that it was not asked about, in the order of their numbers.
func (r *receiver) importAll(ctx context.Context) {
	entries, err := os.ReadDir(r.q.to)
	if err != nil {
		r.say("%s: %v", r.q.to, err)
		return
	}
	for _, e := range entries { // in the order of their names
		path := filepath.Join(r.q.to, e.Name())
		if ctx.Err() != nil || e.IsDir() || !strings.HasSuffix(e.Name(), diode.Suffix) || strings.HasPrefix(e.Name(), ".") || r.tried[path] {
			continue
		}
		err := r.importFile(ctx, path)
		switch {
		case ctx.Err() != nil:
			return // it is imported when the receiver runs again
		case err == nil || errors.Is(err, redoubt.Exists):
			if err := os.Remove(path); err != nil {
				r.say("%s was imported and could not be removed: %v", path, err)
				r.tried[path] = true
			}
		case errors.Is(err, redoubt.Unavailable):
			r.say("%s waits: %s", path, plain(err))
			return // those behind it wait, too, so that they stay in order
		default:
			r.tried[path], r.failed = true, true
			r.say("%s was not imported, and stays: %s", path, plain(err))
			if h := ownHint(err); h != "" {
				r.say("hint: %s", h)
			}
		}
	}
}

func (r *receiver) importFile(ctx context.Context, path string) error {
	files, err := openBundle([]string{path})
	if err != nil {
		return err
	}
	defer files.close()
	w := r.q.who
	w.at = slices.Clone([]string{r.q.at})
	return r.each(ctx, w, func(s *session) error {
		taken, err := r.importFrom(ctx, s, files)
		if err != nil {
			return err
		}
		r.say("bundle %d of %s is imported at %s", taken.Serial, taken.Peer, r.q.at)
		if taken.Missing > 0 {
			r.say("%d bundles before it were never imported", taken.Missing)
		}
		return nil
	})
}
