package main

import (
	"strings"

	"redoubt"
)

// place is s3://BUCKET/KEY.
type place struct {
	bucket redoubt.BucketName
	key    string
}

func (p place) String() string { return "s3://" + string(p.bucket) + "/" + p.key }

func (p place) name() redoubt.ObjectName { return redoubt.ObjectName{Bucket: p.bucket, Key: p.key} }

// parsePlace reads s3://BUCKET/KEY; KEY may be empty.
func parsePlace(s string) (place, error) {
	rest, ok := strings.CutPrefix(s, "s3://")
	bucket, key, _ := strings.Cut(rest, "/")
	if !ok || bucket == "" {
		return place{}, &usageError{message: s + " is not s3://BUCKET/KEY", hint: "redoubt ls --as SUBJECT@NODE lists the buckets"}
	}
	return place{redoubt.BucketName(bucket), key}, nil
}
