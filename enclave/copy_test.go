package enclave

import (
	"bytes"
	"context"
	"encoding/base64"
	"hash/crc32"
	"io"
	"strings"
	"testing"

	"redoubt"
)

func TestACopyCarriesAtLeastTheLabelOfItsSource(t *testing.T) {
	w := open(t, nil)
	ctx := context.Background()
	high, s := w.as("ts-analyst", ""), w.as("s-analyst", "")
	w.put(s, "a", "secret", "")
	copyAs := func(who redoubt.Credential, marking string) (redoubt.Version, error) {
		return w.CopyObject(ctx, who, redoubt.CopyObject{Source: reports, Target: named("copy"), Label: marking})
	}
	v, err := copyAs(high, "")
	if err != nil || v.Label.Banner() != "TOP SECRET//SI/TK" {
		t.Errorf("got %v, %v", v.Label, err)
	}
	_, err = copyAs(high, "SECRET")
	want(t, err, redoubt.Denied)
	_, err = copyAs(s, "no marking")
	want(t, err, redoubt.Invalid)
	_, err = copyAs(w.as("u-analyst", ""), "")
	want(t, err, redoubt.NotFound)
	up, err := copyAs(w.as("ts-analyst", "SECRET//NOFORN"), "TOP SECRET//SI/TK") // written up
	if err != nil || up.Label.Banner() != "TOP SECRET//SI/TK" {
		t.Errorf("got %v, %v", up.Label, err)
	}
	_, err = w.CopyObject(ctx, s, redoubt.CopyObject{Source: reports, Target: redoubt.ObjectName{Bucket: "nobody", Key: "a"}})
	want(t, err, redoubt.NoBucket)
	_, err = w.CopyObject(ctx, s, redoubt.CopyObject{Source: reports, SourceIf: redoubt.Conditions{IfNoneMatch: []string{"*"}}, Target: named("b")})
	want(t, err, redoubt.PreconditionFail)
}

func TestACopyKeepsOrReplacesWhatBelongsToIt(t *testing.T) {
	w := open(t, nil)
	ctx, s := context.Background(), w.as("s-analyst", "")
	const digest = "9a0364b9e99bb480dd25e1f0284c8555" // the MD5 of "content"
	in := redoubt.PutObject{Name: reports, Attributes: redoubt.Attributes{ContentType: "text/plain", Meta: map[string]string{"k": "v"}}, Tags: []redoubt.Tag{{Key: "t", Value: "1"}},
		Finish: func() (redoubt.Checksums, string, error) {
			return redoubt.Checksums{SHA256: "sum"}, digest, nil
		}}
	in.Body, in.SizeBytes = text("content")
	first, err := w.PutObject(ctx, s, in)
	if err != nil || first.ETag != digest {
		t.Fatalf("got %q, %v", first.ETag, err)
	}
	v, err := w.CopyObject(ctx, s, redoubt.CopyObject{Source: reports, Target: reports})
	if err != nil || v.Attributes.Meta["k"] != "v" || len(v.Tags) != 1 || v.ETag != first.ETag || v.Checksums.SHA256 != "sum" {
		t.Errorf("got %+v, %v", v, err)
	}
	crc := base64.StdEncoding.EncodeToString([]byte{0, 0, 0, 0})
	v, err = w.CopyObject(ctx, s, redoubt.CopyObject{Source: reports, SourceID: first.ID, Target: reports, SumAlgorithm: "CRC32",
		ReplaceAttributes: &redoubt.Attributes{ContentType: "image/png"}, ReplaceTags: &[]redoubt.Tag{}})
	if err != nil || v.Attributes.ContentType != "image/png" || len(v.Tags) != 0 || v.Checksums.CRC32 == "" || v.Checksums.CRC32 == crc || v.Checksums.SHA256 != "" {
		t.Errorf("got %+v, %v", v, err)
	}
}

func TestPartsAreJoinedInTheOrderGiven(t *testing.T) {
	w := open(t, nil)
	ctx, s := context.Background(), w.as("s-analyst", "")
	whole := bytes.Repeat([]byte("0123456789"), redoubt.MinPartBytes/10)
	put := redoubt.PutObject{Name: named("source"), Body: bytes.NewReader(whole), SizeBytes: int64(len(whole))}
	if _, err := w.PutObject(ctx, s, put); err != nil {
		t.Fatal(err)
	}
	for _, sum := range []struct {
		algorithm string
		composite bool
	}{{"CRC32", false}, {"CRC32C", false}, {"CRC64NVME", false}, {"SHA1", true}, {"SHA256", true}, {"CRC32", true}, {"", false}} {
		u, err := w.CreateUpload(ctx, s, redoubt.CreateUpload{Name: named("joined"), SumAlgorithm: sum.algorithm, SumComposite: sum.composite})
		if err != nil {
			t.Fatal(err)
		}
		var list []redoubt.CompletePart
		for _, c := range []redoubt.CopyPart{{Number: 3, N: -1}, {Number: 7, Off: 3, N: 4}} {
			c.Name, c.Upload, c.Source = u.Name, u.ID, named("source")
			p, source, err := w.CopyPart(ctx, s, c)
			if err != nil || source.SizeBytes != int64(len(whole)) {
				t.Fatal(err)
			}
			list = append(list, redoubt.CompletePart{Number: c.Number, ETag: p.ETag, Checksums: p.Checksums})
		}
		bad := []struct {
			list []redoubt.CompletePart
			err  error
		}{
			{[]redoubt.CompletePart{list[1], list[0]}, redoubt.ErrInvalidPartOrder},
			{[]redoubt.CompletePart{list[0], list[0]}, redoubt.ErrInvalidPartOrder},
			{[]redoubt.CompletePart{{Number: 4}}, redoubt.ErrInvalidPart},
			{[]redoubt.CompletePart{{Number: 3, ETag: "other"}}, redoubt.ErrInvalidPart},
			{nil, nil},
		}
		for _, b := range bad {
			_, err := w.complete(s, u, b.list)
			want(t, err, redoubt.Invalid)
			if b.err != nil && !strings.Contains(err.Error(), b.err.Error()) {
				t.Errorf("got %v, want %v", err, b.err)
			}
		}
		_, err = w.CompleteUpload(ctx, s, redoubt.CompleteUpload{Name: u.Name, Upload: u.ID, Parts: list, SizeBytes: 3})
		want(t, err, redoubt.Invalid)
		v, err := w.complete(s, u, list)
		if err != nil {
			t.Fatal(err)
		}
		if sum.algorithm == "CRC32" && !sum.composite {
			is := crc32.ChecksumIEEE(append(append([]byte{}, whole...), "3456"...))
			if want := base64.StdEncoding.EncodeToString([]byte{byte(is >> 24), byte(is >> 16), byte(is >> 8), byte(is)}); v.Checksums.CRC32 != want {
				t.Errorf("the CRC32 of the whole is %s, want %s", v.Checksums.CRC32, want)
			}
		}
		if have := v.Checksums != (redoubt.Checksums{}); have != (sum.algorithm != "") || v.Checksums.Composite != sum.composite {
			t.Errorf("%+v: got %+v", sum, v.Checksums)
		}
		if got := w.get(s, "joined"); got != string(whole)+"3456" {
			t.Errorf("got %d bytes", len(got))
		}
		o, err := w.GetObject(ctx, s, redoubt.ReadObject{Name: u.Name})
		if err != nil {
			t.Fatal(err)
		}
		if got := content(t, o, int64(len(whole))-2, 4); got != "8934" { // across the parts
			t.Errorf("got %q, want 8934", got)
		}
		if got := o.Version().PartSizes; len(got) != 2 || got[1] != 4 {
			t.Errorf("got parts of %v", got)
		}
		o.Close()
	}
}

func TestAnUploadOfOneOrOfEmptyPartsIsWhole(t *testing.T) {
	w := open(t, nil)
	ctx, s := context.Background(), w.as("s-analyst", "")
	for _, sizes := range [][]int{{0}, {1}, {redoubt.MinPartBytes, 0}} {
		u, list := w.upload(s, "a", "", sizes...)
		page, err := w.ListParts(ctx, s, redoubt.ListParts{Name: u.Name, Upload: u.ID, Max: 1})
		if err != nil || len(page.Parts) != 1 || page.Truncated != (len(sizes) > 1) || page.Next != 1 {
			t.Errorf("got %+v, %v", page, err)
		}
		if _, err := w.complete(s, u, list); err != nil {
			t.Fatal(err)
		}
		total := 0
		for _, n := range sizes {
			total += n
		}
		if got := w.get(s, "a"); len(got) != total {
			t.Errorf("parts of %v: got %d bytes", sizes, len(got))
		}
		_, err = w.complete(s, u, list)
		want(t, err, redoubt.NotFound)
	}
	u, list := w.upload(s, "a", "", 10, 10)
	_, err := w.complete(s, u, list)
	if err == nil || !strings.Contains(err.Error(), redoubt.ErrPartTooSmall.Error()) {
		t.Errorf("got %v, want a part that is too small", err)
	}
	for _, n := range []int{0, redoubt.MaxParts + 1} {
		_, err := w.PutPart(ctx, s, redoubt.PutPart{Name: u.Name, Upload: u.ID, Number: n, Body: io.LimitReader(nil, 0)})
		want(t, err, redoubt.Invalid)
	}
	_, err = w.PutPart(ctx, s, redoubt.PutPart{Name: u.Name, Upload: "made up", Number: 1, Body: strings.NewReader("")})
	want(t, err, redoubt.NotFound)
	high := w.as("ts-analyst", "")
	w.put(high, "high", "x", "")
	up, err := w.CreateUpload(ctx, w.as("ts-analyst", "SECRET"), redoubt.CreateUpload{Name: named("a")})
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = w.CopyPart(ctx, w.as("ts-analyst", "SECRET"), redoubt.CopyPart{Name: up.Name, Upload: up.ID, Number: 1, Source: named("high"), N: -1})
	want(t, err, redoubt.NotFound)
}
