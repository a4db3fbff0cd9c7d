package redoubttest

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"redoubt/estate"
)

// The example estate's device, as processes: what package sim tries in memory, tried here with the binary.

// put writes an object as an S3 client does, and get reads one; "" is one that is not there.
func (w wire) put(t *testing.T, key string, content []byte) {
	t.Helper()
	if _, err := w.want(t.Context(), Request{Method: http.MethodPut, Bucket: "reports", Key: key, Body: content}, http.StatusOK); err != nil {
		t.Fatal(err)
	}
}

func (w wire) get(t *testing.T, key string) []byte {
	t.Helper()
	r, err := w.want(t.Context(), Request{Method: http.MethodGet, Bucket: "reports", Key: key}, http.StatusOK, http.StatusNotFound)
	if err != nil {
		t.Fatal(err)
	}
	if r.Status == http.StatusNotFound {
		return nil
	}
	return r.Body
}

// tracks is content that nothing compresses.
func tracks(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// linkStatus is what CONTRACT says of a link.
type linkStatus struct {
	State, Road string
	Silent      bool
	Pending     struct{ Versions, Bytes int64 }
}

func (r *running) link(device string) (s linkStatus) {
	r.t.Helper()
	if err := json.Unmarshal([]byte(r.must("link", "status", device, "--json")), &s); err != nil {
		r.t.Fatal(err)
	}
	return s
}

func TestTheOutpostWorksCutOffAndConverges(t *testing.T) {
	r := newEstate(t)
	r.must("up", "--detach")
	_, home := r.env("s-analyst", "secret")
	_, there := r.env("s-analyst", "outpost")
	home.put(t, "before", []byte("orders"))
	r.must("link", "wait", "outpost", "--timeout", "120s")
	if got := there.get(t, "before"); string(got) != "orders" {
		t.Fatalf("the outpost has %q", got)
	}
	r.must("link", "cut", "outpost")
	large := tracks(3 << 20)
	home.put(t, "plan", []byte("from home"))
	there.put(t, "plan", []byte("from the outpost, later"))
	there.put(t, "sighting", large)
	home.put(t, "only at home", []byte("x"))
	if s := r.link("outpost"); s.State != "down" {
		t.Errorf("a cut link is %+v", s)
	}
	if there.get(t, "only at home") != nil || home.get(t, "sighting") != nil {
		t.Error("something went over a link that is cut")
	}
	r.must("link", "restore", "outpost")
	r.must("link", "wait", "outpost", "--timeout", "120s")
	for name, w := range map[string]wire{"home": home, "outpost": there} {
		for key, want := range map[string][]byte{"plan": []byte("from the outpost, later"), "sighting": large, "only at home": []byte("x"), "before": []byte("orders")} {
			if got := w.get(t, key); !bytes.Equal(got, want) {
				t.Errorf("at %s %s has %d bytes, want %d", name, key, len(got), len(want))
			}
		}
		if out := r.must("conflicts", "ls", "--as", "s-analyst@"+map[string]string{"home": "secret", "outpost": "outpost"}[name], "--json"); !strings.Contains(out, `"plan"`) {
			t.Errorf("%s does not tell of the conflict: %s", name, out)
		}
	}
}

// slowRoad passes datagrams between one client and a node, so many bytes a second each way; what does not fit into its short
// queue is lost. It counts what it passed on towards the node, and passes no more than it is let: the rest is lost and not counted.
type slowRoad struct {
	in, out net.PacketConn
	node    net.Addr
	client  atomic.Pointer[net.Addr]
	up, let atomic.Int64
}

func newSlowRoad(t *testing.T, to string, bytesPerSecond int) *slowRoad {
	t.Helper()
	r := new(slowRoad)
	r.let.Store(math.MaxInt64)
	var err error
	if r.node, err = net.ResolveUDPAddr("udp", to); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*net.PacketConn{&r.in, &r.out} {
		if *c, err = net.ListenPacket("udp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	var all sync.WaitGroup
	t.Cleanup(func() { r.in.Close(); r.out.Close(); all.Wait() })
	pass := func(from net.PacketConn, came func(net.Addr), send func([]byte)) {
		queue := make(chan []byte, 1000)
		all.Go(func() {
			defer close(queue)
			buf := make([]byte, 1<<16)
			for {
				n, addr, err := from.ReadFrom(buf)
				if err != nil {
					return
				}
				came(addr)
				select {
				case queue <- bytes.Clone(buf[:n]):
				default: // it is full
				}
			}
		})
		all.Go(func() {
			free := time.Now()
			for b := range queue {
				if late := time.Now().Add(-20 * time.Millisecond); free.Before(late) { // a sleep that was long is made up for
					free = late
				}
				free = free.Add(time.Duration(len(b)) * time.Second / time.Duration(bytesPerSecond))
				time.Sleep(time.Until(free)) // it is the road that takes time, not the test that waits
				send(b)
			}
		})
	}
	pass(r.in, func(a net.Addr) { r.client.Store(&a) }, func(b []byte) {
		if r.up.Load() >= r.let.Load() {
			return
		}
		r.up.Add(int64(len(b)))
		_, _ = r.out.WriteTo(b, r.node)
	})
	pass(r.out, func(net.Addr) {}, func(b []byte) {
		if a := r.client.Load(); a != nil {
			_, _ = r.in.WriteTo(b, *a)
		}
	})
	return r
}

func TestALargeObjectArrivesThoughEitherEndIsKilled(t *testing.T) {
	const size, rate = 24 << 20, 3 << 20
	r := newEstate(t)
	r.must("up", "--detach")
	var road *slowRoad
	r.enrolBy(t, func(t *testing.T, home string) string {
		road = newSlowRoad(t, home, rate)
		return road.in.LocalAddr().String()
	})
	r.must("link", "wait", "outpost", "--timeout", "3m")
	// With nothing kept each kill costs all that went over since the one before, every time. A busy machine loses datagrams too, which
	// then go over twice, more or fewer of them: the best of three counts.
	const most = size * 5 / 4
	for try := range 3 {
		spent := r.sendKilling(t, road, fmt.Sprint("imagery", try), size)
		t.Logf("%d bytes went over the road for %d of content: %.3f", spent, size, float64(spent)/size)
		if spent <= most {
			return
		}
	}
	t.Errorf("each time more than %d bytes went over the road for %d of content", most, size)
}

// sendKilling writes an object at the outpost, kills one end or the other in the middle of its way home, four times, and holds what arrives
// against it. It gives what went over the road: without anything kept, 10 MiB more than the content.
func (r *running) sendKilling(t *testing.T, road *slowRoad, key string, size int) (spent int64) {
	t.Helper()
	const kills, between = 4, 5 << 19
	const greeting = 64 << 10 // what passes before both ends stand: enough to meet, so that a slow start costs no content
	_, there := r.env("s-analyst", "outpost")
	want := tracks(size)
	begin := road.up.Load()
	there.put(t, key, want)
	for round := range kills {
		victim := []string{"outpost", "secret"}[round%2]
		pid := r.status()[victim].PID
		if pid == 0 {
			t.Fatalf("%s is not there to be killed", victim)
		}
		mark := road.up.Load()
		road.let.Store(math.MaxInt64)
		within(t, 2*time.Minute, "the transfer is under way", func() bool { return road.up.Load()-mark > between })
		syscall.Kill(pid, syscall.SIGKILL)
		road.let.Store(road.up.Load() + greeting)
		within(t, 2*time.Minute, victim+" is gone", func() bool { return !alive(pid) })
		if victim == "outpost" { // nobody sends
			if _, home := r.env("s-analyst", "secret"); home.get(t, key) != nil {
				t.Fatalf("it has come whole before kill %d, after %d bytes", round, road.up.Load()-begin)
			}
		}
		r.must("up", "--detach")
	}
	road.let.Store(math.MaxInt64)
	_, home := r.env("s-analyst", "secret")
	r.must("link", "wait", "outpost", "--timeout", "3m")
	if got := home.get(t, key); !bytes.Equal(got, want) {
		t.Errorf("%d bytes arrived, want %d", len(got), len(want))
	}
	return road.up.Load() - begin
}

func TestTheOutpostStartsColdWithNoHomeInReach(t *testing.T) {
	r := newEstate(t)
	r.must("up", "--detach")
	_, home := r.env("s-analyst", "secret")
	home.put(t, "orders", []byte("advance"))
	r.must("link", "wait", "outpost", "--timeout", "120s")
	r.must("down")
	r.serve(t, "outpost")
	_, there := r.env("s-analyst", "outpost")
	if got := there.get(t, "orders"); string(got) != "advance" {
		t.Errorf("with no home in reach the outpost has %q", got)
	}
	there.put(t, "sighting", []byte("tracks"))
	if got := there.get(t, "sighting"); string(got) != "tracks" {
		t.Errorf("what was written with no home in reach reads %q", got)
	}
}

// serve runs one node alone and waits until it is ready.
func (r *running) serve(t *testing.T, name string) *exec.Cmd {
	t.Helper()
	c := r.command("serve", name)
	c.Stderr = io.Discard
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	t.Cleanup(func() { c.Process.Signal(syscall.SIGTERM); <-ended; ended <- nil })
	until(t, name+" is ready", func() bool { return r.status()[name].State == "ready" })
	return c
}

func TestAWipedOutpostOpensNothingByAKeyringThatIsPutBackEither(t *testing.T) {
	r := newEstate(t)
	r.must("up", "--detach")
	_, home := r.env("s-analyst", "secret")
	_, there := r.env("s-analyst", "outpost")
	r.must("link", "wait", "outpost", "--timeout", "120s")
	keyring := filepath.Join(r.state, "outpost", "keyring")
	copied, err := os.ReadFile(keyring)
	if err != nil {
		t.Fatal(err)
	}
	bundle := filepath.Join(t.TempDir(), "b.rbundle")
	r.must("bundle", "export", "--from", "secret", "--for", "outpost", "--to", bundle)
	there.put(t, "last", []byte("handed over before the keys go"))
	pid := r.status()["outpost"].PID
	r.must("device", "wipe", "outpost", "--reason", "end of the exercise", "--as", "officer@secret")
	until(t, "the wiped outpost ends", func() bool { return !alive(pid) })
	until(t, "the home knows", func() bool {
		return strings.Contains(r.must("device", "show", "outpost", "--as", "officer@secret", "--json"), `"wiped"`)
	})
	if got := home.get(t, "last"); string(got) != "handed over before the keys go" {
		t.Errorf("of the outpost's work its home has %q", got)
	}
	const told = "the device was wiped by order of its home"
	refused := func(what string) {
		t.Helper()
		if s := r.try("serve", "outpost"); s.code != 1 || !strings.Contains(s.err, told) || !strings.Contains(s.err, "enrol it anew: redoubt device enrol outpost") || strings.Contains(s.err, "put the keyring back") {
			t.Errorf("%s: a wiped outpost ends with %d and says %q", what, s.code, s.err)
		}
	}
	refused("with no keyring")
	for _, c := range []struct {
		args []string
		code int
	}{{[]string{"up", "--detach"}, 0}, {[]string{"doctor"}, 0}, {[]string{"bundle", "import", bundle, "--at", "outpost"}, 1}} {
		if err := os.WriteFile(keyring, copied, 0o600); err != nil { // by who followed another hint
			t.Fatal(err)
		}
		if s := r.try(c.args...); s.code != c.code || !strings.Contains(s.out+s.err, told) || !strings.Contains(s.out+s.err, "redoubt device enrol outpost") {
			t.Errorf("%q: exit %d, %s%s", c.args, s.code, s.out, s.err)
		}
	}
	refused("with a keyring that was put back")
	if _, err := os.Stat(keyring); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the keyring that was put back is there yet: %v", err)
	}
	if s := r.status()["outpost"]; s.State != "failed" || !s.Wiped || !strings.Contains(r.must("status"), "failed, wiped") {
		t.Errorf("status shows %+v", s)
	}
	// What the hint says brings it back, with nothing of what it held.
	if err := os.RemoveAll(filepath.Join(r.state, "outpost")); err != nil {
		t.Fatal(err)
	}
	r.must("up", "--detach")
	r.must("link", "wait", "outpost", "--timeout", "120s")
}

func TestARevokedOutpostIsMetNoMore(t *testing.T) {
	r := newEstate(t)
	r.must("up", "--detach")
	_, home := r.env("s-analyst", "secret")
	_, there := r.env("s-analyst", "outpost")
	r.must("link", "wait", "outpost", "--timeout", "120s")
	r.must("device", "revoke", "outpost", "--reason", "captured", "--as", "officer@secret")
	until(t, "the outpost is not met", func() bool { return r.notMet("outpost") > 0 })
	r.must("link", "cut", "secret", "--as", "admin@outpost")
	home.put(t, "after", []byte("not for who was captured"))
	there.put(t, "lie", []byte("from who was captured"))
	before := r.notMet("outpost")
	r.must("link", "restore", "secret", "--as", "admin@outpost")
	until(t, "the outpost has tried again", func() bool { return r.notMet("outpost") > before })
	if there.get(t, "after") != nil || home.get(t, "lie") != nil {
		t.Error("something passed between a home and a device that was revoked")
	}
}

// notMet counts how often a device's log says that its home does not meet it.
func (r *running) notMet(device string) int {
	r.t.Helper()
	log, err := os.ReadFile(filepath.Join(r.state, device, "log", "node.log"))
	if err != nil {
		r.t.Fatal(err)
	}
	return bytes.Count(log, []byte("home is not met"))
}

// tcpOnly passes TCP connections on and hears no UDP.
func tcpOnly(t *testing.T, to string) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	t.Cleanup(func() { l.Close(); all.Wait() })
	all.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			all.Go(func() { _, _ = io.Copy(out, in); out.Close() })
			all.Go(func() { _, _ = io.Copy(in, out); in.Close() })
		}
	})
	return l.Addr().String()
}

// enrolBy enrols the outpost anew, to meet its home at the address that by makes of the home's own, and gives its process.
func (r *running) enrolBy(t *testing.T, by func(t *testing.T, to string) (address string)) *exec.Cmd {
	t.Helper()
	pid := r.status()["outpost"].PID
	r.must("device", "revoke", "outpost", "--reason", "to be enrolled anew", "--as", "officer@secret")
	syscall.Kill(pid, syscall.SIGKILL)
	until(t, "the outpost is gone", func() bool { return !alive(pid) })
	if err := os.RemoveAll(filepath.Join(r.state, "outpost")); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "invitation.json")
	r.must("device", "enrol", "outpost", "--to", path, "--as", "officer@secret")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var inv map[string]any
	if err := json.Unmarshal(raw, &inv); err != nil {
		t.Fatal(err)
	}
	peers := inv["peers"].([]any)
	inv["peers"] = []string{by(t, peers[0].(string))}
	if raw, err = json.Marshal(inv); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	c := r.command("serve", "outpost", "--invitation", path)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = c.Wait(); close(ended) }()
	t.Cleanup(func() { c.Process.Signal(syscall.SIGTERM); <-ended })
	until(t, "the outpost is ready", func() bool { return r.status()["outpost"].State == "ready" })
	return c
}

func TestWhereUDPIsClosedTheOutpostGoesOverTCP(t *testing.T) {
	r := newEstate(t)
	r.must("up", "--detach")
	r.enrolBy(t, tcpOnly)
	_, home := r.env("s-analyst", "secret")
	_, there := r.env("s-analyst", "outpost")
	there.put(t, "sighting", tracks(1<<20))
	r.must("link", "wait", "outpost", "--timeout", "90s")
	if s := r.link("outpost"); s.Road != "tcp" {
		t.Errorf("the link is %+v, want one over TCP", s)
	}
	if got := home.get(t, "sighting"); len(got) != 1<<20 {
		t.Errorf("%d bytes arrived over TCP", len(got))
	}
}

// relay passes datagrams on between a device and its home, and counts what comes from the device, connections over TCP too.
type relay struct{ fromDevice atomic.Int64 }

func (y *relay) start(t *testing.T, to string) (address string) {
	t.Helper()
	in, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	out, err := net.Dial("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	calls, err := net.Listen("tcp", in.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	t.Cleanup(func() { in.Close(); out.Close(); calls.Close(); all.Wait() })
	var device atomic.Pointer[net.Addr]
	all.Go(func() {
		b := make([]byte, 1<<16)
		for {
			n, from, err := in.ReadFrom(b)
			if err != nil {
				return
			}
			device.Store(&from)
			y.fromDevice.Add(1)
			_, _ = out.Write(b[:n])
		}
	})
	all.Go(func() {
		b := make([]byte, 1<<16)
		for {
			n, err := out.Read(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if to := device.Load(); err == nil && to != nil {
				_, _ = in.WriteTo(b[:n], *to)
			}
		}
	})
	all.Go(func() {
		for {
			c, err := calls.Accept()
			if err != nil {
				return
			}
			y.fromDevice.Add(1)
			c.Close()
		}
	})
	return in.LocalAddr().String()
}

func TestInRadioSilenceTheOutpostSendsNothingAndHearsFlash(t *testing.T) {
	r := newEstate(t)
	r.must("up", "--detach")
	var road relay
	serving := r.enrolBy(t, road.start)
	_, home := r.env("s-analyst", "secret")
	_, there := r.env("s-analyst", "outpost")
	home.put(t, "before", []byte("plan"))
	r.must("link", "wait", "outpost", "--timeout", "120s")
	if bad := r.try("link", "silence", "outpost", "--as", "s-analyst@outpost"); bad.code != 3 {
		t.Errorf("who is no administrator ends with %+v", bad)
	}
	if bad := r.try("link", "silence", "outpost", "--as", "admin@secret"); bad.code == 0 {
		t.Error("a home can be made to keep silent")
	}
	r.must("link", "silence", "outpost")
	before := road.fromDevice.Load()
	for _, key := range []string{"orders", "more orders"} {
		if _, err := home.want(t.Context(), Request{Method: http.MethodPut, Bucket: "reports", Key: key, Body: []byte("advance"),
			Header: http.Header{"X-Amz-Meta-Redoubt-Precedence": {"flash"}}}, http.StatusOK); err != nil {
			t.Fatal(err)
		}
		until(t, key+" have come", func() bool { return string(there.get(t, key)) == "advance" })
	}
	there.put(t, "sighting", []byte("tracks"))
	until(t, "the home takes the silence for an outage", func() bool { s := r.link("outpost"); return s.State == "down" && s.Silent })
	serving.Process.Signal(syscall.SIGKILL)
	_ = serving.Wait()
	until(t, "the outpost is gone", func() bool { return r.status()["outpost"].PID == 0 })
	r.serve(t, "outpost")
	if s := r.link("outpost"); !s.Silent {
		t.Errorf("after a restart the link is %+v", s)
	}
	home.put(t, "after", []byte("later"))
	if there.get(t, "after") != nil {
		t.Error("a device without a connection has heard something")
	}
	if n := road.fromDevice.Load() - before; n != 0 {
		t.Errorf("in radio silence the device sent %d datagrams", n)
	}
	r.must("link", "silence", "outpost", "off")
	r.must("link", "wait", "outpost", "--timeout", "120s")
	if home.get(t, "sighting") == nil || there.get(t, "after") == nil {
		t.Error("after the silence something is missing")
	}
	if out := r.must("audit", "search", "--as", "officer@outpost", "--json"); strings.Count(out, "SilenceLink") < 3 {
		t.Errorf("the record does not tell of the silence, or not of who was refused: %s", out)
	}
}

func TestAnOutpostWhoseLeaseLapsedIsLockedUntilItsHomeGivesAnother(t *testing.T) {
	if testing.Short() {
		t.Skip("the shortest lease is a minute")
	}
	r := newEstate(t)
	text := strings.Replace(string(estate.ExampleText), "lease: 72h", "lease: 1m", 1)
	r.must("up", r.file("estate.yaml", text), "--detach")
	_, there := r.env("s-analyst", "outpost")
	r.must("link", "wait", "outpost", "--timeout", "120s")
	there.put(t, "sighting", []byte("tracks"))
	// Its home is gone rather than its link cut: when that is back the device meets it by itself, and the lease is renewed however long
	// what follows takes.
	nodes := r.status()
	syscall.Kill(nodes["secret"].PID, syscall.SIGKILL)
	within(t, 3*time.Minute, "the outpost ends with its lease", func() bool { return !alive(nodes["outpost"].PID) })
	if _, err := there.do(t.Context(), Request{Method: http.MethodGet, Bucket: "reports", Key: "sighting"}); err == nil {
		t.Error("a locked outpost serves")
	}
	if s := r.try("serve", "outpost"); s.code == 0 || !strings.Contains(s.err, "lease has ended") {
		t.Errorf("with no home in reach a locked outpost starts: %d %s", s.code, s.err)
	}
	r.must("up", "--detach")
	_, there = r.env("s-analyst", "outpost")
	if got := there.get(t, "sighting"); string(got) != "tracks" {
		t.Errorf("after another lease the outpost has %q", got)
	}
	r.must("link", "wait", "outpost", "--timeout", "120s")
}
