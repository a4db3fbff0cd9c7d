package audit

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"strconv"
	"strings"
	"time"

	"redoubt"
)

// Export writes what found gives, one a line, as "ocsf" (JSON), "cef" or "syslog" (RFC
// 5424). node names the enclave. Another format is redoubt.Invalid.
func Export(w io.Writer, format, node string, found iter.Seq2[Found, error]) error {
	var render func(dst []byte, node string, f Found) ([]byte, error)
	switch format {
	case "ocsf":
		render = AppendOCSF
	case "cef":
		render = func(dst []byte, node string, f Found) ([]byte, error) { return AppendCEF(dst, node, f), nil }
	case "syslog":
		render = func(dst []byte, node string, f Found) ([]byte, error) { return AppendSyslog(dst, node, f), nil }
	default:
		return &redoubt.Error{Op: "audit.Export", Kind: redoubt.Invalid, Err: errors.New("unknown format"), Hint: "use ocsf, cef or syslog"}
	}
	var line []byte
	for f, err := range found {
		if err != nil {
			return err
		}
		if line, err = render(line[:0], node, f); err != nil {
			return err
		}
		if _, err := w.Write(append(line, '\n')); err != nil {
			return &redoubt.Error{Op: "audit.Export", Kind: redoubt.KindOf(err), Err: err}
		}
	}
	return nil
}

// field is one name and value of a line.
type field struct{ name, value string }

// common are the fields that CEF and syslog share, by their own names; empty ones are left out.
func common(f Found) []field {
	e, none := &f.Entry, [16]byte{}
	outcome := "deny"
	if e.Allow {
		outcome = "allow"
	}
	out := []field{{"subject", e.Subject}, {"credential", e.Credential}, {"action", e.Action}, {"outcome", outcome}, {"rule", e.Rule},
		{"kind", e.Kind}, {"label", e.Label}, {"working", e.Working}}
	if e.Name != none {
		out = append(out, field{"name", hex.EncodeToString(e.Name[:])})
	}
	if e.Bucket != none {
		out = append(out, field{"bucket", hex.EncodeToString(e.Bucket[:])})
	}
	out = append(out, field{"version", hex.EncodeToString(e.Version)}, field{"bytes", strconv.FormatInt(e.Bytes, 10)},
		field{"count", strconv.FormatUint(uint64(e.Count), 10)}, field{"request", e.Request}, field{"source", e.Source}, field{"detail", e.Detail})
	if f.Numbered {
		out = append(out, field{"number", strconv.FormatUint(f.Number, 10)})
	}
	return out
}

// cefNames are the CEF extension keys of common's fields; a custom one has its label beside it.
var cefNames = map[string][2]string{
	"subject": {"suser"}, "action": {"act"}, "outcome": {"outcome"}, "rule": {"reason"}, "count": {"cnt"}, "detail": {"msg"},
	"number": {"externalId"}, "label": {"cs1", "label"}, "working": {"cs2", "working label"}, "name": {"cs3", "name HMAC"},
	"bucket": {"cs4", "bucket HMAC"}, "version": {"cs5", "version"}, "credential": {"cs6", "credential"},
	"bytes": {"cn1", "bytes"}, "request": {"flexString1", "request"}, "kind": {"flexString2", "kind"},
}

// AppendCEF appends f as one CEF:0 line without a newline.
func AppendCEF(dst []byte, node string, f Found) []byte {
	header := strings.NewReplacer(`\`, `\\`, `|`, `\|`, "\n", " ", "\r", " ")
	value := strings.NewReplacer(`\`, `\\`, `=`, `\=`, "\n", `\n`, "\r", `\r`)
	severity := 3
	if !f.Entry.Allow {
		severity = 6
	}
	action := header.Replace(f.Entry.Action)
	dst = fmt.Appendf(dst, "CEF:0|Redoubt|Redoubt|1|%s|%s|%d|rt=%d dvchost=%s", action, action, severity, f.Entry.Time.UnixMilli(), value.Replace(node))
	for _, c := range common(f) {
		key := cefNames[c.name]
		if c.name == "source" {
			if key[0] = "shost"; endpoint(c.value, node).IP != "" {
				key[0], c.value = "src", endpoint(c.value, node).IP
			}
		}
		if c.value == "" || key[0] == "" {
			continue
		}
		if key[1] != "" {
			dst = fmt.Appendf(dst, " %sLabel=%s", key[0], key[1])
		}
		dst = fmt.Appendf(dst, " %s=%s", key[0], value.Replace(c.value))
	}
	return dst
}

// AppendSyslog appends f as one RFC 5424 message without a newline: facility 13 (log
// audit), severity 6 when allowed and 4 when not, everything in one structured element.
// Its ID carries 32473, the enterprise number that RFC 5612 keeps for examples; an
// estate with a number of its own rewrites it in its collector.
func AppendSyslog(dst []byte, node string, f Found) []byte {
	priority := 13*8 + 4
	if f.Entry.Allow {
		priority = 13*8 + 6
	}
	dst = fmt.Appendf(dst, "<%d>1 %s %s redoubt - %s [redoubt@32473", priority,
		f.Entry.Time.UTC().Format("2006-01-02T15:04:05.000000Z07:00"), token(node, 255), token(f.Entry.Action, 32))
	value := strings.NewReplacer(`\`, `\\`, `"`, `\"`, `]`, `\]`)
	dst = append(dst, ` nanoseconds="`+strconv.Itoa(f.Entry.Time.Nanosecond()%int(time.Microsecond))+`"`...)
	for _, c := range common(f) {
		if c.value != "" {
			dst = fmt.Appendf(dst, ` %s="%s"`, c.name, value.Replace(c.value))
		}
	}
	return append(dst, ']')
}

// token makes text fit a header field: printable ASCII without spaces, "-" when empty.
func token(text string, most int) string {
	text = strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '_'
		}
		return r
	}, text)
	if text == "" {
		return "-"
	}
	return text[:min(len(text), most)]
}
