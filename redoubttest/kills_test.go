package redoubttest_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"redoubt"
	"redoubt/carry"
	"redoubt/carry/carrytest"
	"redoubt/replica"
)

// field is a home and its device over a road of datagrams, as nodes meet there: the device dials again whenever a meeting has ended, and
// either may lose its power at any time.
type field struct {
	*pair
	network *carrytest.Network
	base    int64
	nodes   [2]*fieldNode
	server  *tls.Config
	client  *tls.Config
	dice    *rand.Rand
	as      [2]redoubt.Credential
	roads   [2]atomic.Pointer[carry.Road] // as each end found it
	tickets [2]*carry.Tickets

	spy func(end int, c carry.Conn) replica.Conn // what a session is given instead; nil: the Conn itself
}

// fieldNode is one end for as long as it has power.
type fieldNode struct {
	socket   *carrytest.Socket
	endpoint *carry.Endpoint
	stop     context.CancelFunc
	ended    chan struct{}
}

const fieldHome, fieldDevice = "10.0.0.1", "10.0.0.2"

func newField(t *testing.T, seed uint64, road carrytest.Road) *field {
	f := &field{pair: newPair(t), network: carrytest.NewNetwork(seed, road), dice: rand.New(rand.NewPCG(seed, 11))}
	f.network.Refuse(fieldHome)
	f.network.Refuse(fieldDevice)
	authority, err := carrytest.NewAuthority(time.Now())
	if err == nil {
		f.server, _, err = authority.Node("home", "device", time.Now())
	}
	if err == nil {
		_, f.client, err = authority.Node("device", "home", time.Now())
	}
	if err != nil {
		t.Fatal(err)
	}
	for i := range f.nodes {
		f.roads[i].Store(new(carry.Road))
		put(f.t, f.ends[i], f.who(i), fmt.Sprint("before-", i), "before", "")
		f.power(i)
	}
	for !f.has(0, 2) || !f.has(1, 2) {
		time.Sleep(100 * time.Millisecond)
	}
	time.Sleep(3 * time.Second)
	f.base = f.bytes()
	return f
}

// power sets an end going.
func (f *field) power(i int) {
	ctx, stop := context.WithCancel(context.Background())
	n := &fieldNode{socket: f.network.Listen([]string{fieldHome + ":7", fmt.Sprintf("%s:%d", fieldDevice, 1024+f.dice.IntN(60000))}[i]), stop: stop, ended: make(chan struct{})}
	var kept []byte
	if before := f.tickets[i]; before != nil {
		kept = before.Kept()
	}
	var err error
	if f.tickets[i], err = carry.NewTickets(kept, time.Now); err != nil {
		f.t.Fatal(err)
	}
	config := carry.Config{Recall: func(*x509.Certificate) carry.Road { return *f.roads[i].Load() }, Tickets: f.tickets[i]}
	if i == 0 {
		config.Server = f.server
	}
	if n.endpoint, err = carry.NewEndpoint(config, n.socket); err != nil {
		f.t.Fatal(err)
	}
	f.nodes[i], f.as[i] = n, f.who(i)
	s, peer := f.ends[i], f.ends[1-i].Name()
	go func() {
		defer close(n.ended)
		var before chan struct{}
		end := func() {}
		for ctx.Err() == nil {
			conn, err := f.connect(ctx, n.endpoint, i)
			if err != nil {
				continue
			}
			end()
			if before != nil {
				<-before
			}
			meeting, stop := context.WithCancel(ctx)
			over := make(chan struct{})
			before, end = over, stop
			go func() {
				for meeting.Err() == nil {
					select {
					case <-over:
						return
					case <-time.After(time.Second):
						if r := conn.Stats().Road; r.BytesPerSec > 0 {
							f.roads[i].Store(&r)
						}
					}
				}
			}()
			var road replica.Conn = conn
			if f.spy != nil {
				road = f.spy(i, conn)
			}
			go func() {
				defer close(over)
				_ = replica.New(replica.Options{Estate: "example", Node: s.Name(), Peer: peer, Journal: s, State: s, Conn: road,
					Rate: func() float64 { return conn.Stats().BytesPerSec }}).Run(meeting)
			}()
			if i == 1 {
				<-over
				select {
				case <-time.After(100*time.Millisecond + time.Duration(f.dice.IntN(300))*time.Millisecond):
				case <-ctx.Done():
				}
			}
		}
		end()
		if before != nil {
			<-before
		}
	}()
}

func (f *field) connect(ctx context.Context, e *carry.Endpoint, i int) (carry.Conn, error) {
	if i == 0 {
		return e.Accept(ctx)
	}
	ctx, stop := context.WithTimeout(ctx, 20*time.Second)
	defer stop()
	return e.Dial(ctx, f.client, netip.MustParseAddrPort(fieldHome+":7"))
}

// out takes an end's power away.
func (f *field) out(i int) {
	n := f.nodes[i]
	n.socket.Mute()
	f.ends[i].Cut()
	n.stop()
	n.endpoint.Close()
	<-n.ended
	f.ends[i].Stop()
}

// kill takes an end's power away and gives it back.
func (f *field) kill(i int) {
	f.out(i)
	time.Sleep(200 * time.Millisecond)
	f.start(i)
	link(f.t, f.ends[0], f.ends[1], f.bound)
	f.power(i)
}

func (f *field) bytes() (n int64) {
	for _, way := range [][2]string{{fieldHome, fieldDevice}, {fieldDevice, fieldHome}} {
		_, _, sent := f.network.Totals(way[0], way[1])
		n += sent
	}
	return n - f.base
}

// load has the device hold files of so many sizes, and waits until its home shows as many, an end being killed now and then.
func (f *field) load(sizes []int, every time.Duration) (took time.Duration, kills int) {
	for i, n := range sizes {
		put(f.t, f.ends[1], f.as[1], fmt.Sprintf("load/%d", i), noise(uint64(i), n), "")
	}
	began, next := time.Now(), time.Now().Add(every)
	for {
		time.Sleep(100 * time.Millisecond)
		if f.has(0, len(sizes)+2) {
			return time.Since(began), kills
		}
		if every > 0 && time.Now().After(next) {
			f.kill(1 - kills%2)
			kills++
			next = time.Now().Add(every)
		}
		if time.Since(began) > time.Hour {
			f.t.Fatal("it comes to no end")
		}
	}
}

func (f *field) has(i, n int) bool {
	page, err := f.ends[i].ListVersions(context.Background(), f.as[i], redoubt.ListVersions{Bucket: "reports", Max: 1000})
	if err != nil {
		f.t.Fatal(err)
	}
	return len(page.Versions) >= n
}

// TestKillsOnALossyRoadThatIsUpHalfOfTheTimeCostLittle loads the same files with and without kills: a third of what link C is measured with.
func TestKillsOnALossyRoadThatIsUpHalfOfTheTimeCostLittle(t *testing.T) {
	var sizes []int
	for _, k := range [][2]int{{50, 2560}, {15, 64_000}, {2, 655_360}} { // as zstd leaves 4 KiB, 100 KiB and 1 MiB of text
		for range k[0] {
			sizes = append(sizes, k[1])
		}
	}
	var bytes [2]int64
	var took [2]time.Duration
	kills := 0
	for seed := range uint64(4) {
		for i, every := range []time.Duration{0, 20 * time.Second} {
			bubble(t, func(t *testing.T) {
				f := newField(t, seed, carrytest.LinkC)
				d, n := f.load(sizes, every)
				bytes[i], took[i], kills = bytes[i]+f.bytes(), took[i]+d, kills+n
				f.same()
				f.out(1)
				f.out(0)
			})
		}
	}
	more := 100 * (float64(bytes[1])/float64(bytes[0]) - 1)
	t.Logf("%d kills: %d bytes in %v, and %d in %v without any: %+.1f %%, %d bytes a kill", kills, bytes[1], took[1], bytes[0], took[0], more, (bytes[1]-bytes[0])/int64(max(kills, 1)))
	if kills < 20 {
		t.Errorf("only %d kills: little was tried", kills)
	}
	if more > 3 { // 4.1 where what came behind a loss is sent again
		t.Errorf("%d kills made %.1f %% more bytes", kills, more)
	}
	if took[1] > took[0]*6/5 {
		t.Errorf("%d kills made %v of %v", kills, took[1], took[0])
	}
}
