package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"

	seccomp "github.com/elastic/go-seccomp-bpf"

	"redoubt"
)

// probe is a worker that every program has: it gives back what it is given.
const probe = "sandbox-probe"

// Available tells which walls this machine has, by asking the kernel and then by running a worker that does nothing behind all of them. The
// error is nil where that went well; else it is Unavailable, and nothing will run here.
func Available() ([]Mechanism, error) {
	abi, err := ll.LandlockGetABIVersion()
	m := Mechanism{Name: "landlock", OK: err == nil && abi >= 1, Detail: fmt.Sprintf("version %d", abi)}
	if !m.OK {
		m.Detail = "not in this kernel, or not among its security modules (5.13 or later, lsm=landlock,...)"
	}
	all := []Mechanism{m, {Name: "seccomp", OK: seccomp.Supported(), Detail: "filters"}}
	if !all[1].OK {
		all[1].Detail = "this kernel has no seccomp filters"
	}
	out, err := Run(context.Background(), Program{Name: "probe", Worker: probe}, []byte("?"))
	if err == nil && string(out) != "?" {
		err = &redoubt.Error{Op: "sandbox.Available", Kind: redoubt.Unavailable, Err: errors.New("what was run did not answer")}
	}
	m = Mechanism{Name: "namespaces, rlimits, privileges", OK: err == nil, Detail: "a process was walled in"}
	if os.Geteuid() == 0 {
		m.Detail += ", as nobody"
	}
	if err != nil {
		m.Detail = err.Error()
		err = &redoubt.Error{Op: "sandbox.Available", Kind: redoubt.Unavailable, Err: err, Hint: hint(err)}
	}
	return append(all, m), err
}

func hint(err error) string {
	var e *redoubt.Error
	if errors.As(err, &e) && e.Hint != "" {
		return e.Hint
	}
	return "filters and jobs run where the kernel walls them in: Linux 5.13 or later with user namespaces, Landlock and seccomp"
}

func answer(in io.Reader, out io.Writer) error {
	_, err := io.Copy(out, io.LimitReader(in, 4096))
	return err
}
