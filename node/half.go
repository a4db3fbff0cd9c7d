package node

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"time"

	"redoubt"
	"redoubt/carry/diode"
	"redoubt/client"
	"redoubt/guard"
)

// The halves of a raise, and the command that runs one: it is told what it needs by its standard input.
const (
	HalfLow     = "low"
	HalfHigh    = "high"
	HalfCommand = "guard-half"
)

// HalfConfig is all that one half of a raise knows: its own enclave, and its end of the road.
type HalfConfig struct {
	Side    string           `json:"side"`
	Guard   redoubt.NodeName `json:"guard"`
	High    redoubt.NodeName `json:"high"`
	Card    Card             `json:"card"`
	Seed    []byte           `json:"seed"`
	Low     redoubt.NodeName `json:"low,omitempty"` // of the high half: whose bundles it takes, and what they are signed with
	LowKey  string           `json:"low_key,omitempty"`
	Road    string           `json:"road"`
	RoadKey string           `json:"road_key"`
	From    string           `json:"from,omitempty"` // of the low half: the address that it sends from
	Pace    int64            `json:"pace,omitempty"` // bits a second
	Hold    int64            `json:"hold,omitempty"` // of the high half: bytes of disk that one bundle may take; 0: as the disk says
	Dir     string           `json:"dir"`
}

// The road between the halves. It is paced by configuration and by nothing that the far side does: there is no way back (RULES 4.7).
const (
	roadLoss  = 0.05
	homeLoss  = 0.01              // within one machine nothing is lost but what its kernel has no room for
	homeAtOne = diode.MaxDatagram // bytes in a datagram there
	mostAtOne = 8192              // and elsewhere: a jumbo frame carries it whole
	calm      = 8                 // what is sent again has that part of the rate: both halves may have other work
)

// Where both halves share a machine with the enclaves, one processor in so many is a half's: it hands on what comes, one thing after the other, and threads that
// wake one another for that cost a quarter more. The high half has all where the kernel queues less for it than queuedForOne: what comes while one thread has
// other work would be lost.
const (
	processorsOfAHalf = 4
	queuedForOne      = 4 << 20
)

// Processors is on how many of a machine's the half runs, where the kernel queues so many bytes of a road.
func (c HalfConfig) Processors(all, queued int) int {
	road, err := netip.ParseAddrPort(c.Road)
	if err != nil || !road.Addr().IsLoopback() || c.Side == HalfHigh && queued < queuedForOne {
		return all
	}
	return max(1, all/processorsOfAHalf)
}

// RunHalf runs one half until ctx ends.
func RunHalf(ctx context.Context, c HalfConfig, log *slog.Logger) error {
	key, err := hex.DecodeString(c.RoadKey)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return err
	}
	d := &dialler{node: c.Card.Node, subject: redoubt.SubjectName(c.Guard), seed: c.Seed, card: func() (Card, error) { return c.Card, nil }, clock: time.Now}
	at := client.Guard{As: d.client}
	if c.Side == HalfLow {
		return runLow(ctx, c, key, at, log)
	}
	return runHigh(ctx, c, key, at, log)
}

// roadDatagram is the greatest datagram that goes whole: nobody on the road says what does not.
func roadDatagram(c HalfConfig) int {
	to, err := netip.ParseAddrPort(c.Road)
	from, err2 := netip.ParseAddr(c.From)
	switch {
	case err == nil && to.Addr().IsLoopback():
		return homeAtOne
	case err != nil || err2 != nil:
		return diode.DefaultDatagram
	}
	const headers = 40 + 8 // of IPv6, the longer, and UDP
	all, _ := net.Interfaces()
	for _, i := range all {
		addrs, _ := i.Addrs()
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Unmap() == from.Unmap() {
				return max(diode.MinDatagram, min(mostAtOne, i.MTU-headers))
			}
		}
	}
	return diode.DefaultDatagram
}

func runLow(ctx context.Context, c HalfConfig, key []byte, at client.Guard, log *slog.Logger) error {
	road, err := dialRoad(c, key)
	if err != nil {
		return err
	}
	defer road.socket.Close()
	f, err := guard.NewFeeder(guard.FeederOptions{High: c.High, Source: at, Dir: c.Dir, Room: diode.Room, Log: log, Send: func(ctx context.Context, b *guard.Outgoing, again bool, between func(context.Context) error) error {
		if whole, is := b.Bytes(); is {
			return road.send(ctx, diode.InMemory(whole), b.Size(), again, between)
		}
		return road.send(ctx, b, b.Size(), again, between)
	}})
	if err != nil {
		return err
	}
	return f.Run(ctx)
}

// oneWay sends files, one after the other.
type oneWay struct {
	*diode.Sender
	socket io.Closer
	pace   int64 // bits a second
}

func dialRoad(c HalfConfig, key []byte) (*oneWay, error) {
	socket, err := diode.Dial(c.Road, c.From)
	if err != nil {
		return nil, err
	}
	pace := cmp.Or(c.Pace, usualPace)
	plan := diode.Plan{Rate: pace, Datagram: roadDatagram(c), Loss: roadLoss, Interleave: 2, Passes: 1, Key: key, Bare: true}
	if plan.Datagram == homeAtOne {
		plan.Loss = homeLoss
	}
	s, err := diode.NewSender(socket, plan)
	if err != nil {
		socket.Close()
		return nil, err
	}
	return &oneWay{s, socket, pace}, nil
}

// send sends one, that was sent before (again) with time. between may send others meanwhile, each at its own pace; nil: none.
func (s *oneWay) send(ctx context.Context, file io.ReaderAt, size int64, again bool, between func(context.Context) error) error {
	defer s.Pace(s.Rate) // of the one between whose datagrams this is sent
	if s.Pace(s.pace); again {
		s.Pace(max(s.pace/calm, diode.MinRate))
	}
	load, err := s.Load(ctx, file, size, nil, nil)
	if err != nil {
		return err
	}
	load.Between = between
	return s.Send(ctx, load, nil)
}

// Of what is on the road so much comes together in memory at the high half: some bundles, so that one that lacks a part does not hold up the next.
const staged = 128 << 20

// leastHold is what the high half holds on its disk of what is on its way, however full that is: what comes together in memory becomes files, too.
const leastHold = 256 << 20

func runHigh(ctx context.Context, c HalfConfig, key []byte, at client.Guard, log *slog.Logger) error {
	hold := cmp.Or(c.Hold, holdOf(c.Dir))
	log.Info("the high half of the raise has room for what is on its way, and for twice as much that waits", slog.Int64("bytes", hold))
	var stage *diode.Stage
	open := make(chan struct{}) // it is: what it finds when it is opened may be dropped already
	drop := func(path string) error { <-open; return stage.Drop(path) }
	taken := func(path string) error { <-open; return stage.Taken(path) }
	behind := func() bool { <-open; return stage.Behind() }
	t, err := guard.NewTaker(guard.TakerOptions{High: c.High, Target: at, Dir: c.Dir, Drop: drop, Waiting: 2 * hold, Taken: taken, Behind: behind, Log: log})
	if err != nil {
		return err
	}
	maker, err := base64.StdEncoding.DecodeString(c.LowKey)
	if err != nil || len(maker) != ed25519.PublicKeySize {
		return &redoubt.Error{Op: "node.runHigh", Object: string(c.Low), Kind: redoubt.Invalid, Err: errors.New("the lower enclave's key is no Ed25519 public key")}
	}
	stage, err = diode.Open(c.Dir, diode.Options{Key: key, Memory: staged, Hold: hold, For: c.High, Makers: map[redoubt.NodeName]ed25519.PublicKey{c.Low: maker}, Tell: func(e diode.Event) {
		switch {
		case e.Kind == diode.Whole:
			t.Came(e.File)
		case e.Needs > 0:
			log.Error("a bundle never comes, for it takes more than may be held: set road: {hold: SIZE} of the guard in the estate, and have a person at the low side feed it again",
				slog.Uint64("serial", e.Sheet.To[0].Serial), slog.Int64("needs", e.Needs), slog.Int64("hold", hold))
		case e.Kind == diode.LeftOut:
			log.Error("the road brought more that is not as it should be, within a minute, than is told one by one", slog.Int("besides", e.Count))
		case e.Kind != diode.Began: // an alarm (RULES 4.7)
			log.Error("the road brought what is not as it should be", slog.String("event", string(e.Kind)), slog.String("kind", kindOf(e.Err)))
		}
	}})
	if err != nil {
		return err
	}
	close(open)
	defer stage.Close()
	source, _, err := diode.Listen(c.Road)
	if err != nil {
		return err
	}
	failed := make(chan error, 2)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() { failed <- stage.Receive(ctx, source) }()
	go func() { failed <- t.Run(ctx) }()
	err = <-failed
	stop()
	return errors.Join(err, <-failed)
}

func kindOf(err error) string {
	if err == nil {
		return ""
	}
	return redoubt.KindOf(err).Error()
}
