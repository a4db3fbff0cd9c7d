package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"redoubt"
	"redoubt/estate"
)

func (a *app) agreementCommand() *cobra.Command {
	c := &cobra.Command{Use: "agreement", Short: "What two estates agree on: make, sign and check it; see it at its gateway, and end it",
		Long: `An agreement joins this estate to another. Each side prints what the other must know of it (party); from both
and the terms one of them makes the file (propose); two officers of each sign it. Each estate then names the file:
agreements: [FILE]. What one gives appears at the other's gateway in read-only buckets ESTATE.BUCKET, under the
other's own marking. Either side ends it alone.`,
		Example: `  redoubt agreement party secret > example.party
  redoubt agreement propose terms.json example.party gbr.party > example-gbr.json
  redoubt agreement sign example-gbr.json --estate example --as officer
  redoubt agreement end example-gbr --as officer@secret --reason "the exercise is over"`}
	c.AddCommand(a.agreementParty(), a.agreementPropose(), a.agreementSign(), a.agreementCheck(), a.agreementShow(), a.agreementList(), a.agreementEnd())
	return c
}

func (a *app) agreementParty() *cobra.Command {
	var file string
	var people []string
	c := &cobra.Command{Use: "party NODE", Short: "What a partner must know of this estate, whose gateway the node is to be",
		Long: `Prints the estate's name and policy, the node's public keys, its authority's certificate and its address, the
officers who may sign, and the keys of people whom the partner is to recognise. Nothing in it is secret; it must arrive
as it left. Of a real estate --estate names the file; an exercise is in the state.`,
		Example: "  redoubt agreement party secret --person s-analyst > example.party", Args: exactly(1),
		RunE: func(_ *cobra.Command, args []string) error {
			st, err := a.state()
			if err != nil {
				return err
			}
			var e *estate.Estate
			if file != "" {
				if e, err = loadEstate(file); err != nil {
					return a.faultsOf(file, err)
				}
			} else if e, _, err = st.ExerciseEstate(); err != nil {
				return err
			}
			card, err := st.Card(redoubt.NodeName(args[0]))
			if err != nil {
				return err
			}
			out := estate.Party{Estate: e.Name, Policy: estate.PolicyName(e.MarkingPolicy()), Nation: e.MarkingPolicy().Nation(),
				Gateway: estate.Gateway{Node: card.Node, Key: card.Key, Recipient: card.Recipient, CA: card.CA, API: card.API}}
			for _, p := range e.People {
				if slices.Contains(p.Roles, redoubt.RoleOfficer) && !p.Revoked {
					out.Officers = append(out.Officers, estate.Officer{Name: p.Name, Key: p.PublicKey})
				}
			}
			for _, name := range people {
				p, ok := e.Person(redoubt.SubjectName(name))
				if !ok {
					return &usageError{message: "nobody is named " + name, hint: "redoubt estate show lists the people"}
				}
				out.People = append(out.People, estate.Recognised{Name: name, Key: p.PublicKey})
			}
			return a.print(out)
		}}
	c.Flags().StringVar(&file, "estate", "", "estate `file`; default: the exercise in the state")
	c.Flags().StringArrayVar(&people, "person", nil, "one of this estate's people, whom the partner is to recognise; may be given again")
	return a.jsonFlag(c)
}

// terms are what an agreement says beside what each party says of itself.
type terms struct {
	Name      string                `json:"name"`
	Serial    int64                 `json:"serial"`
	NotBefore time.Time             `json:"not_before,omitzero"` // none: now
	Expires   time.Time             `json:"expires"`
	Parties   map[string]partyTerms `json:"parties"` // by estate
}

type partyTerms struct {
	Gives  *estate.Gives       `json:"gives,omitempty"`
	People []estate.Recognised `json:"people,omitempty"` // of this party; keys are those of its party file
}

func (a *app) agreementPropose() *cobra.Command {
	return a.jsonFlag(&cobra.Command{Use: "propose TERMS PARTY PARTY", Short: "Make an agreement of its terms and what the two parties say of themselves",
		Long: `TERMS is JSON: name, serial, expires (and not_before, if not now), and under parties, by the estate's name, what that
estate gives (bound, buckets, equivalence) and who of its people the other recognises (name, clearance, nation, expires).
The result has one form, byte for byte, and no signatures yet.`,
		Example: "  redoubt agreement propose examples/example-gbr.json example.party gbr.party > example-gbr.agreement", Args: exactly(3),
		RunE: func(_ *cobra.Command, args []string) error {
			var t terms
			if err := readStrict(args[0], &t); err != nil {
				return err
			}
			doc := estate.Agreement{Name: t.Name, Serial: t.Serial, NotBefore: t.NotBefore, Expires: t.Expires}
			if doc.NotBefore.IsZero() {
				doc.NotBefore = time.Now()
			}
			for _, path := range args[1:] {
				var p estate.Party
				if err := readStrict(path, &p); err != nil {
					return err
				}
				of, ok := t.Parties[p.Estate]
				if !ok {
					return &usageError{message: "the terms say nothing of the estate " + p.Estate, hint: "name it under parties in " + args[0]}
				}
				keys := map[string]string{}
				for _, r := range p.People {
					keys[r.Name] = r.Key
				}
				p.Gives, p.People = of.Gives, of.People
				for i := range p.People {
					if p.People[i].Key == "" {
						p.People[i].Key = keys[p.People[i].Name]
					}
				}
				doc.Parties = append(doc.Parties, p)
			}
			s, err := estate.NewAgreement(doc)
			if err != nil {
				return err
			}
			_, err = a.out.Write(s.File())
			return err
		}})
}

// readStrict decodes a JSON file: what it does not know is an error.
func readStrict(path string, into any) error {
	data, err := readLimited(path, estate.MaxAgreementBytes)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err = d.Decode(into); err == nil {
		if _, end := d.Token(); !errors.Is(end, io.EOF) {
			err = errors.New("something follows the document")
		}
	}
	if err != nil {
		return &redoubt.Error{Object: path, Kind: redoubt.Invalid, Err: err}
	}
	return nil
}

// loadAgreement reads one. Policies that are not built in are those of the estate in file; "" is none.
func (a *app) loadAgreement(path, file string) (*estate.SignedAgreement, error) {
	data, err := readLimited(path, estate.MaxAgreementBytes)
	if err != nil {
		return nil, err
	}
	if file == "" {
		return estate.ReadAgreement(data)
	}
	e, err := loadEstate(file)
	if err != nil {
		return nil, a.faultsOf(file, err)
	}
	return estate.ReadAgreement(data, e.MarkingPolicy())
}

func (a *app) agreementSign() *cobra.Command {
	var of, as, keyFile, policies string
	c := &cobra.Command{Use: "sign FILE --estate ESTATE --as OFFICER", Short: "Sign an agreement as one of an estate's security officers, in the file",
		Long: `Read first what you sign: redoubt agreement show FILE. Two officers of each estate sign; a change of a single byte
makes every signature void.`,
		Example: "  redoubt agreement sign example-gbr.agreement --estate gbr --as officer --key officer.key", Args: exactly(1),
		RunE: func(_ *cobra.Command, args []string) error {
			s, err := a.loadAgreement(args[0], policies)
			if err != nil {
				return err
			}
			key, err := a.subjectKey(redoubt.SubjectName(as), keyFile)
			if err != nil {
				return err
			}
			defer clear(key)
			if err := s.Sign(of, redoubt.SubjectName(as), key); err != nil {
				return err
			}
			if err := replaceFile(args[0], s.File(), 0o644); err != nil {
				return err
			}
			if err := s.Verify(); err != nil {
				a.say("%s of %s has signed; %v", as, of, errors.Unwrap(err))
				return nil
			}
			a.say("%s of %s has signed; two officers of each estate have: each names it in its estate, agreements: [%s]", as, of, args[0])
			return nil
		}}
	c.Flags().StringVar(&of, "estate", "", "the `name` of the estate that the officer is of")
	c.Flags().StringVar(&as, "as", "", "security `officer`")
	c.Flags().StringVar(&keyFile, "key", "", "the officer's private key `file`; an exercise keeps it in the state")
	c.Flags().StringVar(&policies, "policy-of", "", "an estate `file` whose marking policy is not built in")
	required(c, "estate", "as")
	return c
}

func (a *app) agreementCheck() *cobra.Command {
	var policies string
	c := &cobra.Command{Use: "check FILE", Short: "Read an agreement strictly, and verify that both sides signed it",
		Example: "  redoubt agreement check example-gbr.agreement", Args: exactly(1),
		RunE: func(_ *cobra.Command, args []string) error {
			s, err := a.loadAgreement(args[0], policies)
			if err != nil {
				return err
			}
			if err := s.Verify(); err != nil {
				return err
			}
			g := &s.Agreement
			if a.json {
				return a.print(map[string]any{"ok": true, "name": g.Name, "serial": g.Serial, "digest": g.Digest(), "expires": g.Expires})
			}
			_, err = fmt.Fprintf(a.out, "%s, serial %d, between %s and %s: two officers of each signed it; in force from %s to %s\n", g.Name, g.Serial, g.Parties[0].Estate, g.Parties[1].Estate,
				g.NotBefore.Format(time.RFC3339), g.Expires.Format(time.RFC3339))
			return err
		}}
	c.Flags().StringVar(&policies, "policy-of", "", "an estate `file` whose marking policy is not built in")
	return a.jsonFlag(c)
}

func (a *app) agreementShow() *cobra.Command {
	var policies string
	c := &cobra.Command{Use: "show FILE", Short: "Say what an agreement lets each side have, and who signed",
		Example: "  redoubt agreement show example-gbr.agreement", Args: exactly(1),
		RunE: func(_ *cobra.Command, args []string) error {
			s, err := a.loadAgreement(args[0], policies)
			if err != nil {
				return err
			}
			if a.json {
				return a.print(s)
			}
			g := &s.Agreement
			fmt.Fprintf(a.out, "%s, serial %d: %s to %s, digest %s\n", g.Name, g.Serial, g.NotBefore.Format(time.RFC3339), g.Expires.Format(time.RFC3339), g.Digest())
			for i, p := range g.Parties {
				showParty(a.out, p, g.Parties[1-i].Estate)
			}
			for _, sig := range s.Signatures {
				fmt.Fprintf(a.out, "signed by %s of %s\n", sig.Signer, sig.Estate)
			}
			if err := s.Verify(); err != nil {
				a.say("not in order to take effect: %v", errors.Unwrap(err))
			}
			return nil
		}}
	c.Flags().StringVar(&policies, "policy-of", "", "an estate `file` whose marking policy is not built in")
	return a.jsonFlag(c)
}

func showParty(w io.Writer, p estate.Party, other string) {
	fmt.Fprintf(w, "%s (%s, policy %s), gateway %s at %s\n", p.Estate, p.Nation, p.Policy, p.Gateway.Node, p.Gateway.API)
	switch g := p.Gives; {
	case g == nil:
		fmt.Fprintf(w, "  gives %s nothing\n", other)
	default:
		var buckets []string
		for _, b := range g.Buckets {
			buckets = append(buckets, string(b))
		}
		fmt.Fprintf(w, "  gives %s what %s dominates, of %s\n", other, g.Bound, strings.Join(buckets, ", "))
	}
	for _, r := range p.People {
		fmt.Fprintf(w, "  %s is %s.%s to %s: %s, %s, until %s\n", r.Name, p.Estate, r.Name, other, r.Clearance, r.Nation, r.Expires.Format(time.RFC3339))
	}
	for _, o := range p.Officers {
		fmt.Fprintf(w, "  %s may sign for it\n", o.Name)
	}
}

func (a *app) agreementList() *cobra.Command {
	var w who
	c := &cobra.Command{Use: "ls --as SUBJECT@NODE", Short: "The agreements that a node is the gateway of: whether they are in force, and how far each side is",
		Example: "  redoubt agreement ls --as s-analyst@secret", Args: exactly(0),
		RunE: a.withSession(&w, func(ctx context.Context, s *session, _ []string) error {
			all, err := s.api.Agreements(ctx)
			if errors.Is(err, redoubt.NotFound) { // the gateway of none has no such list
				all, err = []redoubt.AgreementStatus{}, nil
				a.say("%s is the gateway of no agreement", s.node)
			}
			if err != nil {
				return err
			}
			if a.json {
				return a.print(map[string]any{"agreements": all})
			}
			t := a.table("AGREEMENT", "PARTNER", "STATE", "UNTIL", "GIVES", "GIVEN", "TAKEN", "REFUSED", "WAITS")
			for _, g := range all {
				given, taken := "-", "-"
				if g.Numbers {
					given, taken = fmt.Sprint(g.GivenSerial), fmt.Sprint(g.TakenSerial)
				}
				var refused []string
				for rule, n := range g.Refused {
					refused = append(refused, fmt.Sprintf("%d by %s", n, rule))
				}
				slices.Sort(refused)
				t.row(fmt.Sprintf("%s@%d", g.Name, g.Serial), g.Partner, g.State, g.Expires.Local().Format("2006-01-02 15:04"), dash(g.Gives), given, taken, dash(strings.Join(refused, ", ")), dash(g.Blocked))
			}
			err = t.flush()
			for _, g := range all {
				if g.Unread > 0 && err == nil {
					a.notGiven(s.node, g)
				}
			}
			return err
		})}
	w.flags(c)
	return a.jsonFlag(c)
}

// notGiven says what to do about what a partner was not given, for it did not read or is larger than a bundle.
func (a *app) notGiven(at redoubt.NodeName, g redoubt.AgreementStatus) {
	a.tell(fmt.Sprintf("not given to %s: %s, which did not read, or has more than a bundle may (1 TiB); what came after was", g.Partner, counted(g.Unread, "version")),
		fmt.Sprintf("redoubt fsck %s names what is damaged; when it reads again it is given within an hour, and above 16 MiB once it is put anew", at))
}

func (a *app) agreementEnd() *cobra.Command {
	var w who
	var reason string
	c := &cobra.Command{Use: "end NAME --as OFFICER@NODE", Short: "End an agreement, alone, at once and for good",
		Long: `One officer ends it at the gateway of her own estate. When this returns, nothing is given to the partner and nothing
taken of it, and its people are nobody here. What was given before stays where it is. There is no way back: both sides
sign another, with a higher serial.`,
		Example: `  redoubt agreement end example-gbr --as officer@secret --reason "the exercise is over"`, Args: exactly(1),
		RunE: a.withSession(&w, func(ctx context.Context, s *session, args []string) error {
			err := s.api.EndAgreement(ctx, args[0], reason)
			if e, ok := errors.AsType[*redoubt.Error](err); ok && e.Kind == redoubt.NotFound { // the node gives no hint about what is not there
				e.Hint = "redoubt agreement ls lists the agreements that the node is the gateway of"
			}
			if err != nil {
				return err
			}
			a.say("%s has ended: nothing flows any more, either way", args[0])
			return nil
		})}
	w.flags(c)
	c.Flags().StringVar(&reason, "reason", "", "why, one line of `text` for the record")
	return c
}
