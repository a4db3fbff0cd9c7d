package replica

import (
	"bytes"
	"context"
	"testing"

	"redoubt"
)

// copied is a Conn that keeps nothing of what it is given but a copy.
type copied struct {
	Conn
	small  []byte
	pieces []byte
}

func (c *copied) Send(_ context.Context, _ redoubt.Precedence, msg []byte) error {
	if msg[0] == msgPiece {
		_, content, err := decodePiece(msg)
		c.pieces = append(c.pieces, content...)
		return err
	}
	c.small = append(c.small, msg...)
	return nil
}

// TestMemoryOfContentIsGivenBackWhenItIsSent: small content, which goes together, and large.
func TestMemoryOfContentIsGivenBackWhenItIsSent(t *testing.T) {
	l := &lender{sizes: []int{1000, togetherBytes + 1, 20_000}}
	conn := new(copied)
	s := New(Options{Journal: l, Conn: conn, Peer: "outpost", Node: "secret"})
	out, _ := s.out.set("S")
	s.out.fund(out, redoubt.LinkBudget{})
	s.out.begin(out, 0)
	refs, urgency := make([]*ref, len(l.sizes)), make([]redoubt.Precedence, len(l.sizes))
	for i, size := range l.sizes {
		refs[i], urgency[i] = &ref{at: uint64(i + 1), stamp: redoubt.Stamp{byte(i + 1)}, size: int64(size)}, redoubt.Routine
	}
	s.out.add(out, uint64(len(refs)), urgency, refs)
	for sent := 0; sent < len(refs); {
		some := s.out.take(redoubt.Routine, togetherBytes)
		if err := s.sendSome(t.Context(), redoubt.Routine, some); err != nil {
			t.Fatal(err)
		}
		if sent += len(some); l.released != sent {
			t.Errorf("%d of %d were given back", l.released, sent)
		}
	}
	for i, size := range l.sizes {
		if want := lentContent(byte(i+1), size); !bytes.Contains(conn.small, want) && !bytes.Equal(conn.pieces, want) {
			t.Errorf("what was sent of content %d is not what it was", i+1)
		}
	}
}
