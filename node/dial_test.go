package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"redoubt"
	"redoubt/carry"
	"redoubt/faketime"
)

// dialledConn is a Conn that only ends.
type dialledConn struct {
	carry.Conn
	closed bool
}

func (c *dialledConn) Close() error { c.closed = true; return nil }

// TestUDPIsTakenWhereTheLinkWasDownAndTCPWhereUDPIsClosed dials roads that open after a while; 0: never.
func TestUDPIsTakenWhereTheLinkWasDownAndTCPWhereUDPIsClosed(t *testing.T) {
	const never = 0
	refused := errors.New("refused")
	for _, c := range []struct {
		name         string
		alone        time.Duration
		udp, tcp     time.Duration // after the dialling began, both roads
		refuses      bool          // who is found over UDP
		want         string
		after, until time.Duration
	}{
		{"both are there", dialTimeout, time.Second, time.Second, false, "udp", time.Second, time.Second},
		{"UDP is closed", dialTimeout, never, 21 * time.Second, false, "tcp", 21 * time.Second, 25 * time.Second},
		{"UDP is closed where it has worked", knownUDP, never, time.Second, false, "tcp", knownUDP, knownUDP + 5*time.Second},
		{"the link comes back, TCP is quicker", dialTimeout, 32 * time.Second, 31 * time.Second, false, "udp", 32 * time.Second, 32 * time.Second},
		{"the link comes back where UDP has worked", knownUDP, 31 * time.Second, 30 * time.Second, false, "udp", 31 * time.Second, 31 * time.Second},
		{"UDP is refused", knownUDP, time.Second, 2 * time.Second, true, "tcp", 2 * time.Second, 2 * time.Second},
		{"nobody is there", dialTimeout, never, never, false, "", 2 * dialTimeout, 2 * dialTimeout},
	} {
		t.Run(c.name, func(t *testing.T) {
			faketime.Test(t, func(t *testing.T) {
				began, p := time.Now(), &peers{}
				var mu sync.Mutex // of made: both roads may open at one time
				var made []*dialledConn
				d, err := p.dialRoads(t.Context(), c.alone, func(ctx context.Context, road string) (carry.Conn, error) {
					opens := map[string]time.Duration{"udp": c.udp, "tcp": c.tcp}[road]
					if opens == never {
						opens = time.Hour
					}
					select {
					case <-time.After(max(0, opens-time.Since(began))):
					case <-ctx.Done():
						return nil, ctx.Err()
					}
					if road == "udp" && c.refuses {
						return nil, refused
					}
					conn := &dialledConn{}
					mu.Lock()
					made = append(made, conn)
					mu.Unlock()
					return conn, nil
				})
				took := time.Since(began)
				if d.road != c.want || (err == nil) != (c.want != "") || took < c.after || took > c.until {
					t.Errorf("got %q after %v, %v; want %q", d.road, took, err, c.want)
				}
				p.work.Wait()
				for _, m := range made {
					if m.closed == (carry.Conn(m) == d.conn) {
						t.Error("the road that was taken is closed, or the other stays open")
					}
				}
			})
		})
	}
}

func TestWhatWasFoundOfARoadOutlivesTheNode(t *testing.T) {
	p := &peers{dir: t.TempDir(), log: slog.New(slog.DiscardHandler)}
	p.readRoads()
	links := map[redoubt.NodeName]redoubt.Link{"home": {}, "other": {}}
	see := func(peer redoubt.NodeName, rate float64) map[redoubt.NodeName]carry.Road {
		all := p.roads.learn(map[redoubt.NodeName]carry.Road{peer: {BytesPerSec: rate, Loss: 0.1}}, links)
		if all != nil {
			if err := writeJSON(filepath.Join(p.dir, roadsFile), all); err != nil {
				t.Fatal(err)
			}
		}
		return all
	}
	for _, c := range []struct {
		rate float64
		news bool
	}{{0, false}, {31_000, true}, {37_000, false}, {25_000, false}, {37_200, true}, {37_000, false}} {
		if got := see("home", c.rate) != nil; got != c.news {
			t.Errorf("at %.0f bytes a second: written %v, want %v", c.rate, got, c.news)
		}
	}
	p.readRoads()
	if got := p.road("home"); got != (carry.Road{BytesPerSec: 37_200, Loss: 0.1}) {
		t.Errorf("after a start the road is %+v", got)
	}
	sized := map[redoubt.NodeName]carry.Road{"home": {BytesPerSec: 37_200, Loss: 0.1, DatagramBytes: 1472}}
	if all := p.roads.learn(sized, links); all["home"].DatagramBytes != 1472 {
		t.Errorf("a size that is found is not kept: %v", all)
	}
	if all := p.roads.learn(sized, links); all != nil || see("home", 37_000) != nil || p.road("home").DatagramBytes != 1472 {
		t.Error("a size that is not found yet is taken for another")
	}
	p.forgetRoad("home") // it is met over TCP now
	if all := see("other", 1000); len(all) != 1 {
		t.Errorf("kept is %v, want what is known of one", all)
	}
	delete(links, "other")
	if all := see("home", 1000); len(all) != 1 || all["other"] != (carry.Road{}) {
		t.Errorf("kept is %v, want nothing of a link that ended", all)
	}
	if err := os.WriteFile(filepath.Join(p.dir, roadsFile), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if p.readRoads(); p.road("home") != (carry.Road{}) {
		t.Error("something was read from nonsense")
	}
}

func TestRoadsAreKeptOfSoManyPeersAndTheirFileIsRead(t *testing.T) {
	p := &peers{dir: t.TempDir(), log: slog.New(slog.DiscardHandler)}
	p.readRoads()
	links, seen := map[redoubt.NodeName]redoubt.Link{}, map[redoubt.NodeName]carry.Road{}
	for i := range maxRoads + 1 {
		name := redoubt.NodeName(fmt.Sprintf("%063d", i)) // as long as a name may be
		links[name], seen[name] = redoubt.Link{}, carry.Road{BytesPerSec: 1234567.8901234567 + float64(i), Loss: 0.12345678901234567, DatagramBytes: 1472}
	}
	all := p.roads.learn(seen, links)
	if len(all) != maxRoads {
		t.Errorf("%d roads are kept, want %d", len(all), maxRoads)
	}
	if err := writeJSON(filepath.Join(p.dir, roadsFile), all); err != nil {
		t.Fatal(err)
	}
	if p.readRoads(); len(p.roads.found) != maxRoads {
		t.Errorf("%d roads are read, want %d", len(p.roads.found), maxRoads)
	}
}
