package enclave

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"redoubt"
	"redoubt/label"
	"redoubt/store"
)

// Agreements with other estates, at the node that is their gateway. What a partner is given and what is taken of it goes by partner_give.go and
// partner_take.go; here is whether an agreement is in force, which is asked anew at every step, and its end.

// Agreement is one as its gateway knows it: what two estates signed, compiled. It proves nothing here: whoever makes Options has verified it.
type Agreement struct {
	Name               string
	Serial             int64
	Digest             string
	Estate             string           // the partner's
	Peer, Self         redoubt.NodeName // ESTATE--NODE of the partner's gateway and of this one
	NotBefore, Expires time.Time
	Key                ed25519.PublicKey // that the partner's gateway signs with
	Recipient          string            // that bundles for it are sealed to
	Policy             *label.Policy     // the partner's
	Gives, Takes       *AgreementFlow    // nil: nothing
	Terms              string            // names what Gives and the conversion that the partner takes it by are: other terms have another
	People             []redoubt.SubjectName
}

// AgreementFlow is one direction of an agreement.
type AgreementFlow struct {
	Bound   label.Label // of the giver's policy: nothing that it does not dominate goes
	Buckets []redoubt.BucketName
	Convert func(label.Label) (label.Label, error) // to the taker's policy; of Takes
}

// The rules that refuse what goes between estates, beside the monitor's.
const (
	ruleAgreement = "agreement-in-force (4.2)"
	ruleEndedPact = "agreement-ended (4.4)"
	ruleGateway   = "partners-gateway (4.2)"
	rulePact      = "within-the-agreement (1.4)"
	ruleThird     = "third-partys-material (1.4)"
	ruleNoMatch   = "no-equivalent-label (1.4)"
)

// kindAgreement are the records of agreements that ended, at the node's ceiling: NAME → endRecord. They are never removed.
const kindAgreement = "agreement"

// endRecord is the end of an agreement: of the serial and all before it.
type endRecord struct {
	Serial int64               `json:"serial"`
	By     redoubt.SubjectName `json:"by"`
	At     time.Time           `json:"at"`
	Reason string              `json:"reason,omitempty"`
}

// partners is what an enclave knows of other estates.
type partners struct {
	all       []*Agreement // as declared
	byPeer    map[redoubt.NodeName]*Agreement
	bySubject map[redoubt.SubjectName]*Agreement // gateways and people
	ended     atomic.Pointer[map[string]endRecord]
	taking    sync.Mutex // one bundle of a partner's is taken at a time
	blocked   sync.Map   // redoubt.NodeName → string
}

// loadPartners takes the declared agreements, and the ends that are on record.
func (e *Enclave) loadPartners(ctx context.Context, all []Agreement) error {
	p := &e.partners
	p.byPeer, p.bySubject = map[redoubt.NodeName]*Agreement{}, map[redoubt.SubjectName]*Agreement{}
	ended := map[string]endRecord{}
	err := e.Records(ctx, kindAgreement, func(name string, value []byte) error {
		var r endRecord
		if err := strictJSON(value, &r); err != nil {
			return &redoubt.Error{Op: "enclave.Open", Object: kindAgreement, Kind: redoubt.Corrupt, Err: err}
		}
		ended[name] = r
		return nil
	})
	if err != nil {
		return err
	}
	p.ended.Store(&ended)
	for i := range all {
		a := &all[i]
		if slices.ContainsFunc(p.all, func(x *Agreement) bool { return x.Name == a.Name }) {
			return &redoubt.Error{Op: "enclave.Open", Object: a.Name, Kind: redoubt.Invalid, Err: errors.New("two agreements have one name, by which they end")}
		}
		if p.byPeer[a.Peer] != nil || a.Policy == nil || len(a.Key) != ed25519.PublicKeySize || a.Takes != nil && a.Takes.Convert == nil {
			return &redoubt.Error{Op: "enclave.Open", Object: a.Name, Kind: redoubt.Invalid, Err: errors.New("an agreement names a gateway of its own, its key and its policy")}
		}
		p.all = append(p.all, a)
		p.byPeer[a.Peer] = a
		p.bySubject[redoubt.SubjectName(a.Peer)] = a
		for _, name := range a.People {
			p.bySubject[name] = a
		}
	}
	return nil
}

// inForce is nil while an agreement is.
func (e *Enclave) inForce(a *Agreement) error {
	refused := func(kind redoubt.Kind, rule, hint string) error {
		return &redoubt.Error{Op: "agreement", Object: a.Name, Kind: kind, Rule: rule, Hint: hint}
	}
	if end, ok := (*e.partners.ended.Load())[a.Name]; ok && a.Serial <= end.Serial {
		return refused(redoubt.Denied, ruleEndedPact, "one side ended it: both sign another, with a higher serial")
	}
	switch now := e.clock(); {
	case now.Before(a.NotBefore):
		return refused(redoubt.Expired, ruleAgreement, "it is not in force before "+a.NotBefore.Format(time.RFC3339))
	case !now.Before(a.Expires):
		return refused(redoubt.Expired, ruleAgreement, "it ended at "+a.Expires.Format(time.RFC3339)+": both sign another")
	}
	return nil
}

// partnersLive says whether the agreement that a subject is known by is in force; nil for everybody whom no agreement names.
func (e *Enclave) partnersLive(subject redoubt.SubjectName) error {
	if len(e.partners.bySubject) == 0 {
		return nil
	}
	a := e.partners.bySubject[subject]
	if a == nil || e.inForce(a) == nil {
		return nil
	}
	return &redoubt.Error{Op: "identity.Live", Kind: redoubt.Expired, Err: errors.New("the agreement is not in force")}
}

// partnerLinks are what is given to partners now: the journal keeps for them what they have not taken.
func (e *Enclave) partnerLinks() (all []redoubt.Link) {
	for _, a := range e.partners.all {
		if a.Gives == nil || e.inForce(a) != nil {
			continue
		}
		all = append(all, a.link())
	}
	return all
}

// link is what an agreement that gives something gives.
func (a *Agreement) link() redoubt.Link {
	l := redoubt.Link{Peer: a.Peer, Recipient: a.Recipient, Bound: a.Gives.Bound, Raise: redoubt.RaisedAway, Partner: true}
	for _, b := range a.Gives.Buckets {
		l.Subscriptions = append(l.Subscriptions, redoubt.Subscription{Bucket: b, Out: true})
	}
	return l
}

// RefreshPartners makes the links of agreements those that are in force now: a node calls it as time goes by. That nothing flows outside an
// agreement's time does not hang on it.
func (e *Enclave) RefreshPartners(ctx context.Context) error {
	e.links.deviceMu.Lock()
	defer e.links.deviceMu.Unlock()
	has, given := e.Links(), e.partnerLinks()
	maps.DeleteFunc(has, func(_ redoubt.NodeName, l redoubt.Link) bool { return !l.Partner })
	if len(has) == len(given) && !slices.ContainsFunc(given, func(l redoubt.Link) bool { return has[l.Peer].Peer == "" }) {
		return nil
	}
	return e.relink(ctx)
}

// EndAgreement ends one; see redoubt.PartnerService.
func (e *Enclave) EndAgreement(ctx context.Context, who redoubt.Credential, name, reason string) error {
	const op = "EndAgreement"
	if len(reason) > redoubt.MaxAgreementReason || !fitText(reason, redoubt.MaxAgreementReason) {
		return &redoubt.Error{Op: op, Kind: redoubt.Invalid, Hint: "a reason is a line of at most 1,024 bytes"}
	}
	e.peopleMu.Lock()
	defer e.peopleMu.Unlock()
	entry, err := e.decide(ctx, ask{op: op, who: who, action: redoubt.ActionEndAgreement, detail: name})
	if err != nil {
		return err
	}
	var a *Agreement
	for _, x := range e.partners.all {
		if x.Name == name {
			a = x
		}
	}
	was := *e.partners.ended.Load()
	if a == nil {
		return e.noted(ctx, entry, &redoubt.Error{Op: op, Object: name, Kind: redoubt.NotFound, Hint: "redoubt agreement ls lists the agreements of this node"})
	}
	if end, ok := was[name]; ok && a.Serial <= end.Serial {
		return e.record(ctx, entry) // it has ended, and stays so
	}
	end := endRecord{Serial: a.Serial, By: who.Subject, At: e.clock().UTC().Truncate(time.Second), Reason: reason}
	value, err := json.Marshal(end)
	if err != nil {
		return err
	}
	b := new(store.Batch)
	if err := e.putRecord(ctx, b, kindAgreement, name, value); err != nil {
		return err
	}
	if err := e.commit(ctx, b, entry); err != nil {
		return err
	}
	ended := maps.Clone(was)
	ended[name] = end
	e.standingMu.Lock() // what was committed under it is committed now; nothing is afterwards
	e.partners.ended.Store(&ended)
	e.standingMu.Unlock()
	e.partners.taking.Lock()   // a bundle that is being taken has been taken as far as it is
	e.partners.taking.Unlock() //nolint:staticcheck // an empty section: it waits
	return e.RefreshPartners(ctx)
}

// Agreements lists them; see redoubt.PartnerService.
func (e *Enclave) Agreements(ctx context.Context, who redoubt.Credential) ([]redoubt.AgreementStatus, error) {
	entry, err := e.decide(ctx, ask{op: "Agreements", who: who, action: redoubt.ActionLinkStatus, detail: "agreements"})
	if err != nil {
		return nil, err
	}
	out := []redoubt.AgreementStatus{}
	own := e.partners.bySubject[who.Subject]
	for _, a := range e.partners.all {
		if own != nil && own != a {
			continue
		}
		s := redoubt.AgreementStatus{Name: a.Name, Serial: a.Serial, Digest: a.Digest, Partner: a.Estate, Gateway: a.Peer, State: redoubt.AgreementInForce, NotBefore: a.NotBefore, Expires: a.Expires,
			People: a.People, Numbers: who.Working.Dominates(e.ceiling)}
		if a.Gives != nil {
			s.Gives = a.Gives.Bound.Banner()
		}
		if a.Takes != nil {
			s.Takes = a.Takes.Bound.Banner()
		}
		switch end, ok := (*e.partners.ended.Load())[a.Name]; {
		case ok && a.Serial <= end.Serial:
			s.State, s.EndedBy, s.EndedAt, s.Reason = redoubt.AgreementEnded, end.By, end.At, end.Reason
			if own != nil || !s.Numbers {
				s.EndedBy, s.Reason = "", "" // officers' records lie at the ceiling (3.4)
			}
		case e.clock().Before(a.NotBefore):
			s.State = redoubt.AgreementNotYet
		case !e.clock().Before(a.Expires):
			s.State = redoubt.AgreementExpired
		}
		if s.Numbers {
			if err := e.partnerNumbers(ctx, a, &s); err != nil {
				return nil, err
			}
		}
		out = append(out, s)
	}
	return out, e.noteRead(ctx, entry)
}

func (e *Enclave) partnerNumbers(ctx context.Context, a *Agreement, s *redoubt.AgreementStatus) error {
	made, err := e.Made(ctx, a.Peer)
	if err != nil {
		return err
	}
	taken, err := e.Taken(ctx, a.Peer)
	if err != nil {
		return err
	}
	s.GivenSerial, s.TakenSerial, s.TakenAt = made.Serial, taken.Last.Serial, taken.Last.Created
	if _, err := e.bundleRecord(refusedKey(a.Peer), &s.Refused); err != nil {
		return err
	}
	if why, ok := e.partners.blocked.Load(a.Peer); ok {
		s.Blocked = why.(string)
	}
	if l, err := e.link("Agreements", a.Peer); err == nil && a.Gives != nil { // one that is not in force has no link
		if s.Unread, err = e.unread(l); err != nil {
			return err
		}
	}
	return nil
}

// PartnerBlocked notes why nothing comes of a partner now, for people; "": it does.
func (e *Enclave) PartnerBlocked(peer redoubt.NodeName, why string) {
	e.partners.blocked.Store(peer, why)
}

// ofPartner says whether a version is a partner's, or a copy that still says so: it goes to no third party.
func ofPartner(a redoubt.Attributes) bool { return a.Meta[redoubt.MetaOriginatorLabel] != "" }

// thirdPartys says why a label is of material that is not this estate's to give; "": it is not.
func thirdPartys(l label.Label) string {
	if owners := l.Owners(); len(owners) != 1 || owners[0] != l.Policy().Nation() {
		return ruleThird
	}
	if len(redoubt.ConsentMarks(l)) > 0 {
		return ruleConsent
	}
	return ""
}

// partnersBucket is what a partner's bucket is called here, which nobody but this node writes.
func partnersBucket(a *Agreement, b redoubt.BucketName) redoubt.BucketName {
	return redoubt.BucketName(a.Estate) + "." + b
}

// plainBucket says whether a bucket is this node's own: not one that a guard or a partner wrote.
func plainBucket(b redoubt.BucketName) bool { return strings.IndexByte(string(b), '.') < 0 }
