package ztdf

import (
	"mime"
	"net/url"
	"strings"

	"redoubt"
)

// manifest is 0.manifest.json.
type manifest struct {
	SchemaVersion string      `json:"schemaVersion,omitempty"`
	SpecVersion   string      `json:"tdf_spec_version,omitempty"`
	Encryption    encryption  `json:"encryptionInformation"`
	Payload       payload     `json:"payload"`
	Assertions    []assertion `json:"assertions,omitempty"`
}

type payload struct {
	Type        string `json:"type"`
	URL         string `json:"url"`
	Protocol    string `json:"protocol"`
	MIME        string `json:"mimeType"`
	IsEncrypted bool   `json:"isEncrypted"`
	SpecVersion string `json:"tdf_spec_version,omitempty"`
}

type encryption struct {
	Type      string      `json:"type"`
	Policy    string      `json:"policy"`
	KeyAccess []keyAccess `json:"keyAccess"`
	Method    struct {
		Algorithm    string `json:"algorithm"`
		IV           string `json:"iv"` // empty: each segment has its own
		IsStreamable bool   `json:"isStreamable"`
	} `json:"method"`
	Integrity integrity `json:"integrityInformation"`
}

type integrity struct {
	Root struct {
		Alg string `json:"alg"`
		Sig string `json:"sig"`
	} `json:"rootSignature"`
	HashAlg     string    `json:"segmentHashAlg"`
	Size        int64     `json:"segmentSizeDefault"`
	SealedBytes int64     `json:"encryptedSegmentSizeDefault"`
	Segments    []segment `json:"segments"`
}

type keyAccess struct {
	Type       string  `json:"type"`
	URL        string  `json:"url"`
	Protocol   string  `json:"protocol"`
	WrappedKey string  `json:"wrappedKey"`
	Binding    binding `json:"policyBinding"`
	Metadata   string  `json:"encryptedMetadata,omitempty"` // not looked at
	KID        string  `json:"kid,omitempty"`
	SID        string  `json:"sid,omitempty"`
	Version    string  `json:"schemaVersion,omitempty"`
	Ephemeral  string  `json:"ephemeralPublicKey,omitempty"`
}

type binding struct {
	Alg  string `json:"alg"`
	Hash string `json:"hash"`
}

type segment struct {
	Hash        string `json:"hash"`
	Size        int64  `json:"segmentSize"`
	SealedBytes int64  `json:"encryptedSegmentSize"`
}

type assertion struct {
	ID        string    `json:"id"`
	Type      string    `json:"type"`
	Scope     string    `json:"scope"`
	State     string    `json:"appliesToState,omitempty"`
	Statement statement `json:"statement"`
	Binding   struct {
		Method    string `json:"method"`
		Signature string `json:"signature"`
	} `json:"binding"`
}

type statement struct {
	Format string `json:"format,omitempty"`
	Schema string `json:"schema,omitempty"`
	Value  string `json:"value,omitempty"`
}

// policyObject is what encryptionInformation.policy holds, in base64.
type policyObject struct {
	UUID string `json:"uuid"`
	Body struct {
		Attributes []attribute `json:"dataAttributes"`
		Dissem     []string    `json:"dissem"`
	} `json:"body"`
}

type attribute struct {
	Attribute   string `json:"attribute"`
	DisplayName string `json:"displayName,omitempty"`
	IsDefault   bool   `json:"isDefault,omitempty"`
	PubKey      string `json:"pubKey,omitempty"` // never looked at
	KASURL      string `json:"kasURL,omitempty"`
}

var (
	manifestKeys = set("schemaVersion", "tdf_spec_version", "encryptionInformation", "payload", "assertions", "type", "url", "protocol", "mimeType", "isEncrypted",
		"policy", "keyAccess", "method", "algorithm", "iv", "isStreamable", "integrityInformation", "rootSignature", "alg", "sig", "segmentHashAlg",
		"segmentSizeDefault", "encryptedSegmentSizeDefault", "segments", "hash", "segmentSize", "encryptedSegmentSize", "wrappedKey", "policyBinding",
		"encryptedMetadata", "kid", "sid", "ephemeralPublicKey", "id", "scope", "appliesToState", "statement", "format", "schema", "value", "binding", "signature")
	policyKeys = set("uuid", "body", "dataAttributes", "attribute", "displayName", "isDefault", "pubKey", "kasURL", "dissem")
)

func badManifest(format string, args ...any) error {
	return refused(redoubt.Invalid, RuleManifest, format, args...)
}

func badAlgorithm(what, got, want string) error {
	return refused(redoubt.Denied, RuleAlgorithm, "%s is %q, want %s", what, clip(got), want)
}

// readManifest reads a manifest and holds everything that needs no key against the format.
func readManifest(data []byte) (*manifest, error) {
	m := new(manifest)
	if err := strictJSON(data, manifestKeys, m); err != nil {
		return nil, badManifest("the manifest: %w", err)
	}
	e, p := &m.Encryption, &m.Payload
	version := ""
	for _, v := range []string{m.SchemaVersion, m.SpecVersion, p.SpecVersion} {
		if v != "" && version != "" && v != version {
			return nil, badManifest("its version is told twice, as %q and %q", clip(version), clip(v))
		}
		if v != "" {
			version = v
		}
	}
	switch {
	case !strings.HasPrefix(version, "4.3."):
		return nil, badManifest("its version is %q, want 4.3", clip(version))
	case p.Type != "reference" || p.URL != payloadName || p.Protocol != "zip" || !p.IsEncrypted:
		return nil, badManifest("its payload is not the encrypted %s of the same zip", payloadName)
	case e.Type != "split":
		return nil, badManifest("its key is given as %q, want split", clip(e.Type))
	case e.Method.Algorithm != "AES-256-GCM":
		return nil, badAlgorithm("the payload's algorithm", e.Method.Algorithm, "AES-256-GCM")
	case e.Method.IV != "":
		return nil, badManifest("it gives one nonce for all segments")
	case e.Integrity.Root.Alg != "HS256":
		return nil, badAlgorithm("the root signature's algorithm", e.Integrity.Root.Alg, "HS256")
	case e.Integrity.HashAlg != "GMAC":
		return nil, badAlgorithm("the segments' algorithm", e.Integrity.HashAlg, "GMAC")
	case len(e.KeyAccess) == 0 || len(e.KeyAccess) > MaxKeyAccess:
		return nil, badManifest("it has %d key access objects, want 1 to %d", len(e.KeyAccess), MaxKeyAccess)
	case len(m.Assertions) > MaxAssertions:
		return nil, badManifest("it has %d assertions, want %d at most", len(m.Assertions), MaxAssertions)
	}
	if p.MIME != "" {
		if _, _, err := mime.ParseMediaType(p.MIME); err != nil || len(p.MIME) > 255 || !printable(p.MIME) {
			return nil, badManifest("its media type is none: %q", clip(p.MIME))
		}
	}
	for i := range e.KeyAccess {
		if err := e.KeyAccess[i].check(e.KeyAccess[0].SID); err != nil {
			return nil, err
		}
	}
	return m, m.checkSegments()
}

// check holds one key access object against the format. All are of one share: a key in several shares needs several services.
func (k *keyAccess) check(sid string) error {
	switch {
	case k.Protocol != "kas":
		return badManifest("a key access object's protocol is %q, want kas", clip(k.Protocol))
	case k.SID != sid:
		return refused(redoubt.Denied, RuleKey, "the key is split among several services, which have to be asked together")
	case k.Type != "wrapped" && k.Type != "ec-wrapped":
		return badAlgorithm("a key's wrapping", k.Type, "wrapped (RSA-OAEP with SHA-256) or ec-wrapped")
	case k.Binding.Alg != "HS256":
		return badAlgorithm("a policy binding's algorithm", k.Binding.Alg, "HS256")
	case (k.Type == "ec-wrapped") != (k.Ephemeral != ""):
		return badManifest("a key that is %s has a key of its maker, or has none", k.Type)
	case len(k.URL) > MaxTextBytes || len(k.KID) > MaxTextBytes || len(k.SID) > MaxTextBytes || len(k.Ephemeral) > 4*MaxTextBytes || len(k.Metadata) > MaxStatementBytes:
		return badManifest("a key access object has a text that is too long")
	}
	return nil
}

// checkSegments fills in the sizes that a writer may leave out, and holds them to their bounds.
func (m *manifest) checkSegments() error {
	in := &m.Encryption.Integrity
	if len(in.Segments) == 0 || len(in.Segments) > MaxSegments {
		return badManifest("it has %d segments, want 1 to %d", len(in.Segments), MaxSegments)
	}
	if in.Size < 0 || in.Size > MaxSegmentBytes || in.SealedBytes != in.Size+overhead {
		return badManifest("its segments' default size is %d bytes, %d sealed, want %d at most and %d more", in.Size, in.SealedBytes, MaxSegmentBytes, overhead)
	}
	for i := range in.Segments {
		s := &in.Segments[i]
		if s.SealedBytes == 0 {
			s.SealedBytes = in.SealedBytes
		}
		if s.Size == 0 && s.SealedBytes == in.SealedBytes {
			s.Size = in.Size
		}
		if s.Size < 0 || s.Size > MaxSegmentBytes || s.SealedBytes != s.Size+overhead {
			return badManifest("segment %d has %d bytes, %d sealed, want %d at most and %d more", i, s.Size, s.SealedBytes, MaxSegmentBytes, overhead)
		}
		if s.Size == 0 && len(in.Segments) > 1 {
			return badManifest("segment %d is empty", i)
		}
	}
	return nil
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

// httpURL says whether s is an address that can stand in a file.
func httpURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && u.User == nil && u.RawQuery == "" && u.Fragment == "" && len(s) <= MaxTextBytes && printable(s)
}
