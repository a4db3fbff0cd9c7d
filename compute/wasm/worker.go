package wasm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"unicode/utf8"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/sys"

	"redoubt"
	"redoubt/sandbox"
)

// The workers' names.
const (
	runnerName = "wasm"
	compiler   = "wasm-compile"
)

// The folders of a worker, in its own memory.
const (
	cacheDir = "/tmp/cache"
	bareDir  = "/tmp/bare"
	outDir   = "/tmp/out"
)

// Workers are those of this package, for sandbox.Enter.
func Workers() map[string]sandbox.Worker {
	return map[string]sandbox.Worker{runnerName: run, compiler: compile, server: serve}
}

// worker is one side of a talk.
type worker struct {
	frames
	task   task
	window []byte // nil: there is none
	turn   byte   // of its places
	due    *due
	module []byte
	code   fs.FileInfo // what was compiled of it before, where wazero looks for it
	unfit  error       // why that does not lie there
}

// load takes in what the module may use, the module itself, and what was compiled of it before, which lies where wazero looks for it then. That was written
// by a compiler of the same share, which had seen nothing but the module; whatever is wrong with it is found by who runs it, in here.
func (w *worker) load() error {
	var task loading
	var code *os.File
	for {
		kind, body, err := w.read()
		if err != nil {
			return err
		}
		switch kind {
		case tellLoad:
			if err = json.Unmarshal(body, &task); err == nil && (task.Module < 0 || task.Module > 2*redoubt.MaxModuleBytes) { // without its functions a module may be a third larger
				err = errFrame
			}
			w.task.Memory, w.task.Disk, w.module = task.Memory, task.Disk, make([]byte, 0, max(task.Module, 0))
			if err == nil && task.Made != "" {
				code, w.unfit = w.create(task.Made)
				defer code.Close()
			}
		case tellModule:
			w.module = append(w.module, body...)
		case tellMade:
			if w.unfit == nil {
				_, w.unfit = code.Write(body)
			}
		case tellWhole:
			if code != nil && w.unfit == nil {
				w.code, w.unfit = code.Stat()
			}
			return os.MkdirAll(outDir, 0o755)
		default:
			err = errFrame
		}
		if err != nil {
			return err
		}
	}
}

// create makes a file below wazero's folder.
func (w *worker) create(name string) (*os.File, error) {
	if !filepath.IsLocal(name) {
		return nil, errFrame
	}
	at := filepath.Join(cacheDir, name)
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return nil, err
	}
	return os.Create(at)
}

// hear takes in what one run is told.
func (w *worker) hear() error {
	kind, body, err := w.read()
	if err != nil {
		return err
	}
	if kind != tellTask {
		return errFrame
	}
	var t task
	err = json.Unmarshal(body, &t)
	w.task.Args, w.task.Env = t.Args, t.Env
	return err
}

// kept is the one file that wazero has kept below a folder, if it has.
func kept(dir string) (name string, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if name != "" {
			return errFrame
		}
		name, err = filepath.Rel(dir, path)
		return err
	})
	return name, err
}

// config is how modules are compiled and run. A worker that compiles and one that runs must have the same.
func config(cache wazero.CompilationCache) wazero.RuntimeConfig {
	return wazero.NewRuntimeConfigCompiler().WithCompilationCache(cache).WithDebugInfoEnabled(false)
}

// compile is a worker that compiles a module and runs nothing of it.
func compile(in io.Reader, out io.Writer) error {
	signal.Ignore(syscall.SIGXFSZ)
	w := &worker{frames: frames{r: in, w: out}}
	if err := w.load(); err != nil {
		return err
	}
	whole, err := compileInto(cacheDir, w.module)
	if fault := (*faulty)(nil); errors.As(err, &fault) {
		return w.writeJSON(sayEnd, ending{Code: -1, Fault: fault.Error(), Program: true})
	}
	if err != nil {
		return err
	}
	m := made{}
	if m.bare, err = bare(w.module); err != nil {
		return err
	}
	if m.code, err = os.ReadFile(filepath.Join(cacheDir, whole)); err != nil {
		return err
	}
	if m.name, err = compileInto(bareDir, m.bare); err != nil { // for the name alone
		return err
	}
	if _, err := w.writeAll(sayMade, bytes.NewReader(m.bytes()), make([]byte, maxPiece)); err != nil {
		return err
	}
	return w.write(sayDone)
}

// faulty is a module that cannot be compiled.
type faulty struct{ error }

// compileInto has wazero compile a module and keep that below a folder, and gives the file's name there.
func compileInto(dir string, module []byte) (string, error) {
	ctx := context.Background()
	cache, err := wazero.NewCompilationCacheWithDir(dir)
	if err != nil {
		return "", err
	}
	if _, err := wazero.NewRuntimeWithConfig(ctx, config(cache)).CompileModule(ctx, module); err != nil {
		return "", &faulty{err}
	}
	return kept(dir)
}

// run is a worker that runs a module once, and hands over what it has left below /out. It has the module stand ready before it is told what to run it for.
func run(in io.Reader, out io.Writer) error {
	signal.Ignore(syscall.SIGXFSZ) // a write past the end of the disk is an error, not a death
	w := &worker{frames: frames{r: in, w: out}}
	window, err := sandbox.LookThrough(places, maxPiece)
	if err != nil {
		return err
	}
	w.window = window
	i, err := w.ready(noInput{}, true)
	if err != nil {
		return w.tellUnfit(err)
	}
	i.stand()
	if err := errors.Join(bound(w.task.Disk), w.write(sayReady)); err != nil {
		return err
	}
	if err := w.hear(); err == io.EOF {
		return nil // nobody has had a use for it
	} else if err != nil {
		return err
	}
	x := i.run(w.task.Args, w.task.Env)
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

// runnable is a module that can be run at once.
type runnable struct {
	ctx       context.Context
	runtime   wazero.Runtime
	module    wazero.CompiledModule
	config    wazero.ModuleConfig
	memory    *limited
	args, env words // that it is told when it asks
	early     bool  // nothing of it runs as it is instantiated, and that takes little

	stands *standing // nil: none does
}

// standing is a module that is instantiated, and of which nothing has run.
type standing struct {
	module api.Module
	start  api.Function // nil: it has none
	fault  *ending      // it could not be
}

// tellUnfit says that what was compiled is of no use, where err is that.
func (w *worker) tellUnfit(err error) error {
	var u *unfit
	if !errors.As(err, &u) {
		return err
	}
	return w.write(sayUnfit, fmt.Appendf(nil, "%.1000s", u.why))
}

// ready loads a module by what was compiled of it; an *unfit: that is of no use. out: what it writes is kept, and so may be seen by whom the worker serves next.
func (w *worker) ready(input io.Reader, out bool) (*runnable, error) {
	if err := w.load(); err != nil {
		return nil, err
	}
	if w.unfit != nil {
		return nil, &unfit{w.unfit.Error()}
	}
	m := &runnable{memory: &limited{most: uint64(w.task.Memory)}, early: early(w.module)}
	m.ctx = experimental.WithMemoryAllocator(context.Background(), m.memory)
	cache, err := wazero.NewCompilationCacheWithDir(cacheDir)
	if err != nil { // what it was given stands in its way
		return nil, &unfit{err.Error()}
	}
	m.runtime = wazero.NewRuntimeWithConfig(m.ctx, config(cache))
	if err := instantiateWASI(m.ctx, m.runtime, &m.args, &m.env); err != nil {
		return nil, err
	}
	if m.module, err = m.runtime.CompileModule(m.ctx, w.module); err != nil {
		return nil, &unfit{err.Error()}
	}
	if !w.used() {
		return nil, &unfit{"it is another version's, or another processor's"}
	}
	w.module = nil
	files := wazero.NewFSConfig().WithFSMount(inputs{w}, "/in")
	if out {
		files = files.WithDirMount(outDir, "/out")
	}
	m.config = wazero.NewModuleConfig().WithName("").WithStartFunctions().WithStdin(input).WithStdout(&voice{w, sayOut}).WithStderr(&voice{w, sayErr}).
		WithSysWalltime().WithSysNanotime().WithSysNanosleep().WithRandSource(random{}).
		WithFSConfig(files)
	return m, nil
}

// used reports whether wazero has taken what it was given. Otherwise it has compiled the module, which here does nothing, and has kept that: in a file of
// another name, or in one that took the place of what it was given.
func (w *worker) used() bool {
	name, err := kept(cacheDir)
	if err != nil || w.code == nil {
		return false
	}
	now, err := os.Lstat(filepath.Join(cacheDir, name))
	return err == nil && os.SameFile(now, w.code)
}

// noInput is the standard input of a job: there is none.
type noInput struct{}

func (noInput) Read([]byte) (int, error) { return 0, io.EOF }

// stand has the module stand ready for its next run, in a memory of its own, if nothing of it runs by that and it takes little. Otherwise nothing of its last
// run is left until then.
func (m *runnable) stand() {
	switch {
	case !m.early:
		m.memory.wipe()
	case m.stands == nil:
		m.stands = m.instantiate()
	}
}

// instantiate makes an instance of the module.
func (m *runnable) instantiate() (s *standing) {
	s = new(standing)
	m.memory.refused = false
	defer func() {
		if p := recover(); p != nil { // a module whose first memory is more than it may use
			s.fault = &ending{Code: -1, Fault: fmt.Sprint(p)}
		}
	}()
	var err error
	if s.module, err = m.runtime.InstantiateModule(m.ctx, m.module, m.config); err != nil {
		x := endingOf(err)
		s.fault = &x
		return s
	}
	s.start = s.module.ExportedFunction("_start")
	return s
}

// run runs the module, once, in a memory of its own.
func (m *runnable) run(args, env []string) (x ending) {
	if slices.ContainsFunc(env, func(v string) bool { return strings.IndexByte(v, 0) >= 0 }) { // the path of a request may have a NUL; nobody's argument has
		return ending{Code: -1, Fault: "a variable holds a NUL"}
	}
	m.args, m.env = wordsOf(append([]string{"program"}, args...)), wordsOf(lastOfEach(env))
	s := m.stands
	if m.stands = nil; s == nil {
		s = m.instantiate()
	}
	defer func() { x.Memory = m.memory.refused && x.Code != 0 }()
	if s.fault != nil {
		return *s.fault
	}
	defer s.module.Close(m.ctx) // what it has open is closed outside as well, which nobody hears any more when its end was said
	if s.start == nil {
		return ending{}
	}
	_, err := s.start.Call(m.ctx)
	return endingOf(err)
}

// endingOf is how a module ended, or could not begin, by what wazero says of it.
func endingOf(err error) ending {
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
