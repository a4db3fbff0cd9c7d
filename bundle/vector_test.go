package bundle_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"flag"
	"io"
	"os"
	"testing"
	"time"

	"redoubt/bundle"
	"redoubt/keys"
)

var update = flag.Bool("update", false, "write testdata/vector anew; read the difference before you commit it")

// vector is one bundle of docs/spec/bundle.md with all that opens it. Its keys protect nothing.
type vector struct {
	Seed     string `json:"maker_seed"` // of the Ed25519 key
	Identity string `json:"recipient_identity"`
	Content  string `json:"content"`
	ID       string `json:"id"`
	Head     string `json:"head"` // the file's first bytes, up to what is sealed
	Created  string `json:"created"`
	Bytes    int    `json:"file_bytes"`
}

const (
	vectorPath = "testdata/vector/small"
	taggedPath = "testdata/vector/tagged"
)

func TestVectorsAreAsSpecified(t *testing.T) {
	for path, tagged := range map[string]bool{vectorPath: false, taggedPath: true} {
		t.Run(path, func(t *testing.T) {
			if *update {
				writeVector(t, path, tagged)
			}
			readVector(t, path, tagged)
		})
	}
}

func readVector(t *testing.T, path string, tagged bool) {
	file, err := os.ReadFile(path + ".rbundle")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path + ".json")
	if err != nil {
		t.Fatal(err)
	}
	var v vector
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	seed, err := hex.DecodeString(v.Seed)
	if err != nil {
		t.Fatal(err)
	}
	id, err := keys.ParseIdentity([]byte(v.Identity))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{key: ed25519.NewKeyFromSeed(seed), ids: []*keys.Identity{id}}
	b, err := w.verify(file)
	if err != nil || b.Tagged != tagged {
		t.Fatalf("tagged %v, %v", b.Tagged, err)
	}
	head, err := bundle.EncodeHead(b.Head)
	if err != nil || hex.EncodeToString(head) != v.Head || !bytes.HasPrefix(file, head) {
		t.Errorf("the head is %x, want %s", head, v.Head)
	}
	if got := hex.EncodeToString(b.ID[:]); got != v.ID || len(file) != v.Bytes || b.Created.Format(time.RFC3339) != v.Created {
		t.Errorf("ID %s, %d bytes, made %v; want %+v", got, len(file), b.Created, v)
	}
	r, err := b.Open(id)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || string(got) != v.Content {
		t.Errorf("the content is %q, %v", got, err)
	}
	// What was signed is as the page says: the same head and sealed bytes give the same trailer.
	if again := bundle.Sign(head, file[len(head):len(file)-bundle.TrailerLen], w.key); !bytes.Equal(again, file) {
		t.Error("signed again, the file is another")
	}
}

func writeVector(t *testing.T, to string, tagged bool) {
	w := newWorld(t, 1)
	content := "the content of a bundle"
	h := w.head()
	h.Tagged = tagged
	file := w.make(t, h, []byte(content))
	secret, err := w.ids[0].Secret()
	if err != nil {
		t.Fatal(err)
	}
	b, err := w.verify(file)
	if err != nil {
		t.Fatal(err)
	}
	head, err := bundle.EncodeHead(b.Head)
	if err != nil {
		t.Fatal(err)
	}
	v := vector{Seed: hex.EncodeToString(w.key.Seed()), Identity: string(secret), Content: content, ID: hex.EncodeToString(b.ID[:]),
		Head: hex.EncodeToString(head), Created: b.Created.Format(time.RFC3339), Bytes: len(file)}
	raw, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	for path, data := range map[string][]byte{to + ".json": append(raw, '\n'), to + ".rbundle": file} {
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// FuzzVerify looks for a file that is taken and is not the one that was made, and for a reader that falls over. Of a tagged one the ciphertext may be
// another, and then it does not open.
func FuzzVerify(f *testing.F) {
	w := &world{key: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32))}
	var files [][]byte
	var tagged vector
	for _, path := range []string{vectorPath, taggedPath} {
		file, err := os.ReadFile(path + ".rbundle")
		if err != nil {
			f.Fatal(err)
		}
		files = append(files, file)
		f.Add(file)
		for _, at := range []int{0, 8, 9, 10, 13, 30, 60, 200, len(file) - 1, len(file) - 100, len(file) - 110, len(file) - 150} {
			bad := bytes.Clone(file)
			bad[at] ^= 0xff
			f.Add(bad)
			f.Add(file[:at])
		}
	}
	raw, err := os.ReadFile(taggedPath + ".json")
	if err == nil {
		err = json.Unmarshal(raw, &tagged)
	}
	if err != nil {
		f.Fatal(err)
	}
	id, err := keys.ParseIdentity([]byte(tagged.Identity))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		_, _ = bundle.Inspect(bytes.NewReader(in), int64(len(in)))
		_, _ = bundle.ReadOutline(t.Context(), bytes.NewReader(in), int64(len(in)), nil)
		b, err := w.verify(in)
		switch {
		case err != nil || bytes.Equal(in, files[0]) || bytes.Equal(in, files[1]):
		case !b.Tagged:
			t.Error("a file that was never made is taken")
		default:
			r, err := b.Open(id)
			if err == nil {
				_, err = io.ReadAll(r)
			}
			if err == nil {
				t.Error("a tagged file that was never made is opened")
			}
		}
		if h, raw, err := bundle.ReadHead(bytes.NewReader(in)); err == nil {
			again, err := bundle.EncodeHead(h)
			if err != nil || !bytes.Equal(raw, again) || !bytes.HasPrefix(in, raw) {
				t.Errorf("a head has two forms: %x and %x (%v)", raw, again, err)
			}
		}
	})
}
