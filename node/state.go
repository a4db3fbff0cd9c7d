package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"redoubt"
	"redoubt/keys"
)

// State is the directory that holds everything of the nodes that run on this machine.
type State struct{ dir string }

// maxStateFileBytes bounds the small JSON files of a state.
const maxStateFileBytes = 64 << 10

// OpenState makes dir (mode 0700) when there is none. Denied: others may look into it.
func OpenState(dir string) (State, error) {
	const op = "node.OpenState"
	abs, err := filepath.Abs(dir)
	if err != nil {
		return State{}, &redoubt.Error{Op: op, Object: dir, Err: err}
	}
	if err := os.MkdirAll(abs, 0o700); err != nil {
		return State{}, &redoubt.Error{Op: op, Object: dir, Err: errors.Unwrap(err)}
	}
	s := State{dir: abs}
	st, err := os.Stat(abs)
	if err != nil {
		return State{}, &redoubt.Error{Op: op, Object: dir, Err: errors.Unwrap(err)}
	}
	if st.Mode().Perm()&0o077 != 0 {
		return State{}, &redoubt.Error{Op: op, Object: dir, Kind: redoubt.Denied,
			Err: fmt.Errorf("mode %v lets others look into the state", st.Mode().Perm()), Hint: "chmod 700 " + abs}
	}
	return s, nil
}

// FindState is OpenState for a directory that must be there: NotFound otherwise.
func FindState(dir string) (State, error) {
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		return State{}, &redoubt.Error{Op: "node.FindState", Object: dir, Kind: redoubt.NotFound, Err: errors.New("no state there"),
			Hint: "redoubt up, or name the right directory with --state"}
	}
	return OpenState(dir)
}

// Dir is the state's directory, absolute.
func (s State) Dir() string { return s.dir }

// NodeDir is a node's folder.
func (s State) NodeDir(name redoubt.NodeName) string { return filepath.Join(s.dir, string(name)) }

// CAFile is the certificate of a node's authority, in PEM: what AWS_CA_BUNDLE names.
func (s State) CAFile(name redoubt.NodeName) string { return filepath.Join(s.NodeDir(name), "ca.pem") }

// Sealing tells in which ways a node's keyring is held: "passphrase", "key-file", tpm.Method. NotFound: it has none yet.
func (s State) Sealing(name redoubt.NodeName) ([]keys.Way, error) {
	return keys.Sealing(filepath.Join(s.NodeDir(name), "keyring"))
}

// LogFile is where a node logs.
func (s State) LogFile(name redoubt.NodeName) string {
	return filepath.Join(s.NodeDir(name), "log", "node.log")
}

// Nodes lists the nodes that have a folder, by name.
func (s State) Nodes() ([]redoubt.NodeName, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, &redoubt.Error{Op: "node.Nodes", Object: s.dir, Err: errors.Unwrap(err)}
	}
	var names []redoubt.NodeName
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			names = append(names, redoubt.NodeName(e.Name()))
		}
	}
	slices.Sort(names)
	return names, nil
}

// Lock takes the state for one command at a time. Unavailable: another has it.
// The returned function gives it back; a crash does too.
func (s State) Lock() (release func(), err error) {
	return lockFile(filepath.Join(s.dir, ".lock"), "another redoubt command is changing this state", "wait for it, then: redoubt status")
}

// writeFile makes data the content of path (mode 0600): whole and durable on return.
func writeFile(path string, data []byte) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func writeJSON(path string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err == nil {
		err = writeFile(path, append(data, '\n'))
	}
	if err != nil {
		return &redoubt.Error{Op: "node.write", Object: path, Err: err}
	}
	return nil
}

// readJSON reads a small file of ours strictly; NotFound when there is none.
func readJSON(path string, v any) error {
	const op = "node.read"
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &redoubt.Error{Op: op, Object: path, Kind: redoubt.NotFound}
	}
	if err != nil {
		return &redoubt.Error{Op: op, Object: path, Err: errors.Unwrap(err)}
	}
	defer f.Close()
	d := json.NewDecoder(io.LimitReader(f, maxStateFileBytes))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return &redoubt.Error{Op: op, Object: path, Kind: redoubt.Corrupt, Err: err}
	}
	return nil
}

// Runtime is what a running node tells of itself on disk: nothing that a marking or a name is in.
type Runtime struct {
	PID     int               `json:"pid"`
	Started time.Time         `json:"started"`
	State   string            `json:"state"` // "starting", "ready" or "failed"
	S3URL   string            `json:"s3_url,omitempty"`
	APIURL  string            `json:"api_url,omitempty"`
	Peers   []string          `json:"peers,omitempty"`  // addresses where devices meet it, UDP and TCP
	Dials   []string          `json:"dials,omitempty"`  // of a device: its home's addresses, which it dials
	From    string            `json:"from,omitempty"`   // and the UDP address that it dials from
	High    redoubt.NodeName  `json:"high,omitempty"`   // of a guard: its higher enclave
	Half    string            `json:"half,omitempty"`   // of a guard whose halves run apart: the one that runs here
	Halves  []int             `json:"halves,omitempty"` // of a guard: the processes of its raise
	Trusts  []redoubt.Trusted `json:"trusts,omitempty"` // of a guard, which nobody can ask
	Version string            `json:"version"`
	Token   string            `json:"token,omitempty"` // of this run: opens GET /v1/node and nothing else (ADR 9)
}

// The states of a node as status shows them.
const (
	Starting = "starting"
	Ready    = "ready"
	Failed   = "failed"
	Stopped  = "stopped"
)

func runtimeFile(dir string) string { return filepath.Join(dir, "runtime.json") }

// Runtime reads what a node last told, and corrects its state by whether the process is
// alive: a node holds a lock for as long as it lives. A node never started is Stopped. Of one that is
// down a damaged file is no error: its next start writes another.
func (s State) Runtime(name redoubt.NodeName) (Runtime, error) {
	var r Runtime
	err := readJSON(runtimeFile(s.NodeDir(name)), &r)
	if errors.Is(err, redoubt.NotFound) {
		return Runtime{State: Stopped}, nil
	}
	if err != nil && held(filepath.Join(s.NodeDir(name), "lock")) {
		return Runtime{}, &redoubt.Error{Op: "node.Runtime", Object: runtimeFile(s.NodeDir(name)), Kind: redoubt.KindOf(err), Err: err,
			Hint: "the node runs and its file is damaged: end the process that has " + filepath.Join(s.NodeDir(name), "lock") + " open, and start it again"}
	}
	if err != nil {
		return Runtime{State: Failed}, nil
	}
	if !held(filepath.Join(s.NodeDir(name), "lock")) {
		if r.State != Failed {
			r.State = Stopped
		}
		r.PID, r.Token = 0, ""
	} else if (r.State == Ready || r.State == Starting) && !runs(r.PID) { // another has the lock already, and has not told of itself yet
		return Runtime{State: Starting}, nil
	}
	return r, nil
}
