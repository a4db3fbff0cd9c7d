package oci

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/lisafs"
	"gvisor.dev/gvisor/runsc/boot"

	"redoubt/sandbox"
)

// keeperName is how our binary is executed to keep one sandbox.
const keeperName = "redoubt-oci-keeper"

// The keeper's descriptors beside the standard three.
const (
	wireFD  = 3 // frames
	filesFD = 4 // descriptors for runs
)

// entered is set once Enter was called: a program that does not call it would be executed anew as itself.
var entered atomic.Bool

// Enter must come first in the main of every program that makes a Driver, and in that of its tests, before sandbox.Enter of Workers. In a process that a driver started it becomes
// what that is for and does not return; in any other it does nothing.
func Enter() {
	entered.Store(true)
	name := ""
	if len(os.Args) > 0 {
		name = os.Args[0]
	}
	switch {
	case name == keeperName:
		os.Exit(keep())
	case name == sentryName, name == "/proc/self/exe" && len(os.Args) > 1 && os.Args[1] == "umount":
		sentry()
	}
}

// keep is the keeper: the first process of its own process, user, mount and network namespaces, with no right over anything outside of them. It
// starts gVisor and serves it /in and /out. It ends when its node does, and all that is in its namespaces with it.
func keep() int {
	conn, err := net.FileConn(os.NewFile(wireFD, "wire"))
	if err != nil {
		return 2
	}
	files, err := net.FileConn(os.NewFile(filesFD, "files"))
	if err != nil {
		return 2
	}
	k := &keeper{wire: newWire(conn, maxFromNode), files: files.(*net.UnixConn), asked: map[uint64]chan frame{}}
	if err := k.serve(); err != nil && err != io.EOF {
		k.wire.send(tellFault, 0, []byte(err.Error()))
		return 1
	}
	return 0
}

// dir is where a keeper has a file system of its own, in memory, and outDir where the contents of /out are, in one of their own whose size is
// their limit.
const (
	dir    = "/tmp"
	outDir = "/tmp/out"
)

type keeper struct {
	wire   *wire
	files  *net.UnixConn
	boot   bootSpec
	g      *gvisor
	net    *network // nil: none
	in     *places
	memory *os.File // of all programs in the sandbox
	statm  *os.File // of gVisor
	null   *os.File

	mu    sync.Mutex // guards what follows
	asked map[uint64]chan frame
	last  uint64
}

func (k *keeper) serve() error {
	if err := k.wire.expect(doBoot, &k.boot); err != nil {
		return err
	}
	shared, err := k.takeDescriptors(1)
	if err != nil {
		return err
	}
	window := os.NewFile(uintptr(shared[0]), "window")
	if k.in, err = newPlaces(window); err != nil {
		return err
	}
	window.Close()
	if err := k.prepare(); err != nil {
		return err
	}
	if k.boot.Devices {
		fds, err := k.takeDescriptors(1)
		if err != nil {
			return err
		}
		if err := unix.MoveMount(fds[0], "", unix.AT_FDCWD, "/dev", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fmt.Errorf("devices of its own: %w", err)
		}
		unix.Close(fds[0])
	}
	if k.null, err = os.Open(os.DevNull); err != nil {
		return err
	}
	if k.boot.Runc == "" {
		err = k.startKernel()
	}
	if err != nil {
		return err
	}
	if err := k.wire.send(tellReady, 0, nil); err != nil {
		return err
	}
	return k.work()
}

// startKernel starts gVisor, and gives up all that it was needed for.
func (k *keeper) startKernel() (err error) {
	links := &boot.CreateLinksAndRoutesArgs{LoopbackLinks: []boot.LoopbackLink{boot.DefaultLoopbackLink}}
	if k.boot.linked() {
		of, err := callers(), error(nil)
		if !k.boot.Serves {
			of, err = newNamed(k.boot.Network)
		}
		if err != nil {
			return err
		}
		var theirs *os.File
		if k.net, theirs, err = newNetwork(of, k.connect); err != nil {
			return err
		}
		defer theirs.Close()
		links = of.links(theirs)
	}
	if k.g, err = startSentry(dir, k.boot, links); err != nil {
		return err
	}
	if k.memory, err = k.g.memory(); err != nil {
		return err
	}
	if k.statm, err = os.Open(fmt.Sprintf("/proc/%d/statm", k.g.cmd.Process.Pid)); err != nil {
		return err
	}
	// From here on it serves what may be hostile: it has nothing left but its own folder and what is open.
	return sandbox.Enclose([]string{dir}, nil)
}

// work runs what the node tells, until that has gone.
func (k *keeper) work() error {
	run := k.run
	if k.boot.Runc != "" {
		run = k.runTrusted
	}
	runs := make(chan runSpec)
	failed := make(chan error, 1)
	go func() { // reads all frames; ends when the node has gone, and the process with it
		for {
			f, err := k.wire.receive()
			if err != nil {
				os.Exit(0)
			}
			switch f.kind {
			case answer:
				k.answered(f)
			case doConnect:
				fds, err := k.takeDescriptors(1)
				if err != nil {
					failed <- err
					return
				}
				f.end = os.NewFile(uintptr(fds[0]), "connection")
				if k.net != nil {
					k.net.connected(f.number)
				}
				k.answered(f)
			case doCut:
				if k.net != nil {
					k.net.cut(f.number)
				}
			case doDial:
				var s dialSpec
				err := json.Unmarshal(f.payload, &s)
				if err == nil {
					err = k.dial(s)
				}
				if err != nil {
					failed <- err
					return
				}
			case doRun:
				var r runSpec
				if err := json.Unmarshal(f.payload, &r); err != nil {
					failed <- err
					return
				}
				runs <- r
			}
		}
	}()
	for {
		select {
		case err := <-failed:
			return err
		case r := <-runs:
			if err := run(r); err != nil {
				return err
			}
		}
	}
}

// prepare makes this process harmless to others, and its folder one in memory.
func (k *keeper) prepare() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("a mount namespace: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("a /proc of its own (where this runs in a container, its engine may not hide parts of /proc): %w", err)
	}
	tasks, err := filepath.Glob("/proc/self/task/*")
	if err != nil {
		return err
	}
	for _, t := range tasks { // what is started from any of them begins so
		if tid, err := strconv.Atoi(filepath.Base(t)); err == nil {
			unix.Setpriority(unix.PRIO_PROCESS, tid, niceness)
			k.onProcessors(tid)
		}
	}
	if err := memoryAt(dir, "mode=0700,size=1m"); err != nil {
		return err
	}
	if err := os.Mkdir(outDir, 0o700); err != nil {
		return err
	}
	if err := memoryAt(outDir, fmt.Sprintf("mode=0700,size=%d,nr_inodes=%d", k.boot.Disk, maxOutFiles+16)); err != nil {
		return err
	}
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err == nil {
		files.Cur = files.Max
		syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: files.Cur, Max: files.Max})
	}
	procs := uint64(hostThreads(k.boot.Processes))
	for what, to := range map[int]uint64{unix.RLIMIT_CORE: 0, unix.RLIMIT_NPROC: procs} {
		if err := unix.Prlimit(0, what, &unix.Rlimit{Cur: to, Max: to}, nil); err != nil {
			return fmt.Errorf("limit %d: %w", what, err)
		}
	}
	return nil
}

// memoryAt puts a file system in memory over a folder.
func memoryAt(at, options string) error {
	if err := unix.Mount("keeper", at, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, options); err != nil {
		return fmt.Errorf("a file system in memory: %w", err)
	}
	return nil
}

// emptied removes the contents of a run. None is left open: its servers have gone.
func emptied(dir string) error {
	all, err := os.ReadDir(dir)
	for _, e := range all {
		err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
	}
	return err
}

// onProcessors leaves a thread as many processors as the sandbox may use at once.
func (k *keeper) onProcessors(tid int) {
	var all, some unix.CPUSet
	if unix.SchedGetaffinity(0, &all) != nil {
		return
	}
	want := max(1, int(k.boot.CPUs+0.999))
	if all.Count() <= want {
		return
	}
	// Which ones is drawn, so that sandboxes do not all press on the first.
	for at, skip := 0, int(maphash.Bytes(maphash.MakeSeed(), nil)%uint64(all.Count())); want > 0; at = (at + 1) % 1024 {
		if !all.IsSet(at) {
			continue
		}
		if skip > 0 {
			skip--
			continue
		}
		some.Set(at)
		want--
	}
	unix.SchedSetaffinity(tid, &some)
}

// answered hands an answer to who asked.
func (k *keeper) answered(f frame) {
	k.mu.Lock()
	c := k.asked[f.number]
	delete(k.asked, f.number)
	k.mu.Unlock()
	switch {
	case c != nil:
		c <- f
	case f.end != nil:
		f.end.Close()
	}
}

// question asks the node, and waits for what it says.
func (k *keeper) question(kind byte, payload []byte) (f frame, number uint64, err error) {
	c := make(chan frame, 1)
	k.mu.Lock()
	k.last++
	number = k.last
	k.asked[number] = c
	k.mu.Unlock()
	if err := k.wire.send(kind, number, payload); err != nil {
		return f, 0, err
	}
	return <-c, number, nil
}

// ask asks for what an answer holds.
func (k *keeper) ask(kind byte, payload []byte) ([]byte, unix.Errno) {
	f, _, err := k.question(kind, payload)
	if err != nil || len(f.payload) < 4 {
		return nil, unix.EIO
	}
	return f.payload[4:], unix.Errno(binary.BigEndian.Uint32(f.payload))
}

func (k *keeper) tell(kind byte, payload []byte) { k.wire.send(kind, 0, payload) }

// run runs one program to its end, and gives its outputs. An error is the sandbox's end.
func (k *keeper) run(r runSpec) error {
	stdio, root, err := k.takeFiles()
	if err != nil {
		return err
	}
	out := newOutFS(outDir, r.Process.UID, r.Process.GID)
	in := &inFS{root: fileInfo{Dir: true}, in: k.in, ask: k.ask, tell: k.tell, seed: maphash.MakeSeed()}
	inEnd, inServer, err := serveFiles("/in", in, true)
	if err != nil {
		return err
	}
	outEnd, outServer, err := serveFiles("/out", out, false)
	if err != nil {
		return err
	}
	servers, files := []*lisafs.Server{inServer, outServer}, []*os.File{root, inEnd, outEnd}
	if k.net != nil {
		end, server, err := serveFiles("/etc/hosts", hostsFS(k.net.hosts), true)
		if err != nil {
			return err
		}
		servers, files = append(servers, server), append(files, end)
	}
	gone := func() error {
		for _, s := range servers {
			s.Wait()
			s.Destroy()
		}
		return emptied(outDir)
	}
	given := slices.Concat(stdio, files)
	err = k.g.start(r, k.boot.Disk, stdio, files)
	for _, f := range given {
		f.Close()
	}
	if err != nil {
		if !k.alive() {
			return err
		}
		err = k.wire.sendJSON(tellEnded, 0, ending{Code: -1, Why: err.Error()})
		return errors.Join(err, k.g.destroy(r.ID), gone())
	}
	if err := k.wire.send(tellStarted, 0, nil); err != nil {
		return err
	}
	watched := k.watch(r.ID)
	ws, err := k.g.wait(r.ID)
	if why := watched.stop(); why != "" { // the sandbox is no more of use, and the node ends this process
		return k.wire.sendJSON(tellEnded, 0, ending{Code: -1, Why: why})
	}
	if err != nil {
		return fmt.Errorf("the sandbox ended: %w", err)
	}
	// What the program started goes, and what it had mapped is written, before its outputs are looked at.
	if err := k.g.destroy(r.ID); err != nil {
		return err
	}
	inServer.Wait()
	outServer.Wait()
	e := ending{Code: ws.ExitStatus()}
	if ws.Signaled() {
		e.Code, e.Signal = 128+int(ws.Signal()), int(ws.Signal())
	}
	if err := k.wire.sendJSON(tellEnded, 0, e); err != nil {
		return err
	}
	if e.Code == 0 {
		if err := out.walk(k.give(out)); err != nil {
			return err
		}
	}
	if err := k.wire.send(tellDone, 0, nil); err != nil {
		return err
	}
	return gone()
}

// alive reports whether gVisor still answers.
func (k *keeper) alive() bool {
	_, err := k.g.processes(sandboxID)
	return err == nil
}
