package redoubt

import (
	"context"
	"time"
)

// Limits of a search.
const (
	MaxFindText = 256  // bytes of what is looked for
	MaxFindHits = 1000 // in one page
)

// FindObjects asks for current versions over all buckets of a node, and so over all enclaves below it. Zero fields do not restrict.
type FindObjects struct {
	Text   string       `json:"text,omitempty"`   // in the key, or in a name or value of the metadata, whatever its case
	Label  string       `json:"label,omitempty"`  // marking that it has, in any spelling
	Maker  NodeName     `json:"maker,omitempty"`  // node that made it
	Author SubjectName  `json:"author,omitempty"` // who wrote it
	Origin NodeName     `json:"origin,omitempty"` // enclave that it is of
	Bucket BucketName   `json:"bucket,omitempty"`
	Since  time.Time    `json:"since,omitzero"`
	Until  time.Time    `json:"until,omitzero"`
	Max    int          `json:"max,omitempty"`
	After  FindPosition `json:"after,omitzero"`
}

// FindPosition is where a search goes on.
type FindPosition struct {
	Bucket BucketName `json:"bucket,omitempty"`
	Key    string     `json:"key,omitempty"`
}

// Found is a version that a search found, and where it lives.
type Found struct {
	Origin   NodeName          `json:"origin"` // the enclave that it is of
	There    BucketName        `json:"there"`  // its bucket in that enclave
	Bucket   BucketName        `json:"bucket"` // its bucket here, from which it is read
	Key      string            `json:"key"`
	Version  VersionID         `json:"version"`
	Label    string            `json:"label"` // banner
	Maker    NodeName          `json:"maker"`
	Author   SubjectName       `json:"author"`
	Modified time.Time         `json:"modified"`
	Bytes    int64             `json:"size"`
	Meta     map[string]string `json:"meta,omitempty"`
}

// FindPage is one page of a search. With Next it goes on, whether something was found or not.
type FindPage struct {
	Found []Found       `json:"found"`
	Next  *FindPosition `json:"next,omitempty"`
}

// FindService searches what a credential dominates, and neither shows nor counts anything else.
type FindService interface {
	Find(ctx context.Context, who Credential, q FindObjects) (FindPage, error)
}
