package redoubt

import (
	"context"
	"time"
)

// Bucket is a bucket and its settings. Names and settings are known at the node's
// floor, so they tell nothing of what is in it. Markings are text; "" is the node's own bound.
type Bucket struct {
	Name    BucketName `json:"name"`
	Created time.Time  `json:"created"`
	BucketSettings
}

// BucketSettings is all that the storage role may set.
type BucketSettings struct {
	Default  string `json:"default,omitempty"` // joined with the working label when a request names no label
	Floor    string `json:"floor,omitempty"`   // range that versions must lie in
	Ceiling  string `json:"ceiling,omitempty"`
	Current  string `json:"current,omitempty"`   // "newest" (default) or "highest"
	MD5ETag  bool   `json:"md5_etag,omitempty"`  // compute MD5 for every PUT, for old clients
	Closed   bool   `json:"closed,omitempty"`    // need to know: only who holds a grant
	ReadOnly bool   `json:"read_only,omitempty"` // guards write, nobody else

	Lock      LockSettings    `json:"lock,omitzero"`
	Lifecycle []LifecycleRule `json:"lifecycle,omitempty"`
	CORS      []CORSRule      `json:"cors,omitempty"`
	Tags      []Tag           `json:"tags,omitempty"`
	Policy    string          `json:"policy,omitempty"` // the S3 policy document as it was given
	Grants    []Grant         `json:"grants,omitempty"` // what Policy was mapped to
}

// LockSettings is S3 object lock of a bucket.
type LockSettings struct {
	Enabled bool   `json:"enabled,omitempty"`
	Mode    string `json:"mode,omitempty"` // default retention: GOVERNANCE, COMPLIANCE or none
	Days    int    `json:"days,omitempty"`
	Years   int    `json:"years,omitempty"`
}

// LifecycleRule expires what matches it. Expiry of a current version writes a
// marker at that version's own label; expiry of noncurrent versions removes them.
type LifecycleRule struct {
	ID                 string    `json:"id,omitempty"`
	Disabled           bool      `json:"disabled,omitempty"`
	Prefix             string    `json:"prefix,omitempty"`
	Tags               []Tag     `json:"tags,omitempty"`
	MinBytes, MaxBytes int64     `json:",omitempty"`
	Days               int       `json:"days,omitempty"`
	Date               time.Time `json:"date,omitzero"`
	NoncurrentDays     int       `json:"noncurrent_days,omitempty"`
	NewerNoncurrent    int       `json:"newer_noncurrent,omitempty"`
	ExpiredMarkers     bool      `json:"expired_markers,omitempty"`
	AbortUploadDays    int       `json:"abort_upload_days,omitempty"`
}

// CORSRule is one rule of a bucket's CORS configuration.
type CORSRule struct {
	ID            string   `json:"id,omitempty"`
	Origins       []string `json:"origins"`
	Methods       []string `json:"methods"`
	Headers       []string `json:"headers,omitempty"`
	Expose        []string `json:"expose,omitempty"`
	MaxAgeSeconds int      `json:"max_age_seconds,omitempty"`
}

// BucketService is what may be done with buckets. Only the storage role creates, configures and removes them.
// CreateBucket of a name that exists gives Exists. DeleteBucket decides emptiness on
// what the caller sees; higher versions stay readable to their readers.
type BucketService interface {
	CreateBucket(ctx context.Context, who Credential, name BucketName, s BucketSettings) (Bucket, error)
	HeadBucket(ctx context.Context, who Credential, name BucketName) (Bucket, error)
	ListBuckets(ctx context.Context, who Credential) ([]Bucket, error)
	DeleteBucket(ctx context.Context, who Credential, name BucketName) error
	// UpdateBucket applies change to the settings, atomically, and returns the outcome. change may fail, which changes nothing.
	UpdateBucket(ctx context.Context, who Credential, name BucketName, change func(*BucketSettings) error) (Bucket, error)
	// BucketCORS is the one question that is asked without a credential (a browser's preflight); it gives rules, nothing else.
	BucketCORS(ctx context.Context, name BucketName) []CORSRule
}
