package estate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	"redoubt"
)

// Step is one thing that bringing an estate up would do.
type Step struct {
	Do      string `json:"do"`   // "add", "change", "remove" or "refuse"
	Noun    string `json:"noun"` // "policy", "audit", "node", "bucket", "person"
	Name    string `json:"name"`
	What    string `json:"what,omitempty"`    // the fields that change
	Restart bool   `json:"restart,omitempty"` // takes effect when the node starts again
	Why     string `json:"why,omitempty"`     // of a refusal
}

// String is one line for people.
func (s Step) String() string {
	line := fmt.Sprintf("%-7s %s %s", s.Do, s.Noun, s.Name)
	if s.What != "" {
		line += ": " + s.What
	}
	if s.Why != "" {
		line += " (" + s.Why + ")"
	}
	return line
}

// Plan says what replacing was by next would do, in a stable order. was is nil for a fresh
// state. A step that reads "refuse" cannot be done by a file: the plan as a whole fails.
func Plan(was, next *Estate) []Step {
	if was == nil {
		was = &Estate{Policy: next.Policy, Exercise: next.Exercise, Name: next.Name}
	}
	var steps []Step
	if was.Policy != next.Policy {
		steps = append(steps, Step{Do: "refuse", Noun: "policy", Name: next.Policy.Builtin + next.Policy.SPIF,
			Why: "labels at rest name the policy that made them; begin a new state"})
	}
	if was.Exercise && !next.Exercise {
		steps = append(steps, Step{Do: "refuse", Noun: "exercise", Name: next.Name,
			Why: "an exercise keeps everybody's keys in its state, so its data cannot become real; begin a new state"})
	}
	if !was.Exercise && next.Exercise {
		steps = append(steps, Step{Do: "refuse", Noun: "exercise", Name: next.Name,
			Why: "a real estate never keeps its people's keys; begin a new state"})
	}
	if was.AuditKeep() != next.AuditKeep() {
		steps = append(steps, Step{Do: "change", Noun: "audit", Name: "keep", What: was.AuditKeep().String() + " to " + next.AuditKeep().String(), Restart: true})
	}
	steps = append(steps, planNodes(was, next)...)
	return append(append(steps, planAgreements(was, next)...), planPeople(was, next)...)
}

func planAgreements(was, next *Estate) (steps []Step) {
	find := func(e *Estate, file string) string {
		for _, a := range e.Agreements {
			if a.File == file {
				return a.Digest
			}
		}
		return ""
	}
	for _, a := range next.Agreements {
		switch find(was, a.File) {
		case a.Digest:
		case "":
			steps = append(steps, Step{Do: "add", Noun: "agreement", Name: a.File, Restart: true})
		default:
			steps = append(steps, Step{Do: "change", Noun: "agreement", Name: a.File, Restart: true})
		}
	}
	for _, a := range was.Agreements {
		if find(next, a.File) == "" {
			steps = append(steps, Step{Do: "remove", Noun: "agreement", Name: a.File, Restart: true})
		}
	}
	return steps
}

func planNodes(was, next *Estate) []Step {
	var steps []Step
	for _, n := range next.Nodes {
		old, ok := was.Node(n.Name)
		if !ok {
			steps = append(steps, Step{Do: "add", Noun: "node", Name: string(n.Name), What: n.Range.Floor + " to " + n.Range.Ceiling})
			for _, b := range n.Buckets {
				steps = append(steps, Step{Do: "add", Noun: "bucket", Name: string(n.Name) + "/" + string(b.Name)})
			}
			continue
		}
		if old.Range.Ceiling != n.Range.Ceiling || old.Range.Floor != n.Range.Floor {
			if !n.ceiling.Dominates(old.ceiling) || !old.floor.Dominates(n.floor) {
				steps = append(steps, Step{Do: "refuse", Noun: "node", Name: string(n.Name), What: "range",
					Why: "what the node holds might lie outside the narrower range"})
			}
		}
		a, b := old, n
		a.Buckets, b.Buckets = nil, nil
		if what := differing(a, b); what != "" {
			steps = append(steps, Step{Do: "change", Noun: "node", Name: string(n.Name), What: what, Restart: true})
		}
		steps = append(steps, planBuckets(old, n)...)
	}
	for _, n := range was.Nodes {
		if _, ok := next.Node(n.Name); !ok {
			steps = append(steps, Step{Do: "remove", Noun: "node", Name: string(n.Name), Why: "it stops; its folder in the state stays"})
		}
	}
	return steps
}

// planBuckets tells only of new buckets: the estate makes buckets and the storage role has them.
func planBuckets(old, n Node) []Step {
	var steps []Step
	for _, b := range n.Buckets {
		if !slices.ContainsFunc(old.Buckets, func(o redoubt.Bucket) bool { return o.Name == b.Name }) {
			steps = append(steps, Step{Do: "add", Noun: "bucket", Name: string(n.Name) + "/" + string(b.Name), Restart: true})
		}
	}
	return steps
}

func planPeople(was, next *Estate) []Step {
	var steps []Step
	for _, p := range next.People {
		old, ok := was.Person(p.Name)
		if !ok {
			steps = append(steps, Step{Do: "add", Noun: "person", Name: string(p.Name), What: p.Clearance + ", " + p.Nation, Restart: len(was.Nodes) > 0})
			continue
		}
		if was.Exercise && p.PublicKey == "" {
			old.PublicKey = "" // made by the state, kept
		}
		if what := differing(old, p); what != "" {
			steps = append(steps, Step{Do: "change", Noun: "person", Name: string(p.Name), What: what, Restart: true})
		}
	}
	for _, p := range was.People {
		if _, ok := next.Person(p.Name); !ok {
			steps = append(steps, Step{Do: "remove", Noun: "person", Name: string(p.Name), Restart: true})
		}
	}
	return steps
}

// differing lists the JSON fields in which a and b differ.
func differing[T any](a, b T) string {
	fields := func(v T) (m map[string]json.RawMessage) {
		data, err := json.Marshal(v)
		if err == nil {
			err = json.Unmarshal(data, &m)
		}
		if err != nil {
			panic(fmt.Sprintf("estate: plain fields do not encode: %v", err))
		}
		return m
	}
	old, now := fields(a), fields(b)
	var names []string
	for k := range old {
		if !bytes.Equal(old[k], now[k]) {
			names = append(names, k)
		}
	}
	for k := range now {
		if _, ok := old[k]; !ok {
			names = append(names, k)
		}
	}
	slices.Sort(names)
	return listed(names)
}
