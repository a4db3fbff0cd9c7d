package parts

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"testing"
)

var update = flag.Bool("update", false, "write testdata/vector anew; read the difference before you commit it")

const vectorFile = "testdata/vector/vector.json"

// partsVector is a file that was split. Its bytes are told by a rule, for a part has 64 KiB at least; the last part, of parity, is committed whole.
type partsVector struct {
	Content string   `json:"content"`
	Bytes   int      `json:"file_bytes"`
	Set     string   `json:"set"`
	Data    int      `json:"data"`
	Parity  int      `json:"parity"`
	Heads   []string `json:"heads"`
	Sums    []string `json:"sha256"` // of each part
	Last    string   `json:"last_part"`
}

const vectorRule = "the SHA-256 of 0, 1, 2 …, each in 8 bytes, big-endian, one behind the other"

func vectorContent(n int) []byte {
	var out bytes.Buffer
	for i := uint64(0); out.Len() < n; i++ {
		sum := sha256.Sum256([]byte{byte(i >> 56), byte(i >> 48), byte(i >> 40), byte(i >> 32), byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)})
		out.Write(sum[:])
	}
	return out.Bytes()[:n]
}

func TestPartsAreThoseOfTheVector(t *testing.T) {
	const size = 3*BlockBytes + 1000 // two stripes, the second nearly empty
	h := head{Layout: newLayout(3, 2, size)}
	copy(h.Set[:], "the vectors' set")
	content := vectorContent(size)
	files := make([]bytes.Buffer, h.Parts())
	var to []io.Writer
	for i := range files {
		to = append(to, &files[i])
	}
	if err := splitAs(context.Background(), bytes.NewReader(content), h, to, nil); err != nil {
		t.Fatal(err)
	}
	made := partsVector{Content: vectorRule, Bytes: size, Set: hex.EncodeToString(h.Set[:]), Data: 3, Parity: 2, Last: "part.005"}
	for i := range files {
		sum := sha256.Sum256(files[i].Bytes())
		made.Heads, made.Sums = append(made.Heads, hex.EncodeToString(files[i].Bytes()[:headBytes])), append(made.Sums, hex.EncodeToString(sum[:]))
	}
	last := files[len(files)-1].Bytes()
	if *update {
		raw, err := json.MarshalIndent(made, "", "\t")
		if err != nil {
			t.Fatal(err)
		}
		for name, data := range map[string][]byte{vectorFile: append(raw, '\n'), "testdata/vector/part.005": last} {
			if err := os.WriteFile(name, data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	raw, err := os.ReadFile(vectorFile)
	if err != nil {
		t.Fatal(err)
	}
	var want partsVector
	if err := json.Unmarshal(raw, &want); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(made) != fmt.Sprint(want) {
		t.Errorf("split as %+v, want %+v", made, want)
	}
	committed, err := os.ReadFile("testdata/vector/" + want.Last)
	if err != nil || !bytes.Equal(committed, last) {
		t.Fatalf("the last part is another, or does not read: %v", err)
	}
	// The other way: the file of two data parts and the parity that is committed.
	var given []Part
	for _, b := range [][]byte{committed, files[0].Bytes(), files[2].Bytes()} {
		given = append(given, Part{Name: "part", File: bytes.NewReader(b), Size: int64(len(b))})
	}
	var whole bytes.Buffer
	report, err := Join(context.Background(), given, &whole, nil)
	if err != nil || !bytes.Equal(whole.Bytes(), content) || report.Repaired == 0 {
		t.Errorf("joined to %d bytes, %+v, %v", whole.Len(), report, err)
	}
}
