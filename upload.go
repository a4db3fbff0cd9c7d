package redoubt

import (
	"context"
	"io"
	"time"

	"redoubt/label"
)

// UploadID names a multipart upload; opaque.
type UploadID string

// CreateUpload begins a multipart upload.
type CreateUpload struct {
	Name         ObjectName
	Label        string
	Attributes   Attributes
	Tags         []Tag
	Retention    Retention
	Hold         bool
	SumAlgorithm string // "", CRC32, CRC32C, CRC64NVME, SHA1 or SHA256
	SumComposite bool
}

// Upload is one in progress. It exists only for credentials that work at the label it was begun at.
type Upload struct {
	Name         ObjectName
	ID           UploadID
	Label        label.Label
	Author       SubjectName
	Started      time.Time
	Attributes   Attributes
	SumAlgorithm string
	SumComposite bool
}

// PutPart stores one part; a part number used again replaces the part.
type PutPart struct {
	Name      ObjectName
	Upload    UploadID
	Number    int // 1 to MaxParts
	SizeBytes int64
	Body      io.Reader
	Finish    func() (sums Checksums, md5 string, err error) // as in PutObject
}

// CopyPart makes a part from (a range of) a version.
type CopyPart struct {
	Name     ObjectName
	Upload   UploadID
	Number   int
	Source   ObjectName
	SourceID VersionID
	SourceIf Conditions
	Off, N   int64 // N < 0: all
}

// Part is one stored part.
type Part struct {
	Number    int
	SizeBytes int64
	ETag      string
	Modified  time.Time
	Checksums Checksums
}

// CompletePart names a part as the client saw it; empty fields are not compared.
type CompletePart struct {
	Number    int
	ETag      string
	Checksums Checksums
}

// CompleteUpload makes the version out of the parts, in the order given.
type CompleteUpload struct {
	Name      ObjectName
	Upload    UploadID
	Parts     []CompletePart
	If        Conditions
	SizeBytes int64     // -1: not stated by the client
	Checksums Checksums // of the whole object, as stated by the client
}

// ListParts asks for one page of parts.
type ListParts struct {
	Name   ObjectName
	Upload UploadID
	After  int
	Max    int
}

// PartPage is one page of parts.
type PartPage struct {
	Upload    Upload
	Parts     []Part
	Truncated bool
	Next      int
}

// ListUploads asks for one page of uploads in progress at the working label.
type ListUploads struct {
	Bucket            BucketName
	Prefix, Delimiter string
	AfterKey          string
	AfterID           UploadID
	Max               int
}

// UploadPage is one page of uploads.
type UploadPage struct {
	Uploads   []Upload
	Prefixes  []string
	Truncated bool
	NextKey   string
	NextID    UploadID
}

// UploadService is multipart upload. An upload that another working label began does not exist for the caller.
type UploadService interface {
	CreateUpload(ctx context.Context, who Credential, in CreateUpload) (Upload, error)
	PutPart(ctx context.Context, who Credential, in PutPart) (Part, error)
	CopyPart(ctx context.Context, who Credential, in CopyPart) (Part, Version, error) // the part, and the source read
	ListParts(ctx context.Context, who Credential, in ListParts) (PartPage, error)
	CompleteUpload(ctx context.Context, who Credential, in CompleteUpload) (Version, error)
	AbortUpload(ctx context.Context, who Credential, name ObjectName, id UploadID) error
}
