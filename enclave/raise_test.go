package enclave

import (
	"context"
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"

	"redoubt"
	"redoubt/access"
)

func TestARaisedNameIsTheSameAtEveryHopAndAtADevice(t *testing.T) {
	c := openChain(t)
	field, far := c.device("u-device", c.unclass), c.device("ts-device", c.ts)
	c.low("a", "weather")
	field.put(field.as("u-analyst", ""), "b", "sighting", "")
	carry(t, field, c.unclass)
	c.raise(c.unclass, c.secret)
	c.secret.put(c.secret.as("s-analyst", ""), "a", "orders", "")
	c.raise(c.secret, c.ts)
	far.SetMakers(c.ts.Makers())
	if _, refused := carry(t, c.ts, far); len(refused) > 0 {
		t.Errorf("the device refused %+v", refused)
	}
	for _, w := range []*world{c.secret, c.ts, far} {
		who := w.as("ts-analyst", w.ceiling.Banner())
		for name, want := range map[string]string{"unclass.reports/a": "weather", "unclass.reports/b": "sighting"} {
			bucket, key, _ := strings.Cut(name, "/")
			if got := w.in(who, bucket, key); got != want {
				t.Errorf("at %s %s is %q, want %q", w.name, name, got, want)
			}
		}
		if w != c.secret {
			if got := w.in(who, "secret.reports", "a"); got != "orders" {
				t.Errorf("at %s secret.reports/a is %q", w.name, got)
			}
		}
		v, err := w.HeadObject(context.Background(), who, redoubt.ReadObject{Name: redoubt.ObjectName{Bucket: "unclass.reports", Key: "b"}})
		if err != nil || v.Maker != "u-device" || v.Label.Banner() != "UNCLASSIFIED" {
			t.Errorf("at %s: %+v, %v", w.name, v, err)
		}
		if got := w.list(who); len(got) > 1 {
			t.Errorf("at %s there is %q in reports", w.name, got)
		}
	}
	for _, way := range [][2]*world{{c.unclass, c.secret}, {c.secret, c.ts}} {
		c.nothing(way[0], way[1])
	}
	carry(t, far, c.ts) // what it sends back is not taken from a device
	if n := c.versions(c.ts, "unclass.reports", ""); n != 2 {
		t.Errorf("there are %d versions", n)
	}
}

func TestAnAlterationAndARemovalBelowAreMadeAbove(t *testing.T) {
	c := openChain(t)
	v := c.low("a", "weather")
	c.low("b", "gone")
	if err := c.unclass.alterAs(c.unclass.as("u-analyst", ""), "a", redoubt.AlterObject{ID: v.ID, Tags: &[]redoubt.Tag{{Key: "k", Value: "v"}}}); err != nil {
		t.Fatal(err)
	}
	c.raise(c.unclass, c.secret)
	if err := c.unclass.del(c.unclass.as("u-analyst", ""), "b", ""); err != nil {
		t.Fatal(err)
	}
	c.raise(c.unclass, c.secret)
	c.raise(c.secret, c.ts)
	for _, w := range []*world{c.secret, c.ts} {
		who := w.as("u-analyst", "")
		o, err := w.GetObject(context.Background(), who, redoubt.ReadObject{Name: redoubt.ObjectName{Bucket: "unclass.reports", Key: "a"}})
		if err != nil {
			t.Fatal(err)
		}
		if got := o.Version().Tags; len(got) != 1 || got[0].Value != "v" {
			t.Errorf("at %s the tags are %v", w.name, got)
		}
		o.Close()
		if got := w.in(who, "unclass.reports", "b"); got != "" {
			t.Errorf("at %s what was deleted is %q", w.name, got)
		}
	}
}

func TestNobodyButAGuardWritesARaisedBucket(t *testing.T) {
	c := openChain(t)
	ctx := context.Background()
	far := c.device("ts-device", c.ts)
	c.low("a", "weather")
	c.raise(c.unclass, c.secret)
	c.raise(c.secret, c.ts)
	far.SetMakers(c.ts.Makers())
	carry(t, c.ts, far)
	name := redoubt.ObjectName{Bucket: "unclass.reports", Key: "a"}
	for _, w := range []*world{c.secret, c.ts, far} {
		v, err := w.HeadObject(ctx, w.as("u-analyst", ""), redoubt.ReadObject{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		for _, who := range []redoubt.Credential{w.as("u-analyst", ""), w.as("admin", ""), w.as("ts-admin", w.ceiling.Banner())} {
			for what, err := range map[string]error{
				"puts": func() error {
					_, err := w.PutObject(ctx, who, redoubt.PutObject{Name: name, SizeBytes: 1, Body: strings.NewReader("x")})
					return err
				}(),
				"copies": func() error {
					_, err := w.CopyObject(ctx, who, redoubt.CopyObject{Source: name, Target: redoubt.ObjectName{Bucket: "unclass.reports", Key: "copy"}})
					return err
				}(),
				"uploads": func() error {
					_, err := w.CreateUpload(ctx, who, redoubt.CreateUpload{Name: name})
					return err
				}(),
				"deletes": func() error {
					_, err := w.DeleteObject(ctx, who, redoubt.DeleteObject{Name: name})
					return err
				}(),
				"removes": func() error {
					_, err := w.DeleteObject(ctx, who, redoubt.DeleteObject{Name: name, ID: v.ID})
					return err
				}(),
				"alters": func() error {
					_, err := w.AlterObject(ctx, who, redoubt.AlterObject{Name: name, ID: v.ID, Tags: &[]redoubt.Tag{}})
					return err
				}(),
				"drops the bucket": w.DeleteBucket(ctx, who, "unclass.reports"),
			} {
				if k := redoubt.KindOf(err); err == nil || k != redoubt.Denied {
					t.Errorf("at %s %s %s: %v, want it denied", w.name, who.Subject, what, err)
				}
			}
		}
		if n := c.versions(w, "unclass.reports", ""); n != 1 {
			t.Errorf("at %s there are %d versions", w.name, n)
		}
	}
}

// forge has an enclave that was taken over sign an entry of its own, altered.
func (c *chain) forge(low, to *world, set string, alter func(*redoubt.JournalEntry)) []redoubt.Received {
	c.t.Helper()
	refs, _, err := low.Since(context.Background(), to.name, set, 0, 1)
	if err != nil || len(refs) != 1 {
		c.t.Fatalf("%d entries of %s, %v", len(refs), set, err)
	}
	in := received(c.t, fetch(c.t, low, to, set, refs))
	alter(&in[0].Entry)
	encoded, err := in[0].Entry.MarshalBinary()
	if err != nil {
		c.t.Fatal(err)
	}
	custody, err := redoubt.SealBatch(in[0].Entry.Maker, [][]byte{encoded}, low.links.sign)
	if err != nil {
		c.t.Fatal(err)
	}
	in[0].Custody = custody[0]
	return in
}

// TestWhatIsRaisedLiesUnderItsOriginsNameAlone: whatever a lower enclave says that was taken over.
func TestWhatIsRaisedLiesUnderItsOriginsNameAlone(t *testing.T) {
	c := openChain(t)
	c.unclass.put(c.unclass.as("u-analyst", ""), "a", "weather", "")
	c.raise(c.unclass, c.secret)
	c.secret.put(c.secret.as("u-analyst", ""), "b", "orders", "")
	c.raise(c.secret, c.ts)
	before := c.versions(c.ts, "reports", "") + c.versions(c.ts, "unclass.reports", "") + c.versions(c.ts, "secret.reports", "")
	stamp := func(x *redoubt.JournalEntry, maker redoubt.NodeName, after byte) { // one that its maker could have given
		id := versionID(x.Stamp)
		x.Maker, x.Stamp = maker, redoubt.Stamp(makeVersionID(id.time()+int64(after), makerOf(maker), id.tag()))
	}
	n := byte(0)
	for what, alter := range map[string]func(*redoubt.JournalEntry){
		"of this enclave's own":         func(x *redoubt.JournalEntry) { stamp(x, "topsecret", n) },
		"of this enclave's device":      func(x *redoubt.JournalEntry) { stamp(x, "ts-device", n) },
		"of nobody in the estate":       func(x *redoubt.JournalEntry) { stamp(x, "nobody", n) },
		"of another origin, not signed": func(x *redoubt.JournalEntry) { stamp(x, "unclass", n) },
		"under another origin's name":   func(x *redoubt.JournalEntry) { stamp(x, "secret", n); x.Name.Bucket = "unclass.reports" },
		"under this enclave's name":     func(x *redoubt.JournalEntry) { stamp(x, "secret", n); x.Name.Bucket = "topsecret.reports" },
		"in what guards rebuilt":        func(x *redoubt.JournalEntry) { stamp(x, "secret", n); x.Name.Bucket = RebuiltBucket },
		"in the system bucket": func(x *redoubt.JournalEntry) {
			stamp(x, "secret", n)
			x.Name.Bucket = redoubt.SystemBucket
			x.Name.Key = "person/eve"
		},
		"in a bucket that is not raised": func(x *redoubt.JournalEntry) { stamp(x, "secret", n); x.Name.Bucket = "locked" },
		"beyond the origin's range":      func(x *redoubt.JournalEntry) { stamp(x, "secret", n); x.Label = "USA@1 TOP SECRET" },
		"with a stamp of another maker":  func(x *redoubt.JournalEntry) { x.Stamp[9] ^= 1 },
	} {
		n++
		in := c.forge(c.secret, c.ts, "USA@1 UNCLASSIFIED", alter)
		refused, err := c.ts.Apply(context.Background(), "secret", in)
		if err != nil || len(refused) != 1 {
			t.Errorf("%s: refused %+v, %v", what, refused, err)
		}
	}
	if after := c.versions(c.ts, "reports", "") + c.versions(c.ts, "unclass.reports", "") + c.versions(c.ts, "secret.reports", ""); after != before {
		t.Errorf("%d versions, before it were %d", after, before)
	}
}

func TestAnEnclaveBelowRemovesNothingButItsOwn(t *testing.T) {
	c := openChain(t)
	ctx := context.Background()
	u := c.unclass.as("u-analyst", "")
	theirs := c.unclass.put(u, "a", "weather", "")
	c.raise(c.unclass, c.secret)
	c.secret.put(c.secret.as("u-analyst", ""), "b", "orders", "")
	mine := c.ts.put(c.ts.as("u-analyst", ""), "c", "plan", "")
	c.raise(c.secret, c.ts)
	stampOf := func(w *world, id redoubt.VersionID) redoubt.Stamp {
		v, ok := w.ids.parse(string(id))
		if !ok {
			t.Fatal("no ID")
		}
		return redoubt.Stamp(v)
	}
	yet := c.unclass.put(u, "late", "what has not come yet", "")
	for what, of := range map[string]redoubt.Stamp{
		"this enclave's work": stampOf(c.ts, mine.ID), "another origin's": stampOf(c.unclass, theirs.ID), "another origin's that has not come yet": stampOf(c.unclass, yet.ID),
	} {
		in := c.forge(c.secret, c.ts, "USA@1 UNCLASSIFIED", func(x *redoubt.JournalEntry) {
			id := versionID(x.Stamp)
			*x = redoubt.JournalEntry{Kind: redoubt.EntryRemoval, Maker: "secret", Name: x.Name, Label: x.Label, Made: x.Made, Of: of,
				Stamp: redoubt.Stamp(makeVersionID(id.time()+1, makerOf("secret"), id.tag()))}
		})
		in[0].Content = nil
		refused, err := c.ts.Apply(ctx, "secret", in)
		if err != nil || len(refused) != 1 {
			t.Errorf("a removal of %s: refused %+v, %v", what, refused, err)
		}
	}
	c.raise(c.unclass, c.secret)
	c.raise(c.secret, c.ts)
	who := c.ts.as("u-analyst", "")
	if c.ts.in(who, "unclass.reports", "a") == "" || c.ts.in(who, "unclass.reports", "late") == "" || c.ts.in(who, "reports", "c") == "" {
		t.Error("something went")
	}
}

func TestADeviceBringsNothingThatAGuardBrings(t *testing.T) {
	c := openChain(t)
	far := c.device("ts-device", c.ts)
	c.low("a", "weather")
	c.raise(c.unclass, c.secret)
	c.low("b", "more weather")
	set := "USA@1 UNCLASSIFIED"
	refs, _, err := c.unclass.Since(context.Background(), "secret", set, 0, 9)
	if err != nil {
		t.Fatal(err)
	}
	in := received(t, fetch(t, c.unclass, c.secret, set, refs))
	refused, err := c.ts.Apply(context.Background(), far.name, in)
	if err != nil || len(refused) != len(in) {
		t.Errorf("genuine entries of unclass by a device: refused %+v, %v", refused, err)
	}
	for _, r := range refused {
		if r.Rule != access.RuleReserved {
			t.Errorf("refused by %s", r.Rule)
		}
	}
	far.put(far.as("u-analyst", ""), "c", "own", "")
	for _, bucket := range []redoubt.BucketName{"unclass.reports", "secret.reports", "topsecret.reports", RebuiltBucket} {
		in := c.forge(far, c.ts, set, func(x *redoubt.JournalEntry) { x.Name.Bucket = bucket })
		if refused, err := c.ts.Apply(context.Background(), far.name, in); err != nil || len(refused) != 1 {
			t.Errorf("a device writes %s: refused %+v, %v", bucket, refused, err)
		}
	}
}

func TestALowerEnclaveIsNotBelievedAboutWhoIsOfThisOne(t *testing.T) {
	c := openChain(t)
	public, _, _ := ed25519.GenerateKey(nil)
	keys := map[redoubt.NodeName][]ed25519.PublicKey{"topsecret": {public}, "ts-device": {public}, "nobody": {public}, "secret": {public}, "unclass": {public}}
	if err := c.ts.RaisedMakers(context.Background(), "secret", keys); err != nil {
		t.Fatal(err)
	}
	for name, n := range map[redoubt.NodeName]int{"topsecret": 0, "ts-device": 0, "nobody": 0, "secret": 1, "unclass": 1} {
		if got := len(c.ts.raisedKeys(name)); got != n {
			t.Errorf("%d keys of %s are believed, want %d", got, name, n)
		}
	}
	for i := range maxRaisedKeys + 5 {
		public, _, _ := ed25519.GenerateKey(nil)
		_ = i
		if err := c.ts.RaisedMakers(context.Background(), "secret", map[redoubt.NodeName][]ed25519.PublicKey{"unclass": {public}}); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(c.ts.raisedKeys("unclass")); got != maxRaisedKeys {
		t.Errorf("%d keys, want %d", got, maxRaisedKeys)
	}
	for w, peer := range map[*world]redoubt.NodeName{c.secret: "topsecret", c.unclass: "secret", c.ts: "unclass"} {
		if err := w.RaisedMakers(context.Background(), peer, keys); err == nil {
			t.Errorf("%s is believed at %s about makers", peer, w.name)
		}
	}
}

func TestWhatWasReleasedIntoAnEnclaveIsNotRaisedFromIt(t *testing.T) {
	c := openChain(t)
	who := c.secret.own(parsed(t, "UNCLASSIFIED"))
	_, err := c.secret.PutObject(context.Background(), who, redoubt.PutObject{Name: redoubt.ObjectName{Bucket: "topsecret.reports", Key: "a"}, SizeBytes: 1, Body: strings.NewReader("x")})
	if err != nil {
		t.Fatal(err)
	}
	c.nothing(c.secret, c.ts)
	set := "USA@1 UNCLASSIFIED"
	if refs, _, err := c.secret.Since(context.Background(), "topsecret", set, 0, 9); err != nil && !errors.Is(err, redoubt.NotFound) || len(refs) > 0 {
		t.Errorf("%d entries would go up, %v", len(refs), err)
	}
}

// TestARaiseBringsNothingOfThisEnclavesOwn, even where it is genuine, and the link carries everything.
func TestARaiseBringsNothingOfThisEnclavesOwn(t *testing.T) {
	c := openChain(t)
	far := c.device("ts-device", c.ts)
	who := c.ts.as("u-analyst", "")
	v := c.ts.put(who, "c", "plan", "")
	set := "USA@1 UNCLASSIFIED"
	refs, _, err := c.ts.Since(context.Background(), far.name, set, 0, 99)
	if err != nil {
		t.Fatal(err)
	}
	var in []redoubt.Received
	for _, r := range received(t, fetch(t, c.ts, far, set, refs)) {
		if r.Entry.Name.Bucket == "reports" {
			in = append(in, r)
		}
	}
	l := (*c.ts.links.table.Load())["secret"]
	l.Subscriptions = nil
	c.ts.link(nil, l)
	refused, err := c.ts.Apply(context.Background(), "secret", in)
	if err != nil || len(in) != 1 || len(refused) != 1 || refused[0].Rule != ruleMaker {
		t.Errorf("of %d of its own, %v was made here: refused %+v, %v", len(in), v.ID, refused, err)
	}
}
