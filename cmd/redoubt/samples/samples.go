// Package samples holds the public files that the built-in example estate starts with.
// SOURCES.md names the source and licence of each. The labels are exercise markings.
package samples

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"

	"redoubt"
)

//go:embed manifest.json files
var embedded embed.FS

// Sample is one file and where the example estate keeps it.
type Sample struct {
	Bucket      redoubt.BucketName `json:"bucket"`
	Key         string             `json:"key"`
	ContentType string             `json:"type"`
	Source      string             `json:"source"`
	Licence     string             `json:"licence"`
	LicenceText string             `json:"licence_text,omitempty"` // a file in licences/
	Puts        []Put              `json:"exercise_puts"`
}

// Put is one place and marking, made up for the exercise.
type Put struct {
	Node  redoubt.NodeName `json:"node"`
	Label string           `json:"label"`
}

// All lists every sample.
func All() ([]Sample, error) {
	data, err := embedded.ReadFile("manifest.json")
	if err != nil {
		return nil, err
	}
	var all []Sample
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&all); err != nil {
		return nil, fmt.Errorf("samples: manifest: %w", err)
	}
	return all, nil
}

// Content is the file itself.
func (s Sample) Content() ([]byte, error) {
	return embedded.ReadFile("files/" + string(s.Bucket) + "/" + s.Key)
}
