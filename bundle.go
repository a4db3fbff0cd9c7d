package redoubt

import (
	"context"
	"io"
	"time"
)

// BundleMark is the place of one bundle among those that one node makes for another. The zero mark is that of none.
type BundleMark struct {
	Numbering [16]byte // drawn at random where the numbers begin at 1
	Serial    uint64
	ID        [32]byte // of the bundle
	Created   time.Time
}

// BundleTaking is what a node keeps of the bundles that it took from a peer.
type BundleTaking struct {
	Last    BundleMark   // taken whole
	Receipt BundleMark   // the newest receipt that was taken; of it count ID and Created
	Tickets [][]byte     // of Last: what the peer is given back as acknowledged
	Gaps    []NumberSpan // numbers before Last that never came, ascending: each may come yet
	Lacking bool         // in Last was what is packed against content that is not here
	Plain   bool         // the peer said so of ours: it is sent nothing that needs a base
}

// JournalSpan is a part of a label set's journal that was put in a bundle: all that follows From up to To.
type JournalSpan struct {
	Set      string
	From, To uint64
	Whole    bool  // From is of no account: everything that the peer is to have was put in
	Behind   Stamp // of a raise, beside Whole: up to this stamp it was put in bundles before
	Part     Stamp // of a raise, beside Whole: everything up to this stamp, and what follows To once the rest has been put in too; zero: all
}

// BundleLedger is what a node keeps of the files that go between it and its peers, beside LinkState.
type BundleLedger interface {
	// Permit decides whether who may have a bundle made for a peer (ActionExportBundle) or one of its taken
	// (ActionImportBundle), records that, and gives the peer's link. A peer without a link is NotFound.
	Permit(ctx context.Context, who Credential, action Action, peer NodeName) (Link, error)
	// Refuse records that nothing came of what was permitted, and gives err back.
	Refuse(ctx context.Context, who Credential, action Action, peer NodeName, err error) error
	// Made gives the last bundle that was made for a peer. Of none, the mark has only the Numbering that the first is to have.
	Made(ctx context.Context, peer NodeName) (BundleMark, error)
	// Make keeps that mark is the last, and records it as who's; durable on return. Conflict: it does not follow on what Made gives now.
	Make(ctx context.Context, who Credential, peer NodeName, mark BundleMark) error
	// Taken gives what was taken of a peer. Take replaces it, and records it as who's; durable on return.
	Taken(ctx context.Context, peer NodeName) (BundleTaking, error)
	Take(ctx context.Context, who Credential, peer NodeName, t BundleTaking) error
}

// BundleTickets tell a node's positions to itself, by way of its peers.
type BundleTickets interface {
	// Ticket writes a span so that only this node reads it: all tickets are of one length. Redeem reads it when it comes back and
	// acknowledges the span, where that follows on what is acknowledged and both states live on; one that does not is passed over.
	Ticket(ctx context.Context, peer NodeName, span JournalSpan) ([]byte, error)
	Redeem(ctx context.Context, peer NodeName, ticket []byte) error
}

// MaxTicketBytes bounds a ticket.
const MaxTicketBytes = 256

// ExportBundle is a request to make a bundle.
type ExportBundle struct {
	Peer    NodeName
	Life    time.Duration // 0: DefaultBundleLife
	Receipt bool          // only what was taken of the peer's
	Anew    bool          // forget what the peer has acknowledged: everything goes, and the numbers begin at 1
}

// DefaultBundleLife is how long a bundle may be under way: a season.
const DefaultBundleLife = 90 * 24 * time.Hour

// BundleCount is what a bundle brought in one label set.
type BundleCount struct {
	Label   string         `json:"label"`
	Entries int            `json:"entries"` // taken, or held already
	Bytes   int64          `json:"bytes"`
	Refused map[string]int `json:"refused,omitempty"` // for good, by rule
	Waiting int            `json:"waiting,omitempty"` // not taken now, and sent again
}

// BundleExport tells of a bundle that was made.
type BundleExport struct {
	Peer   NodeName      `json:"peer"`
	Serial uint64        `json:"serial"`
	ID     string        `json:"id"`
	More   bool          `json:"more"` // it is full: what is left goes into the next, once this one is acknowledged
	Counts []BundleCount `json:"counts"`
}

// BundleImport tells of a bundle that was taken. Counts covers the label sets that the caller's working label dominates.
type BundleImport struct {
	Peer    NodeName      `json:"peer"`
	Receipt bool          `json:"receipt"` // it was a receipt and no more
	Serial  uint64        `json:"serial"`
	ID      string        `json:"id"`
	Missing uint64        `json:"missing"` // numbers before it that were never imported
	Counts  []BundleCount `json:"counts"`
}

// BundleService carries journals by file. The platform administrator calls it: she opens nothing, for a bundle is sealed to the node.
type BundleService interface {
	// ExportBundle writes a bundle for a peer with all that it has not acknowledged. When it fails, what was written is no bundle.
	ExportBundle(ctx context.Context, who Credential, q ExportBundle, w io.Writer) (BundleExport, error)
	// ImportBundle takes a file from a peer. It is staged and verified whole before anything of it is used; one that
	// is refused changes nothing. One that was interrupted is imported again. progress may be nil; it counts bytes of content.
	ImportBundle(ctx context.Context, who Credential, r io.Reader, progress func(done, total int64)) (BundleImport, error)
}
