package image

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"unicode/utf8"

	"redoubt"
)

// Limits of documents.
const (
	MaxManifestBytes    = 4 << 20 // what OCI Distribution 1.1 asks a registry to take
	MaxConfigBytes      = 4 << 20
	MaxLayers           = 256  // the deepest overlay that a kernel takes is half of that
	MaxIndexed          = 1000 // manifests of one index
	MaxAnnotations      = 1000 // of one descriptor or document
	maxDepth            = 32   // of nesting; what is known nests 8 deep
	maxEnv              = 4096 // and other lists of a configuration
	MaxMediaTypeBytes   = 255
	maxConfigValueBytes = 128 << 10 // Linux takes no longer argument
)

// Media types of what is understood. Docker's have the same form.
const (
	TypeManifest       = "application/vnd.oci.image.manifest.v1+json"
	TypeIndex          = "application/vnd.oci.image.index.v1+json"
	TypeConfig         = "application/vnd.oci.image.config.v1+json"
	TypeEmpty          = "application/vnd.oci.empty.v1+json"
	TypeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	TypeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	TypeDockerConfig   = "application/vnd.docker.container.image.v1+json"
)

// Descriptor says what a document points at.
type Descriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       Digest            `json:"digest"`
	Size         int64             `json:"size"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Platform     *Platform         `json:"platform,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	URLs         []string          `json:"urls,omitempty"` // elsewhere; never followed
}

// Platform is what an image is made for.
type Platform struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
	Variant      string `json:"variant,omitempty"`
}

// Linux is the platform of this operating system with Go's name of a processor.
func Linux(goarch string) Platform { return Platform{OS: "linux", Architecture: goarch} }

func (p Platform) String() string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// runs says whether what is made for made runs on p.
func (p Platform) runs(made *Platform) bool {
	if made == nil || made.OS != p.OS || made.Architecture != p.Architecture {
		return false
	}
	switch made.Variant {
	case "", p.Variant:
		return true
	case "v8":
		return p.Architecture == "arm64"
	case "v1":
		return p.Architecture == "amd64"
	}
	return false
}

// Manifest is a manifest or an index: what both have, and what each has.
type Manifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	ArtifactType  string            `json:"artifactType"`
	Config        *Descriptor       `json:"config"`
	Layers        []Descriptor      `json:"layers"`
	Manifests     []Descriptor      `json:"manifests"`
	Subject       *Descriptor       `json:"subject"`
	Annotations   map[string]string `json:"annotations"`
}

// Index says whether m is an index: it points at manifests, and at no layers.
func (m *Manifest) Index() bool { return m.MediaType == TypeIndex || m.MediaType == TypeDockerList }

// ReadManifest reads a manifest or an index. typ is the media type that came with it, "" where none did; what it says of itself must agree. A
// document that two readers could take for two things is refused: a key that stands twice, or layers and manifests in one.
func ReadManifest(b []byte, typ string) (*Manifest, error) {
	const op = "manifest"
	m := new(Manifest)
	if len(b) > MaxManifestBytes {
		return nil, &redoubt.Error{Op: "image." + op, Kind: redoubt.TooLarge, Rule: "a manifest has at most 4 MiB"}
	}
	if err := decode(op, b, m, "schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "subject", "annotations", "fsLayers", "signatures"); err != nil {
		return nil, err
	}
	if m.SchemaVersion != 2 {
		return nil, invalid(op, "its schemaVersion is not 2")
	}
	if err := m.settleType(typ); err != nil {
		return nil, err
	}
	if m.Index() {
		if m.Config != nil || m.Layers != nil {
			return nil, invalid(op, "it is an index, and has a configuration or layers")
		}
		if len(m.Manifests) > MaxIndexed {
			return nil, invalid(op, "an index has at most %d manifests", MaxIndexed)
		}
	} else {
		if m.Manifests != nil || m.Config == nil {
			return nil, invalid(op, "it is a manifest, and has manifests or no configuration")
		}
		if len(m.Layers) > MaxLayers {
			return nil, invalid(op, "a manifest has at most %d layers", MaxLayers)
		}
	}
	for d := range m.descriptors {
		if err := d.check(); err != nil {
			return nil, err
		}
	}
	if len(m.Annotations) > MaxAnnotations || !validType(m.ArtifactType, true) {
		return nil, invalid(op, "its annotations are too many, or its artifactType is no media type")
	}
	return m, nil
}

// settleType finds the media type: what the document says, or what it looks like. What came with it is the same.
func (m *Manifest) settleType(typ string) error {
	if m.MediaType != "" && typ != "" && m.MediaType != typ {
		return invalid("manifest", "it came as another media type than it says it is")
	}
	if m.MediaType == "" { // OCI does not ask for it, Docker does
		if m.MediaType = TypeManifest; m.Manifests != nil && m.Config == nil {
			m.MediaType = TypeIndex
		}
		if typ != "" && typ != m.MediaType {
			return invalid("manifest", "it does not say what it is, and came as something else than it looks like")
		}
	}
	switch m.MediaType {
	case TypeManifest, TypeIndex, TypeDockerManifest, TypeDockerList:
		return nil
	}
	return invalid("manifest", "its media type is not that of an image manifest or index (OCI 1, or Docker schema 2)")
}

// descriptors gives everything that m points at.
func (m *Manifest) descriptors(yield func(*Descriptor) bool) {
	for _, d := range []*Descriptor{m.Config, m.Subject} {
		if d != nil && !yield(d) {
			return
		}
	}
	for _, all := range [][]Descriptor{m.Layers, m.Manifests} {
		for i := range all {
			if !yield(&all[i]) {
				return
			}
		}
	}
}

func (d *Descriptor) check() error {
	switch {
	case d.Digest.IsZero():
		return invalid("manifest", "it points at something without a digest")
	case d.Size < 0 || d.Size > redoubt.MaxObjectBytes:
		return invalid("manifest", "it points at something of an impossible size")
	case !validType(d.MediaType, false) || !validType(d.ArtifactType, true):
		return invalid("manifest", "it points at something whose media type is none")
	case len(d.Annotations) > MaxAnnotations:
		return invalid("manifest", "it points at something with too many annotations")
	}
	return nil
}

// validType takes TYPE/SUBTYPE without parameters, of what may stand in a header.
func validType(s string, optional bool) bool {
	if s == "" {
		return optional
	}
	major, minor, ok := strings.Cut(s, "/")
	if !ok || major == "" || minor == "" || len(s) > MaxMediaTypeBytes {
		return false
	}
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`()<>@,;:\"[]?=`, c) >= 0 {
			return false
		}
	}
	return strings.Count(s, "/") == 1
}

// Config is what an image says of how it is run.
type Config struct {
	Platform
	Config struct {
		User       string
		Env        []string
		Entrypoint []string
		Cmd        []string
		WorkingDir string
		StopSignal string
		Labels     map[string]string
	} `json:"config"`
	RootFS struct {
		Type    string   `json:"type"`
		DiffIDs []Digest `json:"diff_ids"` // of the layers, unpacked
	} `json:"rootfs"`
}

// ReadConfig reads an image's configuration.
func ReadConfig(b []byte) (*Config, error) {
	const op = "config"
	c := new(Config)
	if len(b) > MaxConfigBytes {
		return nil, &redoubt.Error{Op: "image." + op, Kind: redoubt.TooLarge, Rule: "an image's configuration has at most 4 MiB"}
	}
	if err := decode(op, b, c, "os", "architecture", "variant", "config", "rootfs"); err != nil {
		return nil, err
	}
	if c.RootFS.Type != "layers" || len(c.RootFS.DiffIDs) > MaxLayers {
		return nil, invalid(op, "its root is not of layers, or of too many")
	}
	in := &c.Config
	for _, list := range [][]string{in.Env, in.Entrypoint, in.Cmd, {in.User, in.WorkingDir}} {
		if len(list) > maxEnv {
			return nil, invalid(op, "it has too many arguments or variables")
		}
		for _, s := range list {
			if len(s) > maxConfigValueBytes || strings.IndexByte(s, 0) >= 0 {
				return nil, invalid(op, "an argument or a variable is too long, or holds a NUL byte")
			}
		}
	}
	return c, nil
}

// decode reads one JSON document of others' making: fields that it does not know are theirs, but none of those that it knows may be spelled
// otherwise, and no key stands twice.
func decode(op string, b []byte, v any, known ...string) error {
	if !utf8.Valid(b) {
		return invalid(op, "it is not UTF-8")
	}
	if why := shape(b, known); why != "" {
		return invalid(op, "%s", why)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return invalid(op, "%s", strings.TrimPrefix(err.Error(), "json: "))
	}
	return nil
}

// shape says what is wrong with the form of a document.
func shape(b []byte, known []string) string {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var open []map[string]bool // nil for an array
	key := false               // the next token may be a key
	for {
		tok, err := d.Token()
		if err != nil {
			return "it is not one JSON document"
		}
		if delim, ok := tok.(json.Delim); ok {
			switch delim {
			case '{':
				open = append(open, map[string]bool{})
			case '[':
				open = append(open, nil)
			default:
				open = open[:len(open)-1]
			}
			if len(open) > maxDepth {
				return "it is nested too deeply"
			}
			key = len(open) > 0 && open[len(open)-1] != nil
		} else if len(open) == 0 {
			return "it is not a JSON object"
		} else if top := open[len(open)-1]; key && top != nil {
			s, _ := tok.(string)
			if top[s] || len(open) == 1 && misspelled(s, known) {
				return "a key stands twice in one object, or in another spelling"
			}
			top[s], key = true, false
			continue
		} else {
			key = top != nil
		}
		if len(open) == 0 {
			if _, err := d.Token(); err != io.EOF {
				return "something follows the JSON document"
			}
			return ""
		}
	}
}

// misspelled says whether encoding/json would take s for a field that another reader would not.
func misspelled(s string, known []string) bool {
	for _, k := range known {
		if s != k && strings.EqualFold(s, k) {
			return true
		}
	}
	return false
}
