package replica

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"redoubt"
	"redoubt/bundle"
	"redoubt/keys"
	"redoubt/label"
)

// Note is what one node says to another beside its journal: a lease, a key.
type Note struct {
	Kind string
	Body []byte // at most MaxNoteBytes
}

// BundleOptions is what Bundles is made of. All but MaxBytes, Notes, Noted and Log is needed.
type BundleOptions struct {
	Estate   string
	Node     redoubt.NodeName
	Policy   *label.Policy
	Journal  redoubt.Journal
	State    redoubt.LinkState
	Ledger   redoubt.BundleLedger
	Tickets  redoubt.BundleTickets
	Identity func() (*keys.Identity, error)       // that bundles for this node are sealed to
	Sign     func(message []byte) ([]byte, error) // with the key that peers know this node by
	Clock    func() time.Time
	Stage    string              // folder where a file lies, sealed as it came, while it is verified and taken
	MaxBytes int64               // of content in one bundle; 0: as much as a bundle may have
	Raises   redoubt.RaiseLedger // of a node that hands to a guard; else nil
	Beat     time.Duration       // how long after the last bundle of a raise an empty one follows; 0: raiseBeat
	// Notes gives what this node has to say to a peer beside its journal, and Noted takes what a peer says; nil: nothing.
	Notes func(ctx context.Context, peer redoubt.NodeName) ([]Note, error)
	Noted func(ctx context.Context, peer redoubt.NodeName, n Note) error
	Log   *slog.Logger
}

// Bundles exchanges journals with peers by file: the steps of a Session, with a file between. It is a redoubt.BundleService.
// Methods may be called at once; imports wait for one another, and so do exports.
type Bundles struct {
	o                    BundleOptions
	codecs               Codecs
	importing, exporting chan struct{}
	memory               chan *bytes.Buffer // for what is held there while it is imported
	opened               bytes.Buffer       // of the one that imports: what is in it, in clear

	one int64 // maxOne

	raisesMu sync.Mutex
	raises   map[redoubt.NodeName]*raisePlan
}

// maxContent leaves room for what sealing adds.
const maxContent = bundle.MaxSealedBytes / 16 * 15

// NewBundles makes it. It starts nothing.
func NewBundles(o BundleOptions) *Bundles {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.MaxBytes == 0 || o.MaxBytes > maxContent {
		o.MaxBytes = maxContent
	}
	b := &Bundles{o: o, importing: make(chan struct{}, 1), exporting: make(chan struct{}, 1), memory: make(chan *bytes.Buffer, stagedAtOnce), one: maxOne, raises: map[redoubt.NodeName]*raisePlan{}}
	for range stagedAtOnce {
		b.memory <- new(bytes.Buffer)
	}
	return b
}

func acquire(ctx context.Context, place chan struct{}) (release func(), err error) {
	select {
	case place <- struct{}{}:
		return func() { <-place }, nil
	case <-ctx.Done():
		return nil, &redoubt.Error{Op: "replica.Bundles", Kind: redoubt.Unavailable, Err: ctx.Err()}
	}
}

// ExportBundle makes a bundle; see redoubt.BundleService. It needs memory for one message and one version that is packed whole.
func (b *Bundles) ExportBundle(ctx context.Context, who redoubt.Credential, q redoubt.ExportBundle, w io.Writer) (out redoubt.BundleExport, err error) {
	const action = redoubt.ActionExportBundle
	link, err := b.o.Ledger.Permit(ctx, who, action, q.Peer)
	if err != nil {
		return out, err
	}
	defer func() {
		if err != nil {
			err = b.o.Ledger.Refuse(ctx, who, action, q.Peer, err)
		}
	}()
	release, err := acquire(ctx, b.exporting)
	if err != nil {
		return out, err
	}
	defer release()
	if link.Raise == redoubt.RaisedHere {
		return out, &redoubt.Error{Op: "ExportBundle", Object: string(q.Peer), Kind: redoubt.Denied, Rule: "one-way (4.7)", Err: errors.New("that is a lower enclave: nothing goes down but by a release"),
			Hint: "redoubt release request"}
	}
	to, err := keys.ParseRecipient(link.Recipient)
	if err != nil {
		return out, &redoubt.Error{Op: "ExportBundle", Object: string(q.Peer), Kind: redoubt.Invalid, Err: errors.New("the link has no key to seal bundles to"),
			Hint: "enrol " + string(q.Peer) + " again: its key comes with it"}
	}
	if q.Anew {
		if err := b.o.State.Forget(ctx, q.Peer); err != nil {
			return out, err
		}
	}
	head, mark, err := b.head(ctx, q)
	if err != nil {
		return out, err
	}
	file, err := bundle.NewWriter(w, head, []keys.Recipient{to}, b.o.Sign)
	if err != nil {
		return out, err
	}
	defer file.Abandon()
	x := &exporter{b: b, peer: q.Peer, frames: &frameWriter{w: file}, counts: newCounts()}
	if err := x.run(ctx, q.Receipt); err != nil {
		return out, err
	}
	err = file.Finish(func(id [32]byte) error {
		mark.ID = id
		if q.Receipt {
			return nil
		}
		return b.o.Ledger.Make(ctx, who, q.Peer, mark)
	})
	return redoubt.BundleExport{Peer: q.Peer, Serial: mark.Serial, ID: hex.EncodeToString(mark.ID[:]), More: x.more, Counts: x.counts.seen(b.o.Policy, who)}, err
}

// head says what the bundle tells in clear, and its place in its numbering.
func (b *Bundles) head(ctx context.Context, q redoubt.ExportBundle) (h bundle.Head, mark redoubt.BundleMark, err error) {
	last, err := b.o.Ledger.Made(ctx, q.Peer)
	if err != nil {
		return h, mark, err
	}
	now := b.o.Clock().UTC().Truncate(time.Second)
	to := bundle.Addressee{Node: q.Peer, Numbering: last.Numbering, Serial: last.Serial, Previous: last.ID}
	h = bundle.Head{Kind: bundle.Receipt, Estate: b.o.Estate, Maker: b.o.Node, Created: now, Expires: now.Add(cmp.Or(q.Life, redoubt.DefaultBundleLife))}
	if !q.Receipt {
		h.Kind = bundle.Journal
		to.Serial++
	}
	h.To = []bundle.Addressee{to}
	return h, redoubt.BundleMark{Numbering: to.Numbering, Serial: to.Serial, Created: now}, nil
}

// counts is what went or came, by label set.
type counts map[string]*redoubt.BundleCount

func newCounts() counts { return counts{} }

func (c counts) of(set string) *redoubt.BundleCount {
	if c[set] == nil {
		c[set] = new(redoubt.BundleCount)
	}
	return c[set]
}

// seen is what a credential dominates of it.
func (c counts) seen(policy *label.Policy, who redoubt.Credential) []redoubt.BundleCount {
	out := []redoubt.BundleCount{}
	for set, n := range c {
		if l, err := label.ParseText([]byte(set), policy); err == nil && who.Working.Dominates(l) {
			n.Label = l.Banner()
			out = append(out, *n)
		}
	}
	slices.SortFunc(out, func(a, b redoubt.BundleCount) int { return strings.Compare(a.Label, b.Label) })
	return out
}

// ImportBundle takes a file; see redoubt.BundleService. It goes head → permit → stage → verify → follows → open → scan → take.
func (b *Bundles) ImportBundle(ctx context.Context, who redoubt.Credential, r io.Reader, progress func(done, total int64)) (out redoubt.BundleImport, err error) {
	return b.importAs(ctx, who, redoubt.ActionImportBundle, r, progress)
}

func (b *Bundles) importAs(ctx context.Context, who redoubt.Credential, action redoubt.Action, r io.Reader, progress func(done, total int64)) (out redoubt.BundleImport, err error) {
	head, raw, bad := bundle.ReadHead(r)
	link, err := b.o.Ledger.Permit(ctx, who, action, head.Maker)
	if err != nil && (bad == nil || redoubt.KindOf(err) != redoubt.NotFound) {
		if redoubt.KindOf(err) == redoubt.NotFound {
			err = &redoubt.Error{Op: "ImportBundle", Object: string(head.Maker), Kind: redoubt.Denied, Rule: bundle.RuleMaker, Err: errors.New("this node has no link with the bundle's maker")}
		}
		return out, err
	}
	defer func() {
		if err != nil {
			err = b.o.Ledger.Refuse(ctx, who, action, head.Maker, explained(err))
		}
	}()
	if bad != nil {
		return out, bad
	}
	if link.Raise == redoubt.RaisedAway {
		return out, &redoubt.Error{Op: "ImportBundle", Object: string(head.Maker), Kind: redoubt.Denied, Rule: bundle.RuleMaker, Err: errors.New("that is a higher enclave: nothing of it is taken but by a release")}
	}
	if action == redoubt.ActionTakeRaise && link.Raise != redoubt.RaisedHere {
		return out, &redoubt.Error{Op: "TakeRaise", Object: string(head.Maker), Kind: redoubt.Denied, Rule: bundle.RuleMaker, Err: errors.New("nothing is raised from there")}
	}
	file, size, unstage, err := b.stage(ctx, raw, r)
	if err != nil {
		return out, err
	}
	defer unstage()
	release, err := acquire(ctx, b.importing)
	if err != nil {
		return out, err
	}
	defer release()
	expect := bundle.Expect{Estate: b.o.Estate, Node: b.o.Node, Now: b.o.Clock(), Tagged: action != redoubt.ActionImportBundle, Key: func(redoubt.NodeName) (ed25519.PublicKey, error) { return link.Key, nil }}
	verified, err := bundle.Verify(ctx, file, size, expect, nil)
	if err != nil {
		return out, again(action, err)
	}
	return b.take(ctx, who, action, link.Raise == redoubt.RaisedHere, verified, progress)
}

// explained tells who brought a file why it is refused: what this says of it she may know, for it is from the file's own head, or
// of no label.
func explained(err error) error {
	e, ok := errors.AsType[*redoubt.Error](err)
	if !ok || e.Rule == "" || e.Err == nil {
		return err
	}
	out := *e
	if out.Hint = e.Err.Error(); e.Hint != "" {
		out.Hint += ": " + e.Hint
	}
	return &out
}

// take takes a bundle that was verified.
func (b *Bundles) take(ctx context.Context, who redoubt.Credential, action redoubt.Action, raised bool, v *bundle.Bundle, progress func(done, total int64)) (out redoubt.BundleImport, err error) {
	peer := v.Maker
	taking, err := b.o.Ledger.Taken(ctx, peer)
	if err != nil {
		return out, err
	}
	last := taking.Last
	if v.Kind == bundle.Receipt {
		last = taking.Receipt
	}
	mark := v.Mark(b.o.Node)
	late := raised && v.Kind != bundle.Receipt && mark.Numbering == last.Numbering && redoubt.InSpans(taking.Gaps, mark.Serial)
	var missing uint64
	if !late {
		if missing, err = v.Follows(b.o.Node, last); err != nil {
			return out, again(action, err)
		}
	}
	id, err := b.o.Identity()
	if err != nil {
		return out, err
	}
	m := &importer{b: b, v: v, id: id, peer: peer, counts: newCounts(), progress: progress, whole: action == redoubt.ActionTakeRaise || action == redoubt.ActionTakePartner}
	if err := m.run(ctx, &taking); err != nil {
		return out, err
	}
	if raised && v.Kind != bundle.Receipt {
		taking.Gaps = m.gaps(taking.Gaps, last, mark, late)
		if late {
			taking.Last = last
		}
	}
	if err := b.o.Ledger.Take(ctx, who, peer, taking); err != nil {
		return out, err
	}
	return redoubt.BundleImport{Peer: peer, Receipt: v.Kind == bundle.Receipt, Serial: mark.Serial, ID: hex.EncodeToString(mark.ID[:]), Missing: missing,
		Counts: m.counts.seen(b.o.Policy, who)}, nil
}

// again says of a raised bundle that is refused whether bringing it again may help: of a number before the last there is nothing to take, for
// it was taken, is a gap or is void; and one that expired stays so, unlike a credential.
func again(action redoubt.Action, err error) error {
	e, ok := errors.AsType[*redoubt.Error](err)
	if !ok || action != redoubt.ActionTakeRaise {
		return err
	}
	out := *e
	switch e.Rule {
	case bundle.RuleReordered:
		out.Kind = redoubt.Exists
	case bundle.RuleExpired:
		out.Kind = redoubt.Denied
	}
	return &out
}

// Of what is being imported so many bundles of so many bytes at most are held in memory, where nobody changes them and nothing is written; a
// bundle of a raise is one, but for one with a large version in it. Any other goes to this node's disk.
const (
	stagedInMemory = 24 << 20
	stagedAtOnce   = 2
)

// stage copies what comes, sealed as it is, to where nobody changes it. end lets go of it.
func (b *Bundles) stage(ctx context.Context, head []byte, r io.Reader) (at io.ReaderAt, size int64, end func(), err error) {
	var whole *bytes.Buffer
	select {
	case whole = <-b.memory:
	default:
		return b.stageFile(ctx, head, r)
	}
	end = func() {
		whole.Reset()
		b.memory <- whole
	}
	whole.Write(head)
	n, err := io.Copy(whole, io.LimitReader(&ctxReader{ctx, r}, stagedInMemory+1))
	if err == nil && n <= stagedInMemory {
		return bytes.NewReader(whole.Bytes()), int64(whole.Len()), end, nil
	}
	defer end()
	if err != nil {
		return nil, 0, nil, stageFault(err)
	}
	return b.stageFile(ctx, whole.Bytes(), r)
}

// stageFile copies to a file that has no name, and goes with its last reader.
func (b *Bundles) stageFile(ctx context.Context, head []byte, r io.Reader) (_ io.ReaderAt, size int64, end func(), err error) {
	file, err := os.CreateTemp(b.o.Stage, "incoming-*")
	if err != nil {
		return nil, 0, nil, stageFault(err)
	}
	defer func() {
		if err != nil {
			file.Close()
		}
	}()
	if err := os.Remove(file.Name()); err != nil { // it has no name any more: a crash leaves nothing
		return nil, 0, nil, stageFault(err)
	}
	n, err := file.Write(head)
	if err != nil {
		return nil, 0, nil, stageFault(err)
	}
	const most = bundle.MaxSealedBytes + bundle.MaxHeadBytes + 1<<10
	rest, err := io.Copy(file, io.LimitReader(&ctxReader{ctx, r}, most+1))
	if err != nil {
		return nil, 0, nil, stageFault(err)
	}
	if size = int64(n) + rest; size > most {
		return nil, 0, nil, &redoubt.Error{Op: "ImportBundle", Kind: redoubt.TooLarge, Rule: bundle.RuleLarge}
	}
	return file, size, func() { file.Close() }, nil
}

// stageFault tells a full disk from any other fault, and no path.
func stageFault(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err
	}
	kind := redoubt.KindOf(err)
	if errors.Is(err, syscall.ENOSPC) {
		kind = redoubt.DiskFull
	}
	return &redoubt.Error{Op: "ImportBundle", Kind: kind, Err: err}
}

// ctxReader stops reading when ctx ends.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
