package node

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"redoubt"
	"redoubt/bundle"
	"redoubt/carry/diode"
	"redoubt/estate"
	"redoubt/keys"
)

// waiting is how many bytes lie unread in the UDP socket with a local port, as the kernel says, and whether there is such a socket.
func waiting(t *testing.T, port uint16) (n int64, is bool) {
	t.Helper()
	for _, table := range []string{"/proc/self/net/udp", "/proc/self/net/udp6"} {
		b, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) < 5 || !strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) {
				continue
			}
			var tx, rx int64
			if _, err := fmt.Sscanf(f[4], "%x:%x", &tx, &rx); err != nil {
				t.Fatal(err)
			}
			n, is = n+rx, true
		}
	}
	return n, is
}

// TestALowHalfHearsNothing: what is sent to the socket that it sends from does not even come to lie there.
func TestALowHalfHearsNothing(t *testing.T) {
	above, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer above.Close()
	raw, err := os.ReadFile(filepath.Join("..", "bundle", "testdata", "vector", "small.rbundle"))
	if err != nil {
		t.Fatal(err)
	}
	low, err := dialRoad(HalfConfig{Road: above.LocalAddr().String()}, make([]byte, diode.KeyBytes))
	if err != nil {
		t.Fatal(err)
	}
	defer low.socket.Close()
	if err := low.send(t.Context(), bytes.NewReader(raw), int64(len(raw)), false, nil); err != nil {
		t.Fatal(err)
	}
	above.SetReadDeadline(time.Now().Add(30 * time.Second))
	_, from, err := above.ReadFromUDPAddrPort(make([]byte, 1<<16))
	if err != nil {
		t.Fatalf("the low half sent nothing: %v", err)
	}
	for range 10 {
		if _, err := above.WriteToUDPAddrPort([]byte("an answer"), from); err != nil {
			t.Fatal(err)
		}
	}
	if n, is := waiting(t, from.Port()); !is || n != 0 {
		t.Errorf("%d bytes lie in the low half's socket (there is one: %v)", n, is)
	}
	// That this would have been seen:
	open, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	to := open.LocalAddr().(*net.UDPAddr).AddrPort()
	if _, err := above.WriteToUDPAddrPort([]byte("an answer"), netip.AddrPortFrom(to.Addr().Unmap(), to.Port())); err != nil {
		t.Fatal(err)
	}
	if n, is := waiting(t, to.Port()); !is || n == 0 {
		t.Error("an answer is not seen")
	}
}

// TestAHighHalfSaysNothing: what sends to it has nothing come back, whether it is a bundle or not.
func TestAHighHalfSaysNothing(t *testing.T) {
	free, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	road := free.LocalAddr().String()
	free.Close()
	c := HalfConfig{Side: HalfHigh, Guard: "guard", High: "high", Low: "low", LowKey: base64.StdEncoding.EncodeToString(make([]byte, 32)), Road: road, RoadKey: hex.EncodeToString(make([]byte, 32)), Dir: t.TempDir()}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- RunHalf(ctx, c, slog.New(slog.DiscardHandler)) }()
	below, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer below.Close()
	to := netip.MustParseAddrPort(road)
	for is := false; !is; _, is = waiting(t, to.Port()) { // until it listens
		select {
		case err := <-ended:
			t.Fatal(err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	for range 100 {
		if _, err := below.WriteToUDPAddrPort([]byte(strings.Repeat("no datagram of ours ", 50)), to); err != nil {
			t.Fatal(err)
		}
	}
	for n := int64(1); n > 0; n, _ = waiting(t, to.Port()) { // until all was read
		time.Sleep(time.Millisecond)
	}
	if n, is := waiting(t, below.LocalAddr().(*net.UDPAddr).AddrPort().Port()); !is || n != 0 {
		t.Errorf("%d bytes came back", n)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// spoken is what a log says, a line a message; it never waits.
type spoken chan string

func (s spoken) Write(line []byte) (int, error) {
	select {
	case s <- string(line):
	default:
	}
	return len(line), nil
}

// TestWhatIsTooLargeForTheDiskAboveIsToldOfByTheSettingThatHelps, with the numbers to choose it by; what is not is brought to the node.
func TestWhatIsTooLargeForTheDiskAboveIsToldOfByTheSettingThatHelps(t *testing.T) {
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	id, err := keys.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC().Truncate(time.Second)
	var file bytes.Buffer
	w, err := bundle.NewWriter(&file, bundle.Head{Kind: bundle.Journal, Estate: "example", Maker: "low", Created: now, Expires: now.Add(time.Hour), To: []bundle.Addressee{{Node: "high", Numbering: [16]byte{1}, Serial: 1}}},
		[]keys.Recipient{id.Recipient()}, func(m []byte) ([]byte, error) { return ed25519.Sign(key, m), nil })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, 100_000)); err != nil {
		t.Fatal(err)
	}
	if err := w.Finish(nil); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		hold int64
		says string
	}{{100_000, "road: {hold: SIZE}"}, {0, "the node refused"}} { // there is none: that it is brought is enough
		free, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		road := free.LocalAddr().String()
		free.Close()
		log, ended := make(spoken, 1000), make(chan error, 1)
		ctx, stop := context.WithCancel(t.Context())
		go func() {
			ended <- RunHalf(ctx, HalfConfig{Side: HalfHigh, Guard: "guard", High: "high", Low: "low", LowKey: base64.StdEncoding.EncodeToString(public), Road: road, RoadKey: hex.EncodeToString(make([]byte, 32)),
				Hold: c.hold, Dir: t.TempDir()}, slog.New(slog.NewTextHandler(log, nil)))
		}()
		low, err := dialRoad(HalfConfig{Road: road}, make([]byte, diode.KeyBytes))
		if err != nil {
			t.Fatal(err)
		}
		for said, until := false, time.Now().Add(time.Minute); !said; {
			if time.Now().After(until) {
				t.Fatalf("with %d bytes to hold, a log that says %q did not come", c.hold, c.says)
			}
			_ = low.send(ctx, bytes.NewReader(file.Bytes()), int64(file.Len()), false, nil)
			select {
			case line := <-log:
				said = strings.Contains(line, c.says)
				if said && c.hold > 0 && (!strings.Contains(line, "hold=100000") || !strings.Contains(line, "serial=1") || !strings.Contains(line, "needs=")) {
					t.Errorf("it is told: %s", line)
				}
			case err := <-ended:
				t.Fatal(err)
			case <-time.After(20 * time.Millisecond): // it may not have listened yet
			}
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		low.socket.Close()
	}
}

// TestTheHighHalfHoldsWhatItsDiskHas: a quarter of what is free, and of what lies there already.
func TestTheHighHalfHoldsWhatItsDiskHas(t *testing.T) {
	dir := t.TempDir()
	sparse, err := os.Create(filepath.Join(dir, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(sparse.Truncate(1<<40), sparse.Close()); err != nil { // as one that is on its way: nothing of it is there
		t.Fatal(err)
	}
	if got := quarter(100<<30, dir); got != 25<<30 {
		t.Errorf("of 100 GiB that are free %d bytes are held", got)
	}
	if err := os.WriteFile(filepath.Join(dir, "there"), bytes.Repeat([]byte("there"), 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := quarter(100<<30, dir); got < 25<<30+5<<18 || got > 25<<30+6<<18 {
		t.Errorf("beside 5 MiB that are there %d bytes are held", got)
	}
	if got := quarter(0, dir); got != leastHold {
		t.Errorf("of nothing that is free %d bytes are held", got)
	}
	if hold := holdOf(filepath.Join(dir, "none")); hold != leastHold {
		t.Errorf("%d bytes are held where nothing is known", hold)
	}
	if hold := holdOf(dir); hold < leastHold {
		t.Errorf("%d bytes are held", hold)
	}
}

// TestAHalfIsToldOfItsOwnEnclaveAlone: what goes to its standard input holds nothing by which it could reach the other one.
func TestAHalfIsToldOfItsOwnEnclaveAlone(t *testing.T) {
	s := State{dir: t.TempDir()}
	g := &guardSide{declared: estate.Node{Name: "guard", Kind: estate.KindGuard, Guard: &estate.GuardSpec{Low: "low", High: "high", Road: estate.Road{Hold: 5 << 40}}}, exercise: true, state: s, dir: s.NodeDir("guard"),
		trusts: map[redoubt.NodeName]redoubt.Trusted{}, tell: func([]redoubt.Trusted, []int) {},
		seeds: map[redoubt.NodeName][]byte{"low": []byte("seed of low"), "high": []byte("seed of high")}, road: roadConfig{Address: "127.0.0.1:9", Key: []byte("road")}}
	for _, name := range []redoubt.NodeName{"low", "high"} {
		if err := os.MkdirAll(s.NodeDir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := writeJSON(filepath.Join(s.NodeDir(name), cardFile), Card{Node: name, Key: "key of " + string(name), Recipient: "recipient of " + string(name), CA: "CA of " + string(name), API: "https://" + string(name)}); err != nil {
			t.Fatal(err)
		}
	}
	for side, other := range map[string]string{HalfLow: "high", HalfHigh: "low"} {
		c, err := g.half(side)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		if side == HalfHigh && c.LowKey != "key of low" || side == HalfLow && c.LowKey != "" { // public: by it bundles of nobody else are refused
			t.Errorf("the half of %s is told the key %q to know bundles by", side, c.LowKey)
		}
		if c.Hold != map[string]int64{HalfHigh: 5 << 40}[side] {
			t.Errorf("the half of %s is told to hold %d bytes", side, c.Hold)
		}
		c.LowKey = ""
		if raw, err = json.Marshal(c); err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{"key of ", "recipient of ", "CA of ", "https://"} {
			if strings.Contains(string(raw), secret+other) {
				t.Errorf("the half of %s is told of the %s%s", side, secret, other)
			}
		}
		if string(c.Seed) != "seed of "+side || c.Card.Node != redoubt.NodeName(side) || filepath.Base(c.Dir) != side {
			t.Errorf("the half of %s is told %s", side, raw)
		}
	}
}

// TestWhatIsSentBetweenHasItsOwnPace, and what it is sent between goes on at its own.
func TestWhatIsSentBetweenHasItsOwnPace(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("..", "bundle", "testdata", "vector", "small.rbundle"))
	if err != nil {
		t.Fatal(err)
	}
	above, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer above.Close()
	low, err := dialRoad(HalfConfig{Road: above.LocalAddr().String(), Pace: 800_000_000}, make([]byte, diode.KeyBytes))
	if err != nil {
		t.Fatal(err)
	}
	defer low.socket.Close()
	var paces []int64
	note := func(context.Context) error { paces = append(paces, low.Rate); return nil }
	err = low.send(t.Context(), bytes.NewReader(raw), int64(len(raw)), true, func(ctx context.Context) error {
		if len(paces) > 0 {
			return note(ctx)
		}
		return errors.Join(note(ctx), low.send(ctx, bytes.NewReader(raw), int64(len(raw)), false, note))
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(paces); n < 6 || n%2 != 0 || paces[0] != 100_000_000 || paces[1] != 800_000_000 || paces[n/2] != 800_000_000 || paces[n/2+1] != 100_000_000 || paces[n-1] != 100_000_000 {
		t.Errorf("they are sent at %v", paces)
	}
}
