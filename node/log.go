package node

import (
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"redoubt"
)

// A node's log is slog JSON in its state: constant messages and typed keys, no object name,
// marking or subject. It is bounded: at maxLogBytes the file becomes node.log.1 and so on.
const (
	maxLogBytes = 16 << 20
	keptLogs    = 4
)

// logFile is an io.Writer that turns over by size. Each Write is one line, kept whole.
type logFile struct {
	path string
	max  int64

	mu   sync.Mutex // guards what follows
	file *os.File
	size int64
}

func openLog(dir string) (*slog.Logger, *logFile, error) {
	dir = filepath.Join(dir, "log")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, &redoubt.Error{Op: "node.openLog", Object: dir, Err: err}
	}
	f := &logFile{path: filepath.Join(dir, "node.log"), max: maxLogBytes}
	if err := f.open(); err != nil {
		return nil, nil, &redoubt.Error{Op: "node.openLog", Object: f.path, Err: err}
	}
	return slog.New(slog.NewJSONHandler(f, nil)), f, nil
}

func (f *logFile) open() error {
	file, err := os.OpenFile(f.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	st, err := file.Stat()
	if err != nil {
		file.Close()
		return err
	}
	f.file, f.size = file, st.Size()
	return nil
}

// Write appends one line.
func (f *logFile) Write(line []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file == nil {
		return 0, os.ErrClosed
	}
	if f.size > 0 && f.size+int64(len(line)) > f.max {
		if err := f.turn(); err != nil {
			return 0, err
		}
	}
	n, err := f.file.Write(line)
	f.size += int64(n)
	return n, err
}

// turn renames node.log to node.log.1, that to node.log.2, and lets the last go.
func (f *logFile) turn() error {
	if err := f.file.Close(); err != nil {
		return err
	}
	name := func(i int) string { return f.path + "." + string(rune('0'+i)) }
	for i := keptLogs - 1; i >= 1; i-- {
		if err := os.Rename(name(i), name(i+1)); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	if err := os.Rename(f.path, name(1)); err != nil && !os.IsNotExist(err) {
		return err
	}
	return f.open()
}

// Close ends the log.
func (f *logFile) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file == nil {
		return nil
	}
	err := f.file.Close()
	f.file = nil
	return err
}
