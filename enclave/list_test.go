package enclave

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"redoubt"
)

// model is what a reader should see, computed the long way.
type modelVersion struct {
	key, label string
	v          redoubt.Version
	marker     bool
}

// TestListingsAgreeWithAModel puts, hides and removes at several labels at random, and compares every listing, by pages of
// every size, with what each reader should see.
func TestListingsAgreeWithAModel(t *testing.T) {
	for seed := range uint64(4) {
		w := open(t, nil)
		ctx, r := context.Background(), rand.New(rand.NewPCG(seed, 1))
		people := []redoubt.Credential{w.as("u-analyst", ""), w.as("s-analyst", ""), w.as("s-analyst", "SECRET//NOFORN"),
			w.as("gbr-liaison", ""), w.as("ts-analyst", "TOP SECRET//SI"), w.as("ts-analyst", "TOP SECRET//TK"), w.as("ts-analyst", "")}
		keys := []string{"a", "a/b", "a/c/d", "a/c/e", "b", "b/", "b/x", "ü/1"}
		var all []redoubt.Version // in the order of their making
		for range 60 {
			who, key := people[r.IntN(len(people))], keys[r.IntN(len(keys))]
			switch r.IntN(4) {
			case 0:
				d, err := w.DeleteObject(ctx, who, redoubt.DeleteObject{Name: named(key)})
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, redoubt.Version{Name: named(key), ID: d.ID, Marker: true, Label: who.Working})
			case 1:
				if i := slices.IndexFunc(all, func(v redoubt.Version) bool { return v.Label.Equivalent(who.Working) }); i >= 0 {
					if err := w.del(who, all[i].Name.Key, all[i].ID); err != nil {
						t.Fatal(err)
					}
					all = slices.Delete(all, i, i+1)
				}
			default:
				all = append(all, w.put(who, key, "x", ""))
			}
		}
		for _, who := range people {
			var seen []redoubt.Version // newest first under each key
			for _, v := range slices.Backward(all) {
				if who.Working.Dominates(v.Label) {
					seen = append(seen, v)
				}
			}
			slices.SortStableFunc(seen, func(a, b redoubt.Version) int { return strings.Compare(a.Name.Key, b.Name.Key) })
			for _, prefix := range []string{"", "a", "a/", "a/c/", "b/x", "zzz"} {
				for _, delimiter := range []string{"", "/", "c/"} {
					for _, size := range []int{1, 2, 3, 1000} {
						what := fmt.Sprintf("seed %d, %s, prefix %q, delimiter %q, pages of %d", seed, who.Working, prefix, delimiter, size)
						compareObjects(t, w, who, seen, prefix, delimiter, size, what)
						compareVersions(t, w, who, seen, prefix, delimiter, size, what)
					}
				}
			}
		}
	}
}

// currentOf are the versions of seen that no marker of seen hides and that are the newest of their keys.
func currentOf(seen []redoubt.Version) (out []redoubt.Version) {
	done := map[string]bool{}
	for i, v := range seen {
		hidden := v.Marker || done[v.Name.Key]
		for _, m := range seen[:i] { // the newer ones
			hidden = hidden || m.Marker && m.Name == v.Name && m.Label.Dominates(v.Label)
		}
		if !hidden {
			done[v.Name.Key] = true
			out = append(out, v)
		}
	}
	return out
}

func rolled(key, prefix, delimiter string) string {
	if delimiter == "" {
		return ""
	}
	if i := strings.Index(key[len(prefix):], delimiter); i >= 0 {
		return key[:len(prefix)+i+len(delimiter)]
	}
	return ""
}

// expected is what a listing should give: IDs, and the common prefixes with a slash before them.
func expected(list []redoubt.Version, prefix, delimiter string) (out []string) {
	for _, v := range list {
		if !strings.HasPrefix(v.Name.Key, prefix) {
			continue
		}
		if p := rolled(v.Name.Key, prefix, delimiter); p != "" {
			if p = "prefix " + p; !slices.Contains(out, p) {
				out = append(out, p)
			}
			continue
		}
		out = append(out, v.Name.Key+" "+string(v.ID))
	}
	slices.Sort(out)
	return out
}

func compareObjects(t *testing.T, w *world, who redoubt.Credential, seen []redoubt.Version, prefix, delimiter string, size int, what string) {
	t.Helper()
	var got []string
	in := redoubt.ListObjects{Bucket: "reports", Prefix: prefix, Delimiter: delimiter, Max: size}
	for range 200 {
		page, err := w.ListObjects(context.Background(), who, in)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(page.Versions) + len(page.Prefixes); n > size || page.Truncated && n != size {
			t.Fatalf("%s: a page of %d", what, n)
		}
		for _, v := range page.Versions {
			got = append(got, v.Name.Key+" "+string(v.ID))
		}
		for _, p := range page.Prefixes {
			got = append(got, "prefix "+p)
		}
		if in.After = page.Next; !page.Truncated {
			break
		}
	}
	slices.Sort(got)
	if want := expected(currentOf(seen), prefix, delimiter); !slices.Equal(got, want) {
		t.Fatalf("%s:\n got %q\nwant %q", what, got, want)
	}
}

func compareVersions(t *testing.T, w *world, who redoubt.Credential, seen []redoubt.Version, prefix, delimiter string, size int, what string) {
	t.Helper()
	var got, order []string
	latest := map[string]int{}
	in := redoubt.ListVersions{Bucket: "reports", Prefix: prefix, Delimiter: delimiter, Max: size}
	for range 200 {
		page, err := w.ListVersions(context.Background(), who, in)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(page.Versions) + len(page.Prefixes); n > size || page.Truncated && n != size {
			t.Fatalf("%s: a page of %d", what, n)
		}
		for _, v := range page.Versions {
			got, order = append(got, v.Name.Key+" "+string(v.ID)), append(order, string(v.ID))
			if v.Latest {
				latest[v.Name.Key]++
			}
		}
		for _, p := range page.Prefixes {
			got = append(got, "prefix "+p)
		}
		if in.AfterKey, in.AfterID = page.NextKey, page.NextID; !page.Truncated {
			break
		}
	}
	slices.Sort(got)
	if want := expected(seen, prefix, delimiter); !slices.Equal(got, want) {
		t.Fatalf("%s: versions\n got %q\nwant %q", what, got, want)
	}
	var should []string
	for _, v := range seen {
		if slices.Contains(order, string(v.ID)) {
			should = append(should, string(v.ID))
		}
	}
	if !slices.Equal(order, should) {
		t.Fatalf("%s: versions are not newest first under each key", what)
	}
	for key, n := range latest {
		if n != 1 {
			t.Fatalf("%s: %d versions of %s are the latest", what, n, key)
		}
	}
}

func TestHighestGoesByLabelBeforeTime(t *testing.T) {
	w := open(t, func(o *Options) {
		o.Buckets = append(o.Buckets, redoubt.Bucket{Name: "top", BucketSettings: redoubt.BucketSettings{Current: "highest"}})
	})
	ctx := context.Background()
	high := w.as("ts-analyst", "")
	put := func(marking, content string) {
		t.Helper()
		body, size := text(content)
		if _, err := w.PutObject(ctx, w.as("ts-analyst", marking), redoubt.PutObject{Name: redoubt.ObjectName{Bucket: "top", Key: "a"}, Body: body, SizeBytes: size}); err != nil {
			t.Fatal(err)
		}
	}
	reads := func(want string) {
		t.Helper()
		o, err := w.GetObject(ctx, high, redoubt.ReadObject{Name: redoubt.ObjectName{Bucket: "top", Key: "a"}})
		if err != nil {
			t.Fatal(err)
		}
		defer o.Close()
		if got := content(t, o, 0, -1); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	// SI and TK do not compare; plain TOP SECRET is below SI and newest of all.
	put("TOP SECRET//SI", "si")
	put("TOP SECRET//TK", "tk")
	put("TOP SECRET", "ts")
	put("SECRET", "s")
	reads("tk") // of the two highest the newer
	put("TOP SECRET//SI", "si again")
	reads("si again")
	put("TOP SECRET//SI/TK", "both")
	put("TOP SECRET//SI", "si at last")
	reads("both")
	if _, err := w.DeleteObject(ctx, high, redoubt.DeleteObject{Name: redoubt.ObjectName{Bucket: "top", Key: "a"}}); err != nil {
		t.Fatal(err)
	}
	put("SECRET", "s again")
	reads("s again")
}

func TestHostileListingsAreAnsweredPlainly(t *testing.T) {
	w := open(t, nil)
	ctx, s := context.Background(), w.as("s-analyst", "")
	w.put(s, "abc", "x", "")
	u, _ := w.upload(s, "abc", "", 1)
	for _, prefix := range []string{"abc\x00", "\x00", "abc\x00\xff", "\xff\xff"} {
		for _, delimiter := range []string{"", "/", "\x00", "\xff"} {
			objects, err := w.ListObjects(ctx, s, redoubt.ListObjects{Bucket: "reports", Prefix: prefix, Delimiter: delimiter, Max: 10})
			if err != nil || len(objects.Versions)+len(objects.Prefixes) != 0 {
				t.Errorf("prefix %q: got %+v, %v", prefix, objects, err)
			}
			versions, err := w.ListVersions(ctx, s, redoubt.ListVersions{Bucket: "reports", Prefix: prefix, Delimiter: delimiter, Max: 10})
			if err != nil || len(versions.Versions)+len(versions.Prefixes) != 0 {
				t.Errorf("prefix %q: got %+v, %v", prefix, versions, err)
			}
			uploads, err := w.ListUploads(ctx, s, redoubt.ListUploads{Bucket: "reports", Prefix: prefix, Delimiter: delimiter, Max: 10})
			if err != nil || len(uploads.Uploads)+len(uploads.Prefixes) != 0 {
				t.Errorf("prefix %q: got %+v, %v", prefix, uploads, err)
			}
		}
	}
	for _, size := range []int{0, -1} {
		objects, err := w.ListObjects(ctx, s, redoubt.ListObjects{Bucket: "reports", Max: size})
		versions, err2 := w.ListVersions(ctx, s, redoubt.ListVersions{Bucket: "reports", Max: size})
		uploads, err3 := w.ListUploads(ctx, s, redoubt.ListUploads{Bucket: "reports", Max: size})
		parts, err4 := w.ListParts(ctx, s, redoubt.ListParts{Name: u.Name, Upload: u.ID, Max: size})
		if err := errors.Join(err, err2, err3, err4); err != nil || objects.Truncated || versions.Truncated || uploads.Truncated || parts.Truncated {
			t.Errorf("pages of %d: a client would ask for ever (%v)", size, err)
		}
	}
	for _, behind := range []int{-1, 1, 10_000, 65_535, 1 << 40} {
		page, err := w.ListParts(ctx, s, redoubt.ListParts{Name: u.Name, Upload: u.ID, After: behind, Max: 10})
		if err != nil || len(page.Parts) != 0 {
			t.Errorf("parts behind %d: got %+v, %v", behind, page.Parts, err)
		}
	}
	_, err := w.ListVersions(ctx, s, redoubt.ListVersions{Bucket: "reports", AfterKey: "abc", AfterID: "not one", Max: 1})
	want(t, err, redoubt.Invalid)
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := w.ListObjects(gone, s, redoubt.ListObjects{Bucket: "reports", Max: 1}); !errors.Is(err, context.Canceled) {
		t.Errorf("a listing for nobody goes on: %v", err)
	}
}

// A page may begin behind any ID that its reader holds; behind one of what it may not know it begins as behind one that was made up.
func TestAMarkerTellsNoTimeOfWhatMayNotBeKnown(t *testing.T) {
	w := open(t, nil)
	ctx, u, s := context.Background(), w.as("u-analyst", ""), w.as("s-analyst", "")
	var hidden []string // an ID of a version and of an upload: older, between and newer
	hide := func() {
		began, _ := w.upload(s, "hidden", "")
		hidden = append(hidden, string(w.put(s, "hidden", "x", "").ID), string(began.ID))
	}
	hide()
	for range 2 {
		w.put(u, "seen", "x", "")
		w.upload(u, "seen", "")
		hide()
	}
	made := strings.Repeat("a", len(hidden[0]))
	versions := func(id string) (string, error) {
		page, err := w.ListVersions(ctx, u, redoubt.ListVersions{Bucket: "reports", AfterKey: "seen", AfterID: redoubt.VersionID(id), Max: 10})
		return fmt.Sprint(len(page.Versions), redoubt.KindOf(err)), err
	}
	uploads := func(id string) (string, error) {
		page, err := w.ListUploads(ctx, u, redoubt.ListUploads{Bucket: "reports", AfterKey: "seen", AfterID: redoubt.UploadID(id), Max: 10})
		return fmt.Sprint(len(page.Uploads)), err
	}
	for _, id := range hidden {
		for what, list := range map[string]func(string) (string, error){"versions": versions, "uploads": uploads} {
			got, err := list(id)
			if want, _ := list(made); got != want {
				t.Errorf("%s behind what is hidden: %s (%v), behind what was made up %s", what, got, err, want)
			}
		}
	}
}

func TestUploadsAreListedOnceEachByPages(t *testing.T) {
	w := open(t, nil)
	ctx := context.Background()
	a, b := w.as("s-analyst", "SECRET"), w.as("s-analyst", "SECRET//NOFORN") // one point of the order, two sets
	var all []string
	for i := range 12 {
		who := a
		if i%2 == 1 {
			who = b
		}
		u, _ := w.upload(who, []string{"k", "k/1", "z"}[i%3], "")
		all = append(all, string(u.ID))
	}
	w.upload(w.as("ts-analyst", ""), "k", "") // of another label
	for size := 1; size < 14; size++ {
		var got []string
		in := redoubt.ListUploads{Bucket: "reports", Max: size}
		for range 20 {
			page, err := w.ListUploads(ctx, a, in)
			if err != nil {
				t.Fatal(err)
			}
			for _, u := range page.Uploads {
				got = append(got, string(u.ID))
			}
			if in.AfterKey, in.AfterID = page.NextKey, page.NextID; !page.Truncated {
				break
			}
		}
		slices.Sort(got)
		want := slices.Sorted(slices.Values(all))
		if !slices.Equal(got, want) {
			t.Errorf("pages of %d: got %d uploads, want the %d there are, once each", size, len(got), len(want))
		}
	}
	page, err := w.ListUploads(ctx, a, redoubt.ListUploads{Bucket: "reports", AfterKey: "k", Max: 100})
	if err != nil || slices.ContainsFunc(page.Uploads, func(u redoubt.Upload) bool { return u.Name.Key == "k" }) {
		t.Errorf("behind a key its own uploads are listed: %v", err)
	}
	page, err = w.ListUploads(ctx, a, redoubt.ListUploads{Bucket: "reports", Delimiter: "/", Max: 100})
	if err != nil || len(page.Prefixes) != 1 || len(page.Uploads) != 8 {
		t.Errorf("got %d prefixes and %d uploads (%v), want 1 and 8", len(page.Prefixes), len(page.Uploads), err)
	}
}
