package oci

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Where the machine lets this process have control groups, each sandbox is in one, which bounds it as a whole, with what gVisor and the kernel
// spend on its programs. Where it does not, the keeper's watcher bounds memory and processes, and affinity the processors.

// overheadBytes is what a control group has above the memory and disk of its programs: gVisor's own, as the watcher bounds it, and the keeper's.
const overheadBytes = sentryBytes + 128<<20

// groups is where control groups are made.
type groups struct {
	v2  string            // a folder of the one hierarchy
	v1  map[string]string // or a folder for each controller
	why string            // or neither: why not
}

var controllers = []string{"memory", "pids", "cpu"}

const groupPrefix = "redoubt-oci-"

// findGroups tries what this process may do, and clears what nodes that were killed have left.
func findGroups() *groups {
	g := &groups{}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		g.why = err.Error()
		return g
	}
	const mount = "/sys/fs/cgroup"
	g.v1 = map[string]string{}
	for line := range strings.Lines(string(own)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		for _, c := range strings.Split(f[1], ",") {
			if slices.Contains(controllers, c) {
				g.v1[c] = filepath.Join(mount, c, f[2])
			}
		}
		if f[0] == "0" && g.v2 == "" {
			g.v2 = unified(filepath.Join(mount, f[2]))
		}
	}
	if g.v2 != "" {
		g.v1 = nil
	}
	for _, d := range g.folders() {
		old, _ := filepath.Glob(filepath.Join(d, groupPrefix+"*"))
		for _, o := range old {
			if gone(strings.TrimPrefix(filepath.Base(o), groupPrefix)) { // one that is empty may be about to be used
				os.Remove(o) // fails where something runs in it
			}
		}
	}
	try, err := g.make(bootSpec{Memory: 64 << 20, CPUs: 1, Processes: 16})
	if err != nil {
		return &groups{why: err.Error()}
	}
	try.remove()
	return g
}

// gone says whether the process that made a group runs no more.
func gone(name string) bool {
	maker, _, _ := strings.Cut(name, "-")
	pid, err := strconv.Atoi(maker)
	return err == nil && pid > 0 && syscall.Kill(pid, 0) == syscall.ESRCH
}

// unified gives the folder of cgroup v2 in which groups can be made: our own, or our unit's where we are in a subgroup of it.
func unified(own string) string {
	parent := filepath.Dir(own)
	for _, d := range []string{own, parent} {
		if unit := filepath.Ext(parent); d == parent && unit != ".service" && unit != ".scope" {
			continue
		}
		has, err := os.ReadFile(filepath.Join(d, "cgroup.controllers"))
		if err != nil || !strings.Contains(string(has), "memory") || !strings.Contains(string(has), "pids") {
			continue
		}
		give := "+memory +pids"
		if slices.Contains(strings.Fields(string(has)), "cpu") {
			give += " +cpu"
		}
		if os.WriteFile(filepath.Join(d, "cgroup.subtree_control"), []byte(give), 0) == nil {
			return d
		}
	}
	return ""
}

func (g *groups) folders() (all []string) {
	if g.v2 != "" {
		return []string{g.v2}
	}
	for _, d := range g.v1 {
		all = append(all, d)
	}
	return all
}

// String says which limits hold, for people.
func (g *groups) String() string {
	switch {
	case g.v2 != "":
		return "memory, processes and processors by cgroup v2"
	case len(g.v1) > 0:
		return "memory, processes and processors by cgroup v1"
	}
	return "memory and processes watched, whole processors by affinity; no control group is this process's to use (" + g.why + "): with systemd, Delegate=yes and DelegateSubgroup=node"
}

// group is that of one sandbox.
type group struct {
	dirs []string
	v2   bool
}

// make makes one, or gives an error where none may be had.
func (g *groups) make(b bootSpec) (*group, error) {
	if g.v2 == "" && len(g.v1) < len(controllers) {
		if g.why != "" {
			return nil, errors.New(g.why)
		}
		return nil, errors.New("this process is in none that has memory, pids and cpu")
	}
	name := fmt.Sprintf("%s%d-%s", groupPrefix, os.Getpid(), rand.Text()) // no number: one that went on would count all labels' sandboxes
	n := &group{v2: g.v2 != ""}
	memory, pids := strconv.FormatInt(b.Memory+b.Memory/4+b.Disk+overheadBytes, 10), strconv.Itoa(hostThreads(b.Processes))
	quota := strconv.Itoa(max(1000, int(b.CPUs*100_000)))
	set := func(dir string, values ...string) error {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		n.dirs = append(n.dirs, dir)
		for i := 0; i < len(values); i += 2 {
			if err := os.WriteFile(filepath.Join(dir, values[i]), []byte(values[i+1]), 0); err != nil {
				return err
			}
		}
		return nil
	}
	var err error
	if n.v2 {
		dir := filepath.Join(g.v2, name)
		if err = set(dir, "memory.max", memory, "pids.max", pids); err == nil {
			os.WriteFile(filepath.Join(dir, "memory.swap.max"), []byte("0"), 0)
			os.WriteFile(filepath.Join(dir, "cpu.max"), []byte(quota+" 100000"), 0) // where it is delegated; affinity holds beside it
			os.WriteFile(filepath.Join(dir, "cpu.weight.nice"), []byte(strconv.Itoa(niceness)), 0)
		}
	} else {
		err = errors.Join(set(filepath.Join(g.v1["memory"], name), "memory.limit_in_bytes", memory),
			set(filepath.Join(g.v1["pids"], name), "pids.max", pids),
			set(filepath.Join(g.v1["cpu"], name), "cpu.cfs_period_us", "100000", "cpu.cfs_quota_us", quota, "cpu.shares", strconv.Itoa(niceShares)))
	}
	if err != nil {
		n.remove()
		return nil, err
	}
	return n, nil
}

// add puts a process in, before it has started others.
func (n *group) add(pid int) (err error) {
	if n == nil {
		return nil
	}
	for _, d := range n.dirs {
		err = errors.Join(err, os.WriteFile(filepath.Join(d, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0))
	}
	return err
}

// killed reports whether the kernel has ended something in it for its memory.
func (n *group) killed() bool {
	if n == nil {
		return false
	}
	name := "memory.oom_control"
	if n.v2 {
		name = "memory.events"
	}
	b, err := os.ReadFile(filepath.Join(n.dirs[0], name))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "oom_kill" && f[1] != "0" {
			return true
		}
	}
	return false
}

// remove removes it, once nothing runs in it any more.
func (n *group) remove() {
	if n == nil {
		return
	}
	for _, d := range n.dirs {
		os.Remove(d)
	}
}
