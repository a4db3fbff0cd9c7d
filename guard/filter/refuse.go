package filter

import (
	"errors"
	"fmt"
	"strings"

	"redoubt"
	"redoubt/sandbox"
)

// ruleContent refuses whatever a filter would not write anew. Why is of the source's label, for it may repeat the content: it goes in the hint, which
// is kept with the release, and neither in the rule nor in any log.
const ruleContent = "content that does not pass"

// refusal is why a content does not pass: an error of a filter that understood it, or could not.
type refusal struct {
	Rule string `json:"rule"`
	Hint string `json:"hint,omitempty"`
}

func (r *refusal) Error() string { return r.Rule }

func refuse(hint, format string, args ...any) error {
	return &refusal{Rule: clip(fmt.Sprintf(format, args...)), Hint: hint}
}

// maxDetail is the longest rule or detail, in bytes: redoubt.Finding has the same.
const maxDetail = 256

// clip cuts s to maxDetail bytes, at a rune.
func clip(s string) string {
	if len(s) <= maxDetail {
		return s
	}
	n := maxDetail - len("…")
	for n > 0 && s[n]&0xC0 == 0x80 {
		n--
	}
	return s[:n] + "…"
}

// denied makes an error of a filter's: Denied where it refused, and what it was otherwise, which refuses as well.
func denied(filter string, err error) error {
	var r *refusal
	if errors.As(err, &r) {
		return &redoubt.Error{Op: "filter " + filter, Kind: redoubt.Denied, Rule: ruleContent, Hint: strings.TrimSuffix(r.Rule+"; "+r.Hint, "; ")}
	}
	if redoubt.KindOf(err) == redoubt.Denied {
		return err
	}
	return &redoubt.Error{Op: "filter " + filter, Kind: redoubt.KindOf(err), Err: err, Hint: hintOf(err)}
}

func hintOf(err error) string {
	var e *redoubt.Error
	if errors.As(err, &e) {
		return e.Hint
	}
	return ""
}

// unread makes a refusal of what another's program said by itself: it read the content and would not have it. What was killed, timed out or
// flooded is its failure.
func unread(tool string, err error) error {
	var x *sandbox.Exit
	if errors.As(err, &x) && x.Killed == "" && x.Code > 0 {
		return refuse("", "%s cannot read it: %s", tool, clip(x.Stderr))
	}
	return err
}

// notes collects what was taken out, one finding for each rule.
type notes struct {
	step string
	all  []redoubt.Finding
	seen map[string]int
	more map[string]int
}

func newNotes(step string) *notes {
	return &notes{step: step, seen: map[string]int{}, more: map[string]int{}}
}

// add notes once that a rule applied, with the first detail, and counts the rest.
func (n *notes) add(rule, detail string) {
	if _, ok := n.seen[rule]; ok {
		n.more[rule]++
		return
	}
	n.seen[rule] = len(n.all)
	n.all = append(n.all, redoubt.Finding{Step: "filter " + n.step, Rule: rule, Detail: clip(detail)})
}

func (n *notes) findings() []redoubt.Finding {
	for rule, more := range n.more {
		f := &n.all[n.seen[rule]]
		f.Detail = clip(fmt.Sprintf("%d times; first %s", more+1, f.Detail))
	}
	n.more = map[string]int{}
	return n.all
}
