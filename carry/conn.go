package carry

import (
	"context"
	"crypto/x509"
	"time"

	"redoubt"
)

// MaxMessage is the longest message, in bytes. The layer above splits what is longer: a message
// stands in memory whole on both sides, and a precedence carries one after the other.
const MaxMessage = 1 << 20

// Conn carries messages between two nodes that have proved who they are to one another. Carriage
// is label-blind: it never looks into a message. All methods may be called at once.
//
// What holds while a Conn lives: every message that Send took arrives once, whole, and in the order of
// the Sends of its precedence; between precedences there is no order, and a higher one overtakes. A link
// that is down does not end a Conn: it waits, and goes on where it was. A Conn ends by Close on either
// side, by a fault of the peer's, when the peer's certificate is past its time, or when nothing was heard for Config.MaxSilence; what
// was then under way has arrived or not, and only the layer above can know. Nothing is durable here.
type Conn interface {
	// Send hands over one message, of 1 to MaxMessage bytes, and returns when it stands in the queue of
	// its precedence: not when it has arrived. While that queue is full it blocks, so that whoever calls decides
	// late what goes next; a queue takes a message while it holds less than the link sends in QueueTime, QueueBytes at
	// least. msg is copied. Errors: Invalid (empty, or no such precedence), TooLarge, Unavailable
	// (the Conn has ended; the cause is in the chain), ctx.Err().
	// A Send that fails has sent nothing.
	Send(ctx context.Context, p redoubt.Precedence, msg []byte) error

	// Receive gives the next whole message: of those that are there, one of the highest precedence. The slice is
	// the caller's. When a Conn has ended it gives what is whole first, then Unavailable.
	// What is not received holds the sender back, each precedence for itself.
	Receive(ctx context.Context) (redoubt.Precedence, []byte, error)

	// A Conn over datagrams has Coming, besides: what has come and cannot be given yet. Over TCP the kernel has that.

	// Recycle gives back a message that Receive gave, for one to come: the caller does not look at it any more. It need not be called.
	Recycle(msg []byte)

	// Peer is the leaf certificate that the peer proved to hold the key of, after the verification
	// of the caller's tls.Config. It is never nil.
	Peer() *x509.Certificate

	// Stats is a picture of now. It blocks on nothing but the Conn's own lock.
	Stats() Stats

	// Close ends the Conn at once and tells the peer if the link is up; it waits for no delivery. When it
	// returns, no goroutine of the Conn is left and blocked calls have returned or are about to. It may be called again.
	Close() error
}

// State is what silence says about a link.
type State uint8

// A link is Up until what was sent is left unanswered for too long, and Down until an answer comes.
const (
	Up State = iota
	Down
)

// String is "up" or "down", as in `redoubt link status`.
func (s State) String() string {
	if s == Up {
		return "up"
	}
	return "down"
}

// Road is what is known of the narrowest hop of a road in our direction, once that was busy. It is worth keeping: who has to find it anew
// sends too much at first. A Road that has changed since costs little: it is a hint of where the search for the rate ends.
type Road struct {
	BytesPerSec float64 `json:"bytes_per_sec"` // 0: not known
	Loss        float64 `json:"loss"`          // the usual one, 0 to 1

	DatagramBytes int `json:"datagram_bytes,omitempty"` // the largest UDP payload that it is known to take; 0: not known
}

// Stats describes one Conn. It counts bytes of all labels together: who may see it is for the caller to decide.
type Stats struct {
	State       State
	Since       time.Time     // of the last change of State
	LastHeard   time.Time     // when the last authentic datagram or record came
	RTT         time.Duration // smoothed, of the best path; 0 before the first answer
	BytesPerSec float64       // what the paths in use are believed to take in our direction, headers included; 0 over TCP
	Road        Road          // the best path, as far as it was found

	SentBytes, ReceivedBytes uint64                   // payloads of UDP or TCP with all overhead, this side's view
	Lost                     uint64                   // datagrams believed lost; 0 over TCP
	QueuedBytes              [redoubt.Precedences]int // taken by Send and not yet sent once
	UnackedBytes             [redoubt.Precedences]int // sent and not known to have arrived; 0 over TCP

	DatagramBytes int         // the largest UDP payload that the best path is known to take; 0 over TCP
	Remote        string      // the address in use, of several the one with the shortest round trip
	Paths         []PathStats // that there are, at most 8; none over TCP
}

// PathStats describes one path of a Conn over datagrams.
type PathStats struct {
	Remote      string
	State       State
	InUse       bool // routine goes by it; else it stands by
	RTT         time.Duration
	BytesPerSec float64
}

// The queue of a precedence: long enough to keep the link busy, short enough that what is
// superseded meanwhile need never be sent.
const (
	QueueTime  = 250 * time.Millisecond
	QueueBytes = 32 << 10
	queueMost  = 4 << 20
)

func checkMessage(op string, p redoubt.Precedence, msg []byte) error {
	switch {
	case !p.Valid():
		return &redoubt.Error{Op: op, Kind: redoubt.Invalid, Hint: "one of the four precedences"}
	case len(msg) == 0:
		return &redoubt.Error{Op: op, Kind: redoubt.Invalid, Hint: "a message has at least one byte"}
	case len(msg) > MaxMessage:
		return &redoubt.Error{Op: op, Kind: redoubt.TooLarge, Hint: "split what is longer than carry.MaxMessage"}
	}
	return nil
}

func ended(op string, cause error) error {
	return &redoubt.Error{Op: op, Kind: redoubt.Unavailable, Err: cause}
}
