package identity

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"redoubt"
	"redoubt/label"
)

// KindProjection is the kind of what a home tells its devices of people: a subject, or a grant, cut to what devices of one
// range may know (RULES 4.3). Names are person/SUBJECT and grant/ID. Of one name the newest stands.
const KindProjection = "projection"

// RuleHome refuses a change of a person whom the node's home tells of.
const RuleHome = "told-by-its-home (4.3)"

// Cut says for whom a projection is made: devices of one range, and what of buckets they carry.
type Cut struct {
	Floor, Ceiling label.Label
	Carries        func(bucket redoubt.BucketName, prefix string) bool // whether any of it travels to one of them
}

// neededBelow are the roles that mean something at a device. Buckets are made and configured at its home (storage), and there is
// no guard whose releases are to be reviewed at it (reviewer).
var neededBelow = []redoubt.Role{redoubt.RoleAnalyst, redoubt.RoleOfficer, redoubt.RoleAdmin, redoubt.RoleWriteUp}

// personProjection is a person as devices of one range know her. One who cannot work there, any more, has her name alone.
type personProjection struct {
	Name      redoubt.SubjectName `json:"name"`
	Clearance string              `json:"clearance,omitempty"`
	Nation    string              `json:"nation,omitempty"`
	Roles     []redoubt.Role      `json:"roles,omitempty"`
	Expires   time.Time           `json:"expires,omitzero"`
	PublicKey string              `json:"public_key,omitempty"`
	Workload  bool                `json:"workload,omitempty"`
	// GrantedBy names those officers, as far as they are known there, who may not sign together with this one.
	GrantedBy []redoubt.SubjectName `json:"granted_by,omitempty"`
	Revoked   bool                  `json:"revoked,omitempty"`
	// Life counts how often she came back: credentials of an earlier life stay ended.
	Life int `json:"life,omitempty"`
}

// grantProjection is a grant as devices of one range know it.
type grantProjection struct {
	Grant redoubt.Grant `json:"grant"`
	Ended bool          `json:"ended,omitempty"`
}

// Trial is the registry as it would be after recs, with nothing but people, grants and revocations in it. Whatever is done to it
// changes nothing here. It fails where a record is one that Load would refuse.
func (r *Registry) Trial(recs ...Record) (*Registry, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := &Registry{o: r.o, dummy: r.dummy, keys: maps.Clone(r.keys), past: maps.Clone(r.past), grants: maps.Clone(r.grants), granted: maps.Clone(r.granted),
		revoked: maps.Clone(r.revoked), told: maps.Clone(r.told), withdrawn: maps.Clone(r.withdrawn),
		changes: make(map[string]changeRecord), held: make(map[redoubt.SubjectName]held)}
	r.people.Range(func(name, p any) bool {
		t.people.Store(name, p)
		return true
	})
	for _, rec := range recs {
		if rec.Kind != KindPerson && rec.Kind != KindGrant && rec.Kind != KindRevocation && rec.Kind != KindProjection {
			continue
		}
		if err := t.take(rec); err != nil {
			return nil, &redoubt.Error{Op: "identity.Trial", Object: rec.Kind + " " + rec.Name, Kind: redoubt.Corrupt, Err: err}
		}
	}
	return t, nil
}

// Project gives what is to be told to devices within the cut that they were not told yet. told is what they were, by name. It
// depends on what they may know alone: whatever changes above leaves it as it is, and nothing is told.
func (r *Registry) Project(c Cut, told map[string][]byte) ([]Record, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	live, err := r.within(c)
	if err != nil {
		return nil, err
	}
	people, err := r.projectPeople(c, told, live)
	if err != nil {
		return nil, err
	}
	grants, err := r.projectGrants(c, told, live)
	return append(people, grants...), err
}

// within cuts everybody who can work within the range; r.mu is held.
func (r *Registry) within(c Cut) (map[redoubt.SubjectName]*personProjection, error) {
	live, marks := make(map[redoubt.SubjectName]*personProjection), make(map[string]string)
	var failed error
	r.people.Range(func(_, v any) bool {
		p := v.(*person)
		if p.Revoked {
			return true
		}
		out, err := r.cut(c, p, marks)
		if err != nil {
			failed = err
			return false
		}
		if out != nil {
			live[p.Name] = out
		}
		return true
	})
	for _, p := range live {
		p.GrantedBy = slices.DeleteFunc(p.GrantedBy, func(by redoubt.SubjectName) bool {
			other := live[by]
			return other == nil || !slices.Contains(other.Roles, redoubt.RoleOfficer)
		})
	}
	return live, failed
}

// cut is what of a person devices within the range may know; nil where she cannot work there. marks keeps clearances that were cut.
func (r *Registry) cut(c Cut, p *person, marks map[string]string) (*personProjection, error) {
	roles := slices.DeleteFunc(slices.Clone(p.Roles), func(x redoubt.Role) bool { return !slices.Contains(neededBelow, x) })
	shared := label.Meet(p.clearance, c.Ceiling)
	if len(roles) == 0 || !p.clearance.Dominates(shared) || !shared.Dominates(c.Floor) {
		return nil, nil
	}
	slices.Sort(roles)
	marking, known := marks[p.Clearance]
	if !known {
		var err error
		if marking, err = r.cutClearance(c.Ceiling, p.Clearance); err != nil {
			return nil, err
		}
		marks[p.Clearance] = marking
	}
	out := &personProjection{Name: p.Name, Clearance: marking, Nation: p.Nation, Roles: roles, Expires: p.Expires.UTC(), PublicKey: p.PublicKey, Workload: p.Workload}
	if slices.Contains(roles, redoubt.RoleOfficer) {
		out.GrantedBy = slices.Clone(p.grantedBy[redoubt.RoleOfficer])
	}
	return out, nil
}

// cutClearance is the marking of what of a clearance a bound dominates: level and categories. Neither says anything of nations, so
// both are read as the own nation's.
func (r *Registry) cutClearance(bound label.Label, clearance string) (string, error) {
	own := r.o.Policy.Nation()
	a, err := r.o.Policy.Clearance(clearance, own)
	if err != nil {
		return "", err
	}
	b, err := r.o.Policy.Clearance(bound.Banner(), own)
	if err != nil {
		return "", err
	}
	low := label.Meet(a, b)
	if lowest := r.o.Policy.Lowest(); low.Rank() == lowest.Rank() && len(low.Categories()) == 0 {
		low = lowest // in its plain spelling
	}
	return low.Banner(), nil
}

// projectPeople compares who can work there with who was told of; r.mu is held.
func (r *Registry) projectPeople(c Cut, told map[string][]byte, live map[redoubt.SubjectName]*personProjection) (out []Record, err error) {
	names := slices.Collect(maps.Keys(live))
	for name := range told {
		if who, ok := strings.CutPrefix(name, KindPerson+"/"); ok && live[redoubt.SubjectName(who)] == nil {
			names = append(names, redoubt.SubjectName(who))
		}
	}
	for _, p := range r.o.People { // whom a device may know by the estate, whatever became of her since
		if name := KindPerson + "/" + string(p.Name); live[p.Name] == nil && told[name] == nil && r.estateWithin(c, p) {
			names = append(names, p.Name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		key := KindPerson + "/" + string(name)
		var was personProjection
		if told[key] != nil {
			if err := decode(Record{Value: told[key]}, &was); err != nil {
				return nil, &redoubt.Error{Op: "identity.Project", Object: key, Kind: redoubt.Corrupt, Err: err}
			}
		}
		next := &personProjection{Name: name, Revoked: true, Life: was.Life}
		if p := live[name]; p != nil {
			next, p.Life = p, was.Life
			if was.Revoked {
				p.Life++
			}
		}
		if rec := encode(KindProjection, key, next); string(rec.Value) != string(told[key]) {
			out = append(out, rec)
		}
	}
	return out, nil
}

// estateWithin says whether a person of the estate could work within the range, as the estate has her.
func (r *Registry) estateWithin(c Cut, in redoubt.Person) bool {
	in.Revoked = false
	p, err := r.compile(in)
	if err != nil {
		return false
	}
	out, err := r.cut(c, p, make(map[string]string))
	return err == nil && out != nil
}

// projectGrants compares the grants that concern who can work there with those that were told. Those of somebody who cannot stay as
// they are: they open nothing. r.mu is held.
func (r *Registry) projectGrants(c Cut, told map[string][]byte, live map[redoubt.SubjectName]*personProjection) (out []Record, err error) {
	concerns := func(g redoubt.Grant) bool { return g.Subject == Everyone || live[g.Subject] != nil }
	now := make(map[string]redoubt.Grant)
	for id, g := range r.grants {
		if concerns(g) && c.Carries(g.Bucket, g.Prefix) {
			now[KindGrant+"/"+id] = g
		}
	}
	names := slices.Collect(maps.Keys(now))
	for name := range told {
		if _, stands := now[name]; !stands && strings.HasPrefix(name, KindGrant+"/") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		var was grantProjection
		if told[name] != nil {
			if err := decode(Record{Value: told[name]}, &was); err != nil {
				return nil, &redoubt.Error{Op: "identity.Project", Object: name, Kind: redoubt.Corrupt, Err: err}
			}
		}
		next := grantProjection{Grant: now[name]}
		if _, stands := now[name]; !stands {
			if next.Grant, next.Ended = was.Grant, true; !concerns(was.Grant) {
				continue
			}
		}
		if rec := encode(KindProjection, name, next); string(rec.Value) != string(told[name]) {
			out = append(out, rec)
		}
	}
	return out, nil
}

// LoadPast takes what the home told when the node had another range. It stands until the home has said what it is in this one,
// and until a change does; it is loaded before everything else.
func (r *Registry) LoadPast(rec Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.takeProjection(rec, false); err != nil {
		return &redoubt.Error{Op: "identity.LoadPast", Object: rec.Kind + " " + rec.Name, Kind: redoubt.Corrupt, Err: err}
	}
	return nil
}

// takeProjection makes what the home tells stand in the place of whatever this node knew, but for what was revoked
// here: revocations only grow. now says that it is of the node's range. r.mu is held.
func (r *Registry) takeProjection(rec Record, now bool) error {
	kind, name, _ := strings.Cut(rec.Name, "/")
	switch kind {
	case KindPerson:
		var in personProjection
		if err := decode(rec, &in); err != nil {
			return err
		}
		if string(in.Name) != name || !validName(name) || in.Life < 0 || len(in.GrantedBy) > maxGranters {
			return errors.New("not a projection of a person")
		}
		return r.takeTold(in, now)
	case KindGrant:
		var in grantProjection
		if err := decode(rec, &in); err != nil {
			return err
		}
		if in.Grant.ID != name {
			return errors.New("not a projection of a grant")
		}
		if err := checkGrant(in.Grant); err != nil {
			return err
		}
		if in.Ended {
			r.ungrant(name)
			return nil
		}
		return r.takeGrant(encode(KindGrant, name, in.Grant))
	}
	return errors.New("unknown kind of projection")
}

// maxGranters bounds GrantedBy: two officers sign a change, and a person has few that were left in force.
const maxGranters = 256

// takeTold takes a person as the home tells of her; r.mu is held.
func (r *Registry) takeTold(in personProjection, now bool) error {
	if in.Revoked {
		if in.Clearance != "" || in.PublicKey != "" || len(in.Roles) > 0 {
			return errors.New("who is revoked has a name alone")
		}
		r.withdrawn[in.Name] = true
		if now {
			r.told[in.Name] = true
		}
		if p, ok := r.person(in.Name); ok {
			q := *p
			q.told, q.life = now, in.Life
			r.publish(&q)
			delete(r.held, in.Name)
		}
		return nil
	}
	p, err := r.compile(redoubt.Person{Name: in.Name, Clearance: in.Clearance, Nation: in.Nation, Roles: in.Roles, Expires: in.Expires,
		PublicKey: in.PublicKey, Workload: in.Workload})
	if err != nil {
		return err
	}
	if err := r.claim(p); err != nil {
		return err
	}
	p.told, p.life = now, in.Life
	p.footing = p.content()
	p.grantedBy[redoubt.RoleOfficer] = in.GrantedBy
	delete(r.withdrawn, in.Name)
	if now {
		r.told[in.Name] = true
	}
	r.publish(p)
	return nil
}
