package carry

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"time"

	"redoubt"
)

// write writes one lane's queue until the Conn has ended.
func (s *streams) write(p redoubt.Precedence) {
	l := s.lanes[p]
	for {
		record := s.next(l)
		if record == nil {
			select {
			case <-l.work:
				continue
			case <-s.ended:
				return
			}
		}
		if _, err := l.conn.Write(record); err != nil {
			s.end(err)
			return
		}
	}
}

// next takes what a lane writes next, or nil.
func (s *streams) next(l *lane) (record []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() { s.bytes.sent += uint64(len(record)) }()
	switch {
	case s.cause != nil:
		return nil
	case l.pong:
		l.pong = false
		return []byte{recordPong, 0, 0, 0}
	case l.ping:
		l.ping = false
		return []byte{recordPing, 0, 0, 0}
	case len(l.out) > 0:
		record := l.out[0]
		l.out[0] = nil
		l.out = l.out[1:]
		l.queued -= len(record) - recordHead
		s.changed(&s.room)
		return record
	}
	return nil
}

// read takes what comes on one lane until it breaks.
func (s *streams) read(p redoubt.Precedence) {
	for {
		if err := s.readRecord(s.lanes[p]); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
				err = errPeerClosed // unless we did it ourselves: the first cause stands
			}
			s.end(err)
			return
		}
	}
}

func (s *streams) readRecord(l *lane) error {
	var head [recordHead]byte
	if _, err := io.ReadFull(l.conn, head[:]); err != nil {
		return err
	}
	n := int(binary.BigEndian.Uint32(head[:]) & 0xffffff)
	switch {
	case head[0] == recordMessage && n > 0 && n <= MaxMessage:
		msg := message(n)
		if _, err := io.ReadFull(l.conn, msg); err != nil {
			return err
		}
		s.hear(recordHead + n)
		return s.keep(l, msg)
	case head[0] == recordPing && n == 0:
		s.hear(recordHead)
		s.mu.Lock()
		l.pong = true
		s.mu.Unlock()
		l.wake()
		return nil
	case head[0] == recordPong && n == 0:
		s.hear(recordHead)
		s.answered()
		return nil
	}
	return &redoubt.Error{Op: "carry", Kind: redoubt.Invalid, Err: errMessage}
}

// keep puts a message where Receive finds it, once there is room: so a slow receiver holds the sender back.
func (s *streams) keep(l *lane, msg []byte) error {
	for {
		s.mu.Lock()
		if s.cause != nil {
			s.mu.Unlock()
			return s.cause
		}
		if l.held == 0 || l.held+len(msg) <= streamWindow {
			l.in = append(l.in, msg)
			l.held += len(msg)
			s.changed(&s.mail)
			s.mu.Unlock()
			return nil
		}
		room := s.room
		s.mu.Unlock()
		select {
		case <-room:
		case <-s.ended:
		}
	}
}

// hear notes that n bytes came.
func (s *streams) hear(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bytes.received += uint64(n)
	s.heard = s.config.Now()
	if s.state == Down {
		s.state, s.since = Up, s.heard
	}
}

func (s *streams) answered() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.pinged.IsZero() {
		s.rtt.add(max(s.config.Now().Sub(s.pinged), time.Microsecond))
		s.pinged = time.Time{}
	}
}

// watch pings, and tells what silence means.
func (s *streams) watch() {
	tick := time.NewTicker(tcpPingEvery)
	defer tick.Stop()
	s.ping()
	for {
		select {
		case <-tick.C:
			if err := s.look(); err != nil {
				s.end(err)
				return
			}
		case <-s.ended:
			return
		}
	}
}

// ping asks for an answer on the lane of FLASH.
func (s *streams) ping() {
	s.mu.Lock()
	l := s.lanes[redoubt.Flash]
	s.pinged = s.config.Now()
	s.lastPing, l.ping = s.pinged, true
	s.mu.Unlock()
	l.wake()
}

func (s *streams) look() error {
	s.mu.Lock()
	now := s.config.Now()
	busy, held := false, false
	for _, l := range s.lanes {
		busy = busy || l.queued > 0
		held = held || l.held >= streamWindow-MaxMessage // we do not read: that is not the peer's silence
	}
	silence := now.Sub(s.heard)
	asked := !s.pinged.IsZero()
	if asked && !held && silence > max(tcpOutage, outageTrips*s.rtt.smooth) && s.state == Up {
		s.state, s.since = Down, now
	}
	due := !asked && (busy || now.Sub(s.lastPing) >= s.config.KeepAlive)
	s.mu.Unlock()
	if !held && silence > s.config.MaxSilence {
		return errSilence
	}
	if now.After(s.peer.NotAfter) {
		return &redoubt.Error{Op: "carry", Kind: redoubt.Expired, Err: errExpired}
	}
	if due {
		s.ping()
	}
	return nil
}
