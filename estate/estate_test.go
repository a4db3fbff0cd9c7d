package estate

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"redoubt"
)

// real is a small estate that is no exercise; %s takes two public keys.
const real = `redoubt: 1
name: north
serial: %d
policy: USA
nodes:
  - name: alpha
    range: {floor: U, ceiling: S}
    buckets: [reports]
people:
  - {name: o1, clearance: S, nation: USA, roles: [officer], expires: 2040-01-01, public_key: %s}
  - {name: o2, clearance: S, nation: USA, roles: [officer], expires: 2040-01-01, public_key: %s}
`

func key(n byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
}

func public(n byte) string {
	return base64.StdEncoding.EncodeToString(key(n).Public().(ed25519.PublicKey))
}

func realEstate(t *testing.T, serial int, k1, k2 byte) *Estate {
	t.Helper()
	e, err := Read(fmt.Appendf(nil, real, serial, public(k1), public(k2)), nil)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestExampleIsTheEstateOfTheContract(t *testing.T) {
	e := Example()
	for _, want := range []struct{ node, floor, ceiling string }{
		{"unclass", "UNCLASSIFIED", "UNCLASSIFIED"}, {"secret", "UNCLASSIFIED", "SECRET"}, {"topsecret", "UNCLASSIFIED", "TOP SECRET//SI/TK"},
	} {
		n, ok := e.Node(redoubt.NodeName(want.node))
		if !ok || n.Range.Floor != want.floor || n.Range.Ceiling != want.ceiling || len(n.Buckets) != 2 || n.Buckets[0].Name != "reports" || n.Buckets[1].Name != "imagery" {
			t.Errorf("node %s: got %+v", want.node, n)
		}
	}
	for _, want := range []struct{ name, clearance, nation, roles string }{
		{"ts-analyst", "TOP SECRET//SI/TK", "USA", "[analyst]"}, {"s-analyst", "SECRET", "USA", "[analyst]"},
		{"gbr-liaison", "SECRET", "GBR", "[analyst]"}, {"u-analyst", "UNCLASSIFIED", "USA", "[analyst]"},
		{"officer", "TOP SECRET//SI/TK", "USA", "[officer]"}, {"officer-2", "TOP SECRET//SI/TK", "USA", "[officer]"},
		{"reviewer", "TOP SECRET//SI/TK", "USA", "[reviewer]"}, {"reviewer-2", "TOP SECRET//SI/TK", "USA", "[reviewer]"},
		{"admin", "UNCLASSIFIED", "USA", "[admin storage]"},
	} {
		p, ok := e.Person(redoubt.SubjectName(want.name))
		if !ok || p.Clearance != want.clearance || p.Nation != want.nation || fmt.Sprint(p.Roles) != want.roles {
			t.Errorf("person %s: got %+v", want.name, p)
		}
	}
	device, ok := e.Node("outpost")
	if !ok || device.Kind != KindDevice || device.Home != "secret" || device.Lease() != DefaultLease || device.Range.Ceiling != "SECRET" {
		t.Errorf("outpost: got %+v", device)
	}
	if got := e.Devices("secret"); len(got) != 1 || got[0].Name != "outpost" || len(e.Devices("unclass")) != 0 {
		t.Errorf("the devices of secret: got %+v", got)
	}
	for name, want := range map[redoubt.NodeName][2]redoubt.NodeName{"unclass-secret": {"unclass", "secret"}, "secret-topsecret": {"secret", "topsecret"}} {
		g, ok := e.Node(name)
		if !ok || g.Kind != KindGuard || g.Guard == nil || g.Guard.Low != want[0] || g.Guard.High != want[1] || g.S3.Listen != "" || g.API.Listen != "" {
			t.Errorf("guard %s: got %+v", name, g)
		}
	}
	if len(e.People) != 9 || len(e.Nodes) != 6 || !e.Exercise {
		t.Errorf("got %d people, %d nodes, exercise %v", len(e.People), len(e.Nodes), e.Exercise)
	}
}

func TestEveryFaultIsToldWithItsLine(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Read(text, func(string) ([]byte, error) { return nil, errors.New("no such file") })
			got := fmt.Sprintln(err)
			golden := strings.TrimSuffix(file, ".yaml") + ".golden"
			if os.Getenv("UPDATE") != "" {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%swant\n%s", got, want)
			}
		})
	}
}

func TestQuotasTakeADefaultForLabelsThatAreNotNamed(t *testing.T) {
	with := func(quotas string) (*Estate, error) {
		text := fmt.Sprintf(real, 1, public(1), public(2))
		return Read([]byte(strings.Replace(text, "    buckets: [reports]", "    quotas: "+quotas+"\n    buckets: [reports]", 1)), nil)
	}
	e, err := with("{S: 2KB, default: 1KB}")
	if err != nil {
		t.Fatal(err)
	}
	if q := e.Nodes[0].Quotas; len(q) != 2 || q["SECRET"] != 2000 || q[redoubt.QuotaOfOthers] != 1000 {
		t.Errorf("got %v", q)
	}
	if plain, err := with("{S: 2KB}"); err != nil || plain.Digest() == e.Digest() {
		t.Errorf("the signatures do not cover the default: %v", err)
	}
	for _, bad := range []string{"{Default: 1KB}", "{DEFAULT: 1KB}", "{default: 0}", "{default: much}", "{default: 1KB, default: 1KB}", "{default: {S: 1KB}}"} {
		if _, err := with(bad); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

func TestHowLongAuditLogsAreKeptIsReadStrictlyAndSigned(t *testing.T) {
	with := func(audit string) (*Estate, error) {
		return Read([]byte(strings.Replace(fmt.Sprintf(real, 1, public(1), public(2)), "\nnodes:", "\naudit: "+audit+"\nnodes:", 1)), nil)
	}
	e, err := with("{keep: 720h}")
	if err != nil || e.AuditKeep() != 720*time.Hour {
		t.Fatalf("got %v, %v", e, err)
	}
	if other, err := with("{keep: 721h}"); err != nil || other.Digest() == e.Digest() {
		t.Errorf("the signatures do not cover it: %v", err)
	}
	if plain, err := Read(fmt.Appendf(nil, real, 1, public(1), public(2)), nil); err != nil || plain.AuditKeep() != 0 {
		t.Errorf("without the key: %v, %v", plain.AuditKeep(), err)
	}
	for d, ok := range map[time.Duration]bool{MinAuditKeep: true, MinAuditKeep - time.Second: false, MaxAuditKeep: true, MaxAuditKeep + time.Second: false} {
		if _, err := with("{keep: " + d.String() + "}"); (err == nil) != ok {
			t.Errorf("%v: got %v, want it taken: %v", d, err, ok)
		}
	}
	for _, bad := range []string{"{}", "720h", "{keep: 30}", "{keep: 720h, drop: 1h}", "{keep: 720h, keep: 720h}", "{keep: -720h}", "[]"} {
		if _, err := with(bad); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

func TestWhatIsNotBuiltIsRefusedWithThatReason(t *testing.T) {
	for _, noun := range []string{"links", "price_book"} {
		_, err := Read([]byte(string(ExampleText)+noun+": []\n"), nil)
		var faults Faults
		if !errors.As(err, &faults) || len(faults) != 1 || !strings.Contains(faults[0].Message, "not built yet") || faults[0].Line == 0 {
			t.Errorf("%s: got %v", noun, err)
		}
	}
}

// crowd are devices: one, and n that it is to meet, of which it names the first and the others name it.
func crowd(n int) string {
	var b strings.Builder
	device := func(name, meets string, port int) {
		fmt.Fprintf(&b, "\n  - {name: %s, kind: device, home: secret, range: {floor: U, ceiling: S}, lease: 72h, peers: {listen: \"127.0.0.1:%d\"}, meets: [%s]}", name, port, meets)
	}
	device("middle", "d-0", 7000)
	device("d-0", "", 7001)
	for i := 1; i < n; i++ {
		device(fmt.Sprintf("d-%d", i), "middle", 7001+i)
	}
	return b.String()
}

func TestADeviceThatTooManyNameIsAFaultAtItsLine(t *testing.T) {
	at := bytes.Index(ExampleText, []byte("\npeople:"))
	line := 2 + bytes.Count(ExampleText[:at], []byte("\n"))
	_, err := Read([]byte(string(ExampleText[:at])+crowd(redoubt.MaxNeighbours+1)+string(ExampleText[at:])), nil)
	var faults Faults
	if !errors.As(err, &faults) || len(faults) != 1 || faults[0].Line != line || !strings.Contains(err.Error(), "17 devices meet this one, and 16 may") {
		t.Errorf("got %v, want one fault at line %d", err, line)
	}
}

func TestLimitsHoldAtTheLastAndRefuseTheNext(t *testing.T) {
	buckets := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "      - b-%d\n", i)
		}
		return strings.Replace(string(ExampleText), "    buckets: [reports, imagery]\n", "    buckets:\n"+b.String(), 1)
	}
	long := func(n int) string {
		return strings.Replace(string(ExampleText), "name: ts-analyst", "name: "+strings.Repeat("a", n), 1)
	}
	neighbours := func(n int) string { // all but one name it, and it names that one
		return string(ExampleText[:bytes.Index(ExampleText, []byte("\npeople:"))]) + crowd(n) + string(ExampleText[bytes.Index(ExampleText, []byte("\npeople:")):])
	}
	size := func(n int) string { return string(ExampleText) + strings.Repeat("#", n-len(ExampleText)) }
	for name, text := range map[string][2]string{
		"buckets": {buckets(MaxBuckets), buckets(MaxBuckets + 1)},
		"name":    {long(MaxNameLength), long(MaxNameLength + 1)},
		"meets":   {neighbours(redoubt.MaxNeighbours), neighbours(redoubt.MaxNeighbours + 1)},
		"file":    {size(MaxFileBytes), size(MaxFileBytes + 1)},
	} {
		if _, err := Read([]byte(text[0]), nil); err != nil {
			t.Errorf("%s at the limit: got %v, want no fault", name, err)
		}
		if _, err := Read([]byte(text[1]), nil); err == nil {
			t.Errorf("%s past the limit: got no fault", name)
		}
	}
}

func TestEstateTakesEffectWithTwoOfficers(t *testing.T) {
	e := realEstate(t, 1, 1, 2)
	if err := Verify(e, nil, Signatures{}); !errors.Is(err, redoubt.Denied) {
		t.Errorf("unsigned: got %v, want denied", err)
	}
	one, err := Sign(e, Signatures{}, "o1", key(1))
	if err != nil {
		t.Fatal(err)
	}
	twice, err := Sign(e, one, "o1", key(1))
	if err != nil {
		t.Fatal(err)
	}
	for _, sigs := range []Signatures{one, twice} {
		if err := Verify(e, nil, sigs); !errors.Is(err, redoubt.Denied) {
			t.Errorf("one officer: got %v, want denied", err)
		}
	}
	two, err := Sign(e, one, "o2", key(2))
	if err != nil {
		t.Fatal(err)
	}
	if err := Verify(e, nil, two); err != nil {
		t.Errorf("two officers: got %v", err)
	}
	if _, err := Sign(e, one, "o2", key(1)); !errors.Is(err, redoubt.Denied) {
		t.Errorf("another's key: got %v, want denied", err)
	}
	changed := realEstate(t, 2, 1, 2)
	if err := Verify(changed, nil, two); !errors.Is(err, redoubt.Denied) {
		t.Errorf("changed after signing: got %v, want denied", err)
	}
	two.Signatures[1].Sig = two.Signatures[0].Sig
	if err := Verify(e, nil, two); !errors.Is(err, redoubt.Denied) {
		t.Errorf("forged signature: got %v, want denied", err)
	}
}

// An administrator with the file puts his own officers in it and signs with their keys.
func TestNewOfficersCannotInstallThemselves(t *testing.T) {
	inForce, forged := realEstate(t, 1, 1, 2), realEstate(t, 2, 3, 4)
	sigs, err := Sign(forged, Signatures{}, "o1", key(3))
	if err == nil {
		sigs, err = Sign(forged, sigs, "o2", key(4))
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := Verify(forged, inForce, sigs); !errors.Is(err, redoubt.Denied) {
		t.Errorf("got %v, want denied", err)
	}
}

func TestAnOldEstateCannotComeBack(t *testing.T) {
	old, inForce := realEstate(t, 1, 1, 2), realEstate(t, 2, 1, 2)
	sigs, err := Sign(old, Signatures{}, "o1", key(1))
	if err == nil {
		sigs, err = Sign(old, sigs, "o2", key(2))
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := Verify(old, inForce, sigs); !errors.Is(err, redoubt.Denied) {
		t.Errorf("got %v, want denied", err)
	}
}

func TestTwoPeopleNeverShareAKey(t *testing.T) {
	_, err := Read(fmt.Appendf(nil, real, 1, public(1), public(1)), nil)
	if err == nil || !strings.Contains(err.Error(), "same key") {
		t.Errorf("got %v, want a fault", err)
	}
}

func TestSignatureFileIsReadStrictly(t *testing.T) {
	for _, bad := range []string{
		``, `{}`, `{"redoubt_estate_signature":2,"digest":"","signatures":[]}`,
		`{"redoubt_estate_signature":1,"digest":"","signatures":[],"more":1}`,
		`{"redoubt_estate_signature":1,"digest":"a","digest":"b","signatures":[]}`,
		`{"redoubt_estate_signature":1,"digest":"","signatures":[]} x`,
	} {
		if _, err := ReadSignatures([]byte(bad)); !errors.Is(err, redoubt.Invalid) {
			t.Errorf("%s: got %v, want invalid", bad, err)
		}
	}
	if _, err := ReadSignatures([]byte(`{"redoubt_estate_signature":1,"digest":"","signatures":[]}`)); err != nil {
		t.Error(err)
	}
}

func TestPlanTellsWhatChangesAndRefusesWhatAFileCannotDo(t *testing.T) {
	was := Example()
	read := func(old, new string) *Estate {
		t.Helper()
		text := strings.Replace(string(ExampleText), old, new, 1)
		if text == string(ExampleText) {
			t.Fatalf("%q is not in the example", old)
		}
		e, err := Read([]byte(text), nil)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	for _, c := range []struct{ name, old, new, want string }{
		{"same", "# an exchange officer", "", ""},
		{"ceiling raised", "ceiling: SECRET}", "ceiling: TOP SECRET}", "change  node secret: range"},
		{"ceiling lowered", "home: secret\n    range: {floor: UNCLASSIFIED, ceiling: SECRET}", "home: secret\n    range: {floor: UNCLASSIFIED, ceiling: CONFIDENTIAL}", "refuse  node outpost: range"},
		{"audit", "policy: USA\n", "policy: USA\naudit: {keep: 720h}\n", "change  audit keep: 0s to 720h0m0s"},
		{"bucket", "[reports, imagery]", "[reports, imagery, more]", "add     bucket unclass/more"},
		{"clearance", "clearance: SECRET\n    nation: GBR", "clearance: TOP SECRET\n    nation: GBR", "change  person gbr-liaison: clearance"},
	} {
		var got []string
		for _, s := range Plan(was, read(c.old, c.new)) {
			got = append(got, s.String())
		}
		all := strings.Join(got, "\n")
		if c.want == "" && all != "" || !strings.Contains(all, c.want) {
			t.Errorf("%s: got %q, want %q", c.name, all, c.want)
		}
	}
}

func TestDocumentReadsBackToTheSameEstate(t *testing.T) {
	e := Example()
	d := e.Document()
	d.Keys = map[redoubt.SubjectName]string{"officer": public(1)}
	got, err := d.Read()
	if err != nil {
		t.Fatal(err)
	}
	if want := e.WithKeys(d.Keys).Digest(); got.Digest() != want {
		t.Errorf("got %s, want %s", got.Digest(), want)
	}
	if got.Digest() == e.Digest() {
		t.Error("a public key does not change the digest")
	}
}

// FuzzRead looks for input that panics, and for an estate whose document reads otherwise.
func FuzzRead(f *testing.F) {
	f.Add(ExampleText)
	f.Add(fmt.Appendf(nil, real, 1, public(1), public(2)))
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		e, err := Read(text, func(string) ([]byte, error) { return nil, errors.New("no such file") })
		if err != nil {
			var faults Faults
			if !errors.As(err, &faults) || len(faults) == 0 {
				t.Fatalf("got %v, want faults", err)
			}
			return
		}
		again, err := e.Document().Read()
		if err != nil || again.Digest() != e.Digest() {
			t.Fatalf("read again: %v", err)
		}
	})
}

// FuzzReadSignatures looks for input that panics.
func FuzzReadSignatures(f *testing.F) {
	f.Add([]byte(`{"redoubt_estate_signature":1,"digest":"ab","signatures":[{"signer":"o1","sig":"AA=="}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if s, err := ReadSignatures(data); err == nil && len(s.Signatures) > MaxSignatures {
			t.Fatal("over the limit")
		}
	})
}

func TestADevicesLinkHasSubscriptionsAndABudget(t *testing.T) {
	with := func(lines string) (*Estate, error) {
		text := strings.Replace(string(ExampleText), "    home: secret\n", "    home: secret\n"+lines, 1)
		if text == string(ExampleText) {
			t.Fatal("the example has no device of secret")
		}
		return Read([]byte(text), nil)
	}
	e, err := with(`    carries:
      - {bucket: reports, prefix: tracks/, bound: "S//REL TO USA, GBR", direction: to-home, latest: true}
      - imagery
    budget: {default: 10MB, U: 1GiB}
`)
	if err != nil {
		t.Fatal(err)
	}
	n, _ := e.Node("outpost")
	want := redoubt.Subscription{Bucket: "reports", Prefix: "tracks/", Bound: "SECRET//REL TO USA, GBR", Limit: n.Carries[0].Limit, Out: true, Latest: true}
	if len(n.Carries) != 2 || n.Carries[0] != want || n.Carries[0].Limit.Banner() != want.Bound || n.Carries[1] != (redoubt.Subscription{Bucket: "imagery", In: true, Out: true}) {
		t.Errorf("carries %+v", n.Carries)
	}
	if len(n.Budget) != 2 || n.Budget["UNCLASSIFIED"] != 1<<30 || n.Budget[redoubt.QuotaOfOthers] != 10_000_000 {
		t.Errorf("budget %v", n.Budget)
	}
	for lines, fault := range map[string]string{
		"    carries: [{bucket: reports, bound: TS}]\n":      "lies outside the node's range",
		"    carries: [{bucket: reports, bound: WRONG}]\n":   "WRONG",
		"    carries: [{bucket: reports, latest: often}]\n":  "latest",
		"    budget: {S: 0}\n":                               "not a size",
		"    budget: {TS: 1MB}\n":                            "lies outside the node's range",
		"    budget: {U: 1MB, UNCLASSIFIED: 2MB}\n":          "given twice",
		"    budget: {default: 1MB}\n    budget: {U: 2MB}\n": "budget",
	} {
		if _, err := with(lines); err == nil || !strings.Contains(err.Error(), fault) {
			t.Errorf("%s gives %v, want a fault about %q", lines, err, fault)
		}
	}
	text := strings.Replace(string(ExampleText), "  - name: secret\n", "  - name: secret\n    budget: {default: 1MB}\n", 1)
	if _, err := Read([]byte(text), nil); err == nil || !strings.Contains(err.Error(), "are a device's") {
		t.Errorf("an enclave with a budget gives %v", err)
	}
}

func TestAnEstateThatTookEffectIsReadAsItIs(t *testing.T) {
	text := strings.Replace(string(ExampleText), "  - name: officer-2\n    clearance: TOP SECRET//SI/TK\n", "  - name: officer-2\n    clearance: SECRET\n", 1)
	if _, err := Read([]byte(text), nil); err == nil || !strings.Contains(err.Error(), "1 security officer cleared") {
		t.Errorf("one officer for a ceiling gives %v, want a fault", err)
	}
	e, err := (Document{Text: []byte(text)}).Read()
	if err != nil || len(e.Nodes) == 0 {
		t.Errorf("an estate that took effect under an earlier version cannot be read: %v", err)
	}
}

func TestAnEstateOfTooManyNodesHasThatFaultAlone(t *testing.T) {
	var b strings.Builder
	for i := range MaxNodes {
		fmt.Fprintf(&b, "  - {name: device-%d, kind: device, home: secret, range: {floor: U, ceiling: S}}\n", i)
	}
	_, err := Read([]byte(strings.Replace(string(ExampleText), "\nnodes:\n", "\nnodes:\n"+b.String(), 1)), nil)
	if faults, ok := err.(Faults); !ok || len(faults) != 1 || !strings.Contains(err.Error(), "at most 4096") {
		t.Errorf("got %v", err)
	}
}
