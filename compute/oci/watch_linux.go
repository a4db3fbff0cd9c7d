package oci

import (
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	niceness   = 10  // of all that runs in a sandbox, below the node,
	niceShares = 110 // and of its control group, in which niceness counts among its own alone: what the kernel gives one so nice, where the node has 1,024

	sentryBytes = 256 << 20 // of memory that gVisor may have for itself, and a quarter of its programs'

	memoryEvery    = 10 * time.Millisecond
	processesEvery = 20 * time.Millisecond
)

// hostThreads is how many threads of the machine a sandbox may have at once. gVisor has some for each of its programs', and where it gets none it
// dies: so this is far above what the watcher ends, and holds what is faster than the watcher.
func hostThreads(processes int) int { return 4*processes + 1024 }

// watcher ends a sandbox whose programs use more than they may. What a sandbox's programs have of memory is all in one file, whose size the
// kernel tells at once and truly: also what they have written into their root, /tmp and caches.
type watcher struct {
	k    *keeper
	id   string
	end  chan struct{}
	ends func() // the sandbox, or the program
	done sync.WaitGroup

	mu  sync.Mutex
	why string
}

// watch watches until stop, which tells why the sandbox was ended, or "".
func (k *keeper) watch(id string) *watcher {
	w := &watcher{k: k, id: id, end: make(chan struct{}), ends: func() { k.g.cmd.Process.Kill() }}
	w.done.Go(w.memory)
	w.done.Go(w.processes)
	return w
}

func (w *watcher) stop() string {
	close(w.end)
	w.done.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.why
}

// kill ends the sandbox.
func (w *watcher) kill(why string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.why == "" {
		w.why = why
		w.ends()
	}
}

func (w *watcher) every(d time.Duration, look func() bool) {
	t := time.NewTicker(d)
	defer t.Stop()
	for look() {
		select {
		case <-w.end:
			return
		case <-t.C:
		}
	}
}

func (w *watcher) memory() {
	w.every(memoryEvery, func() bool {
		used, err := fileBytes(w.k.memory)
		if err != nil {
			w.kill("its memory could not be watched: " + err.Error())
			return false
		}
		if used > w.k.boot.Memory {
			w.kill(outOfMemory(w.k.boot.Memory))
			return false
		}
		// What the kernel of the sandbox keeps for its programs (open files, names, sockets) is its own, and bounded too.
		if own, err := ownBytes(w.k.statm); err == nil && own > sentryBytes+w.k.boot.Memory/4 {
			w.kill(outOfMemory(w.k.boot.Memory))
			return false
		}
		return true
	})
}

// ownBytes is the memory of a process that is no file's, by its statm.
func ownBytes(statm *os.File) (int64, error) {
	b := make([]byte, 256)
	n, err := statm.ReadAt(b, 0)
	if n == 0 {
		return 0, err
	}
	var size, resident, shared int64
	_, err = fmt.Sscan(string(b[:n]), &size, &resident, &shared)
	return (resident - shared) * int64(os.Getpagesize()), err
}

func outOfMemory(limit int64) string {
	return fmt.Sprintf("out of memory: it may use %d MiB, with what it writes into its root and /tmp; ask for more with --memory", limit>>20)
}

func tooMany(most int) string {
	return fmt.Sprintf("too many processes: it may have %d at once, threads among them; ask for more with --processes", most)
}

func fileBytes(f *os.File) (int64, error) {
	var s unix.Stat_t
	err := unix.Fstat(int(f.Fd()), &s)
	return s.Blocks * 512, err
}

func (w *watcher) processes() {
	w.every(processesEvery, func() bool {
		n, err := w.k.g.processes(w.id)
		if err != nil { // it has ended, or the sandbox has: wait tells
			return false
		}
		if n <= w.k.boot.Processes {
			return true
		}
		w.kill(tooMany(w.k.boot.Processes))
		return false
	})
}
