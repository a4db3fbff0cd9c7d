package s3

import "time"

// Limits on what arrives. Each has its reason; each is tested at n and n+1.
const (
	maxHeaderBytes     = 32 << 10         // names and values; S3 allows 8 KiB, presigned and SDK headers need room
	maxQueryBytes      = 16 << 10         // the longest legal query is a presigned URL with a key-long prefix, all escaped
	maxQueryParams     = 64               // the widest operation knows 20
	maxXMLBytes        = 256 << 10        // settings: 1,000 lifecycle rules are about 200 KiB
	maxDeleteXMLBytes  = 8 << 20          // 1,000 keys of 1,024 bytes, each byte escaped as &#x..; and a version ID
	maxUploadXMLBytes  = 6 << 20          // 10,000 parts with ETag and one checksum each, indented
	maxXMLDepth        = 8                // the deepest document S3 knows has 6 levels
	maxXMLNodes        = 100_000          // 10,000 parts of up to 7 elements, with room
	maxPolicyBytes     = 20 << 10         // S3's own limit for a bucket policy
	maxFormFields      = 100              // the widest known form has about 40
	maxFormFieldBytes  = 20 << 10         // S3: form data and boundaries, without the file, 20,000 bytes
	maxFormBytes       = 64 << 10         // all fields together
	maxBucketTags      = 50               // S3
	maxCORSRules       = 100              // S3
	maxLifecycleRules  = 1000             // S3
	maxUserMetaBytes   = 2 << 10          // S3: user-defined metadata, names and values
	maxPresignSeconds  = 604_800          // S3: seven days, the life of a signing key
	maxChunkHeader     = 160              // 16 hex digits, ";chunk-signature=" and 64 hex digits, with room
	minSignedChunk     = 8 << 10          // S3: but for the last; each chunk costs two hashes and an HMAC
	maxTrailers        = 4                // a checksum and a signature, with room
	maxTrailerBytes    = 1 << 10          // all trailer lines
	maxBucketNameBytes = 63               // S3
	maxSettingDays     = 1 << 20          // 2,800 years: keeps date arithmetic from overflowing
	deleteWorkers      = 16               // DeleteObjects: so many wait for one group commit together
	clockSkew          = 15 * time.Minute // S3
)

// Limits are those that a node may set. A zero field takes the default.
type Limits struct {
	// Stall is how long a client may take to send or take the next ProgressBytes.
	Stall time.Duration
	// ProgressBytes must move within each Stall; both together are the slowest client that is served.
	ProgressBytes int64
}

// Defaults for Limits: at least 1 KiB a half minute, so that a satellite link that is down for that long is kept
// and a client that feeds single bytes is not.
const (
	defaultStall         = 30 * time.Second
	defaultProgressBytes = 1 << 10
)

func (l Limits) withDefaults() Limits {
	if l.Stall <= 0 {
		l.Stall = defaultStall
	}
	if l.ProgressBytes <= 0 {
		l.ProgressBytes = defaultProgressBytes
	}
	return l
}
