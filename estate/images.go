package estate

import (
	"encoding/hex"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"redoubt"
)

// images reads which images may run on a node.
func (r *reader) images(n *yaml.Node, path string) *redoubt.ImagePolicy {
	p := &redoubt.ImagePolicy{}
	r.list(n, path, redoubt.MaxImageRules, func(n *yaml.Node, path string) { p.Rules = append(p.Rules, r.imageRule(n, path)) })
	return p
}

func (r *reader) imageRule(n *yaml.Node, path string) (rule redoubt.ImageRule) {
	named := 0 // what it names, well or badly
	r.mapping(n, path,
		field{"repository", true, func(n *yaml.Node, path string) {
			rule.Repository = r.text(n, path)
			if rule.Repository != "" && !redoubt.ValidRepositoryPattern(rule.Repository) {
				r.fault(n, path, printable(rule.Repository)+" is no repository", "write BUCKET/NAME, BUCKET/* or BUCKET/NAME/* for all below, or \"*\" for all")
			}
		}},
		field{"digests", false, func(n *yaml.Node, path string) {
			r.list(n, path, redoubt.MaxImageDigests, func(n *yaml.Node, path string) {
				named++
				rule.Digests = r.once(n, path, rule.Digests, r.imageDigest(n, path))
			})
		}},
		field{"signed_by", false, func(n *yaml.Node, path string) {
			r.list(n, path, redoubt.MaxImageKeys, func(n *yaml.Node, path string) {
				named++
				rule.SignedBy = r.once(n, path, rule.SignedBy, r.imageKey(n, path))
			})
		}},
	)
	if n.Kind == yaml.MappingNode && named == 0 {
		r.fault(n, path, "admits nothing: it has neither digests nor signed_by", "name digests that may run, keys that sign what may run, or both")
	}
	return rule
}

// once adds s to have, where it is not there yet.
func (r *reader) once(n *yaml.Node, path string, have []string, s string) []string {
	if s == "" {
		return have
	}
	if slices.Contains(have, s) {
		r.fault(n, path, "is given twice", "")
		return have
	}
	return append(have, s)
}

func (r *reader) imageDigest(n *yaml.Node, path string) string {
	s := r.text(n, path)
	digits, ok := strings.CutPrefix(s, "sha256:")
	if raw, err := hex.DecodeString(digits); s != "" && (!ok || err != nil || len(raw) != 32 || strings.ToLower(digits) != digits) {
		r.fault(n, path, printable(s)+" is not the digest of an image", "write sha256: and 64 hex digits in lower case, as crane digest and skopeo inspect print it")
		return ""
	}
	return s
}

func (r *reader) imageKey(n *yaml.Node, path string) string {
	s := r.text(n, path)
	if s == "" {
		return ""
	}
	if _, err := redoubt.ParseImageKey(s); err != nil {
		r.fault(n, path, err.Error(), "write the 32 bytes of an Ed25519 key in base64, or what stands between the first and the last line of cosign.pub, on one line")
		return ""
	}
	return s
}
