package replica

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"redoubt"
)

// foreseeing is a Conn that shows what has come of messages and cannot be given yet (carry: one over datagrams). Where it does, what a loss holds up
// is kept too, and a long piece costs no more than a short one when a node dies.
type foreseeing interface {
	// Coming calls each for the messages of a precedence that Receive has not given: n counts them, and data stands in one of length bytes from
	// at on. It may not be kept.
	Coming(p redoubt.Precedence, each func(n, length, at int, data []byte))
}

// How much of a segment that is coming is kept: what has come in keepEach, or before a pause of keepPause, and no less than minPart, so that
// its pieces are not too many; at the end of a session, from leastPart on. On a fast link no segment takes as long, and nothing is written of it. Where nothing comes at all it is looked
// ever more seldom, down to each mostPause.
const (
	keepEach  = 100 * time.Millisecond
	keepPause = 20 * time.Millisecond // on a road that loses, what was held up by a loss comes all at once, and then nothing for as long
	mostPause = 250 * time.Millisecond
	minPart   = 4 << 10
	leastPart = 512
)

// keeps says whether what comes of an arrival is kept before a segment of it is whole.
func (a *arrival) keeps() bool {
	return a != nil && !a.ended && a.seg.Bytes > 0 && a.pipe == nil && a.in.Entry.Name.Bucket != redoubt.SystemBucket
}

// fresh says whether so much has come of a segment that is to be kept and is not.
func (a *arrival) fresh(least int) bool { return a.keeps() && a.come.fresh() >= least }

// watching says whether what comes has to be looked at though no message is whole.
func (s *Session) watching() bool {
	for _, a := range s.begun {
		if a.fresh(minPart) || a.keeps() && s.ahead != nil {
			return true
		}
	}
	return false
}

// await gives the next message, and keeps meanwhile what has come.
func (s *Session) await(ctx context.Context) (redoubt.Precedence, []byte, error) {
	for pause := keepPause; s.watching(); {
		wait, stop := context.WithTimeout(ctx, pause)
		p, msg, err := s.o.Conn.Receive(wait)
		stop()
		if err == nil || ctx.Err() != nil || wait.Err() == nil {
			return p, msg, err
		}
		news := s.look()
		if err := s.keepParts(ctx, news == 0); err != nil {
			return 0, nil, err
		}
		if pause = min(2*pause, mostPause); news > 0 {
			pause = keepPause
		}
	}
	return s.o.Conn.Receive(ctx)
}

// look takes what has come of pieces that are not whole, or stand behind one that is not, and says how many bytes of it are new. Before what came
// ahead of the hello is served nobody knows where that belongs.
func (s *Session) look() (news int) {
	if s.ahead == nil || len(s.early) > 0 {
		return 0
	}
	for p, a := range s.begun {
		if a.keeps() {
			v := view{a: a}
			s.ahead.Coming(redoubt.Precedence(p), v.see)
			news += v.news
		}
	}
	return news
}

// view is a look at the messages that are on their way to an arrival.
type view struct {
	a      *arrival
	n      int  // the message that is looked at
	known  bool // what it is
	piece  bool // it is a piece of the segment, and its content stands
	at     int  // here among those that come, and is
	length int  // so long
	lost   bool // nothing more can be said
	news   int
}

const pieceHead = 1 + 8

// see takes some of a message. Of one whose head has not come nobody knows what it is, nor where what follows it belongs.
func (v *view) see(n, length, at int, data []byte) {
	if n != v.n {
		v.lost = v.lost || !v.known
		if v.piece {
			v.at += v.length
		}
		v.n, v.known, v.piece = n, false, false
	}
	if v.lost || len(data) == 0 {
		return
	}
	if at == 0 {
		v.head(length, data)
	}
	if !v.piece {
		return
	}
	if skip := pieceHead - at; skip > 0 {
		data, at = data[min(skip, len(data)):], pieceHead
	}
	v.news += v.a.come.show(v.at+at-pieceHead, data)
}

// head looks at how a message begins.
func (v *view) head(length int, data []byte) {
	switch data[0] {
	case msgOpen, msgSegment, msgIslands:
		v.lost = true // what follows is of another segment
	case msgPiece:
		if len(data) < pieceHead {
			return
		}
		v.length = length - pieceHead
		v.known, v.piece = true, binary.BigEndian.Uint64(data[1:]) == v.a.seq && v.length <= v.a.come.left()-v.at
		v.lost = !v.piece
	default:
		v.known = true
	}
}

// keepParts keeps what has come of every segment: after a pause, or after keepEach.
func (s *Session) keepParts(ctx context.Context, paused bool) error {
	for _, a := range s.begun {
		if a.fresh(minPart) && (paused || time.Since(a.since) >= keepEach) {
			if err := s.keepPart(ctx, a, minPart); err != nil {
				return err
			}
		}
	}
	return nil
}

// keepPart keeps what has come of a segment, where it is as much as is told.
func (s *Session) keepPart(ctx context.Context, a *arrival, least int) error {
	if !a.fresh(least) {
		return nil
	}
	head, apart := headed(a.seg.Packing, a.seg.Bytes, nil), s.islands && s.ahead != nil
	part, islands := a.come.unkept(head, apart)
	if bytesOf(part, islands) < least { // what is fresh and may not be kept makes the pieces of the rest no smaller
		return nil
	}
	no, err := s.o.Journal.KeepPart(ctx, s.o.Peer, a.in, part, islands)
	if errors.Is(err, redoubt.TooLarge) && a.come.kept > 0 { // it is in as many pieces as may be: from now on in one
		a.come.kept = 0
		part, islands = a.come.unkept(head, apart)
		no, err = s.o.Journal.KeepPart(ctx, s.o.Peer, a.in, part, islands)
	}
	if err != nil {
		return err
	}
	if no != nil {
		a.refuse(s, no)
		return nil
	}
	a.come.keptNow(part, islands)
	a.since = time.Now()
	return nil
}

func bytesOf(part redoubt.Stretch, islands []redoubt.Stretch) int {
	n := len(part.Bytes)
	for _, x := range islands {
		n += len(x.Bytes)
	}
	return n
}

// endArrivals ends what is on its way when a session ends: what has come of it is kept, also what a loss held up to the last.
func (s *Session) endArrivals(ctx context.Context) {
	s.look()
	for _, a := range s.begun {
		s.endArrival(ctx, a)
	}
}
