package sandbox

import (
	"fmt"
	"io"
	"time"
)

// Program says what is to run and what it is given. The zero value of a limit is the default beside it; there is no "unlimited".
type Program struct {
	Name     string            // for errors
	Worker   string            // one of those that Enter was given; or else
	Path     string            // the program to execute: an absolute path
	Binary   *Binary           // that has Worker; nil: our own
	Args     []string          // without the name
	Env      []string          // all that it has of an environment
	ReadOnly []string          // files and folders of this machine that it may read, at their own paths; what is not there is left out
	Files    map[string][]byte // files that it may read, made for it at these absolute paths, outside of ReadOnly
	Nice     int               // by how much it gives way to others, 0 to 19
	Prompt   bool              // where it gives way: it may have the processor as it wakes, since somebody waits for what it answers
	Window   *Window           // memory that we share with it, ended with it; a worker sees it by LookThrough
	Scratch  int64             // bytes of a folder of its own in memory, /tmp, that goes with it; 0: there is none
	Limits   Limits
}

// Limits bound what a program may use.
type Limits struct {
	Memory    int64         // bytes of private memory; 256 MiB
	CPU       time.Duration // of the processor, in whole seconds; 10 s
	Wall      time.Duration // from input to exit; 30 s
	Output    int64         // bytes of standard output; 64 MiB. One more ends it
	Files     int           // open at once; 64
	Processes int           // and threads; 64
}

// Sizes that no caller sets.
const (
	maxSpecBytes  = 4 << 20 // of what the stub is told, Files included
	maxErrorBytes = 4 << 10 // of standard error that is kept; the rest is thrown away
	maxBinds      = 64
	startTimeout  = 10 * time.Second // from fork to the sandbox standing
	givingTimeout = time.Minute      // and of what gives way, beside others that do not
)

// Worker is a part of our own binary that works on input and writes output. An error is written to standard error, and ends it with exit code 1.
type Worker func(in io.Reader, out io.Writer) error

// Exit is how a program ended that did not end well. It is in the chain of Run's error.
type Exit struct {
	Code   int    // its own exit code; -1 where it was killed
	Killed string // by which signal; "": it exited by itself
	Stderr string // the beginning of what it said
}

func (e *Exit) Error() string {
	s := fmt.Sprintf("ended with exit code %d", e.Code)
	if e.Killed != "" {
		s = "was killed: " + e.Killed
	}
	if e.Stderr != "" {
		s += ": " + e.Stderr
	}
	return s
}

// Mechanism is one of the walls, and whether this machine has it.
type Mechanism struct {
	Name   string
	OK     bool
	Detail string
}

func (l Limits) orDefaults() Limits {
	def := func(v *int64, d int64) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&l.Memory, 256<<20)
	def(&l.Output, 64<<20)
	if l.CPU <= 0 {
		l.CPU = 10 * time.Second
	}
	if l.Wall <= 0 {
		l.Wall = 30 * time.Second
	}
	if l.Files <= 0 {
		l.Files = 64
	}
	if l.Processes <= 0 {
		l.Processes = 64
	}
	return l
}

// way is how a program has the processor.
type way struct {
	Gives  bool `json:"gives"` // to others; else it is as who started it
	Nice   int  `json:"nice"`
	Prompt bool `json:"prompt,omitempty"`
}

// patience is how long it may take to stand.
func (w way) patience() time.Duration {
	if w.Gives {
		return givingTimeout
	}
	return startTimeout
}

// spec is what the stub is told.
type spec struct {
	Worker    string            `json:"worker,omitempty"`
	Handed    bool              `json:"handed,omitempty"` // Worker is of this binary, which lies in memory
	Path      string            `json:"path,omitempty"`
	Args      []string          `json:"args,omitempty"`
	Env       []string          `json:"env,omitempty"`
	ReadOnly  []string          `json:"read_only,omitempty"`
	Files     map[string][]byte `json:"files,omitempty"`
	Scratch   int64             `json:"scratch,omitempty"`
	Way       way               `json:"way,omitzero"`
	Window    bool              `json:"window,omitempty"`
	Memory    int64             `json:"memory"`
	CPU       int64             `json:"cpu"` // seconds
	OpenFiles int               `json:"open_files"`
	Processes int               `json:"processes"`
	Nobody    bool              `json:"nobody"` // whether uid and gid nobody are mapped
}
