package redoubt

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"redoubt/label"
)

// Stamp is a version's place in the one order that all nodes of an estate share: time of its label set's
// hybrid logical clock (8 bytes, nanoseconds since 1970), maker (4), tag of the label set (4). Compared as bytes the greater
// is the newer. Nodes tell it to one another only; what a client sees is a VersionID.
type Stamp [16]byte

// Time is the stamp's hybrid logical time in nanoseconds since 1970.
func (s Stamp) Time() int64 { return int64(binary.BigEndian.Uint64(s[:])) }

// EntryKind says what a JournalEntry tells.
type EntryKind uint8

// The kinds of journal entries. The zero kind is refused.
const (
	EntryVersion    EntryKind = iota + 1 // a version or a delete marker
	EntryRemoval                         // Of was removed for good and never comes back
	EntryAlteration                      // tags, retention or hold of Of as they now are
)

// JournalEntry is one fact of an enclave's journal as it travels to another node: a version without its content,
// or what became of one. Its canonical form is MarshalBinary; docs/spec/journal.md has it field by field.
type JournalEntry struct {
	Kind  EntryKind
	Stamp Stamp // of this entry
	Of    Stamp // of the version that a removal or an alteration is about; else zero
	Base  Stamp // of the version that the writer's node showed under this name in this label set; zero: none

	Label string // canonical text (label.MarshalText) of the version
	Made  string // of the working label that the entry was made at
	Maker NodeName
	Name  ObjectName

	// Of a version:
	Author     SubjectName
	Marker     bool
	SizeBytes  int64
	PartSizes  []int64
	MD5        string // the ETag, where it is an MD5: hex, or S3's hex-N
	Attributes Attributes
	Checksums  Checksums
	Content    [32]byte // SHA-256 of the plaintext; zero for a marker

	// Of a version and of an alteration:
	Tags      []Tag
	Retention Retention
	Hold      bool // of a removal: Of was erased, and who has it destroys its keys too
}

// Limits of what travels.
const (
	MaxEntryBytes   = 128 << 10 // 10,000 part sizes of 10 bytes, with names, metadata and tags
	MaxBatchEntries = 1024      // under one signature
)

// Custody proves that a node made an entry: its signature over the root of a Merkle tree (RFC 6962) of
// entries, and the path from this entry to the root. Whoever passes the entry on passes it with its custody.
type Custody struct {
	Index, Count int64 // place of the entry in the batch, and how many it has
	Root         tlog.Hash
	Path         tlog.RecordProof
	Signature    [ed25519.SignatureSize]byte // by the entry's maker, over BatchMessage
}

// BatchMessage is what a maker signs for a batch of entries.
func BatchMessage(maker NodeName, count int64, root tlog.Hash) []byte {
	b := append([]byte("redoubt batch v1\n"), maker...)
	b = append(b, '\n')
	b = binary.BigEndian.AppendUint64(b, uint64(count))
	return append(b, root[:]...)
}

// Covers says whether the custody's path leads from the entry, in its canonical form, to the root.
// The signature over the root is verified apart, once for a whole batch.
func (c *Custody) Covers(entry []byte) bool {
	if c.Count < 1 || c.Count > MaxBatchEntries || c.Index < 0 || c.Index >= c.Count {
		return false
	}
	return tlog.CheckRecord(c.Path, c.Count, c.Root, c.Index, tlog.RecordHash(entry)) == nil
}

// Signed says whether key signed the root for maker.
func (c *Custody) Signed(maker NodeName, key ed25519.PublicKey) bool {
	return len(key) == ed25519.PublicKeySize && ed25519.Verify(key, BatchMessage(maker, c.Count, c.Root), c.Signature[:])
}

// SealBatch signs entries, in their canonical form, as one batch, and gives each its custody.
func SealBatch(maker NodeName, entries [][]byte, sign func(message []byte) ([]byte, error)) ([]Custody, error) {
	if len(entries) == 0 || len(entries) > MaxBatchEntries {
		return nil, &Error{Op: "redoubt.SealBatch", Kind: TooLarge, Err: errors.New("a batch has 1 to 1024 entries")}
	}
	var stored []tlog.Hash
	read := tlog.HashReaderFunc(func(at []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(at))
		for i, n := range at {
			out[i] = stored[n]
		}
		return out, nil
	})
	for i, e := range entries {
		more, err := tlog.StoredHashes(int64(i), e, read)
		if err != nil {
			return nil, err
		}
		stored = append(stored, more...)
	}
	count := int64(len(entries))
	root, err := tlog.TreeHash(count, read)
	if err != nil {
		return nil, err
	}
	sig, err := sign(BatchMessage(maker, count, root))
	if err != nil {
		return nil, err
	}
	out := make([]Custody, count)
	for i := range out {
		path, err := tlog.ProveRecord(count, int64(i), read)
		if err != nil {
			return nil, err
		}
		out[i] = Custody{Index: int64(i), Count: count, Root: root, Path: path}
		copy(out[i].Signature[:], sig)
	}
	return out, nil
}

// Link is what joins a node to one peer, as the estate or an enrolment declares it.
type Link struct {
	Peer          NodeName
	Key           ed25519.PublicKey // that the peer signs its batches with
	Recipient     string            // what bundles for the peer are sealed to (keys.Recipient); "": none can be made for it
	Bound         label.Label       // nothing that it does not dominate travels, either way
	Subscriptions []Subscription    // what travels; none: every bucket, both ways
	Budget        map[string]int64  // bytes that this side may send in a day, by banner or QuotaOfOthers: see LinkState.Budget; nil: no limit
	Ending        Ending            // of a device that has ended
	Relays        bool              // between devices: what their home told the one goes on to the other
	Raise         Raise             // one way, by a guard, and never met
	Partner       bool              // of another estate, RaisedAway: what an agreement lets out, by its own rules alone
}

// Raise says which end of a raise a link is of. The zero Raise is of a link that is none.
type Raise uint8

// The ends of a raise.
const (
	NoRaise    Raise = iota
	RaisedAway       // this node is the lower: it hands over, and hears nothing
	RaisedHere       // this node is the higher: it takes, and says nothing
)

// Ending is what still passes over the link of a device that has ended. The zero Ending is of one that has not.
type Ending uint8

// A device that is to be wiped may hand over its work first, or not; nothing is sent to it any more.
const (
	NotEnding Ending = iota
	TakeOnly         // its work is taken, and nothing of ours sent
	NotesOnly        // neither: it is told to wipe itself
)

// Subscription says what of a bucket travels over a link.
type Subscription struct {
	Bucket BucketName  `json:"bucket"`           // "": every one, which no estate says
	Prefix string      `json:"prefix,omitempty"` // of the key
	Bound  string      `json:"bound,omitempty"`  // banner: nothing that it does not dominate travels; "": the link's bound alone
	Limit  label.Label `json:"-"`                // Bound, compiled
	In     bool        `json:"in,omitempty"`     // towards this node; in an estate, towards the device
	Out    bool        `json:"out,omitempty"`    // towards the peer; in an estate, towards the home
	Latest bool        `json:"latest,omitempty"` // a version that a newer one of its name and label has superseded need not travel
}

// Carries says whether the subscription covers a name and a label in a direction: in is towards this node.
func (s Subscription) Carries(name ObjectName, of label.Label, in bool) bool {
	return (s.Bucket == name.Bucket || s.Bucket == "") && (in && s.In || !in && s.Out) && strings.HasPrefix(name.Key, s.Prefix) && (s.Bound == "" || s.Limit.Dominates(of))
}

// JournalRef is what decides when an entry is sent.
type JournalRef struct {
	Position   uint64 // in the label set's journal of this node, which it never leaves; 0 of Refs
	Stamp      Stamp
	Precedence Precedence
	SizeBytes  int64 // of the content
}

// JournalItem is an entry on its way to a peer.
type JournalItem struct {
	Entry      JournalEntry
	Custody    Custody
	Superseded bool // by a newer version, over a link that carries the latest alone: it need not be sent
	// Open opens the content; nil where there is none. The caller closes what it gives.
	Open func() (Content, error)
	// Release, where it is not nil, gives back the memory that content stands in. Who calls it reads none of it afterwards; nobody has to.
	Release func()
}

// Content is a version's content, open. Ranges of it are read by one goroutine at a time.
type Content interface {
	Reader(off, n int64) io.Reader // n below 0: to the end
	Close() error
}

// Received is an entry as it came from a peer. Content is nil where there is none; it is read once.
type Received struct {
	Entry   JournalEntry
	Custody Custody
	From    int64 // of its content, where Content begins: what is before was kept (Arrivals.Keep)
	Content io.Reader
}

// Arrival is what is kept of a version whose content is still on its way from a peer.
type Arrival struct {
	Set   string
	Stamp Stamp
	Whole int64 // bytes of its content, from the beginning
	Part  int64 // bytes, behind those, of what they travel in

	Digest [32]byte // SHA-256 of the part; zero where there is none

	Islands []Island // what has come behind the part, at most MaxIslands: ascending, and not touching the part
}

// Island is a stretch of what a version travels in that has come though not all before it has.
type Island struct {
	From, SizeBytes int64    // as Arrival.Part counts
	Digest          [32]byte // SHA-256 of its bytes
}

// Stretch is bytes of what a version travels in, at their place.
type Stretch struct {
	From  int64 // as Arrival.Part counts
	Bytes []byte
}

// Bounds of what is kept of one version behind its part: more than what is on a slow road behind a loss, which is what it is for.
const (
	MaxIslands     = 32
	MaxIslandBytes = 256 << 10
)

// Refusal says why an entry that arrived was not taken. Nothing of it is kept.
type Refusal struct {
	Stamp Stamp
	Kind  Kind
	Rule  string
	Later bool // it may be taken when it is sent again: a clock ahead, a disk that is full
}

// Journal is what replication sees of an enclave. The peer's link bounds all that it answers; a label set above the
// bound does not exist for it. Every method decides as the peer's subject and records that.
type Journal interface {
	Arrivals
	// Sets names the label sets, by their canonical texts, that the link's bound dominates and that hold something.
	Sets(ctx context.Context, peer NodeName) ([]string, error)
	// Since tells of up to max entries of one set that follow a position, in commit order, and the position that was read
	// up to. What does not travel over the link, what is gone or superseded, and what came from the peer is left out.
	Since(ctx context.Context, peer NodeName, set string, after uint64, max int) (refs []JournalRef, upTo uint64, err error)
	// Inventory calls each with the stamps of all that the peer is to have of a set, in ascending order, at one moment,
	// and gives the journal's position at that moment, also where each ended it by an error. What is superseded is left out on both sides.
	Inventory(ctx context.Context, peer NodeName, set string, each func(Stamp) error) (upTo uint64, err error)
	// Refs tells of these stamps what Since does, without their positions; what does not travel, is gone or superseded is left out.
	Refs(ctx context.Context, peer NodeName, set string, stamps []Stamp) ([]JournalRef, error)
	// Changed gives a channel that is closed when any journal grows after the call.
	Changed() <-chan struct{}
	// Fetch gives the entries of these stamps, those made here under one signature; what is gone meanwhile is left out.
	Fetch(ctx context.Context, peer NodeName, set string, stamps []Stamp) ([]JournalItem, error)
	// Apply takes what a peer sent: each entry is decided anew; those that are taken are durable on return, in one commit.
	// What is held already is taken as it is. Refused ones are returned singly, and are on record.
	Apply(ctx context.Context, peer NodeName, in []Received) ([]Refusal, error)
}

// MaxArrivals is of how many versions of one peer and label set something is kept at once: more than come at once, one of each precedence, and a
// few that another session left.
const MaxArrivals = 8

// Arrivals is what a node keeps of versions that have not come whole, so that a break costs little. It is sealed as content
// is, is charged as the version will be, and goes when the version is here, is removed or refused, when the link no longer
// carries it, and when nothing more came of it for long.
type Arrivals interface {
	// Arriving tells of what is kept that a peer sent, within the link's bound.
	Arriving(ctx context.Context, peer NodeName) ([]Arrival, error)
	// Begin decides an entry as Apply does, without its content, and tells what is kept of that; held says that the version
	// is here already or was removed. It writes nothing but a refusal.
	Begin(ctx context.Context, peer NodeName, in Received) (at Arrival, held bool, no *Refusal, err error)
	// Keep keeps content that goes on at in.From, and drops the part there was behind it. Durable on return.
	// From 0 it begins anew; what else does not go on where the last ended is redoubt.Conflict.
	Keep(ctx context.Context, peer NodeName, in Received, content []byte) (*Refusal, error)
	// KeepPart keeps bytes of what follows the whole bytes, which end at in.From: part goes on where the part has ended so far, which it may
	// leave as it is, and each of islands is kept behind that. Islands that the part reaches go: it has their bytes. Durable on return.
	// At 0 the part begins anew, and no island of before stays. redoubt.TooLarge: it has come in as many pieces as are kept; anew, as one, it is taken.
	KeepPart(ctx context.Context, peer NodeName, in Received, part Stretch, islands []Stretch) (*Refusal, error)
	// Part gives back what KeepPart kept; where at names no islands, those that there are go: what comes does not go on from them. A part that
	// cannot be opened, or is not all there, is let go of with its islands: redoubt.Corrupt or redoubt.Erased.
	Part(ctx context.Context, peer NodeName, at Arrival) (part []byte, islands []Stretch, err error)
	// Lacking gives those of some stamps of a set, in their order, that the peer need not leave out: what they name is
	// not here, and was not removed.
	Lacking(ctx context.Context, peer NodeName, set string, stamps []Stamp) ([]Stamp, error)
}

// LinkState is what a node keeps of each link: how far the peer has acknowledged each label set.
type LinkState interface {
	// Acknowledged gives the position up to which the peer has a set; known is false where that has to be found out.
	Acknowledged(ctx context.Context, peer NodeName, set string) (position uint64, known bool, err error)
	// Acknowledge keeps it; durable on return. It never goes back, except by Forget.
	Acknowledge(ctx context.Context, peer NodeName, set string, position uint64) error
	// Forget makes everything about the peer unknown: it, or this node, lost its state.
	Forget(ctx context.Context, peer NodeName) error
	// Life is drawn at random when a state begins and when it is restored: another one means that what was acknowledged may be lost.
	Life(ctx context.Context) ([16]byte, error)
	// PeerLife is the life of the peer's state that all of this is about; zero: none is known. Remember sets it.
	PeerLife(ctx context.Context, peer NodeName) ([16]byte, error)
	Remember(ctx context.Context, peer NodeName, life [16]byte) error
	// Budget is what may be sent of a set to the peer in a day, and what was. Each set has its own, so that what is sent at one
	// label is not felt at another (RULES 3.3).
	Budget(ctx context.Context, peer NodeName, set string) (LinkBudget, error)
	// Spend adds to what was sent of a set on a day; durable on return. A later day begins anew.
	Spend(ctx context.Context, peer NodeName, set string, day, bytes int64) error
}

// LinkBudget is one label set's budget over a link.
type LinkBudget struct {
	Label  string `json:"label"`   // banner
	PerDay int64  `json:"per_day"` // bytes; 0: no limit
	Spent  int64  `json:"spent"`   // bytes of messages of this set that this side sent on Day
	Day    int64  `json:"-"`       // days since 1970, UTC
}

// BudgetDay is the day that a time belongs to.
func BudgetDay(t time.Time) int64 { return t.Unix() / (24 * 60 * 60) }
