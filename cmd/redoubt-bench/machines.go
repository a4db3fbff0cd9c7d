package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"time"
)

// machines gives each server as large a share of a processor as the others, whatever they leave of theirs, by control groups: as if each had
// a machine of its own, a slow one. Disk and memory they still share; clients have what is left. nil: all share what there is.
type machines struct {
	dir    string   // the groups' parent
	groups []string // in it
	share  float64
	v1     bool
}

const quotaPeriod = 10_000 // µs: short, that nobody stands still for long

// newMachines makes room for groups of version 2 or of version 1's cpu controller; for no share it makes none. It needs root.
func newMachines(share float64) (*machines, error) {
	const root = "/sys/fs/cgroup"
	if share == 0 {
		return nil, nil
	}
	if most := float64(runtime.NumCPU()) / 5; share < 0.1 || share > most { // four servers, and as much for who uses them
		return nil, fmt.Errorf("-share is at least 0.1 of a processor, and here at most %.1f", most)
	}
	m := &machines{share: share}
	name := fmt.Sprintf("redoubt-bench-%d", os.Getpid())
	if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err != nil {
		m.v1, m.dir = true, filepath.Join(root, "cpu", name)
		return m, os.Mkdir(m.dir, 0o755)
	}
	m.dir = filepath.Join(root, name)
	if err := control(root, "cgroup.subtree_control", "+cpu"); err != nil {
		return nil, err
	}
	if err := os.Mkdir(m.dir, 0o755); err != nil {
		return nil, err
	}
	if err := control(m.dir, "cgroup.subtree_control", "+cpu"); err != nil {
		m.end()
		return nil, err
	}
	return m, nil
}

// give puts a process on the machine of that name.
func (m *machines) give(name string, pid int) error {
	if m == nil {
		return nil
	}
	group := filepath.Join(m.dir, name)
	quota := strconv.Itoa(int(m.share * quotaPeriod))
	if err := os.MkdirAll(group, 0o755); err != nil {
		return err
	}
	if !slices.Contains(m.groups, group) {
		m.groups = append(m.groups, group)
	}
	var err error
	if m.v1 {
		err = errors.Join(control(group, "cpu.cfs_period_us", strconv.Itoa(quotaPeriod)), control(group, "cpu.cfs_quota_us", quota))
	} else {
		err = control(group, "cpu.max", quota+" "+strconv.Itoa(quotaPeriod))
	}
	return errors.Join(err, control(group, "cgroup.procs", strconv.Itoa(pid)))
}

// end removes the groups. A process leaves its group a little after its end is known.
func (m *machines) end() {
	if m == nil {
		return
	}
	for _, g := range append(m.groups, m.dir) {
		err := os.Remove(g)
		for range 200 {
			if err == nil {
				break
			}
			time.Sleep(10 * time.Millisecond)
			err = os.Remove(g)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "redoubt-bench: a control group is left:", err)
		}
	}
}

func control(group, file, value string) error {
	return os.WriteFile(filepath.Join(group, file), []byte(value), 0o644)
}
