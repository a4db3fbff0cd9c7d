// Package ztdf writes and strictly reads one version as a ZTDF file (TDF 4.3): a zip of a manifest and a sealed payload,
// whose key is wrapped to a partner's key access service, with the STANAG 4774 label of the content as an assertion that
// its originator signed. docs/spec/ztdf.md is the format as it is written and read here.
//
// It decides nothing: that a version may leave the estate a node has decided and recorded before its content comes here
// (redoubt.ExportService), and under what label something comes in is decided by the node that it is put into.
//
// A file is believed by two things alone: the key that it was sealed to, and the signature of a signer whose public key the
// reader was given beforehand. A key, certificate or address that the file itself carries is never looked at. [Open]
// authenticates everything, the whole payload too, before it gives out a byte.
//
// All cryptography is that of the standard library, and works under GODEBUG=fips140=only.
package ztdf

import (
	"fmt"

	"redoubt"
)

// Names of the two members of the archive.
const (
	manifestName = "0.manifest.json"
	payloadName  = "0.payload"
)

// Version is the version of the specification that is written, and the only minor version that is read.
const Version = "4.3.0"

// Limits on what arrives, and on what is written. Each is tested at n and n+1.
const (
	MaxManifestBytes  = 8 << 20 // 32,768 segments at about 100 bytes, and a signature over all of their hashes, twice encoded
	MaxSegments       = 1 << 15 // 64 GiB in segments of SegmentBytes
	SegmentBytes      = 2 << 20 // of plaintext in a segment that is written
	MaxSegmentBytes   = 4 << 20 // of plaintext in one that is read: it is held in memory
	MaxContentBytes   = int64(MaxSegments) * SegmentBytes
	MaxKeyAccess      = 16       // key access objects of one file
	MaxAssertions     = 16       // assertions of one file
	MaxStatementBytes = 64 << 10 // of an assertion's statement: a 4774 label with every nation has 16 KiB
	MaxSignatureBytes = 2 << 20  // of a JWS: it holds 16 bytes for each segment, twice encoded
	MaxAttributes     = 512      // attributes of a policy: every nation and every category of a label
	MaxTextBytes      = 1024     // of an attribute, an address, an identifier
	MaxPolicyBytes    = 1 << 20  // of the policy, before base64
	maxDepth          = 16       // nesting of the manifest; the format has six
)

// The rules that a file is refused by: each error names one.
const (
	RuleArchive   = "ztdf-archive"   // the zip is not two stored members and nothing else
	RuleManifest  = "ztdf-manifest"  // the manifest is malformed, or of another version
	RuleAlgorithm = "ztdf-algorithm" // an algorithm that is not known, or weaker than what is allowed
	RuleKey       = "ztdf-key"       // the payload key is not wrapped to the private key at hand
	RulePolicy    = "ztdf-policy"    // the policy is not the one that the payload key is bound to
	RuleIntegrity = "ztdf-integrity" // root signature, segments or payload are not what was sealed
	RuleAssertion = "ztdf-assertion" // there is no label, or it is not bound to this file
	RuleDigest    = "ztdf-digest"    // the signature covers the segments' tags alone, and Options.Unbound is not set
	RuleSigner    = "ztdf-signer"    // no pinned key signed the label
	RuleLabel     = "ztdf-label"     // the label does not parse, or is in no policy that is known here
)

// refused is a file, or a part of one, that is not taken. What is malformed is Invalid; what is well formed and not to be
// believed is Denied.
func refused(kind redoubt.Kind, rule, format string, args ...any) error {
	return &redoubt.Error{Op: "ztdf", Kind: kind, Rule: rule, Err: fmt.Errorf(format, args...), Hint: hints[rule]}
}

// hints say what to do about a rule.
var hints = map[string]string{
	RuleKey:       "give the private key of the key access service that the file was made for: --kas-private",
	RuleDigest:    "who has the file's key, as each recipient does, could have put other content under the signed label: ask the partner for a signed digest, or accept it with --accept-unbound",
	RuleSigner:    "give the public key of who signs for the partner, which you have from the partner himself: --trust",
	RuleAlgorithm: "docs/spec/ztdf.md lists the algorithms; a partner's RSA key has 3072 bits or more, his elliptic curve is P-256 or P-384",
	RuleLabel:     "a label of another policy needs that policy, and an agreement that converts it: --policy, --agreement",
	RuleAssertion: "a file without a signed STANAG 4774 label is unmarked, and unmarked material is not taken: ask the originator to label it",
}
