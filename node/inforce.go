package node

import (
	"encoding/json"
	"errors"
	"path/filepath"

	"redoubt"
	"redoubt/estate"
	"redoubt/keys"
)

const purposeEstate = "estate"

// inForce reads the estate that the node in dir runs by; NotFound before its first start.
func inForce(dir string, ring *keys.Keyring) (*estate.Estate, estate.Document, error) {
	plain, err := ring.OpenFile(filepath.Join(dir, "estate"), purposeEstate)
	if err != nil {
		return nil, estate.Document{}, err
	}
	var doc estate.Document
	if err := json.Unmarshal(plain, &doc); err != nil {
		return nil, estate.Document{}, &redoubt.Error{Op: "node.inForce", Object: dir, Kind: redoubt.Corrupt, Err: err}
	}
	e, err := doc.Read()
	if err != nil {
		return nil, estate.Document{}, &redoubt.Error{Op: "node.inForce", Object: dir, Kind: redoubt.Corrupt, Err: err}
	}
	return e, doc, nil
}

// takeEffect makes next the estate in force of the node in dir, if it may: two officers of
// the one in force have signed it (at genesis two of its own), and nothing in it is beyond
// a file to change. next nil asks for the one in force. Durable on return.
func takeEffect(dir string, ring *keys.Keyring, next *estate.Estate, doc estate.Document) (*estate.Estate, error) {
	const op = "node.takeEffect"
	was, _, err := inForce(dir, ring)
	switch {
	case errors.Is(err, redoubt.NotFound):
		was = nil
	case err != nil:
		return nil, err
	}
	if next == nil {
		if was == nil {
			return nil, &redoubt.Error{Op: op, Object: dir, Kind: redoubt.NotFound, Err: errors.New("the node has no estate in force yet"),
				Hint: "name the estate file at the first start: --estate FILE"}
		}
		return was, nil
	}
	if was != nil && was.Digest() == next.Digest() {
		return was, nil // signed when it took effect
	}
	if was != nil {
		for _, s := range estate.Plan(was, next) {
			if s.Do == "refuse" {
				return nil, &redoubt.Error{Op: op, Object: s.Noun + " " + s.Name, Kind: redoubt.Denied, Err: errors.New(s.Why),
					Hint: "redoubt estate plan FILE shows every step"}
			}
		}
	}
	sigs := estate.Signatures{Version: 1, Digest: next.Digest(), Signatures: doc.Sigs}
	if err := estate.Verify(next, was, sigs); err != nil {
		return nil, err
	}
	plain, err := json.Marshal(doc)
	if err != nil {
		return nil, &redoubt.Error{Op: op, Err: err}
	}
	return next, ring.SealFile(filepath.Join(dir, "estate"), purposeEstate, plain)
}
