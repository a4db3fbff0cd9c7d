package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"redoubt"
	"redoubt/client"
	"redoubt/estate"
	"redoubt/label"
)

// Exit codes.
const (
	exitOK      = 0
	exitFailed  = 1
	exitUsage   = 2
	exitRefused = 3
)

// usageError is a call that cannot mean anything.
type usageError struct{ message, hint string }

func (e *usageError) Error() string { return e.message }

func usage(c *cobra.Command, message string) error {
	return &usageError{message: message, hint: c.CommandPath() + " --help"}
}

// exitError ends with a code after the command has said all there is to say.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit %d", int(e)) }

// halfDone is an interruption that left something half done, and how to go on.
type halfDone struct{ message, hint string }

func (e *halfDone) Error() string { return e.message }

// report tells an error to the person and gives the exit code.
func (a *app) report(err error) int {
	if err == nil {
		return exitOK
	}
	var code exitError
	if errors.As(err, &code) {
		return int(code)
	}
	var wrong *usageError
	if errors.As(err, &wrong) {
		a.tell(wrong.message, wrong.hint)
		return exitUsage
	}
	if strings.HasPrefix(err.Error(), "unknown command") { // cobra's own, for the root
		a.tell(err.Error(), "redoubt --help")
		return exitUsage
	}
	var half *halfDone
	if errors.As(err, &half) {
		a.tell(half.message, half.hint)
		return exitFailed
	}
	if errors.Is(err, context.Canceled) && !errors.Is(err, client.ErrPartsLeft) {
		a.tell("interrupted; nothing was left half done", "")
		return exitFailed
	}
	message, hint := splitHint(plain(err))
	if own := ownHint(err); own != "" || hint == "" {
		hint = hintFor(err)
	}
	a.tell(message, hint)
	if errors.Is(err, redoubt.Denied) {
		return exitRefused
	}
	return exitFailed
}

func (a *app) tell(message, hint string) {
	a.say("redoubt: %s", message)
	if hint != "" {
		a.say("hint: %s", hint)
	}
}

// plain is an error as people read it: without the names of our functions.
func plain(err error) string {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		var each []string
		for _, err := range many.Unwrap() {
			each = append(each, plain(err))
		}
		return strings.Join(each, "; ")
	}
	e, ok := err.(*redoubt.Error)
	if !ok {
		return err.Error()
	}
	kind := e.Kind.Error()
	if e.Rule != "" {
		kind += " (" + e.Rule + ")"
	}
	_, whole := e.Err.(told)
	var inner *redoubt.Error
	if errors.As(e.Err, &inner) && inner.Kind == e.Kind && e.Rule == "" {
		whole = true // the cause says it again
	}
	var parts []string
	if e.Object != "" && (inner == nil || inner.Object != e.Object) {
		parts = append(parts, shown(e.Object)) // a name that others chose draws no line of its own
	}
	if e.Err == nil || !whole && (e.Kind != redoubt.Internal || e.Rule != "") {
		parts = append(parts, kind)
	}
	if e.Err != nil {
		parts = append(parts, plain(e.Err))
	}
	return strings.Join(parts, ": ")
}

// splitHint takes apart "MESSAGE (hint: HINT)", which is how an S3 answer carries a node's hint.
func splitHint(message string) (rest, hint string) {
	if i := strings.LastIndex(message, " (hint: "); i >= 0 && strings.HasSuffix(message, ")") {
		return message[:i], strings.TrimSuffix(message[i+len(" (hint: "):], ")")
	}
	return message, ""
}

// hintFor is the error's own hint, or the next command that helps with its kind.
func hintFor(err error) string {
	if h := ownHint(err); h != "" {
		return h
	}
	var faults estate.Faults
	var marking *label.ParseError
	switch kind := redoubt.KindOf(err); {
	case errors.As(err, &faults):
		return "correct the file, then: redoubt estate check FILE"
	case errors.As(err, &marking), strings.HasPrefix(ruleOf(err), "label: "):
		return "redoubt label parse MARKING --json tells every fault and its place"
	case kind == redoubt.Unavailable:
		return "redoubt status"
	case kind == redoubt.Unauthenticated, kind == redoubt.Expired:
		return "the clock and the key are looked at by: redoubt doctor"
	case kind == redoubt.Denied:
		return hintForRule(ruleOf(err))
	case kind == redoubt.NotFound:
		return "redoubt ls shows what this credential may see"
	case kind == redoubt.NoBucket:
		return "redoubt ls --as SUBJECT@NODE lists the buckets"
	case kind == redoubt.Corrupt:
		return "redoubt fsck NODE reads everything back"
	}
	return "redoubt doctor"
}

// hintForRule is the next command after a refusal: what helps with labels does not help whom a role keeps out.
func hintForRule(rule string) string {
	name, section, _ := strings.Cut(rule, " ")
	switch {
	case name == "role", name == "storage-role", section == "(4.1)", section == "(4.2)":
		return "redoubt person show NAME tells a subject's roles"
	case name == "officers-records":
		return "an officer works at the node's ceiling, as without --label: redoubt status tells it"
	case name == "bypass-governance-right":
		return "redoubt grant add SUBJECT s3://BUCKET --action BypassGovernanceRetention --as OFFICER@NODE"
	case name == "need-to-know", name == "need-to-know-denied":
		return "redoubt grant ls --as OFFICER@NODE lists who is let into which bucket"
	case section == "(2.1)" && name != "clearance-current" && name != "live-credential", section == "(2.3)", section == "(2.4)":
		return "redoubt label dominates A B tells which of two markings is above the other"
	}
	return "redoubt audit why REQUEST --as SUBJECT@NODE explains a decision"
}

// ruleOf is the outermost rule in the chain.
func ruleOf(err error) string {
	var e *redoubt.Error
	for errors.As(err, &e) {
		if e.Rule != "" {
			return e.Rule
		}
		err = e.Err
	}
	return ""
}

// ownHint is the first hint in the chain, the outermost first.
func ownHint(err error) string {
	for err != nil {
		if e, ok := err.(*redoubt.Error); ok && e.Hint != "" {
			return e.Hint
		}
		if many, ok := err.(interface{ Unwrap() []error }); ok {
			for _, e := range many.Unwrap() {
				if h := ownHint(e); h != "" {
					return h
				}
			}
			return ""
		}
		err = errors.Unwrap(err)
	}
	return ""
}
