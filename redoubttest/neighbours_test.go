package redoubttest

import (
	"bytes"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"redoubt/estate"
)

// twoOutposts is the example estate with a second device, which meets the first when their home is gone.
func twoOutposts(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	text := string(estate.ExampleText)
	at := strings.Index(text, "  - name: outpost")
	end := at + strings.Index(text[at:], "\npeople:")
	device := text[at:end]
	first := strings.Replace(device, "    lease: 72h\n", "    lease: 72h\n    peers: {listen: \""+l.Addr().String()+"\"}\n", 1)
	second := strings.Replace(strings.Replace(device, "name: outpost", "name: patrol", 1), "    lease: 72h\n", "    lease: 72h\n    meets: [outpost]\n", 1)
	return text[:at] + first + second + text[end:]
}

func TestTwoDevicesMeetWithoutTheirHomeAndTheirWorkGoesOnToIt(t *testing.T) {
	r := newEstate(t)
	r.must("up", r.file("estate.yaml", twoOutposts(t)), "--detach")
	_, outpost := r.env("s-analyst", "outpost")
	_, patrol := r.env("s-analyst", "patrol")
	_, home := r.env("s-analyst", "secret")
	home.put(t, "old", []byte("to be removed while the home is gone"))
	r.must("link", "wait", "outpost", "--timeout", "30s")
	r.must("link", "wait", "patrol", "--timeout", "30s")
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
	r.must("link", "wait", "outpost", "--timeout", "30s")
	until(t, "the outpost has no link to the patrol", func() bool {
		return !strings.Contains(r.must("link", "ls", "--as", "s-analyst@outpost", "--json"), `"patrol"`)
	})
}
