package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"redoubt/carry/carrytest"
)

// linkPeer is what else brings files over a link.
type linkPeer struct {
	name string
	// ready says why it cannot be measured here.
	ready func() error
	// serve gives the command that takes files in dir at an address.
	serve func(dir, address string) []string
	// prepare makes what is in files ready to be sent, outside of the time that is measured.
	prepare func(ctx context.Context, dir, branch string) error
	// send gives the command that sends it.
	send func(dir, branch, address string) []string
}

// peerLimit is how long a peer may take for one load: more is printed as not done.
const peerLimit = 900 * time.Second

var linkPeers = []linkPeer{
	{
		name:  "rsync",
		ready: func() error { _, err := exec.LookPath("rsync"); return err },
		serve: func(dir, address string) []string {
			return []string{"rsync", "--daemon", "--no-detach", "--config", filepath.Join(dir, "rsyncd.conf"), "--address", address, "--port", "24873"}
		},
		prepare: func(context.Context, string, string) error { return nil },
		send: func(dir, branch, address string) []string {
			return []string{"rsync", "-az", filepath.Join(dir, branch) + "/", "rsync://" + address + ":24873/bench/" + branch + "/"}
		},
	},
	{
		name: "git",
		ready: func() error {
			programs, err := exec.Command("git", "--exec-path").Output()
			if err == nil {
				_, err = os.Stat(filepath.Join(strings.TrimSpace(string(programs)), "git-daemon"))
			}
			return err
		},
		serve: func(dir, address string) []string {
			return []string{"git", "daemon", "--reuseaddr", "--export-all", "--enable=receive-pack", "--base-path=" + filepath.Join(dir, "taken"), "--listen=" + address, "--port=24418"}
		},
		prepare: func(ctx context.Context, dir, branch string) error {
			tree := filepath.Join(dir, branch)
			if _, err := os.Stat(filepath.Join(tree, ".git")); err != nil {
				if err := git(ctx, tree, "init", "-q", "-b", branch); err != nil {
					return err
				}
			}
			return errors.Join(git(ctx, tree, "add", "-A"), git(ctx, tree, "-c", "user.name=bench", "-c", "user.email=bench@localhost", "commit", "-q", "-m", "load"))
		},
		send: func(dir, branch, address string) []string {
			return []string{"git", "-C", filepath.Join(dir, branch), "push", "-q", "git://" + address + ":24418/bench.git", branch}
		},
	},
}

func git(ctx context.Context, dir string, args ...string) error {
	if out, err := exec.CommandContext(ctx, "git", append([]string{"-C", dir}, args...)...).CombinedOutput(); err != nil {
		return fmt.Errorf("git %s: %w: %s", args[0], err, out)
	}
	return nil
}

// peerBench is a peer on a link of its own.
type peerBench struct {
	linkPeer
	dir       string
	link      *emulator
	road      carrytest.Road
	row       row
	t         *table
	random    *rand.Rand
	skip      bool // an earlier load was not done: what builds on it says nothing
	loadFiles []file
}

func runPeer(ctx context.Context, o options, name string, road carrytest.Road, p linkPeer, congestion string, t *table) error {
	who := p.name + " " + congestion
	if err := p.ready(); err != nil {
		fmt.Fprintf(os.Stderr, "link %s  %s is left out: %v (scripts/deps installs it)\n", name, who, err)
		return nil
	}
	dir, err := os.MkdirTemp(o.dir, "peer-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	link, err := startEmulator(name+"-"+p.name+"-"+congestion, road, o.seed)
	if err != nil {
		return err
	}
	defer link.close()
	for _, namespace := range []string{link.namespaceA, link.namespaceB} {
		if err := ip("-n", namespace, "route", "replace", "10.214.0.0/30", "dev", "link0", "congctl", congestion); err != nil {
			fmt.Fprintf(os.Stderr, "link %s  %s is left out: this kernel gives no %s: %v\n", name, who, congestion, err)
			return nil
		}
	}
	b := &peerBench{linkPeer: p, dir: dir, link: link, road: road, row: row{link: name, who: who}, t: t, random: rand.New(rand.NewPCG(o.seed, 2))}
	stop, err := b.daemon(ctx)
	if err != nil {
		return err
	}
	defer stop()
	b.loadFiles = workload200(b.random)
	for _, load := range []func(context.Context) error{b.initial, b.update, b.flash} {
		if err := load(ctx); err != nil {
			return err
		}
	}
	return nil
}

// daemon starts the side that takes.
func (b *peerBench) daemon(ctx context.Context) (stop func(), err error) {
	conf := "use chroot = no\nuid = 0\ngid = 0\n[bench]\npath = " + filepath.Join(b.dir, "taken") + "\nread only = no\n"
	if err := os.MkdirAll(filepath.Join(b.dir, "taken", "bench.git"), 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(b.dir, "rsyncd.conf"), []byte(conf), 0o600); err != nil {
		return nil, err
	}
	if b.name == "git" {
		if err := git(ctx, filepath.Join(b.dir, "taken", "bench.git"), "init", "-q", "--bare"); err != nil {
			return nil, err
		}
	}
	c := b.command(context.Background(), b.link.namespaceB, b.serve(b.dir, b.link.addressB.String()))
	var talk bytes.Buffer
	c.Stdout, c.Stderr = &talk, &talk
	if err := c.Start(); err != nil {
		return nil, err
	}
	return func() { _ = syscall.Kill(-c.Process.Pid, syscall.SIGTERM); _ = c.Wait() }, nil
}

// command runs in a namespace, as a process group of its own.
func (b *peerBench) command(ctx context.Context, namespace string, line []string) *exec.Cmd {
	c := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", namespace}, line...)...)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	c.WaitDelay = 5 * time.Second
	return c
}

// place writes files where they are sent from.
func (b *peerBench) place(ctx context.Context, branch string, files []file) error {
	dir := filepath.Join(b.dir, branch)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(dir, f.name), f.content, 0o600); err != nil {
			return err
		}
	}
	return b.prepare(ctx, b.dir, branch)
}

// push sends a branch, and says how long that took; done is false when it took too long or gave up.
func (b *peerBench) push(ctx context.Context, branch string) (took time.Duration, done bool, err error) {
	limited, cancel := context.WithTimeout(ctx, peerLimit)
	defer cancel()
	start := time.Now()
	out, err := b.command(limited, b.link.namespaceA, b.send(b.dir, branch, b.link.addressB.String())).CombinedOutput()
	if ctx.Err() != nil {
		return 0, false, ctx.Err()
	}
	if err != nil && limited.Err() == nil && b.road.Down == 0 {
		return 0, false, fmt.Errorf("%s: %w: %s", b.name, err, out)
	}
	return time.Since(start), err == nil, nil
}

// load measures one load.
func (b *peerBench) load(ctx context.Context, what, branch string, files []file) error {
	if b.skip {
		return nil
	}
	if err := b.place(ctx, branch, files); err != nil {
		return err
	}
	least, err := packed(files)
	if err != nil {
		return err
	}
	age, before := b.link.age(), b.link.sent()
	took, done, err := b.push(ctx, branch)
	if err != nil {
		return err
	}
	after := b.link.sent()
	r := b.row
	r.what, r.sent = what, [2]int64{after[0] - before[0], after[1] - before[1]}
	if r.floor = b.road.Floor(least, age); done {
		r.took = took
		r.up = b.road.UpTime(age, took).Seconds() / b.road.UpTime(age, r.floor).Seconds()
	} else {
		r.text, b.skip = fmt.Sprintf("not done in %.0f s", took.Seconds()), true
	}
	b.t.add(r)
	return nil
}

func (b *peerBench) initial(ctx context.Context) error {
	return b.load(ctx, initialLoad, "load", b.loadFiles)
}

func (b *peerBench) update(ctx context.Context) error {
	return b.load(ctx, updateLoad, "load", edited(b.random, b.loadFiles))
}

// flash sends 4 KiB ten seconds into a 5 MiB bulk.
func (b *peerBench) flash(ctx context.Context) error {
	if err := b.place(ctx, "bulk", []file{{name: "bulk", content: noise(b.random, bulkBytes)}}); err != nil {
		return err
	}
	if err := b.place(ctx, "flash", []file{{name: "flash", content: noise(b.random, 4*kib)}}); err != nil {
		return err
	}
	bulk, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	defer func() { cancel(); <-ended }()
	go func() {
		defer close(ended)
		_, _, _ = b.push(bulk, "bulk") // what counts is that it is under way
	}()
	select {
	case <-time.After(10 * time.Second):
	case <-ctx.Done():
		return ctx.Err()
	}
	took, done, err := b.push(ctx, "flash")
	if err != nil {
		return err
	}
	r := b.row
	if r.what, r.took = flashLoad, took; !done {
		r.took, r.text = 0, fmt.Sprintf("not done in %.0f s", took.Seconds())
	}
	b.t.add(r)
	return nil
}
