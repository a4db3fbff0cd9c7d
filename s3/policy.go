package s3

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"redoubt"
)

// A bucket policy document is taken where it says what a redoubt.Grant can say: which subjects may, or
// may not, do what under which prefix. Everything else is refused by the name of the element, never dropped:
// a condition that is ignored is a door left open.

// getPolicy is GET /BUCKET?policy: the document as it was given.
func (s *handler) getPolicy(c *call) error {
	b, err := s.buckets.HeadBucket(c.ctx, c.who, c.bucket)
	if err != nil {
		return err
	}
	if b.Policy == "" {
		return errNoBucketPolicy
	}
	c.set("Content-Type", "application/json")
	c.set("Content-Length", strconv.Itoa(len(b.Policy)))
	c.begin(http.StatusOK)
	return c.writeAll([]byte(b.Policy))
}

// putPolicy is PUT /BUCKET?policy.
func (s *handler) putPolicy(c *call) error {
	body, _, err := c.readSmall(maxPolicyBytes)
	if own, ok := err.(*apiError); ok && own.code == errEntityTooLarge.code {
		return errMalformedPolicy.say("Policies may not exceed the maximum allowed size.")
	}
	if err != nil {
		return err
	}
	grants, err := parsePolicy(body, c.bucket)
	if err != nil {
		return err
	}
	return s.change(c, func(b *redoubt.BucketSettings) error {
		b.Policy, b.Grants = string(body), grants
		return nil
	}, http.StatusNoContent)
}

// deletePolicy is DELETE /BUCKET?policy.
func (s *handler) deletePolicy(c *call) error {
	return s.change(c, func(b *redoubt.BucketSettings) error {
		b.Policy, b.Grants = "", nil
		return nil
	}, http.StatusNoContent)
}

// getPolicyStatus is GET /BUCKET?policyStatus. Nothing is public: there is no access without a credential, and "*"
// is everyone who has one.
func (s *handler) getPolicyStatus(c *call) error {
	b, err := s.buckets.HeadBucket(c.ctx, c.who, c.bucket)
	if err != nil {
		return err
	}
	if b.Policy == "" {
		return errNoBucketPolicy
	}
	x := newXML()
	defer x.release()
	x.root("PolicyStatus")
	x.bool("IsPublic", false)
	x.close("PolicyStatus")
	c.respondXML(http.StatusOK, x)
	return nil
}

const maxStatements = 100 // each becomes a grant a principal, resource and kind; all of them are read on every decision

type policyDocument struct {
	Version   string
	Id        string
	Statement json.RawMessage
}

// policyStatement names every element of the language, so that those not offered are refused by name.
type policyStatement struct {
	Sid, Effect                        string
	Principal, Action, Resource        json.RawMessage
	NotPrincipal, NotAction, Condition json.RawMessage
	NotResource                        json.RawMessage
}

// parsePolicy maps a document to grants.
func parsePolicy(body []byte, bucket redoubt.BucketName) ([]redoubt.Grant, error) {
	var doc policyDocument
	if err := strictJSON(body, &doc); err != nil {
		return nil, errMalformedPolicy.say("The policy is not valid JSON of this form: " + err.Error())
	}
	if doc.Version != "2012-10-17" && doc.Version != "2008-10-17" && doc.Version != "" {
		return nil, errMalformedPolicy.say("The policy must contain a valid version string")
	}
	var statements []policyStatement
	if !oneOrMany(doc.Statement, &statements) || len(statements) == 0 {
		return nil, errMalformedPolicy.say("Missing required field Statement")
	}
	if len(statements) > maxStatements {
		return nil, errMalformedPolicy.say("The policy has too many statements.")
	}
	var grants []redoubt.Grant
	for i := range statements {
		g, err := statements[i].grants(bucket)
		if err != nil {
			return nil, err
		}
		if grants = append(grants, g...); len(grants) > maxStatements*10 {
			return nil, errMalformedPolicy.say("The policy names too many subjects and resources.")
		}
	}
	return grants, nil
}

// oneOrMany decodes a value or a list of them.
func oneOrMany[T any](raw json.RawMessage, many *[]T) bool {
	if len(raw) == 0 || string(raw) == "null" {
		return false
	}
	if raw[0] == '[' {
		return strictJSON(raw, many) == nil
	}
	var one T
	if strictJSON(raw, &one) != nil {
		return false
	}
	*many = []T{one}
	return true
}

// grants are one statement's: for each subject and each resource those of its actions that apply to it.
func (p *policyStatement) grants(bucket redoubt.BucketName) ([]redoubt.Grant, error) {
	for _, unsupported := range [...]struct {
		name string
		raw  json.RawMessage
	}{{"Condition", p.Condition}, {"NotPrincipal", p.NotPrincipal}, {"NotAction", p.NotAction}, {"NotResource", p.NotResource}} {
		if unsupported.raw != nil {
			return nil, notImplemented(unsupported.name + " in a bucket policy")
		}
	}
	if p.Effect != "Allow" && p.Effect != "Deny" {
		return nil, errMalformedPolicy.say("Invalid effect: " + p.Effect)
	}
	subjects, err := parsePrincipal(p.Principal)
	if err != nil {
		return nil, err
	}
	actions, err := parseActions(p.Action)
	if err != nil {
		return nil, err
	}
	resources, err := parseResources(p.Resource, bucket)
	if err != nil {
		return nil, err
	}
	var grants []redoubt.Grant
	for _, subject := range subjects {
		for _, r := range resources {
			applying, ok := actions.on(r.onBucket)
			if !ok {
				continue
			}
			grants = append(grants, redoubt.Grant{Subject: subject, Bucket: bucket, Prefix: r.prefix, Actions: applying, Deny: p.Effect == "Deny"})
		}
	}
	if !actions.covered(resources) {
		return nil, errMalformedPolicy.say("Action does not apply to any resource(s) in statement")
	}
	return grants, nil
}

// parsePrincipal reads "*", {"AWS": "*"}, {"AWS": NAME or [NAME…]}; a name may be written arn:aws:iam:::user/NAME.
func parsePrincipal(raw json.RawMessage) ([]redoubt.SubjectName, error) {
	bad := errMalformedPolicy.say("Invalid principal in policy")
	if len(raw) == 0 {
		return nil, errMalformedPolicy.say("Missing required field Principal")
	}
	var names []string
	if raw[0] == '{' {
		var by map[string]json.RawMessage
		if strictJSON(raw, &by) != nil || len(by) == 0 {
			return nil, bad
		}
		for kind := range by {
			if kind != "AWS" {
				return nil, notImplemented("Principal " + kind + " in a bucket policy")
			}
		}
		raw = by["AWS"]
	} else if string(raw) != `"*"` {
		return nil, bad
	}
	if !oneOrMany(raw, &names) || len(names) == 0 {
		return nil, bad
	}
	subjects := make([]redoubt.SubjectName, 0, len(names))
	for _, name := range names {
		name = strings.TrimPrefix(name, "arn:aws:iam:::user/")
		if name != "*" && !subjectName(name) {
			return nil, bad.with("Detail", name)
		}
		subjects = append(subjects, redoubt.SubjectName(name))
	}
	return subjects, nil
}

// subjectName holds for 1 to 63 of a-z, 0-9 and "-".
func subjectName(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return len(s) >= 1 && len(s) <= 63
}

// policyActions are a statement's actions by what they apply to.
type policyActions struct {
	all              bool
	onObject, onBuck []redoubt.Action
}

func (a *policyActions) on(bucket bool) ([]redoubt.Action, bool) {
	switch {
	case a.all:
		return nil, true // no list: reading and writing
	case bucket:
		return a.onBuck, len(a.onBuck) > 0
	}
	return a.onObject, len(a.onObject) > 0
}

// covered holds if every action has a resource of its kind.
func (a *policyActions) covered(resources []policyResource) bool {
	bucket, object := false, false
	for _, r := range resources {
		bucket, object = bucket || r.onBucket, object || !r.onBucket
	}
	return a.all || (bucket || len(a.onBuck) == 0) && (object || len(a.onObject) == 0)
}

var (
	objectActions = map[string][]redoubt.Action{
		"s3:GetObject":                 {redoubt.ActionGetObject, redoubt.ActionHeadObject},
		"s3:GetObjectVersion":          {redoubt.ActionGetObject, redoubt.ActionHeadObject},
		"s3:GetObjectAttributes":       {redoubt.ActionHeadObject},
		"s3:PutObject":                 {redoubt.ActionPutObject, redoubt.ActionUpload},
		"s3:DeleteObject":              {redoubt.ActionDeleteObject},
		"s3:DeleteObjectVersion":       {redoubt.ActionDeleteVersion},
		"s3:GetObjectTagging":          {redoubt.ActionGetTags},
		"s3:PutObjectTagging":          {redoubt.ActionPutTags},
		"s3:DeleteObjectTagging":       {redoubt.ActionPutTags},
		"s3:GetObjectRetention":        {redoubt.ActionGetLock},
		"s3:GetObjectLegalHold":        {redoubt.ActionGetLock},
		"s3:PutObjectRetention":        {redoubt.ActionPutLock},
		"s3:PutObjectLegalHold":        {redoubt.ActionPutLock},
		"s3:BypassGovernanceRetention": {redoubt.ActionBypassLock},
		"s3:AbortMultipartUpload":      {redoubt.ActionAbortUpload},
		"s3:ListMultipartUploadParts":  {redoubt.ActionListUploads},
	}
	bucketActions = map[string][]redoubt.Action{
		"s3:ListBucket":                 {redoubt.ActionListObjects, redoubt.ActionHeadBucket},
		"s3:ListBucketVersions":         {redoubt.ActionListVersions},
		"s3:ListBucketMultipartUploads": {redoubt.ActionListUploads},
		"s3:GetBucketLocation":          {redoubt.ActionHeadBucket},
	}
)

func parseActions(raw json.RawMessage) (a policyActions, err error) {
	var names []string
	if !oneOrMany(raw, &names) || len(names) == 0 {
		return a, errMalformedPolicy.say("Missing required field Action")
	}
	for _, name := range names {
		switch {
		case name == "s3:*" || name == "*":
			a.all = true
		case objectActions[name] != nil:
			a.onObject = addActions(a.onObject, objectActions[name])
		case bucketActions[name] != nil:
			a.onBuck = addActions(a.onBuck, bucketActions[name])
		default:
			return a, notImplemented("Action " + name + " in a bucket policy")
		}
	}
	return a, nil
}

func addActions(to, more []redoubt.Action) []redoubt.Action {
next:
	for _, a := range more {
		for _, b := range to {
			if a == b {
				continue next
			}
		}
		to = append(to, a)
	}
	return to
}

// policyResource is the bucket itself, or what lies under a prefix of it.
type policyResource struct {
	onBucket bool
	prefix   string
}

// parseResources reads arn:aws:s3:::BUCKET and arn:aws:s3:::BUCKET/PREFIX*.
func parseResources(raw json.RawMessage, bucket redoubt.BucketName) ([]policyResource, error) {
	var names []string
	if !oneOrMany(raw, &names) || len(names) == 0 {
		return nil, errMalformedPolicy.say("Missing required field Resource")
	}
	var all []policyResource
	for _, name := range names {
		path, ok := strings.CutPrefix(name, "arn:aws:s3:::")
		owner, prefix, object := cut(path, '/')
		if !ok || owner != string(bucket) || len(prefix) > redoubt.MaxKeyBytes+1 {
			return nil, errMalformedPolicy.say("Policy has invalid resource").with("Detail", name)
		}
		if !object {
			all = append(all, policyResource{onBucket: true})
			continue
		}
		prefix, starred := strings.CutSuffix(prefix, "*")
		if !starred {
			return nil, notImplemented("A Resource without a trailing * (" + name + ") in a bucket policy")
		}
		if strings.ContainsAny(prefix, "*?") || strings.Contains(prefix, "${") {
			return nil, notImplemented("A wildcard or variable inside a Resource (" + name + ") in a bucket policy")
		}
		all = append(all, policyResource{prefix: prefix})
	}
	return all, nil
}
