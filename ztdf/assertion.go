package ztdf

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"

	"redoubt"
	"redoubt/label"
)

// LabelSchema is the schema of the assertion that is a file's label: the namespace of STANAG 4774.
const LabelSchema = "urn:nato:stanag:4774:confidentialitymetadatalabel:1:0"

// labelID is how the label's assertion is called in what is written here.
const labelID = "confidentiality-label"

// canonical is an assertion without its binding in the canonical form of RFC 8785. Everything in it is text.
func (a *assertion) canonical() []byte {
	var b bytes.Buffer
	b.WriteByte('{')
	field := func(name, value string) {
		if value == "" {
			return
		}
		if last := b.Bytes()[b.Len()-1]; last != '{' {
			b.WriteByte(',')
		}
		quote(&b, name)
		b.WriteByte(':')
		quote(&b, value)
	}
	field("appliesToState", a.State)
	field("id", a.ID)
	field("scope", a.Scope)
	b.WriteString(`,"statement":{`) // id and scope are never empty
	field("format", a.Statement.Format)
	field("schema", a.Statement.Schema)
	field("value", a.Statement.Value)
	b.WriteByte('}')
	field("type", a.Type)
	b.WriteByte('}')
	return b.Bytes()
}

// quote writes a JSON string as RFC 8785 does: nothing escaped that need not be.
func quote(b *bytes.Buffer, s string) {
	b.WriteByte('"')
	for _, r := range s {
		switch i := strings.IndexRune("\b\t\n\f\r\"\\", r); {
		case i >= 0:
			b.WriteString([]string{`\b`, `\t`, `\n`, `\f`, `\r`, `\"`, `\\`}[i])
		case r < 0x20:
			fmt.Fprintf(b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
}

// bind makes the assertion of a label, signed and bound to what was sealed.
func bind(xml []byte, hashes []byte, payload, policy []byte, by crypto.Signer) (a assertion, err error) {
	a = assertion{ID: labelID, Type: "handling", Scope: "payload", State: "unencrypted", Statement: statement{Format: "xml-structured", Schema: LabelSchema, Value: string(xml)}}
	sum := sha256.Sum256(a.canonical())
	a.Binding.Method = "jws"
	a.Binding.Signature, err = sign(by, claims{Hash: hex.EncodeToString(sum[:]), Sig: b64.EncodeToString(slices.Concat(hashes, sum[:])),
		Payload: b64.EncodeToString(payload), Policy: b64.EncodeToString(policy)})
	return a, err
}

// labelAssertion finds the one assertion that is the label. Others may stand beside it if they only tell something: one that
// says how to handle the content and is not understood would be disregarded.
func (m *manifest) labelAssertion() (*assertion, error) {
	bad := func(format string, args ...any) (*assertion, error) {
		return nil, refused(redoubt.Denied, RuleAssertion, format, args...)
	}
	var found *assertion
	seen := map[string]bool{}
	for i := range m.Assertions {
		a := &m.Assertions[i]
		if a.ID == "" || len(a.ID) > MaxTextBytes || seen[a.ID] || len(a.Statement.Value) > MaxStatementBytes || len(a.Binding.Signature) > MaxSignatureBytes {
			return bad("assertion %d has no name of its own, or is too long", i)
		}
		seen[a.ID] = true
		if !strings.HasPrefix(a.Statement.Schema, "urn:nato:stanag:4774:") {
			if a.Type != "other" {
				return bad("assertion %q is of type %q and schema %q, which says how to handle the content and is not understood here", clip(a.ID), clip(a.Type), clip(a.Statement.Schema))
			}
			continue
		}
		if found != nil {
			return bad("it has two labels, %q and %q", clip(found.ID), clip(a.ID))
		}
		found = a
	}
	switch {
	case found == nil:
		return bad("no assertion is a STANAG 4774 label: the file is unmarked")
	case found.Statement.Schema != LabelSchema:
		return bad("its label is of schema %q, want %s", clip(found.Statement.Schema), LabelSchema)
	case found.Type != "handling" || found.Scope != "payload" && found.Scope != "tdo":
		return bad("its label is of type %q and scope %q, want handling, and payload or tdo", clip(found.Type), clip(found.Scope))
	case found.State != "" && found.State != "encrypted" && found.State != "unencrypted":
		return bad("its label is of the payload's state %q, which is none", clip(found.State))
	case !slices.Contains([]string{"xml-structured", "xml", "string"}, found.Statement.Format):
		return bad("its label is of format %q, want xml-structured", clip(found.Statement.Format))
	case found.Binding.Method != "jws":
		return bad("its label is bound by %q, want jws", clip(found.Binding.Method))
	}
	return found, nil
}

// verify holds the label against the pinned keys and against this file.
func (a *assertion) verify(hashes []byte, trust []any) (claims, any, error) {
	c, by, err := verify(a.Binding.Signature, trust)
	if err != nil {
		return c, nil, err
	}
	sum := sha256.Sum256(a.canonical())
	if same(c.Hash, hex.EncodeToString(sum[:])) && same(c.Sig, b64.EncodeToString(slices.Concat(hashes, sum[:]))) {
		return c, by, nil
	}
	return c, nil, refused(redoubt.Denied, RuleAssertion, "what is signed is another label, or the label of another payload")
}

func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// readLabel reads the label itself, which has to be the originator's own.
func readLabel(xml string, known []*label.Policy) (label.Label, label.Meta4774, error) {
	l, meta, err := label.Read4774(io.Reader(strings.NewReader(xml)), known...)
	if err == nil && meta.Kind != label.Originator4774 {
		err = fmt.Errorf("it is an alternative label, or that of metadata, and not the originator's")
	}
	if err == nil {
		err = l.Valid()
	}
	if err != nil {
		return label.Label{}, meta, refused(redoubt.Denied, RuleLabel, "%w", err)
	}
	return l, meta, nil
}
