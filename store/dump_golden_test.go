package store_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"strings"
	"testing"

	"redoubt/store"
	"redoubt/store/memory"
)

// smallDump is what docs/spec/store.md shows: two keys, an empty blob, one of 4 bytes, an entry.
const smallDump = `
	7265646f7562742064756d7020310a
	4b 00000006 00000001 61 76
	4b 00000006 00000002 6162
	42 00000010 0000000000000001 0000000000000000
	42 00000010 0000000000000002 0000000000000004
	50 00000004 626c6f62
	41 00000005 656e747279
	45 00000018 0000000000000002 0000000000000002 0000000000000001
	44 00000020 e04c163b2c8314321a52808e67d258ead4e0ae6cc05ce797fd06d4328cd6bc5a`

func TestDumpIsAsSpecified(t *testing.T) {
	e := memory.Open()
	b := new(store.Batch)
	b.Set([]byte("a"), []byte("v"))
	b.Set([]byte("ab"), nil)
	b.Append([]byte("entry"))
	for _, content := range []string{"", "blob"} {
		s, err := e.Stage(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		s.Write([]byte(content))
		s.Finish()
		b.Links = append(b.Links, s)
	}
	if err := e.Commit(context.Background(), b); err != nil {
		t.Fatal(err)
	}
	v := e.View()
	defer v.Close()
	var got bytes.Buffer
	if err := store.Dump(context.Background(), v, e, &got); err != nil {
		t.Fatal(err)
	}
	want, err := hex.DecodeString(strings.Join(strings.Fields(smallDump), ""))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("got\n%x\nwant\n%x", got.Bytes(), want)
	}
	if err := store.Load(context.Background(), memory.Open(), bytes.NewReader(want)); err != nil {
		t.Errorf("what is specified does not load: %v", err)
	}
}
