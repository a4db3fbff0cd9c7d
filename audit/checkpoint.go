package audit

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"redoubt"
)

// MaxCheckpointBytes is the longest checkpoint read: a head and a hundred cosignatures.
const MaxCheckpointBytes = 32 << 10

// MaxEntries is more than any log holds; it keeps arithmetic on sizes safe.
const MaxEntries = 1 << 48

// Checkpoint is the log's head at one size, signed. Only Note counts: the other fields
// are read from it by ParseCheckpoint. The zero Checkpoint verifies nothing.
type Checkpoint struct {
	Note   []byte // the signed note as it travels
	Origin string
	Size   uint64 // entries covered: 0 to Size-1
	Root   tlog.Hash
	Time   time.Time // when it was signed, to the second
}

// The one extension line: when the checkpoint was signed, as the log's clock had it.
const timeLine = "redoubt-time "

// signCheckpoint makes a C2SP tlog-checkpoint: origin, size, root, time; then signatures.
func signCheckpoint(signer note.Signer, size uint64, root tlog.Hash, at time.Time) (Checkpoint, error) {
	at = at.UTC().Truncate(time.Second)
	text := fmt.Sprintf("%s\n%d\n%s\n%s%s\n", signer.Name(), size, base64.StdEncoding.EncodeToString(root[:]), timeLine, at.Format(time.RFC3339))
	signed, err := note.Sign(&note.Note{Text: text}, signer)
	if err != nil {
		return Checkpoint{}, &redoubt.Error{Op: "audit.Checkpoint", Kind: redoubt.KindOf(err), Err: err}
	}
	return Checkpoint{Note: signed, Origin: signer.Name(), Size: size, Root: root, Time: at}, nil
}

// ParseCheckpoint reads a signed note that v's key signed, strictly: any other byte,
// spelling or missing signature is redoubt.Corrupt. Cosignatures of others may be there;
// they are not checked.
func ParseCheckpoint(signed []byte, v note.Verifier) (Checkpoint, error) {
	c, err := parseCheckpoint(signed, v)
	if err != nil {
		return Checkpoint{}, &redoubt.Error{Op: "audit.ParseCheckpoint", Kind: redoubt.Corrupt, Err: err}
	}
	return c, nil
}

func parseCheckpoint(signed []byte, v note.Verifier) (Checkpoint, error) {
	if v == nil {
		return Checkpoint{}, errors.New("no verifier given")
	}
	if len(signed) > MaxCheckpointBytes {
		return Checkpoint{}, errors.New("too long")
	}
	n, err := note.Open(signed, note.VerifierList(v))
	if err != nil {
		return Checkpoint{}, err
	}
	if err := canonicalSignatures(signed[len(n.Text)+1:]); err != nil {
		return Checkpoint{}, err
	}
	lines := strings.Split(n.Text, "\n")
	if len(lines) != 5 || lines[4] != "" {
		return Checkpoint{}, errors.New("want four lines")
	}
	if lines[0] != v.Name() {
		return Checkpoint{}, errors.New("another log's checkpoint")
	}
	c := Checkpoint{Note: bytes.Clone(signed), Origin: lines[0]}
	c.Size, err = strconv.ParseUint(lines[1], 10, 64)
	if err != nil || strconv.FormatUint(c.Size, 10) != lines[1] || c.Size > MaxEntries {
		return Checkpoint{}, errors.New("bad size")
	}
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(root) != tlog.HashSize {
		return Checkpoint{}, errors.New("bad root")
	}
	copy(c.Root[:], root)
	stamp, ok := strings.CutPrefix(lines[3], timeLine)
	c.Time, err = time.Parse(time.RFC3339, stamp)
	if !ok || err != nil || c.Time.UTC().Format(time.RFC3339) != stamp {
		return Checkpoint{}, errors.New("bad time")
	}
	c.Time = c.Time.UTC()
	return c, nil
}

// canonicalSignatures refuses a signature in a second spelling, which note.Open lets pass.
func canonicalSignatures(block []byte) error {
	for line := range strings.Lines(string(block)) {
		i := strings.LastIndexByte(line, ' ')
		text := strings.TrimSuffix(line[i+1:], "\n")
		raw, err := base64.StdEncoding.Strict().DecodeString(text)
		if err != nil || base64.StdEncoding.EncodeToString(raw) != text {
			return errors.New("signature in a second spelling")
		}
	}
	return nil
}

// VerifierKey is the text by which others check a log's checkpoints (a note verifier
// key). origin names the log, such as "redoubt.example/secret": not empty, no spaces, no plus.
func VerifierKey(origin string, public crypto.PublicKey) (string, error) {
	key, ok := public.(ed25519.PublicKey)
	if !ok {
		return "", &redoubt.Error{Op: "audit.VerifierKey", Kind: redoubt.Invalid, Err: errors.New("want an Ed25519 key")}
	}
	text, err := note.NewEd25519VerifierKey(origin, key)
	if err == nil {
		_, err = note.NewVerifier(text) // which checks the name
	}
	if err != nil {
		return "", &redoubt.Error{Op: "audit.VerifierKey", Kind: redoubt.Invalid, Err: err}
	}
	return text, nil
}

// NewVerifier reads what VerifierKey gave.
func NewVerifier(key string) (note.Verifier, error) {
	v, err := note.NewVerifier(key)
	if err != nil {
		return nil, &redoubt.Error{Op: "audit.NewVerifier", Kind: redoubt.Invalid, Err: err}
	}
	return v, nil
}

// signer signs notes with a key that stays where it is.
type signer struct {
	note.Verifier // its name and key hash
	key           crypto.Signer
}

func newSigner(origin string, key crypto.Signer) (*signer, error) {
	if key == nil {
		return nil, &redoubt.Error{Op: "audit.NewLog", Kind: redoubt.Invalid, Err: errors.New("no signing key given")}
	}
	text, err := VerifierKey(origin, key.Public())
	if err != nil {
		return nil, err
	}
	v, err := NewVerifier(text)
	return &signer{v, key}, err
}

// Sign signs a note's text.
func (s *signer) Sign(msg []byte) ([]byte, error) { return s.key.Sign(nil, msg, crypto.Hash(0)) }
