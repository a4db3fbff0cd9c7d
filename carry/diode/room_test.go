package diode

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"unsafe"
)

// inMemory is how many are on their way, and how much memory they hold together with what waits for others.
func (p *post) inMemory() (n, held int) {
	p.Stage.mu.Lock()
	defer p.Stage.mu.Unlock()
	for _, b := range p.slabs {
		held += cap(b)
	}
	for _, m := range p.moving {
		held += cap(m.slab)
	}
	return len(p.moving), held
}

// TestMemoryIsUsedAgain: that of two that became files while a third came is of the next two. When nothing is on its way, that of one is kept.
func TestMemoryIsUsedAgain(t *testing.T) {
	const size = 3 << 20
	p := newPost(t, inMemory(64<<20))
	var all [][][]byte
	for i := range uint64(5) {
		all = append(all, record(t, barePlan(), newBundle(t, i+1, size)))
	}
	take := func(which ...[][]byte) {
		for _, datagrams := range which {
			for _, b := range datagrams {
				p.Take(b)
			}
		}
		p.Settle()
	}
	slabs := func() map[*byte]bool {
		out := map[*byte]bool{}
		p.Stage.mu.Lock()
		defer p.Stage.mu.Unlock()
		for _, m := range p.moving {
			out[&m.slab[0]] = true
		}
		return out
	}
	half := func(i int) [][]byte { return all[i][:len(all[i])/2] }
	take(half(0), half(1), half(2))
	first := slabs()
	take(all[0], all[1])
	take(half(3), half(4))
	if second := slabs(); len(first) != 3 || !maps.Equal(first, second) {
		t.Errorf("three lay in %v, two of them and two others in %v", first, second)
	}
	take(all[2], all[3], all[4])
	if n := len(p.files()); n != len(all) || len(p.slabs) != 1 {
		t.Errorf("%d became files, and the memory of %d is kept", n, len(p.slabs))
	}
}

// TestMemoryThatWaitsGivesWay to what comes and does not fit into it.
func TestMemoryThatWaitsGivesWay(t *testing.T) {
	const most = 16 << 20
	p := newPost(t, inMemory(most))
	send(t, newRoad(1, p.Take), barePlan(), newBundle(t, 1, 10<<20))
	p.Settle()
	for i := range uint64(2) {
		for _, b := range record(t, barePlan(), newBundle(t, 2+i, 4<<20))[:3] { // its manifest, and little more
			p.Take(b)
		}
		if n, held := p.inMemory(); held > most || n != int(i)+1 {
			t.Errorf("%d on their way, and what waits, hold %d bytes", n, held)
		}
	}
}

// TestRoomIsOfLargePages, where the system has them: whoever touches it takes a fault for each.
func TestRoomIsOfLargePages(t *testing.T) {
	b := Room(3 * (2 << 20))
	if len(b) != 3*(2<<20) || cap(Room(0)) != 0 || len(Room(5)) != 5 {
		t.Fatal("another length")
	}
	if _, err := os.Stat("/sys/kernel/mm/transparent_hugepage/enabled"); err != nil {
		t.Skip("the system has none")
	}
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Skip(err)
	}
	at, within := uint64(uintptr(unsafe.Pointer(&b[len(b)/2]))), false
	for line := range strings.Lines(string(maps)) {
		var from, to uint64
		if n, _ := fmt.Sscanf(line, "%x-%x ", &from, &to); n == 2 {
			within = from <= at && at < to
		}
		if flags, ok := strings.CutPrefix(line, "VmFlags:"); ok && within {
			if !slices.Contains(strings.Fields(flags), "hg") {
				t.Errorf("the system was not asked for them: %s", flags)
			}
			return
		}
	}
	t.Error("the memory is nowhere")
}

// TestCodersAreKept, and no more of them than are of use.
func TestCodersAreKept(t *testing.T) {
	one, err := coder(17, 3)
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := coder(17, 3); again != one {
		t.Error("the same is made twice")
	}
	for n := range 3 * maxCoders {
		if code, err := coder(n+1, 2); code == nil || err != nil {
			t.Fatal(err)
		}
	}
	if coders.Lock(); len(coders.of) > maxCoders {
		t.Errorf("%d are kept", len(coders.of))
	}
	coders.Unlock()
	if code, err := coder(17, 0); code != nil || err != nil {
		t.Error("without parity there is one")
	}
}
