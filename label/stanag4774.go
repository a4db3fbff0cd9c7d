package label

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"strings"
	"time"
)

const namespace4774 = "urn:nato:stanag:4774:confidentialitymetadatalabel:1:0"

// Kind4774 says what a STANAG 4774 label speaks of. The zero Kind4774 is none, and is refused.
type Kind4774 int

// Kinds of label. An originator's label is never overwritten: one that an agreement maps goes beside it,
// as an alternative. A metadata label is that of the metadata itself.
const (
	Originator4774 Kind4774 = iota + 1
	Alternative4774
	Metadata4774
)

var roots4774 = map[Kind4774]string{
	Originator4774:  "originatorConfidentialityLabel",
	Alternative4774: "alternativeConfidentialityLabel",
	Metadata4774:    "metadataConfidentialityLabel",
}

// Meta4774 is what a 4774 label says besides the label.
type Meta4774 struct {
	Kind         Kind4774
	Created      time.Time // required, with a time zone; whole seconds are kept
	Originator   string    // who made the label; may be empty
	OriginatorID string    // the IDType of Originator: rfc822Name, jID …; required with it
	ID           string    // the Id attribute, an XML name; may be empty
	Review       time.Time // zero when absent
	PrivacyMark  string    // free text that others put there; never part of the label
}

// Options4774 are the same facts, for writing.
type Options4774 = Meta4774

// Informative tag names of Redoubt's own, for what the standard has no place for. They never widen an audience.
const (
	tagOwner   = "Owner"        // another owner, or several of JOINT material
	tagFGI     = "FGI"          // sources; the value FGI alone conceals them
	tagDisplay = "Display Only" // nations that may be shown it
	tagRelease = "Release"      // how the audience is spelled: plain when absent
)

var releaseWords = map[spelling]string{spellNoforn: "OWNER ONLY", spellRel: "REL TO", spellEyes: "EYES ONLY"}

// To4774 writes the label as a STANAG 4774 document, in the standard's namespace.
//
// The audience is always written out as permissive values, also where a marking would leave it to be
// understood, since others read its absence as "everybody"; ALL is left out where it is understood. An
// audience of nobody is the value NONE. The policy's version has no place in the standard.
func (l Label) To4774(o Options4774) ([]byte, error) {
	root := roots4774[o.Kind]
	switch {
	case l.policy == nil:
		return nil, errors.New("an unmarked label cannot be written")
	case root == "":
		return nil, errors.New("the kind of the label is not given")
	case o.Created.IsZero():
		return nil, errors.New("the label needs the time of its creation")
	case (o.Originator == "") != (o.OriginatorID == ""):
		return nil, errors.New("an originator needs both its name and the type of that name")
	case o.ID != "" && !ncName(o.ID):
		return nil, fmt.Errorf("the Id %q is no XML name", clip(o.ID))
	}
	for _, s := range []string{o.Originator, o.OriginatorID, o.PrivacyMark} {
		if len(s) > MaxMarkingBytes || strings.TrimSpace(s) != s || !xmlText(s) {
			return nil, fmt.Errorf("%q cannot be written", clip(s))
		}
	}
	p := l.policy
	var w xmlWriter
	w.raw(xml.Header)
	attrs := []string{"xmlns", namespace4774}
	if o.ID != "" {
		attrs = append(attrs, "Id", o.ID)
	}
	if !o.Review.IsZero() {
		attrs = append(attrs, "ReviewDateTime", o.Review.UTC().Format(time.RFC3339))
	}
	w.open(root, attrs...)
	w.open("ConfidentialityInformation")
	w.leaf("PolicyIdentifier", p.name, "URI", "urn:oid:"+p.oid)
	w.leaf("Classification", p.classes[l.class].name)
	if o.PrivacyMark != "" {
		w.leaf("PrivacyMark", o.PrivacyMark)
	}
	for _, c := range l.categories4774() {
		attrs := []string{"Type", c.kind, "TagName", c.tag}
		if id := p.setIDs[c.tag]; id != "" && !c.ours {
			attrs = append(attrs, "URI", "urn:oid:"+id)
		}
		w.open("Category", attrs...)
		for _, v := range c.values {
			w.leaf("GenericValue", v)
		}
		w.close("Category")
	}
	w.close("ConfidentialityInformation")
	if o.Originator != "" {
		w.leaf("OriginatorID", o.Originator, "IDType", o.OriginatorID)
	}
	w.leaf("CreationDateTime", o.Created.UTC().Format(time.RFC3339))
	w.close(root)
	return w.b.Bytes(), nil
}

// category4774 is one Category element.
type category4774 struct {
	kind, tag string
	values    []string
	ours      bool
}

func (l *Label) categories4774() []category4774 {
	p := l.policy
	var out []category4774
	add := func(kind, tag, value string, ours bool) {
		if n := len(out); n > 0 && out[n-1].kind == kind && out[n-1].tag == tag {
			out[n-1].values = append(out[n-1].values, value)
			return
		}
		out = append(out, category4774{kind, tag, []string{value}, ours})
	}
	for i := range p.cats {
		if l.cats.has(i) {
			add("RESTRICTIVE", p.cats[i].set, p.cats[i].spif, false)
		}
	}
	_, all := p.defaultAudience(l)
	switch {
	case l.all && !all:
		add("PERMISSIVE", p.releaseSet, "ALL", false)
	case !l.all && l.audience.empty():
		add("PERMISSIVE", p.releaseSet, "NONE", false)
	case !l.all:
		for _, i := range p.byName {
			if l.audience.has(i) {
				add("PERMISSIVE", p.releaseSet, p.nations[i].spif, false)
			}
		}
	}
	for i := range p.marks {
		if l.marks.has(i) {
			add("INFORMATIVE", p.marks[i].set, p.marks[i].spif, false)
		}
	}
	nations := func(tag string, s nationSet) {
		for _, i := range p.byName {
			if s.has(i) {
				add("INFORMATIVE", tag, p.nations[i].spif, true)
			}
		}
	}
	switch {
	case l.owner == jointOwner:
		nations(tagOwner, l.fgi)
	case l.owner != ownOwner:
		nations(tagOwner, one(int(l.owner-1)))
	case l.fgiSeen && l.fgi.empty():
		add("INFORMATIVE", tagFGI, "FGI", true)
	case l.fgiSeen:
		nations(tagFGI, l.fgi)
	}
	nations(tagDisplay, l.display)
	if word := releaseWords[l.spelling]; word != "" {
		add("INFORMATIVE", tagRelease, word, true)
	}
	return out
}

// xmlWriter writes elements; all text is escaped.
type xmlWriter struct{ b bytes.Buffer }

func (w *xmlWriter) raw(s string) { w.b.WriteString(s) }

func (w *xmlWriter) escape(s string) { _ = xml.EscapeText(&w.b, []byte(s)) } // a Buffer does not fail

func (w *xmlWriter) open(name string, attrs ...string) {
	w.raw("<" + name)
	for i := 0; i+1 < len(attrs); i += 2 {
		w.raw(" " + attrs[i] + `="`)
		w.escape(attrs[i+1])
		w.raw(`"`)
	}
	w.raw(">")
}

func (w *xmlWriter) close(name string) { w.raw("</" + name + ">") }

func (w *xmlWriter) leaf(name, text string, attrs ...string) {
	w.open(name, attrs...)
	w.escape(text)
	w.close(name)
}

// ncName reports whether s is an XML name without a colon, of ASCII letters.
func ncName(s string) bool {
	for i, r := range s {
		letter := r == '_' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
		if !letter && (i == 0 || r != '-' && r != '.' && (r < '0' || r > '9')) {
			return false
		}
	}
	return s != "" && len(s) <= maxPhraseBytes
}

// xmlText reports whether XML can hold every character of s.
func xmlText(s string) bool {
	for _, r := range s {
		if r == '\uFFFD' || r < 0x20 && r != '\t' && r != '\n' || r == 0xFFFE || r == 0xFFFF {
			return false
		}
	}
	return true
}
