package audit

import (
	"encoding/binary"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"redoubt"
)

// Limits of an entry's fields in bytes. Append cuts a longer one; ParseEntry refuses it.
const (
	MaxSubjectBytes    = 256
	MaxCredentialBytes = 128
	MaxActionBytes     = 64
	MaxRuleBytes       = 1 << 10 // a rule with the labels it compared
	MaxLabelBytes      = 8 << 10 // a canonical label text with every nation and compartment
	MaxKindBytes       = 64
	MaxRequestBytes    = 128
	MaxSourceBytes     = 128 // an address, or a link's name
	MaxDetailBytes     = 4 << 10
	MaxVersionBytes    = 64

	// MaxEntryBytes is over any entry's length, and what a C2SP entry bundle can hold.
	MaxEntryBytes = 1<<16 - 1

	entryVersion = 1
	entryFixed   = 2 + 8 + 8 + 4 + 16 + 16
	flagAllow    = 1
)

// tooLong stands for a label that did not fit. It is no marking, so nobody dominates it:
// a label cut short could read as a lower one.
const tooLong = "(label too long)"

// Entry is one decision, or Count like ones. It is a plain value; the zero Entry says
// that something without a name was denied.
type Entry struct {
	Time       time.Time // UTC, to the nanosecond; 1970 to 2262
	Subject    string    // who asked, as authenticated; claimed, where Rule says unauthenticated
	Credential string    // its public identifier, never its secret
	Action     string    // redoubt.Action
	Rule       string    // what decided
	Allow      bool
	Label      string // canonical text of what was acted on; "" when there is none
	Working    string // canonical text of the credential's working label; "" when there is none
	Name       [16]byte
	Bucket     [16]byte
	Kind       string // the outcome: a redoubt.Kind's text, or "ok"
	Bytes      int64  // of content, moved or stored; not negative
	Count      uint32 // how many decisions this entry stands for; at least 1
	Request    string // redoubt.RequestID
	Source     string // where it came from: an address or a link
	Detail     string
	Version    []byte // the version's ID as stored
}

// fields are the texts in their order on the wire, with their limits.
func (e *Entry) fields() [10]struct {
	text *string
	most int
} {
	return [10]struct {
		text *string
		most int
	}{{&e.Subject, MaxSubjectBytes}, {&e.Credential, MaxCredentialBytes}, {&e.Action, MaxActionBytes},
		{&e.Rule, MaxRuleBytes}, {&e.Label, MaxLabelBytes}, {&e.Working, MaxLabelBytes}, {&e.Kind, MaxKindBytes},
		{&e.Request, MaxRequestBytes}, {&e.Source, MaxSourceBytes}, {&e.Detail, MaxDetailBytes}}
}

// Append appends e's one encoding to dst. It never fails, since a decision must not go
// unrecorded for a field's sake: a text over its limit is cut at a character (a label
// becomes one that nobody dominates), what is not printable UTF-8 becomes U+FFFD, a
// count of 0 becomes 1, and a time or size that cannot be written becomes 0.
func (e *Entry) Append(dst []byte) []byte {
	flags := byte(0)
	if e.Allow {
		flags |= flagAllow
	}
	nanos := int64(0)
	if y := e.Time.UTC().Year(); y >= 1970 && y < 2262 {
		nanos = e.Time.UnixNano()
	}
	dst = append(dst, entryVersion, flags)
	dst = binary.BigEndian.AppendUint64(dst, uint64(nanos))
	dst = binary.BigEndian.AppendUint64(dst, uint64(max(0, e.Bytes)))
	dst = binary.BigEndian.AppendUint32(dst, max(1, e.Count))
	dst = append(dst, e.Name[:]...)
	dst = append(dst, e.Bucket[:]...)
	for _, f := range e.fields() {
		text := *f.text
		if len(text) > f.most || !printable(text) {
			text = fit(text, f.most, f.text == &e.Label || f.text == &e.Working)
		}
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(text)))
		dst = append(dst, text...)
	}
	version := e.Version[:min(len(e.Version), MaxVersionBytes)]
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(version)))
	return append(dst, version...)
}

// fit makes text printable and short enough.
func fit(text string, most int, isLabel bool) string {
	text = strings.Map(func(r rune) rune {
		if r < 0x20 || r >= 0x7f && r < 0xa0 {
			return utf8.RuneError
		}
		return r
	}, strings.ToValidUTF8(text, "\ufffd"))
	if len(text) <= most {
		return text
	}
	if isLabel {
		return tooLong
	}
	for most > 0 && !utf8.RuneStart(text[most]) {
		most--
	}
	return text[:most]
}

// printable reports whether text is valid UTF-8 without control characters.
func printable(text string) bool {
	for i := 0; i < len(text); i++ {
		if c := text[i]; c < 0x20 || c >= 0x7f {
			return printableWide(text[i:])
		}
	}
	return true
}

func printableWide(text string) bool {
	for _, r := range text {
		if r < 0x20 || r >= 0x7f && r < 0xa0 {
			return false
		}
	}
	return utf8.ValidString(text)
}

// ParseEntry reads what Append wrote, and nothing else: redoubt.Corrupt for any other
// bytes. What it accepts encodes to the same bytes again. It keeps no part of b.
func ParseEntry(b []byte) (Entry, error) {
	if len(b) < entryFixed || b[0] != entryVersion {
		return Entry{}, badEntry("version or length")
	}
	var e Entry
	if b[1]&^flagAllow != 0 {
		return Entry{}, badEntry("flags")
	}
	e.Allow = b[1]&flagAllow != 0
	nanos := int64(binary.BigEndian.Uint64(b[2:]))
	e.Bytes = int64(binary.BigEndian.Uint64(b[10:]))
	e.Count = binary.BigEndian.Uint32(b[18:])
	if nanos < 0 || nanos >= maxNanos || e.Bytes < 0 || e.Count == 0 {
		return Entry{}, badEntry("time, size or count")
	}
	e.Time = time.Unix(0, nanos).UTC()
	copy(e.Name[:], b[22:])
	copy(e.Bucket[:], b[38:])
	tail := b[entryFixed:]
	texts := string(tail) // one allocation for all of them
	at := 0
	for _, f := range e.fields() {
		if len(tail)-at < 2 {
			return Entry{}, badEntry("length")
		}
		n := int(binary.BigEndian.Uint16(tail[at:]))
		at += 2
		if n > f.most || n > len(tail)-at {
			return Entry{}, badEntry("length")
		}
		*f.text = texts[at : at+n]
		if !printable(*f.text) {
			return Entry{}, badEntry("text")
		}
		at += n
	}
	if len(tail)-at < 2 {
		return Entry{}, badEntry("length")
	}
	n := int(binary.BigEndian.Uint16(tail[at:]))
	at += 2
	if n > MaxVersionBytes || n != len(tail)-at {
		return Entry{}, badEntry("length")
	}
	if n > 0 {
		e.Version = append([]byte(nil), tail[at:]...)
	}
	return e, nil
}

// maxNanos is the start of 2262, where Append stops.
const maxNanos = 9214646400 * 1_000_000_000

func badEntry(what string) error {
	return &redoubt.Error{Op: "audit.ParseEntry", Kind: redoubt.Corrupt, Err: errors.New("bad " + what)}
}
