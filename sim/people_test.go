package sim_test

import (
	"context"
	"fmt"
	"slices"
	"time"

	"redoubt"
)

// member is somebody whom two officers added at home after it all began.
type member struct {
	redoubt.Person
	name  redoubt.SubjectName
	works []bool // whether she works below the home: before anybody had heard of her, and since each change
	gone  bool
}

func (m *member) changes() int { return len(m.works) - 1 }

// Members are given these in turn. With the roles of the home alone nobody is told of at a device, whatever her clearance; the category
// of the last clearance is none of any device's.
var (
	clearances = []string{"UNCLASSIFIED", "CONFIDENTIAL", "SECRET", "TOP SECRET", "TOP SECRET" + secretCategory}
	works      = []redoubt.Role{redoubt.RoleAnalyst}
	homeAlone  = []redoubt.Role{redoubt.RoleStorage, redoubt.RoleReviewer}
)

const secretCategory = "//HCS"

// mostMembers bounds how many there are: each is looked for on every disk.
const mostMembers = 12

// staff has officers at home add somebody, change what she is for, or revoke her.
func (w *world) staff(s step) {
	home := w.home()
	home.start()
	if s.what == "join" {
		if len(w.people) < mostMembers {
			m := &member{works: []bool{false}, name: redoubt.SubjectName(fmt.Sprintf("sim-member-%d-%d", w.seed, len(w.people)))}
			m.Person = redoubt.Person{Name: m.name, Clearance: clearances[s.pick%uint64(len(clearances))], Nation: "USA", Roles: works}
			if s.pick%4 == 0 {
				m.Roles = homeAlone
			}
			for _, n := range w.nodes {
				if n.stack != nil {
					n.stack.Know(m.name)
				}
			}
			if w.change(m) {
				w.people = append(w.people, m)
			}
		}
		return
	}
	if len(w.people) == 0 {
		return
	}
	m := w.people[s.pick%uint64(len(w.people))]
	switch {
	case m.gone:
	case s.what == "leave":
		if err := home.stack.RevokePerson(context.Background(), home.as("officer", ""), m.name, "left"); err != nil {
			w.fault("revoke %s: %v", m.name, err)
		}
		m.works, m.gone = append(m.works, false), true
	default: // she comes to work below the home, or does no more
		was := m.Roles
		if m.Roles = works; slices.Equal(was, works) {
			m.Roles = homeAlone
		}
		if !w.change(m) {
			m.Roles = was
		}
	}
}

// change has two officers sign what a member is. Where the home's clock was set back behind her last change, there is none.
func (w *world) change(m *member) bool {
	home := w.home()
	now := home.stack.Now()
	m.PublicKey, m.Expires = home.stack.Know(m.name), now.AddDate(200, 0, 0).Truncate(time.Second)
	person := m.Person
	c := redoubt.Change{Kind: redoubt.ChangePerson, Person: &person, Reason: "sim", Made: now, Expires: now.Add(time.Hour)}
	c.ID = redoubt.ChangeID(c)
	c.Signatures = []redoubt.Signature{home.stack.Sign("officer", c)}
	_, err := home.stack.ProposeChange(context.Background(), home.as("officer", ""), c)
	if err == nil {
		_, err = home.stack.ApproveChange(context.Background(), home.as("officer-2", ""), c.ID, home.stack.Sign("officer-2", c))
	}
	if err != nil && redoubt.KindOf(err) != redoubt.Conflict {
		w.fault("%s is not changed: %v", m.name, err)
	}
	if err == nil {
		m.works = append(m.works, slices.Equal(m.Roles, works))
	}
	return err == nil
}

// worksAt says whether a member may work at a node, as her home has her now.
func (m *member) worksAt(n *node) bool {
	return !m.gone && (n.index == 0 || slices.Equal(m.Roles, works))
}

// enters says whether a node lets somebody in.
func (n *node) enters(who redoubt.SubjectName) bool {
	m, err := n.stack.TryMint(who, "UNCLASSIFIED", redoubt.DefaultCredentialLife)
	if err != nil {
		if kind := redoubt.KindOf(err); kind != redoubt.Unauthenticated && kind != redoubt.Denied {
			n.w.fault("%s: minting for %s: %v", n.name, who, err)
		}
		return false
	}
	_, err = n.stack.Bearer(context.Background(), m.Token)
	return err == nil
}

// ask tries whether a member is let in: as one of her changes has it, and at a device never as one before what it was known to have heard.
func (w *world) ask(n *node, pick uint64) {
	if len(w.people) == 0 {
		return
	}
	m := w.people[pick%uint64(len(w.people))]
	in := n.enters(m.name)
	if n.index == 0 {
		if in != m.worksAt(n) {
			w.fault("%s lets %s in: %v; revoked: %v", n.name, m.name, in, m.gone)
		}
		return
	}
	later := slices.Index(m.works[n.heard[m.name]:], in)
	if later < 0 {
		w.fault("%s lets %s in: %v; since the change that it had heard of, number %d, she works there: %v", n.name, m.name, in, n.heard[m.name], m.works)
		return
	}
	n.heard[m.name] += later
}

// comparePeople holds who is let in, and what is known of anybody, against what the officers at home have said.
func (w *world) comparePeople(n *node) {
	for _, who := range subjects {
		if !n.enters(who) {
			w.fault("%s does not let %s in, whom nobody has revoked", n.name, who)
		}
	}
	for _, m := range w.people {
		if in := n.enters(m.name); in != m.worksAt(n) {
			w.fault("%s lets %s in: %v; at home she is for %v, revoked: %v", n.name, m.name, in, m.Roles, m.gone)
		}
	}
	if n.index == 0 {
		return
	}
	known, err := n.stack.People(context.Background(), n.as("officer", ""))
	if err != nil {
		w.fault("%s: people: %v", n.name, err)
	}
	for _, p := range known {
		i := slices.IndexFunc(w.people, func(m *member) bool { return m.name == p.Name })
		if i < 0 {
			continue
		}
		if own, err := w.policy.Clearance(p.Clearance, "USA"); err != nil || !n.clearance().Dominates(own) {
			w.fault("%s knows %s as cleared for %s, above its range (%v)", n.name, p.Name, p.Clearance, err)
		}
	}
	w.compareShown(n)
}

// compareShown looks for what may be nowhere in a device's catalogue.
func (w *world) compareShown(n *node) {
	texts := []string{secretCategory}
	for _, m := range w.people {
		if m.changes() == 1 && !slices.Equal(m.Roles, works) || m.changes() == 2 && m.gone && !slices.Equal(m.Roles, works) { // never was for any device
			texts = append(texts, string(m.name)+`"`)
		}
	}
	for _, text := range texts {
		if shown, err := n.disk.Shows(text); err != nil || shown {
			w.fault("the catalogue of %s shows %q (%v)", n.name, text, err)
		}
	}
}
