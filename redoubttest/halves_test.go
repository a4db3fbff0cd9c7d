package redoubttest

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// roadBetween joins two machines by a cable: on it one address of each. The upper one answers nobody by itself, as behind a diode: no ARP, no IPv6.
func roadBetween(t *testing.T, below, above *alone, down, up string) {
	t.Helper()
	ip := func(args ...string) string {
		out, err := exec.Command("ip", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("ip %q: %s", args, out)
		}
		return string(out)
	}
	ip("-n", below.ns, "link", "add", "road", "type", "veth", "peer", "name", "road", "netns", above.ns)
	for _, m := range []*alone{below, above} {
		if out, err := exec.Command("ip", "netns", "exec", m.ns, "sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/road/disable_ipv6").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	ip("-n", below.ns, "addr", "add", down+"/30", "dev", "road")
	ip("-n", above.ns, "addr", "add", up+"/30", "dev", "road")
	ip("-n", above.ns, "link", "set", "road", "arp", "off", "multicast", "off", "up")
	ip("-n", below.ns, "link", "set", "road", "up")
	mac := regexp.MustCompile(`link/ether (\S+)`).FindStringSubmatch(ip("-n", above.ns, "link", "show", "road"))
	ip("-n", below.ns, "neigh", "add", up, "lladdr", mac[1], "dev", "road", "nud", "permanent")
}

// onTheRoad is how many packets a machine has sent and got over the cable.
func (a *alone) onTheRoad() (sent, got int64) {
	a.t.Helper()
	out, err := exec.Command("ip", "-n", a.ns, "-s", "-j", "link", "show", "road").Output()
	var all []struct {
		Stats struct {
			Rx, Tx struct{ Packets int64 }
		} `json:"stats64"`
	}
	if err == nil {
		err = json.Unmarshal(out, &all)
	}
	if err != nil || len(all) != 1 {
		a.t.Fatalf("%v: %s", err, out)
	}
	return all[0].Stats.Tx.Packets, all[0].Stats.Rx.Packets
}

// say sends a datagram from this machine. The thread that was moved into its namespace is never used again.
func (a *alone) say(address, what string) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		ns, err := os.Open("/run/netns/" + a.ns)
		if err == nil {
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
			ns.Close()
		}
		if err == nil {
			var c net.Conn
			if c, err = net.Dial("udp4", address); err == nil {
				_, err = c.Write([]byte(what))
				c.Close()
			}
		}
		done <- err
	}()
	return <-done
}

// must is ask for what succeeds.
func (a *alone) must(args ...string) string {
	a.t.Helper()
	s := a.ask(args...)
	if s.code != 0 {
		a.t.Fatalf("%q: exit %d: %s", args, s.code, s.err)
	}
	return s.out
}

// apartEstate is an estate of two enclaves, without the guard: its people's keys are files.
const apartEstate = `redoubt: 1
name: apart
serial: 1
policy: USA
nodes:
  - {name: low, range: {floor: U, ceiling: U}, buckets: [reports]}
  - {name: high, range: {floor: U, ceiling: S}, buckets: [reports]}
people:
  - {name: o1, clearance: SECRET, nation: USA, roles: [officer], expires: 2090-01-01, public_key: KEY}
  - {name: o2, clearance: SECRET, nation: USA, roles: [officer], expires: 2090-01-01, public_key: KEY}
  - {name: an, clearance: SECRET, nation: USA, roles: [analyst], expires: 2090-01-01, public_key: KEY}
`

// TestNothingComesBackOverTheRoadBetweenTwoMachines: the halves of a guard on two machines, joined by a cable. Versions go up it, and not one packet
// goes down: no answer of the program's, and none of the kernel's where that was told to give none.
func TestNothingComesBackOverTheRoadBetweenTwoMachines(t *testing.T) {
	mustRoot(t, "network namespaces")
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip(err)
	}
	const down, up, at = "10.214.0.1", "10.214.0.2", "10.214.0.2:4790"
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, text string) string {
		t.Helper()
		if err := os.WriteFile(path(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path(name)
	}
	below, above := newAlone(t, 41), newAlone(t, 42)
	roadBetween(t, below, above, down, up)
	pass := write("pass", "a long enough passphrase\n")
	below.env = []string{"REDOUBT_PASSPHRASE_FILE=" + pass}
	above.env = below.env

	// The two enclaves, and then the estate with the guard, which pins them.
	text := apartEstate
	for _, name := range []string{"o1", "o2", "an"} {
		fields := strings.Fields(below.must("person", "key", path(name+".key")))
		text = strings.Replace(text, "KEY", fields[len(fields)-1], 1)
	}
	issue := func(name, text string) string {
		file := write(name, text)
		for _, officer := range []string{"o1", "o2"} {
			below.must("estate", "sign", file, "--as", officer, "--key", path(officer+".key"))
		}
		return file
	}
	first := issue("one.yaml", text)
	stopLow, stopHigh := below.serve("low", "--estate", first), above.serve("high", "--estate", first)
	pins := ""
	for name, m := range map[string]*alone{"low": below, "high": above} {
		s := m.ask("node", "card", name)
		pins += indent(strings.TrimPrefix(s.err, "pins:\n"))
	}
	keys := below.must("guard", "key", "low-high", "--low", "low", "--high", "high", "--half", "low") + above.must("guard", "key", "low-high", "--low", "low", "--high", "high", "--half", "high")
	keys = regexp.MustCompile(`:  +`).ReplaceAllString(keys, ": ")
	guard := fmt.Sprintf("  - name: low-high\n    kind: guard\n    low: low\n    high: high\n    road: {listen: %q, from: %q, pace: 100Mbit}\n%s    pins:\n%speople:\n", at, down, indent(keys), pins)
	second := issue("two.yaml", strings.NewReplacer("serial: 1", "serial: 2", "people:\n", guard).Replace(text))
	stopLow()
	stopHigh()
	below.serve("low", "--estate", second)
	above.serve("high", "--estate", second)

	// Both halves, with the key of the road in a file of each.
	road := path("road.key")
	below.must("diode", "key", road)
	above.serve("low-high", "--half", "high", "--road-key", road, "--estate", second)
	below.serve("low-high", "--half", "low", "--road-key", road, "--estate", second)
	halfRuns := func(m *alone, side string) func() bool {
		return func() bool {
			s := m.try("doctor")
			return strings.Contains(s.out, "its "+side+" half runs here; how the other does is not known here")
		}
	}
	until(t, "the high half runs", halfRuns(above, "high"))
	until(t, "the low half runs", halfRuns(below, "low"))

	if err := os.WriteFile(path("small"), []byte("what was put below"), 0o600); err != nil {
		t.Fatal(err)
	}
	noise := make([]byte, 3<<20)
	rand.NewChaCha8([32]byte{1}).Read(noise)
	large := write("large", string(noise))
	for name, file := range map[string]string{"small": path("small"), "large": large} {
		below.must("put", file, "s3://reports/"+name, "--as", "an@low", "--key", path("an.key"), "--label", "U")
	}
	for name, file := range map[string]string{"small": path("small"), "large": large} {
		got := path("got-" + name)
		until(t, name+" is above", func() bool {
			return above.ask("get", "s3://low.reports/"+name, got, "--as", "an@high", "--key", path("an.key")).code == 0
		})
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if has, err := os.ReadFile(got); err != nil || string(has) != string(want) {
			t.Errorf("%s came as %d bytes, %v", name, len(has), err)
		}
	}
	for range 20 { // what is no datagram of the guard's has no answer either
		if err := below.say(at, "is anybody there"); err != nil {
			t.Fatal(err)
		}
	}
	sent, got := above.onTheRoad()
	if sent != 0 || got < 1000 {
		t.Errorf("above %d packets came, and %d were sent down", got, sent)
	}
	// That one would have been seen:
	if err := above.say(down+":9", "an answer"); err != nil {
		t.Fatal(err)
	}
	if sent, _ := above.onTheRoad(); sent == 0 {
		t.Error("a packet that goes down is not seen")
	}
}

// indent puts four spaces before every line.
func indent(text string) string {
	return regexp.MustCompile(`(?m)^(.)`).ReplaceAllString(text, "    $1")
}
