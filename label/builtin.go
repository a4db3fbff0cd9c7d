package label

import (
	"embed"
	"encoding/xml"
	"fmt"
	"slices"
	"strings"
	"sync"
)

//go:embed policies/*.xml policies/nations.txt
var policyFiles embed.FS

// builtins holds, for each built-in policy, the function that loads it at its first use.
var builtins = map[string]func() (*Policy, error){
	"USA":  builtin("usa.xml"),
	"NATO": builtin("nato.xml"),
	"GBR":  builtin("gbr.xml"),
	"FRA":  builtin("fra.xml"),
	"DEU":  builtin("deu.xml"),
	"AUS":  builtin("aus.xml"),
	"CAN":  builtin("can.xml"),
	"NZL":  builtin("nzl.xml"),
}

func builtin(file string) func() (*Policy, error) {
	return sync.OnceValues(func() (*Policy, error) {
		f, err := policyFiles.Open("policies/" + file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return ReadSPIF(f)
	})
}

// Builtin is the built-in policy of that name, in any case: one instance for the whole process. The
// error says which names there are.
func Builtin(name string) (*Policy, error) {
	load, ok := builtins[strings.ToUpper(name)]
	if !ok {
		return nil, fmt.Errorf("no built-in marking policy is named %q; there are %s", clip(name), strings.Join(BuiltinNames(), ", "))
	}
	return load()
}

// BuiltinNames are the names of the built-in policies, sorted.
func BuiltinNames() []string {
	var names []string
	for n := range builtins {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// countryCodes are the trigraphs of all countries, from policies/nations.txt.
var countryCodes = sync.OnceValue(func() []string {
	data, err := policyFiles.ReadFile("policies/nations.txt")
	if err != nil {
		return nil // embedded: it cannot be missing, and without it every code is refused
	}
	var codes []string
	for line := range strings.Lines(string(data)) {
		if code, _, ok := strings.Cut(line, "\t"); ok {
			codes = append(codes, code)
		}
	}
	return codes
})

func xmlName(local string) xml.Name { return xml.Name{Space: spifNamespace, Local: local} }
