package redoubttest

import (
	"bytes"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"redoubt/estate"
)

// free is a loopback address that no socket has, of datagrams or connections. Another process may take it before it is used.
func free(t *testing.T) string {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		address := l.Addr().String()
		c, err := net.ListenPacket("udp", address)
		l.Close()
		if err == nil {
			c.Close()
			return address
		}
	}
	t.Fatal("no port is free for UDP and TCP")
	return ""
}

// upTwoOutposts brings twoOutposts up; at another port where somebody has taken the one that was free.
func (r *running) upTwoOutposts(t *testing.T, port func(*testing.T) string) {
	t.Helper()
	var s said
	for range 5 {
		if s = r.try("up", r.file("estate.yaml", twoOutposts(port(t))), "--detach"); s.code == 0 {
			return
		}
		if !strings.Contains(s.err, "address already in use") {
			break
		}
		r.try("down")
		if err := os.RemoveAll(r.state); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatalf("up: exit %d\n%s%s", s.code, s.out, s.err)
}

func TestAPortThatIsTakenMeanwhileDoesNotKeepTwoOutpostsFromComingUp(t *testing.T) {
	r := newEstate(t)
	taken, err := net.ListenPacket("udp", free(t))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	asked := 0
	r.upTwoOutposts(t, func(t *testing.T) string {
		if asked++; asked == 1 {
			return taken.LocalAddr().String()
		}
		return free(t)
	})
	if asked != 2 || r.status()["outpost"].State != "ready" {
		t.Errorf("after %d ports the outpost is %+v", asked, r.status()["outpost"])
	}
}

// twoOutposts is the example estate with a second device, which meets the first, at an address, when their home is gone.
func twoOutposts(at string) string {
	text := string(estate.ExampleText)
	begin := strings.Index(text, "  - name: outpost")
	end := begin + strings.Index(text[begin:], "\n  - name: unclass-secret")
	device := text[begin:end]
	first := strings.Replace(device, "    lease: 72h\n", "    lease: 72h\n    peers: {listen: \""+at+"\"}\n", 1)
	second := strings.Replace(strings.Replace(device, "name: outpost", "name: patrol", 1), "    lease: 72h\n", "    lease: 72h\n    meets: [outpost]\n", 1)
	return text[:begin] + first + second + text[end:]
}

func TestTwoDevicesMeetWithoutTheirHomeAndTheirWorkGoesOnToIt(t *testing.T) {
	r := newEstate(t)
	r.upTwoOutposts(t, free)
	_, outpost := r.env("s-analyst", "outpost")
	_, patrol := r.env("s-analyst", "patrol")
	_, home := r.env("s-analyst", "secret")
	home.put(t, "old", []byte("to be removed while the home is gone"))
	r.must("link", "wait", "outpost", "--timeout", "120s")
	r.must("link", "wait", "patrol", "--timeout", "120s")
	pid := r.status()["secret"].PID
	syscall.Kill(pid, syscall.SIGKILL)
	until(t, "the home is gone", func() bool { return !alive(pid) })
	large := tracks(3 << 20)
	patrol.put(t, "sighting", large)
	outpost.put(t, "orders", []byte("to the patrol"))
	within(t, 2*time.Minute, "each has what the other wrote", func() bool {
		return bytes.Equal(outpost.get(t, "sighting"), large) && string(patrol.get(t, "orders")) == "to the patrol"
	})
	// The patrol is lost for good. What it wrote comes home by the outpost.
	pid = r.status()["patrol"].PID
	syscall.Kill(pid, syscall.SIGKILL)
	until(t, "the patrol is gone", func() bool { return !alive(pid) })
	r.serve(t, "secret")
	_, home = r.env("s-analyst", "secret")
	within(t, 2*time.Minute, "the home has what the patrol wrote", func() bool { return bytes.Equal(home.get(t, "sighting"), large) })
	// When the home has revoked the patrol and the outpost has heard of it, it meets it no more, home or not.
	r.must("device", "revoke", "patrol", "--reason", "lost", "--as", "officer@secret")
	r.must("link", "wait", "outpost", "--timeout", "120s")
	until(t, "the outpost has no link to the patrol", func() bool {
		return !strings.Contains(r.must("link", "ls", "--as", "s-analyst@outpost", "--json"), `"patrol"`)
	})
}
