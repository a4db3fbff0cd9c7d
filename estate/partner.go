package estate

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"

	"redoubt"
	"redoubt/label"
)

// AgreementRef is an agreement that an estate has with another: a file beside its own.
type AgreementRef struct {
	File   string `json:"file"`
	Digest string `json:"digest"` // SHA-256 of the file, hex: so that the estate's signatures cover it
}

// Partner is an agreement as one of its two parties has it.
type Partner struct {
	Agreement *SignedAgreement
	Own       Party // this estate
	Other     Party
	us        int // the index of Own
}

// Partners are the agreements of the estate that a node is the gateway of.
func (e *Estate) Partners(node redoubt.NodeName) (all []Partner) {
	for _, s := range e.agreements {
		if p, ok := e.partner(s); ok && p.Own.Gateway.Node == node {
			all = append(all, p)
		}
	}
	return all
}

func (e *Estate) partner(s *SignedAgreement) (Partner, bool) {
	i := slices.IndexFunc(s.Agreement.Parties, func(p Party) bool { return p.Estate == e.Name })
	if i < 0 {
		return Partner{}, false
	}
	return Partner{Agreement: s, Own: s.Agreement.Parties[i], Other: s.Agreement.Parties[1-i], us: i}, true
}

// Flow is one direction of an agreement, compiled.
type Flow struct {
	Bound   label.Label // of the giver's policy
	Buckets []redoubt.BucketName
	// Convert gives the taker's label of the giver's; outside the agreement's time it gives none.
	Convert func(label.Label) (label.Label, error)
}

// Gives is what this estate gives, Takes what it is given; nil: nothing.
func (p Partner) Gives(now func() time.Time) (*Flow, error) { return p.flow(p.us, now) }

// Takes is what the partner gives.
func (p Partner) Takes(now func() time.Time) (*Flow, error) { return p.flow(1-p.us, now) }

// Terms names what this estate gives, and what its labels are there: other terms have another name.
func (p Partner) Terms() string {
	b, err := json.Marshal(p.Own.Gives)
	if err != nil {
		panic(fmt.Sprintf("estate: plain fields do not encode: %v", err))
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func (p Partner) flow(giver int, now func() time.Time) (*Flow, error) {
	g := p.Agreement.Agreement.Parties[giver].Gives
	if g == nil {
		return nil, nil
	}
	convert, err := p.Agreement.conversion(giver, now)
	return &Flow{Bound: p.Agreement.bounds[giver], Buckets: g.Buckets, Convert: convert}, err
}

// Policy is the partner's marking policy.
func (p Partner) Policy() *label.Policy { return p.Agreement.policies[1-p.us] }

// Key is what the partner's gateway signs with.
func (p Partner) Key() ed25519.PublicKey {
	b, err := base64.StdEncoding.DecodeString(p.Other.Gateway.Key)
	if err != nil {
		return nil // ReadAgreement has read it
	}
	return b
}

// PartnerPeople are the partners' gateways and people as a node, which is the gateway of their agreements, knows them.
func (e *Estate) PartnerPeople(node redoubt.NodeName) (all []redoubt.Person) {
	for _, p := range e.Partners(node) {
		until := p.Agreement.Agreement.Expires
		bound := e.policy.Lowest()
		if b := p.Agreement.bounds[p.us]; !b.IsZero() {
			bound = b
		}
		all = append(all, redoubt.Person{Name: redoubt.SubjectName(redoubt.PartnerName(p.Other.Estate, p.Other.Gateway.Node)), Clearance: bound.Banner(), Nation: p.Other.Nation,
			Roles: []redoubt.Role{redoubt.RolePartner}, Expires: until, PublicKey: p.Other.Gateway.Key, Workload: true})
		for _, r := range p.Other.People {
			expires := r.Expires
			if until.Before(expires) {
				expires = until
			}
			all = append(all, redoubt.Person{Name: redoubt.SubjectName(p.Other.Estate + "." + r.Name), Clearance: r.Clearance, Nation: r.Nation,
				Roles: []redoubt.Role{redoubt.RoleAnalyst}, Expires: expires, PublicKey: r.Key})
		}
	}
	return all
}

// PartnerBuckets are what partners give, by the names that it has at the node; they exist, empty, from the start.
func (e *Estate) PartnerBuckets(node redoubt.NodeName) (all []redoubt.Bucket) {
	for _, p := range e.Partners(node) {
		if p.Other.Gives == nil {
			continue
		}
		for _, b := range p.Other.Gives.Buckets {
			all = append(all, redoubt.Bucket{Name: TakenName(p.Other.Estate, b), BucketSettings: redoubt.BucketSettings{ReadOnly: true}})
		}
	}
	return all
}

// OfficersAgree says whether those whom the estate's agreements name as its officers are its officers, by the keys that it knows them by. It is asked
// once everybody's keys are known: those of an exercise are made after its file was read.
func (e *Estate) OfficersAgree() error {
	for _, s := range e.agreements {
		p, ok := e.partner(s)
		if !ok {
			continue
		}
		for _, o := range p.Own.Officers {
			known, ok := e.Person(o.Name)
			if !ok || known.Revoked || known.PublicKey != o.Key || !slices.Contains(known.Roles, redoubt.RoleOfficer) {
				return &redoubt.Error{Op: "estate.OfficersAgree", Object: s.Agreement.Name, Kind: redoubt.Denied, Rule: "two-officers (4.2)",
					Err: fmt.Errorf("%s, whom the agreement names as an officer of %s, is none by that key", o.Name, e.Name), Hint: "make the agreement anew: redoubt agreement propose"}
			}
		}
	}
	return nil
}

// agreement reads a file that the estate names.
func (r *reader) agreement(n *yaml.Node, path string) {
	name := r.text(n, path)
	if name == "" {
		return
	}
	if !filepath.IsLocal(filepath.FromSlash(name)) {
		r.fault(n, path, "leaves the folder of the estate file", "put the agreement beside the estate")
		return
	}
	if r.open == nil {
		r.fault(n, path, "cannot be read: there is no folder beside the estate", "")
		return
	}
	data, err := r.open(name)
	if err != nil {
		r.fault(n, path, "cannot be read: "+err.Error(), "")
		return
	}
	sum := sha256.Sum256(data)
	r.estate.Agreements = append(r.estate.Agreements, AgreementRef{File: name, Digest: hex.EncodeToString(sum[:])})
	if r.files == nil {
		r.files = map[string][]byte{}
	}
	r.files[name] = data
}

// checkAgreements looks at the agreements once the estate's own nodes and people are known to be good.
func (r *reader) checkAgreements() {
	e := r.estate
	partners := map[string]bool{}
	for i, ref := range e.Agreements {
		path := fmt.Sprintf("agreements[%d]", i)
		data := r.files[ref.File]
		s, err := ReadAgreement(data, e.policy)
		if err == nil {
			err = s.Verify()
		}
		if err != nil {
			r.faultAt(path, errors.Unwrap(err).Error(), "redoubt agreement check FILE explains an agreement")
			continue
		}
		p, ok := e.partner(s)
		if !ok || p.Own.Policy != PolicyName(e.policy) {
			r.faultAt(path, "this estate, under its policy, is no party of it", "")
			continue
		}
		if partners[p.Other.Estate] {
			r.faultAt(path, "another agreement is with "+p.Other.Estate+" too", "one agreement has all that two estates agree on")
		}
		partners[p.Other.Estate] = true
		if slices.ContainsFunc(e.agreements, func(x *SignedAgreement) bool { return x.Agreement.Name == s.Agreement.Name }) {
			r.faultAt(path, "another agreement is named "+s.Agreement.Name+" too", "an agreement is ended by its name: propose it anew under another")
		}
		r.checkPartner(p, path)
		e.agreements, e.agreementFiles = append(e.agreements, s), append(e.agreementFiles, data)
	}
}

// checkPartner looks at what an agreement says of this estate, and at the names that it brings.
func (r *reader) checkPartner(p Partner, path string) {
	e := r.estate
	peer := redoubt.PartnerName(p.Other.Estate, p.Other.Gateway.Node)
	gate, ok := e.Node(p.Own.Gateway.Node)
	if !ok || gate.Kind != KindEnclave {
		r.faultAt(path, "its gateway "+string(p.Own.Gateway.Node)+" is no enclave of this estate", "")
		return
	}
	for _, name := range []redoubt.NodeName{peer, redoubt.NodeName(p.Other.Estate)} { // ORIGIN.BUCKET names one thing
		if _, taken := e.Node(name); taken || slices.Contains(ownNames, name) {
			r.faultAt(path, "a node of this estate, or what nodes keep for themselves, is named "+string(name)+", as the partner is known here", "")
		}
	}
	if _, taken := e.Person(redoubt.SubjectName(peer)); taken {
		r.faultAt(path, "a person is named "+string(peer)+", as the partner's gateway is known here", "")
	}
	if g := p.Own.Gives; g != nil {
		if b := p.Agreement.bounds[p.us]; !gate.ceiling.IsZero() && !(gate.ceiling.Dominates(b) && b.Dominates(gate.floor)) {
			r.faultAt(path, fmt.Sprintf("what it gives, up to %s, lies outside the range of %s", g.Bound, gate.Name), "")
		}
		for _, b := range g.Buckets {
			if !slices.ContainsFunc(gate.Buckets, func(has redoubt.Bucket) bool { return has.Name == b }) {
				r.faultAt(path, "it gives "+string(b)+", which is no bucket of "+string(gate.Name), "")
			}
		}
	}
	held := map[string]string{} // a key is one holder's, over all agreements
	for _, person := range e.People {
		held[person.PublicKey] = string(person.Name)
	}
	for _, s := range e.agreements {
		if q, ok := e.partner(s); ok {
			held[q.Other.Gateway.Key] = "the gateway of " + q.Other.Estate
			for _, of := range q.Other.People {
				held[of.Key] = q.Other.Estate + "." + of.Name
			}
		}
	}
	theirs := map[string]string{p.Other.Gateway.Key: "the gateway of " + p.Other.Estate}
	for _, of := range p.Other.People {
		theirs[of.Key] = p.Other.Estate + "." + of.Name
	}
	for key, whose := range theirs {
		if other, taken := held[key]; taken {
			r.faultAt(path, fmt.Sprintf("%s has the key of %s: two never share one", whose, other), "")
		}
	}
	for _, o := range p.Own.Officers {
		known, ok := e.Person(o.Name)
		if !ok || !slices.Contains(known.Roles, redoubt.RoleOfficer) || known.PublicKey != "" && known.PublicKey != o.Key {
			r.faultAt(path, string(o.Name)+" is no officer of this estate, or not by that key", "make the agreement anew: redoubt agreement propose")
		}
	}
}
