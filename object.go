package redoubt

import (
	"context"
	"io"
	"time"

	"redoubt/label"
)

// BucketName names a bucket by the S3 rules (3 to 63 of a-z, 0-9, "-"). Names with a dot are reserved:
// ORIGIN.BUCKET for guards, and ".system" for the node's own records.
type BucketName string

// ObjectName names an object. What a subject sees under it is a version.
type ObjectName struct {
	Bucket BucketName `json:"bucket"`
	Key    string     `json:"key"` // 1 to MaxKeyBytes of UTF-8 without NUL
}

func (n ObjectName) String() string { return string(n.Bucket) + "/" + n.Key }

// VersionID is opaque: it tells neither time nor order nor maker to who holds it.
// Empty asks for the current version.
type VersionID string

// Limits on what arrives, from the S3 API unless said otherwise.
const (
	MaxKeyBytes       = 1024
	MaxMetadataBytes  = 8 << 10 // names and values together (S3: 2 KiB user-defined, 8 KiB all headers)
	MaxObjectBytes    = 5 << 40
	MaxPutBytes       = 5 << 30
	MinPartBytes      = 5 << 20 // but for the last part
	MaxParts          = 10_000
	MaxListKeys       = 1000
	MaxTags           = 10
	MaxTagKeyRunes    = 128
	MaxTagValueRunes  = 256
	MaxDeletesPerCall = 1000
)

// Attributes travel with a version and come back as they were given.
type Attributes struct {
	ContentType, ContentEncoding, ContentLanguage string
	ContentDisposition, CacheControl, Expires     string
	StorageClass                                  string            // kept for display; there is one
	Meta                                          map[string]string // user metadata: lower-case names without x-amz-meta-, never the label or precedence
	Precedence                                    string            // flash, immediate, priority, routine or ""
}

// Checksums are of the plaintext, base64 as S3 writes them; empty: not computed.
type Checksums struct {
	CRC32, CRC32C, CRC64NVME, SHA1, SHA256 string
	Composite                              bool // over the parts' checksums (S3 "COMPOSITE"); false is the full object
}

// Tag is one S3 object tag.
type Tag struct{ Key, Value string }

// Retention keeps a version from being removed before Until.
type Retention struct {
	Mode  string    `json:"mode,omitempty"` // "", "GOVERNANCE" or "COMPLIANCE"
	Until time.Time `json:"until,omitzero"`
}

// Version is one immutable, labelled state of an object, or a delete marker.
type Version struct {
	Name       ObjectName
	ID         VersionID
	Label      label.Label
	Marker     bool
	Latest     bool // current for the reader who asked
	SizeBytes  int64
	ETag       string // without quotes; contains "-" unless it is the MD5 of the content
	Modified   time.Time
	Author     SubjectName
	Maker      NodeName
	Attributes Attributes
	Checksums  Checksums
	PartSizes  []int64 // of a multipart upload; nil otherwise
	Tags       []Tag
	Retention  Retention
	Hold       bool // legal hold
}

// Conditions are those of RFC 9110 section 13 as S3 applies them. They see only
// versions that the credential dominates. ETags are without quotes; "*" is any.
type Conditions struct {
	IfMatch, IfNoneMatch               []string
	IfModifiedSince, IfUnmodifiedSince time.Time
}

// PutObject asks for a new version.
type PutObject struct {
	Name       ObjectName
	Label      string // the marking asked for; "": join of working label and the bucket's default
	Attributes Attributes
	Tags       []Tag
	Retention  Retention
	Hold       bool
	If         Conditions // IfMatch and IfNoneMatch only
	SizeBytes  int64      // of Body; -1 when not known
	Body       io.Reader  // an error from Read aborts: nothing is stored, and the error is returned
	// Finish, when set, is called once after Body has ended and before anything is
	// committed: it verifies what came with the content and returns what is to be kept.
	// MD5 is hex and becomes the ETag when not empty.
	Finish func() (sums Checksums, md5 string, err error)
	// Digest, when set, is called once behind Finish: the SHA-256 of all of Body, where that was computed on the way. It is kept beside the version
	// for who signs for it, and is no checksum that a client is shown.
	Digest func() (sum [32]byte, known bool)
}

// ReadObject asks for one version: the current one for the reader when ID is empty.
type ReadObject struct {
	Name   ObjectName
	ID     VersionID
	If     Conditions
	Action Action // what is decided and recorded; empty: GetObject or HeadObject
}

// DeleteObject writes a delete marker at the working label, or with ID removes one version.
type DeleteObject struct {
	Name             ObjectName
	ID               VersionID
	If               Conditions // IfMatch only
	BypassGovernance bool
}

// Deleted is what became of a DeleteObject.
type Deleted struct {
	ID     VersionID // of the marker written, or of the version removed
	Marker bool      // a marker was written, or the version removed was one
}

// CopyObject makes a new version of Target from Source. Its label is at least the
// join of the source's label, the working label and the bucket's default.
type CopyObject struct {
	Source            ObjectName
	SourceID          VersionID
	SourceIf          Conditions
	Target            ObjectName
	Label             string      // asked for; "" for the join
	ReplaceAttributes *Attributes // nil: as the source
	ReplaceTags       *[]Tag
	Retention         Retention
	Hold              bool
	If                Conditions
	SumAlgorithm      string // "", or a checksum algorithm to compute for the copy
}

// ListObjects asks for one page of current versions, in UTF-8 byte order of the keys.
type ListObjects struct {
	Bucket            BucketName
	Prefix, Delimiter string
	After             string // exclusive; a common prefix skips what lies under it
	Max               int    // keys and prefixes together
}

// ObjectPage is one page of a listing.
type ObjectPage struct {
	Versions  []Version // Attributes, Tags, Parts are not filled
	Prefixes  []string
	Truncated bool
	Next      string // for After
}

// ListVersions asks for one page of all versions and markers, newest first under each key.
type ListVersions struct {
	Bucket            BucketName
	Prefix, Delimiter string
	AfterKey          string
	AfterID           VersionID
	Max               int
}

// VersionPage is one page of versions.
type VersionPage struct {
	Versions  []Version
	Prefixes  []string
	Truncated bool
	NextKey   string
	NextID    VersionID
}

// AlterObject changes what may be changed of a version; nil leaves a thing as it
// is. It needs a working label equal to the one that the version was made at. BypassGovernance asks to go past GOVERNANCE
// retention where that is in the way, which takes the storage role or a grant that names ActionBypassLock.
type AlterObject struct {
	Name             ObjectName
	ID               VersionID
	Tags             *[]Tag
	Retention        *Retention
	Hold             *bool
	BypassGovernance bool
}

// Object is an open version. Close releases it. Reader may be called more than once.
type Object interface {
	Version() Version
	// Reader gives n bytes from off of the plaintext (n < 0: to the end). Every chunk is
	// authenticated before a byte of it is returned.
	Reader(off, n int64) io.Reader
	Close() error
}

// ObjectService is what an enclave does with objects. Every method decides before it does anything
// else, records the decision, and answers NotFound, in the same words, for
// what does not exist and for what the credential does not dominate. What a method
// acknowledges is durable. All methods may be called at once.
type ObjectService interface {
	PutObject(ctx context.Context, who Credential, in PutObject) (Version, error)
	GetObject(ctx context.Context, who Credential, in ReadObject) (Object, error)
	HeadObject(ctx context.Context, who Credential, in ReadObject) (Version, error)
	DeleteObject(ctx context.Context, who Credential, in DeleteObject) (Deleted, error)
	CopyObject(ctx context.Context, who Credential, in CopyObject) (Version, error)
	AlterObject(ctx context.Context, who Credential, in AlterObject) (Version, error)
}

// ListService lists what a credential dominates, and neither shows nor counts anything else.
type ListService interface {
	ListObjects(ctx context.Context, who Credential, in ListObjects) (ObjectPage, error)
	ListVersions(ctx context.Context, who Credential, in ListVersions) (VersionPage, error)
	ListUploads(ctx context.Context, who Credential, in ListUploads) (UploadPage, error)
}
