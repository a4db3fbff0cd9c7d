// Package wasm runs WebAssembly modules (WASI preview 1) by wazero, each in a process of its own behind the walls of package sandbox: a module that
// breaks out of the runtime finds no keys, no network and no files but its own.
//
// A module is compiled once for each share, by a worker that runs nothing of it; what comes of that is kept sealed. A worker that runs one is told
// what was compiled, and asks for each name under /in as the module does. What the module leaves below /out lies in the worker's own memory, and is
// handed over when it has ended well.
package wasm

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"redoubt"
	"redoubt/compute"
	"redoubt/sandbox"
)

// What a worker has beside the module's own memory, and what compiling may take.
const (
	workerMemory  = 256 << 20
	compileMemory = 2 << 30
	compileDisk   = 256 << 20
	compileTime   = 2 * time.Minute
	loadTime      = time.Minute // that a worker may take to have ready what was compiled
	madeBytes     = 256 << 20   // of what was compiled that is kept in memory
	makeNiceness  = 10          // of compiling, which has its time
	handOverTime  = time.Minute // that a worker may take to hand over what its module left,
	handOverPace  = 1 << 20     // and for what its disk holds the time at so many bytes a second
)

// niceness is that of jobs: beside a processor that requests keep busy they have a seventieth of it, and all that these leave. Tests, which run beside
// others, have it be less.
var niceness = 19

// version is of what was compiled, and how it is kept: another one compiles anew.
const version = "wazero-1.12.0-bare"

// Driver runs modules.
type Driver struct {
	binary    *sandbox.Binary
	available func() error
	spares    spares

	mu     sync.Mutex
	target string           // of what is compiled here; "": nothing was yet
	made   map[string]*made // by share and module
	bytes  int
}

// New makes a driver. Its workers are those of a binary whose main is sandbox.Enter(Workers()), or, where there is none, of our own, whose main begins so.
func New(binary *sandbox.Binary) *Driver {
	d := &Driver{binary: binary, made: map[string]*made{}, available: sync.OnceValue(func() error {
		_, err := sandbox.Available()
		return err
	})}
	d.spares = spares{shelves: map[shelfKey]*shelf{}, life: spareLife, ends: endTime, start: d.start}
	return d
}

// Available says what the machine lacks.
func (d *Driver) Available() error { return d.available() }

// Close ends the workers that stand ready, and waits for those that have said their last word. It is called when no Run is under way.
func (d *Driver) Close() error {
	d.spares.close()
	return nil
}

// Run runs a module once.
func (d *Driver) Run(ctx context.Context, t compute.Task) (compute.Exit, error) {
	if len(t.Spec.Network) > 0 {
		return compute.Exit{Code: -1, Why: "a WebAssembly module has no network: leave out --network, or run an image"}, nil
	}
	m, exit, err := d.compiled(ctx, t, nil)
	if m == nil {
		return exit, err
	}
	key := shelfKey{lane: t.Lane(), share: t.Share(), module: t.Spec.Module, memory: t.Limits.Memory, disk: t.Limits.Disk, timeout: t.Timeout}
	r := d.spares.take(key, m)
	s := newSession(t)
	exit, err = s.run(ctx, r)
	if s.begun || ctx.Err() != nil {
		return exit, err
	}
	// It ended before it was told anything: another one does what it was for.
	if u := (*unfit)(nil); errors.As(r.said, &u) {
		if m, exit, err = d.compiled(ctx, t, m); m == nil {
			return exit, err
		}
	}
	d.spares.mu.Lock()
	r = d.spares.begin(key, m)
	d.spares.mu.Unlock()
	return newSession(t).run(ctx, r)
}

// targetOf is what wazero calls what it compiles here of the least module there is. The name is of its version, the machine's kind, and what its processor
// can do: what was compiled elsewhere, or before one of them changed, is looked for in vain.
func (d *Driver) targetOf(ctx context.Context) (string, compute.Exit, error) {
	d.mu.Lock()
	target := d.target
	d.mu.Unlock()
	if target != "" {
		return target, compute.Exit{}, nil
	}
	all, exit, err := d.compileOnce(ctx, []byte("\x00asm\x01\x00\x00\x00"))
	if err != nil || exit.Code != 0 {
		return "", exit, err
	}
	m, err := readMade(all)
	if err != nil {
		return "", compute.Exit{}, err
	}
	sum := sha256.Sum256([]byte(m.name))
	d.mu.Lock()
	defer d.mu.Unlock()
	d.target = hex.EncodeToString(sum[:16])
	return d.target, compute.Exit{}, nil
}

// keptAs is the name under which what was compiled of a module is kept.
func keptAs(target, module string) string { return version + "-" + target + "/" + module }

// compiled gives what was compiled of the module, compiling it where that is not there. nil: exit says why there is none, or err. not: what was found to be
// of no use, and is dropped.
func (d *Driver) compiled(ctx context.Context, t compute.Task, not *made) (*made, compute.Exit, error) {
	c, size, err := t.Module(ctx) // also where it was compiled before: it must be there, and may be read, and that is put on record
	if redoubt.KindOf(err) == redoubt.NotFound && err != nil {
		return nil, compute.Exit{Code: -1, Why: "the module is not here any more: put it once more"}, nil
	}
	if err != nil {
		return nil, compute.Exit{}, err
	}
	defer c.Close()
	if size > redoubt.MaxModuleBytes {
		return nil, compute.Exit{Code: -1, Why: "the module is too large"}, nil
	}
	target, exit, err := d.targetOf(ctx)
	if target == "" {
		return nil, exit, err
	}
	name := keptAs(target, t.Spec.Module)
	key := t.Share() + "/" + name
	d.mu.Lock()
	m := d.made[key]
	if m != nil && not != nil && m.same(not) { // not by where it lies: two attempts may have read it at once
		delete(d.made, key)
		d.bytes -= m.size()
		m = nil
	}
	d.mu.Unlock()
	if m != nil {
		return m, compute.Exit{}, nil
	}
	var was made
	there := false
	if not == nil {
		all, err := t.Kept(ctx, name)
		if k := redoubt.KindOf(err); err != nil && k != redoubt.NotFound && k != redoubt.Erased {
			return nil, compute.Exit{}, err
		}
		if err == nil {
			was, err = readMade(all)
			there = err == nil
		}
	}
	if !there {
		module := make([]byte, size)
		if _, err := io.ReadFull(c.Reader(0, -1), module); err != nil {
			return nil, compute.Exit{}, err
		}
		all, exit, err := d.compileOnce(ctx, module)
		if err != nil || exit.Code != 0 {
			return nil, exit, err
		}
		if was, err = readMade(all); err != nil {
			return nil, compute.Exit{}, err
		}
		if err := t.Keep(ctx, name, all); err != nil {
			if k := redoubt.KindOf(err); k != redoubt.QuotaExceeded && k != redoubt.DiskFull { // then it is compiled once more another time
				return nil, compute.Exit{}, err
			}
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for old, b := range d.made { // any: the next run finds it kept
		if d.bytes+was.size() <= madeBytes {
			break
		}
		delete(d.made, old)
		d.bytes -= b.size()
	}
	if d.made[key] == nil && was.size() <= madeBytes {
		d.made[key] = &was
		d.bytes += was.size()
	}
	return &was, compute.Exit{}, nil
}

// compileOnce has a worker compile the module.
func (d *Driver) compileOnce(ctx context.Context, module []byte) (made []byte, exit compute.Exit, err error) {
	ctx, cancel := context.WithTimeout(ctx, compileTime)
	defer cancel()
	p, err := sandbox.Start(sandbox.Program{Name: "wasm-compile", Worker: compiler, Binary: d.binary, Nice: makeNiceness, Scratch: compileDisk,
		Limits: sandbox.Limits{Memory: compileMemory, CPU: 2 * compileTime, Files: 256}})
	if err != nil {
		return nil, exit, err
	}
	said, ended := p.Talk(ctx, func(in io.Writer, out io.Reader) error {
		f := frames{r: bufio.NewReaderSize(out, 64<<10), w: in}
		if err := f.load(loading{}, module, nil); err != nil {
			return err
		}
		for {
			kind, body, err := f.read()
			if err != nil {
				return err
			}
			switch {
			case kind == sayDone:
				return nil
			case kind == sayMade && len(made)+len(body) <= compileDisk:
				made = append(made, body...)
			case kind == sayEnd:
				var x ending
				if err := json.Unmarshal(body, &x); err != nil {
					return err
				}
				exit = compute.Exit{Code: -1, Why: "it is no WebAssembly module that can be run here: " + compute.Plain(x.Fault)}
				return nil
			default:
				return errFrame
			}
		}
	})
	if exit.Code != 0 {
		return nil, exit, nil
	}
	if said == nil && ended == nil {
		return made, exit, nil
	}
	if ctx.Err() != nil || ended != nil {
		return nil, compute.Exit{Code: -1, Why: fmt.Sprintf("the module could not be compiled with %d MiB of memory in %s", compileMemory>>20, compileTime)}, nil
	}
	return nil, exit, said
}

// load gives a worker a module, and what was compiled of it.
func (f *frames) load(l loading, module, code []byte) error {
	l.Module = int64(len(module))
	if err := f.writeJSON(tellLoad, l); err != nil {
		return err
	}
	for _, of := range []struct {
		kind    byte
		content []byte
	}{{tellModule, module}, {tellMade, code}} {
		for rest := of.content; len(rest) > 0; {
			n := min(len(rest), maxPiece)
			if err := f.write(of.kind, rest[:n]); err != nil {
				return err
			}
			rest = rest[n:]
		}
	}
	return f.write(tellWhole)
}
