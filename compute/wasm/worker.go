package wasm

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"unicode/utf8"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"

	"redoubt/sandbox"
)

// The workers' names.
const (
	runner   = "wasm"
	compiler = "wasm-compile"
)

// The folders of a worker, in its own memory.
const (
	cacheDir = "/tmp/cache"
	outDir   = "/tmp/out"
)

// Workers are those of this package, for sandbox.Enter.
func Workers() map[string]sandbox.Worker {
	return map[string]sandbox.Worker{runner: run, compiler: compile, server: serve}
}

// worker is one side of a talk.
type worker struct {
	frames
	task   task
	module []byte
}

// hear takes in the task, the module, and what was compiled of it before.
func (w *worker) hear() error {
	var made bytes.Buffer
	for {
		kind, body, err := w.read()
		if err != nil {
			return err
		}
		switch kind {
		case tellTask:
			err = json.Unmarshal(body, &w.task)
		case tellModule:
			w.module = append(w.module, body...)
		case tellMade:
			made.Write(body)
		case tellStart:
			return unpack(&made)
		default:
			err = errFrame
		}
		if err != nil {
			return err
		}
	}
}

// unpack puts what was compiled where wazero looks for it. It was written by a compiler of the same share, which had seen nothing but the module;
// whatever is wrong with it is found by who runs it, in here.
func unpack(made *bytes.Buffer) error {
	if err := os.MkdirAll(outDir, 0o755); err != nil {
		return err
	}
	for made.Len() > 0 {
		var name, content []byte
		for _, into := range []*[]byte{&name, &content} {
			head := made.Next(8)
			if len(head) < 8 {
				return errFrame
			}
			n := binary.BigEndian.Uint64(head)
			if n > uint64(made.Len()) {
				return errFrame
			}
			*into = made.Next(int(n))
		}
		if !filepath.IsLocal(string(name)) {
			return errFrame
		}
		at := filepath.Join(cacheDir, string(name))
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(at, content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// pack gives what wazero has kept.
func pack() ([]byte, error) {
	var made []byte
	add := func(b []byte) {
		made = append(binary.BigEndian.AppendUint64(made, uint64(len(b))), b...)
	}
	err := filepath.WalkDir(cacheDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		name, err := filepath.Rel(cacheDir, path)
		if err != nil {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		add([]byte(name))
		add(content)
		return nil
	})
	return made, err
}

// config is how modules are compiled and run. A worker that compiles and one that runs must have the same.
func config(cache wazero.CompilationCache) wazero.RuntimeConfig {
	return wazero.NewRuntimeConfigCompiler().WithCompilationCache(cache)
}

// compile is a worker that compiles a module and runs nothing of it.
func compile(in io.Reader, out io.Writer) error {
	signal.Ignore(syscall.SIGXFSZ)
	w := &worker{frames: frames{r: in, w: out}}
	if err := w.hear(); err != nil {
		return err
	}
	ctx := context.Background()
	cache, err := wazero.NewCompilationCacheWithDir(cacheDir)
	if err != nil {
		return err
	}
	if _, err := wazero.NewRuntimeWithConfig(ctx, config(cache)).CompileModule(ctx, w.module); err != nil {
		return w.writeJSON(sayEnd, ending{Code: -1, Fault: err.Error(), Program: true})
	}
	made, err := pack()
	if err != nil {
		return err
	}
	if _, err := w.writeAll(sayMade, bytes.NewReader(made), make([]byte, maxPiece)); err != nil {
		return err
	}
	return w.write(sayDone)
}

// run is a worker that runs a module once, and hands over what it has left below /out.
func run(in io.Reader, out io.Writer) error {
	signal.Ignore(syscall.SIGXFSZ) // a write past the end of the disk is an error, not a death
	w := &worker{frames: frames{r: in, w: out}}
	if err := w.hear(); err != nil {
		return err
	}
	if err := bound(w.task.Disk); err != nil {
		return err
	}
	x := w.instance()
	if err := w.writeJSON(sayEnd, x); err != nil {
		return err
	}
	if x.Code != 0 || x.Fault != "" {
		return w.write(sayDone)
	}
	if err := w.outputs(); err != nil {
		return err
	}
	return w.write(sayDone)
}

// instance compiles the module and runs it to its end.
func (w *worker) instance() ending {
	memory := &limited{most: uint64(w.task.Memory)}
	ctx := experimental.WithMemoryAllocator(context.Background(), memory)
	cache, err := wazero.NewCompilationCacheWithDir(cacheDir)
	if err != nil {
		return ending{Code: -1, Fault: err.Error()}
	}
	r := wazero.NewRuntimeWithConfig(ctx, config(cache))
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, r); err != nil {
		return ending{Code: -1, Fault: err.Error()}
	}
	m, err := r.CompileModule(ctx, w.module)
	if err != nil {
		return ending{Code: -1, Fault: err.Error(), Program: true}
	}
	return w.instanceOf(ctx, r, m, memory, noInput{}, true)
}

// noInput is the standard input of a job: there is none.
type noInput struct{}

func (noInput) Read([]byte) (int, error) { return 0, io.EOF }

// instanceOf runs a module that is compiled, in a memory of its own. out: what it writes is kept, and so may be seen by whom the worker serves next.
func (w *worker) instanceOf(ctx context.Context, r wazero.Runtime, m wazero.CompiledModule, memory *limited, input io.Reader, out bool) (x ending) {
	defer func() {
		if p := recover(); p != nil { // a module whose first memory is more than it may use
			x = ending{Code: -1, Fault: fmt.Sprint(p)}
		}
		x.Memory = memory.refused && x.Code != 0
	}()
	files := wazero.NewFSConfig().WithFSMount(inputs{w}, "/in")
	if out {
		files = files.WithDirMount(outDir, "/out")
	}
	c := wazero.NewModuleConfig().WithName("").WithArgs(append([]string{"program"}, w.task.Args...)...).WithStdin(input).WithStdout(&voice{w, sayOut}).WithStderr(&voice{w, sayErr}).
		WithSysWalltime().WithSysNanotime().WithSysNanosleep().WithRandSource(random{}).
		WithFSConfig(files)
	for _, v := range w.task.Env {
		name, value, _ := strings.Cut(v, "=")
		c = c.WithEnv(name, value)
	}
	i, err := r.InstantiateModule(ctx, m, c)
	if i != nil {
		defer i.Close(ctx)
	}
	var exit *sys.ExitError
	switch {
	case err == nil:
		return ending{}
	case errors.As(err, &exit):
		return ending{Code: int(exit.ExitCode())}
	}
	fault, _, _ := strings.Cut(err.Error(), "\n") // what follows is the module's own stack
	return ending{Code: -1, Fault: fault, Program: strings.Contains(fault, "not exported in module") || strings.Contains(fault, "not instantiated")}
}

// voice is one of the module's streams.
type voice struct {
	w      *worker
	stream byte
}

func (v *voice) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := min(len(rest), maxPiece)
		if err := v.w.write(v.stream, rest[:n]); err != nil {
			return len(p) - len(rest), err
		}
		rest = rest[n:]
	}
	return len(p), nil
}

// random is the kernel's: crypto/rand would count towards nothing that a module may have.
type random struct{}

func (random) Read(p []byte) (int, error) { return readRandom(p) }

// outputs hands over the regular files below /out, and says what it leaves.
func (w *worker) outputs() error {
	buffer := make([]byte, maxPiece)
	return filepath.WalkDir(outDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(outDir, path)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		if !d.Type().IsRegular() || !utf8.ValidString(name) {
			return w.write(sayErr, fmt.Appendf(nil, "redoubt: /out/%q is no plain file, and is left\n", name))
		}
		f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		if err := w.writeJSON(sayFile, output{Path: name, Bytes: info.Size()}); err != nil {
			return err
		}
		_, err = w.writeAll(sayBytes, io.LimitReader(f, info.Size()), buffer)
		return err
	})
}
