package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"

	"redoubt"
	"redoubt/carry/diode"
	"redoubt/guard"
	"redoubt/node"
)

// halfStatus is what one half of a guard on this machine knows of itself.
type halfStatus struct {
	Half    string `json:"half"`
	Running bool   `json:"running"`
	guard.Standing
	OnTheWay int    `json:"on_the_way,omitempty"` // of the high half: bundles of which a part has come
	Missing  string `json:"missing,omitempty"`    // and numbers of which nothing has, before the newest
}

// guardHalves is the document of guard status GUARD --json.
type guardHalves struct {
	Guard redoubt.NodeName `json:"guard"`
	Here  []halfStatus     `json:"here"`
	Apart bool             `json:"apart"` // the other half is on another machine, and how it does is not known here
}

// halvesOf looks at the halves of a guard that this machine's state runs.
func halvesOf(st node.State, name redoubt.NodeName) (out guardHalves, err error) {
	high, err := highOf(st, name)
	if err != nil {
		return out, err
	}
	r, err := st.Runtime(name)
	if err != nil {
		return out, err
	}
	out = guardHalves{Guard: name, Apart: r.Half != ""}
	all := 2
	if out.Apart {
		all = 1
	}
	for _, side := range []string{node.HalfLow, node.HalfHigh} {
		if r.Half != "" && r.Half != side {
			continue
		}
		h, dir := halfStatus{Half: side, Running: r.State == node.Ready && len(r.Halves) == all}, filepath.Join(st.NodeDir(name), side)
		if side == node.HalfLow {
			h.Standing, err = guard.LowStanding(dir)
		} else {
			if h.Standing, err = guard.HighStanding(dir, high); err == nil {
				err = h.look(dir)
			}
		}
		if err != nil && !errors.Is(err, redoubt.NotFound) { // it has not run yet
			return out, err
		}
		out.Here = append(out.Here, h)
	}
	return out, nil
}

// look adds what is known of what has come, whole or in part.
func (h *halfStatus) look(dir string) error {
	r, err := diode.Status(dir)
	if err != nil {
		return err
	}
	h.OnTheWay = len(r.Partial)
	for _, n := range r.Numberings {
		if !n.Ended && len(n.Missing) > 0 {
			h.Missing = diode.SpanText(n.Missing)
		}
	}
	return nil
}

// guardHere prints how the halves do that run on this machine.
func (a *app) guardHere(name redoubt.NodeName) error {
	st, err := a.state()
	if err != nil {
		return err
	}
	g, err := halvesOf(st, name)
	if err != nil {
		return err
	}
	if a.json {
		return a.print(g)
	}
	t := a.table("HALF", "RUNS", "NUMBER", "WAITS", "ASIDE", "MISSING")
	for _, h := range g.Here {
		runs := "no"
		if h.Running {
			runs = "yes"
		}
		number, waits := h.Sent, strconv.Itoa(h.Waiting)+" to be sent"
		if h.Half == node.HalfHigh {
			number, waits = h.Taken, strconv.Itoa(h.Waiting)+" to be taken"
		}
		t.row(h.Half, runs, strconv.FormatUint(number, 10), waits, strconv.Itoa(h.Refused), dash(h.Missing))
	}
	if err := t.flush(); err != nil {
		return err
	}
	if g.Apart {
		fmt.Fprintf(a.out, "%s: %s\n", name, whichHalves(g.Here[0].Half))
	}
	return nil
}
