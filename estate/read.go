package estate

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"redoubt"
	"redoubt/label"
)

// Load reads the estate file at path, and the SPIF file that it may name, from the same
// folder. Its error is Faults when the files could be read.
func Load(path string) (*Estate, error) {
	text, err := readFile(path, MaxFileBytes)
	if err != nil {
		return nil, err
	}
	return Read(text, func(name string) ([]byte, error) {
		return readFile(filepath.Join(filepath.Dir(path), filepath.FromSlash(name)), MaxSPIFBytes)
	})
}

func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		kind := redoubt.Internal
		if errors.Is(err, fs.ErrNotExist) {
			kind = redoubt.NotFound
		}
		return nil, &redoubt.Error{Op: "estate.Load", Object: path, Kind: kind, Err: errors.Unwrap(err)}
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, &redoubt.Error{Op: "estate.Load", Object: path, Err: err}
	}
	if int64(len(data)) > limit {
		return nil, &redoubt.Error{Op: "estate.Load", Object: path, Kind: redoubt.TooLarge, Err: fmt.Errorf("at most %d bytes are read", limit)}
	}
	return data, nil
}

// Read checks the text of an estate file. open gives the content of the SPIF file that it
// names. The error is Faults: every fault, in the file's order.
func Read(text []byte, open func(name string) ([]byte, error)) (*Estate, error) {
	return read(text, open, false)
}

// read is Read; taken: the estate took effect before, so what later versions ask for besides does not keep its nodes from starting.
func read(text []byte, open func(name string) ([]byte, error), taken bool) (*Estate, error) {
	w := &walker{at: map[string]*yaml.Node{}}
	root := w.document(text)
	if root == nil || !w.forbid(root, 0) {
		w.faults.sort()
		return nil, w.faults
	}
	r := &reader{walker: w, open: open, taken: taken, estate: &Estate{text: bytes.Clone(text)}}
	r.root(root)
	r.check()
	if len(w.faults) > 0 {
		w.faults.sort()
		return nil, w.faults
	}
	return r.estate, nil
}

// document parses the text as one YAML document; nil after a fault.
func (w *walker) document(text []byte) (root *yaml.Node) {
	if len(text) > MaxFileBytes {
		w.fault(nil, "", fmt.Sprintf("the file has %d bytes; at most %d are read", len(text), MaxFileBytes), "")
		return nil
	}
	if line := badUTF8(text); line > 0 {
		w.fault(&yaml.Node{Line: line, Column: 1}, "", "is not UTF-8", "save the file as UTF-8")
		return nil
	}
	defer func() { // the parser panics on trees that it did not foresee; a hostile file must not end the process
		if p := recover(); p != nil {
			w.fault(nil, "", "is not YAML that can be read", "")
			root = nil
		}
	}()
	d := yaml.NewDecoder(bytes.NewReader(text))
	var doc yaml.Node
	switch err := d.Decode(&doc); {
	case errors.Is(err, io.EOF) || err == nil && (doc.Kind != yaml.DocumentNode || len(doc.Content) != 1):
		w.fault(&yaml.Node{Line: 1, Column: 1}, "", "the file is empty", "redoubt estate show example prints one to start from")
		return nil
	case err != nil:
		w.syntax(text, err)
		return nil
	}
	var next yaml.Node
	switch err := d.Decode(&next); {
	case err == nil:
		w.fault(&next, "", "a second document", "an estate is one file with one document: remove the --- line")
	case !errors.Is(err, io.EOF):
		w.syntax(text, err)
		return nil
	}
	return doc.Content[0]
}

var (
	syntaxLine    = regexp.MustCompile(`^(?:yaml: )?(?:line (\d+): )?(.*)$`)
	unknownAnchor = regexp.MustCompile(`unknown anchor '([^']*)'`)
)

// syntax places the parser's error, which ends the reading: after it nothing can be told apart.
func (w *walker) syntax(text []byte, err error) {
	m := syntaxLine.FindStringSubmatch(strings.ReplaceAll(err.Error(), "\n", " "))
	at := &yaml.Node{Column: 1}
	message := err.Error()
	if m != nil {
		at.Line, _ = strconv.Atoi(m[1])
		message = m[2]
	}
	if a := unknownAnchor.FindSubmatch([]byte(message)); a != nil && at.Line == 0 {
		if i := bytes.Index(text, append([]byte("*"), a[1]...)); i >= 0 {
			at.Line = 1 + bytes.Count(text[:i], []byte("\n"))
			at.Column = i - bytes.LastIndexByte(text[:i], '\n')
		}
	}
	w.fault(at, "", "not YAML: "+printable(message), "check indentation, quotes and colons at and just above this line")
}

func badUTF8(text []byte) (line int) {
	line = 1
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		if r == utf8.RuneError && n == 1 {
			return line
		}
		if r == '\n' {
			line++
		}
		text = text[n:]
	}
	return 0
}

// reader fills an Estate from the tree. What depends on other parts waits for check.
type reader struct {
	*walker
	open   func(name string) ([]byte, error)
	taken  bool
	files  map[string][]byte // that it names: agreements
	estate *Estate

	destinations []destination // of all nodes
}

// notBuilt are the nouns of an estate whose work is not done yet.
var notBuilt = []struct{ noun, why string }{
	{"links", "links between enclaves are not built yet"},
	{"price_book", "metering and price books are not built yet"},
}

func (r *reader) root(n *yaml.Node) {
	e := r.estate
	fields := []field{
		{"redoubt", true, func(n *yaml.Node, p string) { r.version(n, p) }},
		{"name", false, func(n *yaml.Node, p string) { e.Name = r.name(n, p) }},
		{"serial", false, func(n *yaml.Node, p string) { e.Serial = r.number(n, p, 0, math.MaxInt64) }},
		{"exercise", false, func(n *yaml.Node, p string) { e.Exercise = r.flag(n, p) }},
		{"policy", true, r.policy},
		{"audit", false, r.audit},
		{"nodes", true, func(n *yaml.Node, p string) { r.list(n, p, MaxNodes, r.node) }},
		{"agreements", false, func(n *yaml.Node, p string) { r.list(n, p, MaxAgreements, r.agreement) }},
		{"people", true, func(n *yaml.Node, p string) { r.list(n, p, MaxPeople, r.person) }},
	}
	for _, noun := range notBuilt {
		fields = append(fields, field{noun.noun, false, func(n *yaml.Node, p string) {
			r.fault(n, p, noun.why, "remove "+noun.noun+" from the estate; this version of Redoubt refuses what it cannot run")
		}})
	}
	r.mapping(n, "", fields...)
}

func (r *reader) version(n *yaml.Node, path string) {
	r.estate.Version = int(r.number(n, path, 0, 1<<31))
	if v := r.estate.Version; v != Version && n.Tag == "!!int" {
		r.fault(n, path, fmt.Sprintf("format version %d; this build reads version %d", v, Version), "use the release of Redoubt that wrote this file")
	}
}

func (r *reader) policy(n *yaml.Node, path string) {
	ref := &r.estate.Policy
	if n.Kind == yaml.ScalarNode {
		name := r.text(n, path)
		p, err := label.Builtin(name)
		if name == "" {
			return
		}
		if err != nil {
			r.fault(n, path, err.Error(), "name a built-in policy, or a SPIF file: policy: {spif: FILE}")
			return
		}
		ref.Builtin, r.estate.policy = p.Name(), p
		return
	}
	r.mapping(n, path, field{"spif", true, func(n *yaml.Node, path string) { r.spif(n, path) }})
}

// audit reads for how long audit logs are kept.
func (r *reader) audit(n *yaml.Node, path string) {
	r.estate.Audit = &Audit{}
	r.mapping(n, path, field{"keep", true, func(n *yaml.Node, path string) {
		r.estate.Audit.KeepSeconds = int64(r.duration(n, path, MinAuditKeep, MaxAuditKeep) / time.Second)
	}})
}

func (r *reader) spif(n *yaml.Node, path string) {
	name := r.text(n, path)
	if name == "" {
		return
	}
	if !filepath.IsLocal(filepath.FromSlash(name)) {
		r.fault(n, path, "leaves the folder of the estate file", "put the SPIF file beside the estate")
		return
	}
	data, err := r.open(name)
	if err != nil {
		r.fault(n, path, "cannot be read: "+err.Error(), "")
		return
	}
	p, err := label.ReadSPIF(bytes.NewReader(data))
	if err != nil {
		r.fault(n, path, err.Error(), "")
		return
	}
	sum := sha256.Sum256(data)
	r.estate.Policy.SPIF, r.estate.Policy.Digest = name, hex.EncodeToString(sum[:])
	r.estate.policy, r.estate.spif = p, data
}

func (r *reader) node(n *yaml.Node, path string) {
	node := Node{Kind: KindEnclave, S3: Listener{Listen: DefaultListen}, API: Listener{Listen: DefaultListen}}
	fields := append(r.guard(&node),
		field{"name", true, func(n *yaml.Node, p string) { node.Name = redoubt.NodeName(r.name(n, p)) }},
		field{"kind", false, func(n *yaml.Node, p string) { node.Kind = r.kind(n, p) }},
		field{"machine", false, func(n *yaml.Node, p string) { node.Machine = r.text(n, p) }},
		field{"range", false, func(n *yaml.Node, p string) {
			r.mapping(n, p,
				field{"floor", true, func(n *yaml.Node, p string) { node.Range.Floor = r.text(n, p) }},
				field{"ceiling", true, func(n *yaml.Node, p string) { node.Range.Ceiling = r.text(n, p) }})
		}},
		field{"s3", false, func(n *yaml.Node, p string) { r.listener(n, p, &node.S3) }},
		field{"api", false, func(n *yaml.Node, p string) { r.listener(n, p, &node.API) }},
		field{"peers", false, func(n *yaml.Node, p string) {
			node.Peers = &Listener{Listen: DefaultListen}
			r.listener(n, p, node.Peers)
		}},
		field{"home", false, func(n *yaml.Node, p string) { node.Home = redoubt.NodeName(r.name(n, p)) }},
		field{"lease", false, func(n *yaml.Node, p string) {
			node.LeaseSeconds = int64(r.duration(n, p, MinLease, MaxLease) / time.Second)
		}},
		field{"carries", false, func(n *yaml.Node, p string) {
			r.list(n, p, MaxCarries, func(n *yaml.Node, p string) { node.Carries = append(node.Carries, r.subscription(n, p)) })
		}},
		field{"meets", false, func(n *yaml.Node, p string) {
			r.list(n, p, redoubt.MaxNeighbours, func(n *yaml.Node, p string) { node.Meets = append(node.Meets, redoubt.NodeName(r.name(n, p))) })
		}},
		field{"quotas", false, func(n *yaml.Node, p string) { node.Quotas = r.shares(n, p) }},
		field{"budget", false, func(n *yaml.Node, p string) { node.Budget = r.shares(n, p) }},
		field{"images", false, func(n *yaml.Node, p string) { node.Images = r.images(n, p) }},
		field{"kubernetes", false, func(n *yaml.Node, p string) { node.Kubernetes = r.kubernetes(n, p) }},
		field{"destinations", false, func(n *yaml.Node, p string) { r.list(n, p, redoubt.MaxDestinations, r.destination) }},
		field{"runc", false, func(n *yaml.Node, p string) { node.Runc = r.runc(n, p) }},
		field{"buckets", false, func(n *yaml.Node, p string) {
			r.list(n, p, MaxBuckets, func(n *yaml.Node, p string) { r.bucket(n, p, &node) })
		}},
	)
	r.mapping(n, path, fields...)
	switch {
	case node.Kind == KindGuard: // it listens nowhere
		if node.S3.Listen != DefaultListen || node.API.Listen != DefaultListen || len(node.S3.Hosts)+len(node.API.Hosts) > 0 || node.S3.Clear || node.API.Clear {
			r.fault(n, path, "a guard listens nowhere: it dials its two enclaves", "remove s3 and api")
		}
		node.S3, node.API = Listener{}, Listener{}
		if node.Images != nil {
			r.fault(n, path, "a guard runs no images", "remove images")
		}
		if node.Kubernetes != nil {
			r.fault(n, path, "a guard runs no images", "remove kubernetes")
		}
		if node.Runc != nil || slices.ContainsFunc(r.destinations, func(d destination) bool { return d.node == len(r.estate.Nodes) }) {
			r.fault(n, path, "a guard runs no jobs", "remove runc and destinations")
		}
	case node.Range == redoubt.Range{}:
		r.fault(n, path, "lacks range", "add range: {floor: MARKING, ceiling: MARKING}")
	}
	if node.Kind == KindDevice && node.LeaseSeconds == 0 {
		node.LeaseSeconds = int64(DefaultLease / time.Second)
	}
	r.estate.Nodes = append(r.estate.Nodes, node)
}

// shares reads sizes by marking.
func (r *reader) shares(n *yaml.Node, path string) map[string]int64 {
	out := map[string]int64{}
	r.entries(n, path, MaxQuotas, func(key, value *yaml.Node, p string) { out[key.Value] = r.size(value, p) })
	return out
}

func (r *reader) kind(n *yaml.Node, path string) string {
	switch k := r.text(n, path); k {
	case KindDevice:
		return KindDevice
	case KindGuard:
		return KindGuard
	case KindEnclave, "":
	default:
		r.fault(n, path, "unknown kind "+printable(k), "the kinds of nodes are enclave, device and guard")
	}
	return KindEnclave
}

// subscription reads what of a bucket travels between a device and its home.
func (r *reader) subscription(n *yaml.Node, path string) redoubt.Subscription {
	s := redoubt.Subscription{In: true, Out: true}
	if n.Kind == yaml.ScalarNode {
		s.Bucket = redoubt.BucketName(r.bucketName(n, path))
		return s
	}
	r.mapping(n, path,
		field{"bucket", true, func(n *yaml.Node, path string) { s.Bucket = redoubt.BucketName(r.bucketName(n, path)) }},
		field{"prefix", false, func(n *yaml.Node, path string) { s.Prefix = r.text(n, path) }},
		field{"bound", false, func(n *yaml.Node, path string) { s.Bound = r.text(n, path) }},
		field{"latest", false, func(n *yaml.Node, path string) { s.Latest = r.flag(n, path) }},
		field{"direction", false, func(n *yaml.Node, path string) {
			switch r.oneOf(n, path, "both", "to-device", "to-home") {
			case "to-device":
				s.Out = false
			case "to-home":
				s.In = false
			}
		}},
	)
	return s
}

func (r *reader) listener(n *yaml.Node, path string, l *Listener) {
	r.mapping(n, path,
		field{"listen", false, func(n *yaml.Node, p string) { l.Listen = r.text(n, p) }},
		field{"hosts", false, func(n *yaml.Node, p string) {
			r.list(n, p, MaxHosts, func(n *yaml.Node, p string) { l.Hosts = append(l.Hosts, r.text(n, p)) })
		}},
		field{"tls", false, func(n *yaml.Node, p string) { l.Clear = !r.flag(n, p) }},
	)
}

func (r *reader) name(n *yaml.Node, path string) string {
	s := r.text(n, path)
	if s != "" && !validName(s) {
		r.fault(n, path, printable(s)+" is not a name", "names have 1 to 63 of a-z, 0-9 and -, and start and end with a letter or digit")
		return ""
	}
	return s
}

func validName(s string) bool {
	if len(s) == 0 || len(s) > MaxNameLength || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}
