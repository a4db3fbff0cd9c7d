package s3

import (
	"encoding/json"
	"strings"
	"time"
)

// postPolicy is the document that a POST form is held to ("POST policy", S3 API reference).
type postPolicy struct {
	expires     time.Time
	conditions  []postCondition
	ranged      bool
	least, most int64
}

// postCondition is one demand on one field.
type postCondition struct {
	field, value string
	prefix       bool // starts-with; else equal
}

const maxPostConditions = 200 // two for each field

func errInvalidPolicyDocument(why string) *apiError {
	return &apiError{code: "InvalidPolicyDocument", status: 400, message: "Invalid Policy: " + why}
}

// parsePostPolicy reads a document strictly: a condition that is not understood is not skipped.
func parsePostPolicy(raw []byte) (p postPolicy, err error) {
	var doc struct {
		Expiration string            `json:"expiration"`
		Conditions []json.RawMessage `json:"conditions"`
	}
	if err := strictJSON(raw, &doc); err != nil {
		return p, errInvalidPolicyDocument("Invalid JSON: " + err.Error())
	}
	if p.expires, err = time.Parse(time.RFC3339, doc.Expiration); err != nil {
		return p, errInvalidPolicyDocument("Invalid 'expiration' value.")
	}
	if doc.Conditions == nil || len(doc.Conditions) > maxPostConditions {
		return p, errInvalidPolicyDocument("Invalid 'conditions' value.")
	}
	for _, c := range doc.Conditions {
		if err := p.add(c); err != nil {
			return p, err
		}
	}
	return p, nil
}

// add reads {"field": "value"}, ["eq"|"starts-with", "$field", "value"] or ["content-length-range", least, most].
func (p *postPolicy) add(raw json.RawMessage) error {
	bad := errInvalidPolicyDocument("Invalid condition.")
	if len(raw) == 0 {
		return bad
	}
	if raw[0] == '{' {
		var one map[string]string
		if strictJSON(raw, &one) != nil || len(one) != 1 {
			return bad
		}
		for field, value := range one {
			p.conditions = append(p.conditions, postCondition{field: strings.ToLower(field), value: value})
		}
		return nil
	}
	var list []json.RawMessage
	var kind string
	if strictJSON(raw, &list) != nil || len(list) != 3 || json.Unmarshal(list[0], &kind) != nil {
		return bad
	}
	if strings.EqualFold(kind, "content-length-range") {
		if p.ranged || json.Unmarshal(list[1], &p.least) != nil || json.Unmarshal(list[2], &p.most) != nil || p.least < 0 || p.most < p.least {
			return bad
		}
		p.ranged = true
		return nil
	}
	var field, value string
	if json.Unmarshal(list[1], &field) != nil || json.Unmarshal(list[2], &value) != nil || !strings.HasPrefix(field, "$") {
		return bad
	}
	c := postCondition{field: strings.ToLower(field[1:]), value: value}
	switch strings.ToLower(kind) {
	case "eq":
	case "starts-with":
		c.prefix = true
	default:
		return bad
	}
	p.conditions = append(p.conditions, c)
	return nil
}

// check holds every field to its conditions, and every field to having one.
func (p *postPolicy) check(fields map[string]string, bucket string) error {
	covered := make(map[string]bool, len(p.conditions))
	for _, c := range p.conditions {
		value := fields[c.field]
		if c.field == "bucket" {
			value = bucket
		}
		if !c.holds(value) {
			return errAccessDenied.say("Invalid according to Policy: Policy Condition failed: " + c.String())
		}
		covered[c.field] = true
	}
	for field := range fields {
		if !covered[field] && !uncovered(field) {
			return errAccessDenied.say("Invalid according to Policy: Extra input fields: " + field)
		}
	}
	return nil
}

// uncovered holds for the fields that need no condition.
func uncovered(field string) bool {
	switch field {
	case "x-amz-signature", "policy", "file", "bucket":
		return true
	}
	return strings.HasPrefix(field, "x-ignore-")
}

func (c postCondition) holds(value string) bool {
	if !c.prefix {
		return value == c.value
	}
	if c.field != "content-type" {
		return strings.HasPrefix(value, c.value)
	}
	for part := range strings.SplitSeq(value, ",") { // S3: every one of several types
		if !strings.HasPrefix(strings.TrimSpace(part), c.value) {
			return false
		}
	}
	return true
}

func (c postCondition) String() string {
	kind := "eq"
	if c.prefix {
		kind = "starts-with"
	}
	return `["` + kind + `", "$` + c.field + `", "` + c.value + `"]`
}
