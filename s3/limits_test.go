package s3

import (
	"fmt"
	"strings"
	"testing"

	"redoubt"
)

func TestLimitsOnQueriesAndDocuments(t *testing.T) {
	rule := "<CORSRule><AllowedOrigin>*</AllowedOrigin><AllowedMethod>GET</AllowedMethod></CORSRule>"
	life := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "<Rule><ID>%d</ID><Status>Enabled</Status><Filter/><Expiration><Days>1</Days></Expiration></Rule>", i)
		}
		return b.String()
	}
	statements := func(n int) string {
		one := `{"Effect":"Allow","Principal":"*","Action":"s3:*","Resource":"arn:aws:s3:::b/*"}`
		return `{"Statement":[` + strings.TrimSuffix(strings.Repeat(one+",", n), ",") + `]}`
	}
	post := func(n int) string {
		return `{"expiration":"2026-01-01T00:00:00Z","conditions":[` + strings.TrimSuffix(strings.Repeat(`{"a":"b"},`, n), ",") + `]}`
	}
	params := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "p%d&", i)
		}
		return b.String()
	}
	nest := func(n int) string { return strings.Repeat("<a>", n) + strings.Repeat("</a>", n) }
	document := func(parse func(*element) error, root string) func(string) error {
		return func(inner string) error {
			doc, err := parseXML([]byte("<"+root+">"+inner+"</"+root+">"), root)
			if err != nil {
				return err
			}
			return parse(doc)
		}
	}
	cors := document(func(e *element) error { _, err := parseCORS(e); return err }, "CORSConfiguration")
	lifecycle := document(func(e *element) error { _, err := parseLifecycle(e); return err }, "LifecycleConfiguration")
	query := func(s string) error { _, err := parseQuery(s); return err }
	for name, c := range map[string]struct {
		parse func(string) error
		most  string
		over  string
	}{
		"query bytes":      {query, "a=" + strings.Repeat("b", maxQueryBytes-2), "a=" + strings.Repeat("b", maxQueryBytes-1)},
		"query parameters": {query, params(maxQueryParams), params(maxQueryParams + 1)},
		"CORS rules":       {cors, strings.Repeat(rule, maxCORSRules), strings.Repeat(rule, maxCORSRules+1)},
		"lifecycle rules":  {lifecycle, life(maxLifecycleRules), life(maxLifecycleRules + 1)},
		"policy statements": {func(s string) error { _, err := parsePolicy([]byte(s), "b"); return err },
			statements(maxStatements), statements(maxStatements + 1)},
		"post conditions": {func(s string) error { _, err := parsePostPolicy([]byte(s)); return err },
			post(maxPostConditions), post(maxPostConditions + 1)},
		"XML depth": {func(s string) error { _, err := parseXML([]byte(s), "a"); return err }, nest(maxXMLDepth), nest(maxXMLDepth + 1)},
		"XML nodes": {func(s string) error { _, err := parseXML([]byte("<a>"+s+"</a>"), "a"); return err },
			strings.Repeat("<b/>", maxXMLNodes-1), strings.Repeat("<b/>", maxXMLNodes)},
		"JSON depth": {func(s string) error { return noRepeats([]byte(s)) },
			strings.Repeat("[", maxJSONDepth) + strings.Repeat("]", maxJSONDepth), strings.Repeat("[", maxJSONDepth+1) + strings.Repeat("]", maxJSONDepth+1)},
		"bucket tags": {func(s string) error { return checkTags(numberedTags(len(s)), maxBucketTags) }, strings.Repeat("t", maxBucketTags), strings.Repeat("t", maxBucketTags+1)},
		"entity tags": {func(s string) error { var tags []string; return readETags([]string{s}, &tags) },
			strings.Repeat("a,", maxConditionETags), strings.Repeat("a,", maxConditionETags+1)},
		"upload parts": {func(s string) error { _, err := parseComplete([]byte(s)); return err }, uploadDoc(redoubt.MaxParts), uploadDoc(redoubt.MaxParts + 1)},
	} {
		if err := c.parse(c.most); err != nil {
			t.Errorf("%s: at the limit: %v", name, err)
		}
		if c.parse(c.over) == nil {
			t.Errorf("%s: over the limit, and accepted", name)
		}
	}
}

func numberedTags(n int) (tags []redoubt.Tag) {
	for i := range n {
		tags = append(tags, redoubt.Tag{Key: fmt.Sprint(i)})
	}
	return tags
}

func uploadDoc(n int) string {
	var b strings.Builder
	b.WriteString("<CompleteMultipartUpload>")
	for i := range n {
		fmt.Fprintf(&b, "<Part><PartNumber>%d</PartNumber><ETag>x</ETag></Part>", i+1)
	}
	return b.String() + "</CompleteMultipartUpload>"
}
