package ztdf

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// strictJSON reads one JSON document: in UTF-8, no key twice in an object, no key that is not exactly one of v's, nothing
// behind it. encoding/json takes "Payload" for "payload"; another reader would not, so it is refused here.
func strictJSON(data []byte, keys map[string]bool, v any) error {
	if !utf8.Valid(data) {
		return errors.New("it is not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := walk(d, keys, 0); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("something stands behind it")
	}
	d = json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	return d.Decode(v)
}

// walk reads one value for its form. keys nil: any are allowed, none twice.
func walk(d *json.Decoder, keys map[string]bool, depth int) error {
	t, err := d.Token()
	if err != nil {
		return err
	}
	open, ok := t.(json.Delim)
	if !ok {
		return nil // null too: it leaves a field empty, and those that are needed are looked at
	}
	if depth == maxDepth {
		return errors.New("it is nested too deeply")
	}
	seen := map[string]bool{}
	for d.More() {
		if open == '{' {
			t, err := d.Token()
			if err != nil {
				return err
			}
			key, _ := t.(string)
			switch {
			case keys != nil && !keys[key]:
				return fmt.Errorf("it has a field %q, which the format does not have", clip(key))
			case seen[key]:
				return fmt.Errorf("the field %q stands twice", key)
			}
			seen[key] = true
		}
		if err := walk(d, keys, depth+1); err != nil {
			return err
		}
	}
	_, err = d.Token()
	return err
}

func set(names ...string) map[string]bool {
	m := map[string]bool{}
	for _, n := range names {
		m[n] = true
	}
	return m
}

// b64 is base64 as the format has it: with padding, and one spelling for one content.
var b64 = base64.StdEncoding.Strict()

// decode64 decodes one spelling of at most max bytes, and no line break in it.
func decode64(s string, max int) ([]byte, error) {
	if len(s) > b64.EncodedLen(max) {
		return nil, fmt.Errorf("it has more than %d bytes", max)
	}
	out, err := b64.DecodeString(s)
	if err == nil && b64.EncodeToString(out) != s {
		err = errors.New("it is not base64 as it is written")
	}
	return out, err
}
