package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"redoubt"
)

// receiptView is what verifying a receipt came to.
type receiptView struct {
	OK        bool             `json:"ok"`
	ID        string           `json:"id"`
	Node      redoubt.NodeName `json:"node"`
	Label     string           `json:"label"`
	SHA256    string           `json:"sha256"`
	Known     bool             `json:"node_key_known"` // the node's key is one that was known already
	Content   *bool            `json:"content,omitempty"`
	Reviewers int              `json:"reviewers"`
	Consent   bool             `json:"consent"` // of its originator
	Faults    []string         `json:"faults"`
}

// maxReceiptBytes bounds a receipt: it has two signatures and no content.
const maxReceiptBytes = 64 << 10

// verifyReceipt checks a receipt with nothing but itself, and the node's key where that is known.
func (a *app) verifyReceipt(path, content, nodeKey string) error {
	f, err := os.Open(path)
	if err != nil {
		return &redoubt.Error{Object: path, Kind: redoubt.NotFound, Err: errors.Unwrap(err)}
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxReceiptBytes+1))
	if err != nil {
		return err
	}
	var r redoubt.ReleaseReceipt
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil || len(raw) > maxReceiptBytes || !oneReading(raw) {
		return &redoubt.Error{Object: path, Kind: redoubt.Invalid, Err: errors.New("not a receipt"), Hint: "redoubt release receipt ID writes one"}
	}
	v := receiptView{ID: string(r.ID), Node: r.Node, Label: r.Label, SHA256: r.SHA256, Faults: []string{}}
	fault := func(text string) { v.Faults = append(v.Faults, text) }
	seen := map[string]bool{}
	for _, p := range r.Reviewers {
		if seen[p.Key] || !verifies(p.Key, redoubt.ReleaseMessage(r.ReleasePublic), p.Sig) {
			fault("a reviewer's signature does not hold")
			continue
		}
		seen[p.Key] = true
		v.Reviewers++
	}
	if v.Reviewers != 2 || len(r.Reviewers) != 2 {
		fault("two different reviewers sign a release")
	}
	if r.Consent != nil {
		v.Consent = !seen[r.Consent.Key] && verifies(r.Consent.Key, redoubt.ConsentMessage(r.ReleasePublic), r.Consent.Sig)
		if !v.Consent {
			fault("the originator's consent does not hold")
		}
	}
	if r.Node != r.To || !verifies(r.Key, redoubt.ReceiptMessage(r), r.Sig) {
		fault("the node's signature does not hold")
	}
	if nodeKey == "" {
		if st, err := a.state(); err == nil {
			if card, err := st.Card(r.Node); err == nil {
				nodeKey = card.Key
			}
		}
	}
	if v.Known = nodeKey != ""; v.Known && nodeKey != r.Key {
		fault("it is signed by another key than that of " + string(r.Node))
	}
	if content != "" {
		b, err := os.ReadFile(content)
		if err != nil {
			return &redoubt.Error{Object: content, Kind: redoubt.NotFound, Err: errors.Unwrap(err)}
		}
		sum := sha256.Sum256(b)
		same := hex.EncodeToString(sum[:]) == r.SHA256
		if v.Content = &same; !same {
			fault(content + " is not what was released")
		}
	}
	v.OK = len(v.Faults) == 0 && v.Known
	consented := ""
	if v.Consent {
		consented = ", with its originator's consent"
	}
	if a.json {
		if err := a.print(v); err != nil || v.OK {
			return err
		}
	} else if v.OK {
		_, err := fmt.Fprintf(a.out, "%s took sha256 %s as %s at %s, signed by two reviewers%s\n", r.Node, r.SHA256, r.Label, r.Taken.Local().Format("2006-01-02 15:04:05"), consented)
		return err
	}
	if len(v.Faults) == 0 {
		fault("both reviewers' signatures and the node's hold, but nobody said which key is that of " + string(r.Node))
	}
	return &redoubt.Error{Object: path, Kind: redoubt.Invalid, Err: errors.New(v.Faults[0]), Hint: "--node-key gives the key that is known to be that node's: redoubt node card " + string(r.Node) + " prints it there"}
}

// oneReading says whether every reader of JSON reads the same in a document: nothing follows it, and no key stands twice in an object, in whatever case.
func oneReading(doc []byte) bool {
	d := json.NewDecoder(bytes.NewReader(doc))
	var value func() bool
	value = func() bool {
		t, err := d.Token()
		if err != nil {
			return false
		}
		open, ok := t.(json.Delim)
		if !ok {
			return true
		}
		keys := map[string]bool{}
		for d.More() {
			if open == '{' {
				k, _ := d.Token()
				key, ok := k.(string)
				if key = strings.ToLower(strings.ToUpper(key)); !ok || keys[key] { // to encoding/json the long s and the Kelvin sign are letters of these, too
					return false
				}
				keys[key] = true
			}
			if !value() {
				return false
			}
		}
		_, err = d.Token()
		return err == nil
	}
	if !value() {
		return false
	}
	_, err := d.Token()
	return err == io.EOF
}

func verifies(key string, message []byte, sig string) bool {
	k, err1 := base64.StdEncoding.Strict().DecodeString(key)
	s, err2 := base64.StdEncoding.Strict().DecodeString(sig)
	one := base64.StdEncoding.EncodeToString(k) == key // decoders pass over line ends: one key would be two reviewers
	return err1 == nil && err2 == nil && one && len(k) == ed25519.PublicKeySize && ed25519.Verify(k, message, s)
}
