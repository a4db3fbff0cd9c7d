package identity

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"redoubt"
	"redoubt/label"
)

// keptExpired is how long an expired credential is still told from one that never was.
const keptExpired = 24 * time.Hour

// The rules by which a credential is refused.
const (
	RuleNoCommonLabel = "no-common-label (2.1)" // subject and node share no label
	RuleWithin        = "within-clearance (2.1)"
	RuleNodeRange     = "within-node-range (2.1)"
	RuleClearance     = "clearance-current (2.1)"
)

// credential is a Credential with what identity alone knows of it.
type credential struct {
	redoubt.Credential
	issued  time.Time
	key     [ed25519.PublicKeySize]byte // of the subject when it was minted; another key since then ends it
	life    int                         // of the subject likewise (personProjection)
	revoked atomic.Bool
	day     atomic.Pointer[dayKey]
}

// longGone says whether it expired so long ago that it is not told from one that never was.
func (c *credential) longGone(now time.Time) bool { return now.Sub(c.Expires) > keptExpired }

// DefaultWorking is the working label of a credential that names none: the highest that the subject and the
// node share, which is the meet of clearance and ceiling. So SECRET for a national with SECRET at a SECRET
// node, and SECRET//REL TO USA, GBR for a British officer there.
//
// There is one exception. Where that meet is of the policy's lowest level, whose plain marking is for everybody, it is the
// plain marking: UNCLASSIFIED, not the UNCLASSIFIED//NOFORN that a national shares with a higher node.
// Otherwise all that such people wrote would be closed to every foreigner, which no marking rule asks of them.
func (r *Registry) DefaultWorking(name redoubt.SubjectName) (label.Label, error) {
	p, ok := r.person(name)
	if !ok || p.Revoked {
		return label.Label{}, &redoubt.Error{Op: "identity.DefaultWorking", Object: string(name), Kind: redoubt.NotFound}
	}
	return r.defaultWorking(p.clearance)
}

func (r *Registry) defaultWorking(clearance label.Label) (label.Label, error) {
	l := label.Meet(clearance, r.o.Ceiling)
	low := r.o.Policy.Lowest()
	if low.ForAll() && l.Rank() == low.Rank() && r.inRange(low) && clearance.Dominates(low) {
		l = low
	}
	if !clearance.Dominates(l) || !r.inRange(l) {
		return label.Label{}, refused("identity.Mint", "", RuleNoCommonLabel, "the clearance and this node share no label; use a node in reach of it")
	}
	return l, nil
}

// Mint makes a credential for whoever signed the request. Nothing is live until the records are applied.
//
// Unauthenticated: no such subject, or the signature, node, time or nonce is wrong, all alike but in the
// cause. Denied: the label asked for. Invalid: a malformed request. QuotaExceeded: too many at once, of those whose
// working label the new one's dominates ([MaxLiveCredentials]).
func (r *Registry) Mint(req redoubt.MintRequest) (redoubt.Minted, redoubt.Credential, []Record, error) {
	const op = "identity.Mint"
	none := func(err error) (redoubt.Minted, redoubt.Credential, []Record, error) {
		return redoubt.Minted{}, redoubt.Credential{}, nil, err
	}
	now := r.o.Clock().UTC()
	p, err := r.prove(req, now)
	if err != nil {
		return none(err)
	}
	working, err := r.working(p, req.Label)
	if err != nil {
		return none(err)
	}
	used := digestOf(req)
	if err := r.once(p.Name, working, used, now); err != nil {
		return none(err)
	}
	life := time.Duration(req.Seconds) * time.Second
	if req.Seconds == 0 {
		life = redoubt.DefaultCredentialLife
	}
	if req.Seconds < 0 || req.Seconds > int64(redoubt.MaxCredentialLife/time.Second) {
		return none(invalid(op, string(req.Subject), fmt.Errorf("a credential lives 1 second to %v", redoubt.MaxCredentialLife)))
	}
	expires := now.Add(life)
	if p.Expires.Before(expires) {
		expires = p.Expires.UTC()
	}
	id, err := r.random(idBytes - len(idPrefix))
	if err != nil {
		return none(&redoubt.Error{Op: op, Err: err})
	}
	id = idPrefix + id
	displaced, err := r.promise(p.Name, working, id, now)
	if err != nil {
		return none(err)
	}
	who := redoubt.Credential{ID: id, Subject: p.Name, Working: working, Expires: expires}
	text, err := working.MarshalText()
	if err != nil {
		return none(&redoubt.Error{Op: op, Err: err})
	}
	rec := encode(KindCredential, id, credentialRecord{
		ID: id, Subject: p.Name, Label: string(text), Issued: now, Expires: expires,
		Key: base64.StdEncoding.EncodeToString(p.key[:]), Nonce: base64.RawURLEncoding.EncodeToString(used[:]), Life: p.life,
	})
	minted := redoubt.Minted{
		AccessKeyID: id, SecretAccessKey: r.secretKey(id), Token: r.token(id),
		Label: working.Banner(), Expires: expires, Region: r.o.Region,
	}
	return minted, who, append(displaced, rec), nil
}

// prove verifies that the request was signed by a live subject, for this node, now. That it was not used before is for
// once to say, when its working label is known.
func (r *Registry) prove(req redoubt.MintRequest, now time.Time) (*person, error) {
	const op = "identity.Mint"
	fail := func(cause, hint string) error {
		return &redoubt.Error{Op: op, Object: string(req.Subject), Kind: redoubt.Unauthenticated, Hint: hint, Err: errors.New(cause)}
	}
	if len(req.Subject) > 2*maxNameBytes+1 || len(req.Node) > maxNameBytes || len(req.Label) > maxMarkingBytes || len(req.Signature) > 128 {
		return nil, invalid(op, "", errors.New("a field is too long"))
	}
	if nonce, err := base64.RawURLEncoding.Strict().DecodeString(req.Nonce); err != nil || len(nonce) != nonceBytes {
		return nil, invalid(op, string(req.Subject), fmt.Errorf("a nonce is %d bytes in base64url without padding", nonceBytes))
	}
	p, known := r.person(req.Subject)
	key := []byte(r.dummy) // the work is the same for names that do not exist
	if known {
		key = p.key[:]
	}
	if signed := signedBy(key, redoubt.MintMessage(req), req.Signature); !signed || !known || p.Revoked {
		return nil, fail("no such subject, or not its signature", "")
	}
	// From here on the caller is who she says, and may be told what is wrong.
	if req.Node != r.o.Node {
		return nil, fail("signed for another node", "sign for node "+string(r.o.Node))
	}
	if d := now.Sub(req.Issued); d > redoubt.MintSkew || d < -redoubt.MintSkew {
		return nil, fail("signed too long ago or ahead", "set the clock: this node's says "+now.Format(time.RFC3339))
	}
	if !now.Before(p.Expires) {
		return nil, &redoubt.Error{Op: op, Object: string(p.Name), Kind: redoubt.Expired, Rule: RuleClearance,
			Hint: "the clearance has expired; two security officers can renew it"}
	}
	return p, nil
}

// once takes a request that is good but for having been used.
func (r *Registry) once(name redoubt.SubjectName, working label.Label, d digest, now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.nonces.use(name, working, d, now)
}

// working is the label that the person may work at for the marking asked for.
func (r *Registry) working(p *person, marking string) (label.Label, error) {
	const op = "identity.Mint"
	if marking == "" {
		return r.defaultWorking(p.clearance)
	}
	l, err := r.o.Policy.Parse(marking)
	switch {
	case err != nil:
		return label.Label{}, &redoubt.Error{Op: op, Object: string(p.Name), Kind: redoubt.Invalid, Err: err,
			Hint: "try: redoubt label parse MARKING"}
	case !p.clearance.Dominates(l):
		return label.Label{}, refused(op, string(p.Name), RuleWithin, "ask for a label within the clearance "+p.clearance.Banner())
	case !r.inRange(l):
		return label.Label{}, refused(op, string(p.Name), RuleNodeRange,
			"this node holds "+r.o.Floor.Banner()+" to "+r.o.Ceiling.Banner())
	}
	return l, nil
}

func (r *Registry) takeCredential(rec Record) error {
	if rec.Value == nil { // the record is no more
		r.forget(rec.Name)
		return nil
	}
	var in credentialRecord
	if err := decode(rec, &in); err != nil {
		return err
	}
	if in.ID != rec.Name || !validID(in.ID) || !validName(string(in.Subject)) && !validPartner(string(in.Subject)) || !in.Issued.Before(in.Expires) {
		return errors.New("not a credential record")
	}
	key, err := publicKey(in.Key)
	if err != nil {
		return err
	}
	working, err := label.ParseText([]byte(in.Label), r.o.Policy)
	if err != nil {
		return err
	}
	used, err := base64.RawURLEncoding.Strict().DecodeString(in.Nonce)
	if err != nil || len(used) != nonceBytes {
		return errors.New("not the digest of a request")
	}
	if _, again := r.credentials.Load(in.ID); again {
		return nil
	}
	now := r.o.Clock()
	r.nonces.seen(in.Subject, working, digest(used), in.Issued, now)
	c := &credential{
		Credential: redoubt.Credential{ID: in.ID, Subject: in.Subject, Working: working, Expires: in.Expires},
		issued:     in.Issued, key: key, life: in.Life,
	}
	if c.longGone(now) {
		return nil
	}
	_, revoked := r.revoked[KindCredential+"/"+in.ID]
	c.revoked.Store(revoked)
	r.credentials.Store(in.ID, c)
	if revoked {
		r.unhold(in.Subject, working, in.ID)
		return nil
	}
	r.hold(in.Subject, working, in.ID, in.Expires)
	return nil
}

// Credential gives one credential by its ID, live or not; false when there is none or it expired long ago.
func (r *Registry) Credential(id string) (redoubt.Credential, bool) {
	c, ok := r.credential(id)
	if !ok {
		return redoubt.Credential{}, false
	}
	return c.Credential, true
}

// Credentials describes those that show admits, newest first. Expired ones are shown for a day.
func (r *Registry) Credentials(show func(redoubt.Credential) bool) []redoubt.CredentialRecord {
	var all []redoubt.CredentialRecord
	now := r.o.Clock()
	r.credentials.Range(func(_, v any) bool {
		if c := v.(*credential); !c.longGone(now) && show(c.Credential) {
			all = append(all, redoubt.CredentialRecord{
				ID: c.ID, Subject: c.Subject, Label: c.Working.Banner(), Issued: c.issued, Expires: c.Expires,
				Revoked: errors.Is(r.live(c), redoubt.Unauthenticated),
			})
		}
		return true
	})
	slices.SortFunc(all, func(a, b redoubt.CredentialRecord) int {
		if n := b.Issued.Compare(a.Issued); n != 0 {
			return n
		}
		return strings.Compare(a.ID, b.ID)
	})
	return all
}
