package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"redoubt/client"
)

// TestSpillLsSaysHowManyWereErasedElsewhere, and asks for that only where it says it.
func TestSpillLsSaysHowManyWereErasedElsewhere(t *testing.T) {
	for _, c := range []struct {
		json, erased bool
		all          int
		asked        int
		want, not    string
	}{
		{false, false, 70_000, 1, "by no report here: 70000 versions", ""},
		{false, false, 0, 1, "PROVEN GONE", "by no report here"},
		{true, false, 70_000, 0, `"spills"`, "70000"},
		{false, true, 70_000, 1, "these are the newest 1 of 70000", ""},
		{false, true, 1, 1, "unclass", "these are the newest"},
		{false, true, 0, 1, "unclass", "these are the newest"}, // a node that does not say it
		{true, true, 70_000, 1, `"all": 70000`, ""},
	} {
		asked := 0
		node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/v1/spills/erased" {
				fmt.Fprint(w, `{"spills":[]}`)
				return
			}
			asked++
			list := ""
			if c.all > 0 || c.erased {
				list = `{"name":{"bucket":"reports","key":"plan"},"from":"unclass"}`
			}
			fmt.Fprintf(w, `{"erased":[%s],"all":%d}`, list, c.all)
		}))
		var out bytes.Buffer
		a := &app{out: &out, err: &out, json: c.json}
		api, err := client.New(node.URL, nil, "token")
		if err == nil && c.erased {
			err = a.listErased(t.Context(), api)
		} else if err == nil {
			err = a.listSpills(t.Context(), api)
		}
		node.Close()
		if got := out.String(); err != nil || asked != c.asked || !strings.Contains(got, c.want) || c.not != "" && strings.Contains(got, c.not) {
			t.Errorf("%+v: asked %d times, %v: %s", c, asked, err, got)
		}
	}
}
