package keys

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"slices"
	"strings"

	"redoubt"
)

// MaxWays is how many ways one root is held in at most: a TPM, a key file and a passphrase, and one to spare.
const MaxWays = 4

// Keeper is an Unlock that keeps a part of what opens its envelopes in a place of its own, such as the memory of a TPM.
type Keeper interface {
	Unlock
	// Forget destroys that part, durable on return: neither the envelope nor any copy of it opens from then on.
	// One that has been forgotten already, or was made elsewhere, is no error.
	Forget(envelope []byte) error
}

// Several holds one root in several ways (two to MaxWays, each of another method), of which any one opens it. Wrap has
// all of them hold it. Open tries those of them that the keyring names, in the order in which they are given here.
func Several(ways ...Unlock) Unlock { return several(ways) }

type several []Unlock

// wayMark joins the methods of a keyring that opens in several ways; no method contains it.
const wayMark = "+"

func (s several) Method() string {
	var all []string
	for _, u := range s {
		all = append(all, u.Method())
	}
	return strings.Join(all, wayMark)
}

// Wrap makes, for each way in order: length (4), its envelope.
func (s several) Wrap(root []byte) ([]byte, error) {
	if _, err := methodsOf(s.Method()); err != nil || len(s) < 2 {
		return nil, &redoubt.Error{Op: "keys.Several", Kind: redoubt.Invalid, Err: errors.New("ways to hold a root are of different methods, two to four")}
	}
	var out []byte
	for _, u := range s {
		given := slices.Clone(root)
		envelope, err := u.Wrap(given)
		clear(given)
		if err != nil {
			return nil, err
		}
		out = binary.BigEndian.AppendUint32(out, uint32(len(envelope)))
		out = append(out, envelope...)
	}
	return out, nil
}

// Unwrap is for a keyring that is held in exactly these ways.
func (s several) Unwrap(envelope []byte) ([]byte, error) {
	return unwrap(s, s.Method(), envelope)
}

// Way is one way in which a keyring's root is held.
type Way struct {
	Method   string
	Envelope []byte
}

// Sealing tells in which ways the root of the keyring at path is held; it opens nothing and takes no lock. A damaged
// file is redoubt.Corrupt, no file redoubt.NotFound.
func Sealing(path string) ([]Way, error) {
	const op = "keys.Sealing"
	in, err := osDisk{}.ReadFile(path, maxFileBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &redoubt.Error{Op: op, Object: path, Kind: redoubt.NotFound, Err: fs.ErrNotExist}
	}
	if err != nil {
		return nil, wrapError(op, path, err)
	}
	f, err := parseFile(in)
	if err != nil {
		return nil, &redoubt.Error{Op: op, Object: path, Kind: redoubt.Corrupt, Err: err, Hint: "restore the keyring from its backup"}
	}
	ways, err := waysOf(f.method, f.envelope)
	if err != nil {
		return nil, wrapError(op, path, err)
	}
	return ways, nil
}

// methodsOf takes a file's method apart. Two ways of one method are not told from one another, so there are none.
func methodsOf(method string) ([]string, error) {
	methods := strings.Split(method, wayMark)
	sorted := slices.Compact(slices.Sorted(slices.Values(methods)))
	if len(methods) > MaxWays || len(sorted) != len(methods) || sorted[0] == "" {
		return nil, corrupt("keys.Sealing", "method")
	}
	return methods, nil
}

// waysOf takes an envelope apart, strictly.
func waysOf(method string, envelope []byte) ([]Way, error) {
	methods, err := methodsOf(method)
	if err != nil {
		return nil, err
	}
	if len(methods) == 1 {
		return []Way{{method, slices.Clone(envelope)}}, nil
	}
	r := reader{in: envelope}
	var ways []Way
	for _, m := range methods {
		ways = append(ways, Way{m, slices.Clone(r.take(int(r.count(MaxEnvelopeBytes))))})
	}
	r.check(len(r.in) == 0, "trailing bytes")
	if r.err != nil {
		return nil, corrupt("keys.Sealing", "envelopes")
	}
	return ways, nil
}

// each are the ways that an unlock knows.
func each(u Unlock) []Unlock {
	if s, ok := u.(several); ok {
		return s
	}
	return []Unlock{u}
}

// unwrap opens the root by the first way of u that the keyring names and that opens. When none does, the error tells
// why of each, and is of the kind and has the hint of the first.
func unwrap(u Unlock, method string, envelope []byte) ([]byte, error) {
	ways, err := waysOf(method, envelope)
	if err != nil {
		return nil, err
	}
	var failed []error
	for _, by := range each(u) {
		i := slices.IndexFunc(ways, func(w Way) bool { return w.Method == by.Method() })
		if i < 0 {
			continue
		}
		root, err := by.Unwrap(ways[i].Envelope)
		if err == nil {
			return root, nil
		}
		failed = append(failed, err)
	}
	switch len(failed) {
	case 0:
		return nil, &redoubt.Error{Kind: redoubt.Denied, Err: errors.New("this keyring is unlocked by " + method + ", not by " + u.Method()),
			Hint: "unlock it by " + strings.ReplaceAll(method, wayMark, " or ")}
	case 1:
		return nil, failed[0]
	}
	first := &redoubt.Error{Kind: redoubt.KindOf(failed[0]), Err: errors.Join(failed...)}
	if e, ok := errors.AsType[*redoubt.Error](failed[0]); ok {
		first.Hint = e.Hint
	}
	return nil, first
}

// forget has every keeper among the ways of the unlocks forget its part of an envelope.
func forget(method string, envelope []byte, by ...Unlock) error {
	ways, err := waysOf(method, envelope)
	if err != nil {
		return err
	}
	var failed error
	for _, w := range ways {
		for _, u := range by {
			i := slices.IndexFunc(each(u), func(u Unlock) bool { return u != nil && u.Method() == w.Method })
			if i < 0 {
				continue
			}
			if k, ok := each(u)[i].(Keeper); ok {
				failed = errors.Join(failed, k.Forget(w.Envelope))
				break
			}
		}
	}
	return failed
}
