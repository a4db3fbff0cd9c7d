package label

import (
	"errors"
	"fmt"
	"strconv"
)

func (r *spifReader) tagSets(root *element) error {
	list := root.child("securityCategoryTagSets")
	if list == nil {
		return nil
	}
	if err := list.conform(shape{children: "securityCategoryTagSet"}); err != nil {
		return err
	}
	for _, set := range list.children {
		if err := set.conform(shape{attrs: "name! id!", children: "securityCategoryTag"}); err != nil {
			return err
		}
		name, id := set.attr("name"), set.attr("id")
		if !oidOK(id) || r.p.setIDs[name] != "" {
			return set.errorf("has no object identifier, or a name that was used before: %q", clip(name))
		}
		r.p.setIDs[name] = id
		for _, tag := range set.children {
			if err := r.tag(name, tag); err != nil {
				return err
			}
		}
	}
	return nil
}

// tagKind is a tag's type, enumerated resolved.
func (e *element) tagKind() (string, error) {
	kind := e.attr("tagType")
	if kind == "enumerated" {
		kind = e.attr("enumType")
	}
	switch kind {
	case "restrictive", "permissive", "tagType7":
		return kind, nil
	}
	return "", e.errorf("has the tagType %q and enumType %q", e.attr("tagType"), e.attr("enumType"))
}

func (r *spifReader) tag(set string, e *element) error {
	err := e.conform(shape{
		attrs:    "name! tagType! enumType tag7Encoding singleSelection minSelection maxSelection",
		children: "tagCategory markingQualifier",
	})
	if err != nil {
		return err
	}
	kind, err := e.tagKind()
	if err != nil {
		return err
	}
	if e := e.attr("tag7Encoding"); e != "" && e != "bitSetAttributes" && e != "securityAttributes" {
		return fmt.Errorf("tag set %q has the tag7Encoding %q", set, clip(e))
	}
	if kind == "permissive" {
		if r.permitted != nil {
			return e.errorf("is a second permissive tag; a label here has one audience")
		}
		r.permitted, r.p.releaseSet = e, set
	}
	t := tag{name: e.attr("name")}
	if e.attr("singleSelection") == "true" {
		t.max = 1
	}
	for attr, to := range map[string]*int{"minSelection": &t.min, "maxSelection": &t.max} {
		if v := e.attr(attr); v != "" {
			if *to, err = strconv.Atoi(v); err != nil || *to < 0 || *to > maxNations {
				return e.errorf("has the %s %q", attr, clip(v))
			}
		}
	}
	for _, q := range e.all("markingQualifier") {
		if err := checkQualifier(q); err != nil {
			return err
		}
	}
	for _, c := range e.all("tagCategory") {
		got, err := r.tagCategory(set, kind, c)
		if err != nil {
			return err
		}
		t.items = append(t.items, got)
	}
	if t.min > 0 || t.max > 0 {
		r.p.tags = append(r.p.tags, t)
	}
	return nil
}

func (r *spifReader) tagCategory(set, kind string, e *element) (ref, error) {
	err := e.conform(shape{
		attrs:    "name! lacv! obsolete userInput",
		children: "excludedClass requiredCategory excludedCategory equivalentSecCategoryTag markingData markingQualifier",
	})
	if err != nil {
		return ref{}, err
	}
	if err := e.lacvOK(); err != nil {
		return ref{}, err
	}
	w, replaces, err := e.spellings()
	if err != nil {
		return ref{}, err
	}
	it := item{spif: e.attr("name"), lacv: e.attr("lacv"), replaceClass: replaces}
	for _, x := range e.all("excludedClass") {
		c := r.classByName(x.text)
		if err := x.conform(shape{text: true}); err != nil {
			return ref{}, err
		}
		if c < 0 || it.excludesClass(uint8(c)) {
			return ref{}, x.errorf("names %q, which is no classification or was named before", clip(x.text))
		}
		it.excluded |= 1 << c
	}
	for _, x := range e.all("equivalentSecCategoryTag") {
		if err := x.conform(shape{attrs: "policyRef! tagSetId! tagType! enumType lacv! applied! all action"}); err != nil {
			return ref{}, err
		}
	}
	var to ref
	switch p := r.p; kind {
	case "restrictive":
		to = ref{refCategory, len(p.cats)}
		p.cats = append(p.cats, category{phrases: w, item: it, set: set})
	case "permissive":
		to = ref{refNation, len(p.nations)}
		p.nations = append(p.nations, nation{phrases: w, item: it, group: len(w.name) != 3})
	default:
		to = ref{refMark, len(p.marks)}
		p.marks = append(p.marks, mark{phrases: w, item: it, set: set, weaker: -1})
	}
	for _, old := range r.tagItems {
		if old.set == set && old.tagType == kind && old.lacv == it.lacv {
			return ref{}, e.errorf("has the lacv %s of another in its set", it.lacv)
		}
	}
	r.tagItems = append(r.tagItems, spifItem{set, kind, it.lacv, to, e})
	if len(r.p.cats) > maxCategories || len(r.p.marks) > maxMarks || len(r.p.nations) > maxNations {
		return ref{}, errors.New("the policy has more categories, marks or nations than fit in a label")
	}
	return to, nil
}
