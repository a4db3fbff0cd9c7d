package estate

import (
	_ "embed"
	"fmt"
)

// ExampleText is the built-in example estate, as a file: an exercise with three enclaves.
//
//go:embed example.yaml
var ExampleText []byte

// Example reads the built-in example estate.
func Example() *Estate {
	e, err := Read(ExampleText, nil)
	if err != nil {
		panic(fmt.Sprintf("estate: the built-in example does not read: %v", err)) // a test reads it
	}
	return e
}
