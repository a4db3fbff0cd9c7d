package enclave

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"redoubt"
	"redoubt/store"
)

// apart keeps stretches of a part that goes on with some bytes.
func (a *arriving) apart(from int64, part string, islands ...redoubt.Stretch) {
	a.t.Helper()
	no, err := a.home.KeepPart(context.Background(), "device", a.in, redoubt.Stretch{From: from, Bytes: []byte(part)}, islands)
	if err != nil || no != nil {
		a.t.Fatalf("%+v, %v", no, err)
	}
	a.home.charges()
}

func island(from int64, b string) redoubt.Stretch {
	return redoubt.Stretch{From: from, Bytes: []byte(b)}
}

// says tells of what is kept, as a hello does and as it is read.
func (a *arriving) says() string {
	a.t.Helper()
	left := a.left()
	if len(left) != 1 {
		a.t.Fatalf("kept %v", left)
	}
	part, islands, err := a.home.Part(context.Background(), "device", left[0])
	if err != nil || int64(len(part)) != left[0].Part || sha256.Sum256(part) != left[0].Digest || len(islands) != len(left[0].Islands) {
		a.t.Fatalf("told %+v, read %q and %d islands, %v", left[0], part, len(islands), err)
	}
	out := string(part)
	for i, x := range islands {
		if at := left[0].Islands[i]; at.From != x.From || at.SizeBytes != int64(len(x.Bytes)) || at.Digest != sha256.Sum256(x.Bytes) {
			a.t.Errorf("told %+v, read %d %q", at, x.From, x.Bytes)
		}
		out += fmt.Sprintf(" %d:%s", x.From, x.Bytes)
	}
	return out
}

func TestWhatCameBehindALossOutlivesACrash(t *testing.T) {
	a := newArriving(t, nil)
	a.keep(30_000)
	blobs := a.home.blobs()
	a.apart(0, "head", island(20, "twenty"), island(10, "ten"))
	a.restart()
	if got := a.says(); got != "head 10:ten 20:twenty" {
		t.Errorf("kept %q", got)
	}
	a.apart(4, "", island(13, "one")) // touches another
	a.apart(4, "erno", island(30, "thirty"))
	a.restart()
	if got := a.says(); got != "headerno 10:ten 13:one 20:twenty 30:thirty" {
		t.Errorf("kept %q", got)
	}
	a.checked(true)
	if got := a.home.blobs() - blobs; got != 6 {
		t.Errorf("%d blobs are kept, want two of the part and four islands", got)
	}
	a.apart(8, "eeten") // up to the second
	if got := a.says(); got != "headernoeeten 20:twenty 30:thirty" {
		t.Errorf("the part has come to two islands: kept %q", got)
	}
	if got := a.home.blobs() - blobs; got != 5 {
		t.Errorf("%d blobs are kept, want three of the part and two islands", got)
	}
	a.checked(true)
	a.apart(0, "anew", island(40, "forty"))
	a.restart()
	if got := a.says(); got != "anew 40:forty" {
		t.Errorf("the part began anew: kept %q", got)
	}
	a.keep(60_000)
	if left := a.left(); len(left) != 1 || left[0].Part != 0 || left[0].Islands != nil {
		t.Errorf("the segment is whole, and still kept of it: %+v", left)
	}
	a.apart(0, "next", island(50, "fifty"))
	a.finish()
}

func TestIslandsThatAreNoneAreNotKept(t *testing.T) {
	a, ctx := newArriving(t, nil), context.Background()
	a.apart(0, "head", island(10, "ten"))
	many := make([]redoubt.Stretch, redoubt.MaxIslands)
	for i := range many {
		many[i] = island(int64(100+10*i), "x")
	}
	for what, c := range map[string]struct {
		part    redoubt.Stretch
		islands []redoubt.Stretch
	}{
		"nothing":                          {island(4, ""), nil},
		"one within the part":              {island(4, ""), []redoubt.Stretch{island(2, "x")}},
		"one that touches the part":        {island(4, ""), []redoubt.Stretch{island(4, "x")}},
		"one that the part has come to":    {island(4, "er"), []redoubt.Stretch{island(6, "x")}},
		"one of nothing":                   {island(4, ""), []redoubt.Stretch{island(20, "")}},
		"one below 0":                      {island(4, ""), []redoubt.Stretch{island(-1, "x")}},
		"one over another":                 {island(4, ""), []redoubt.Stretch{island(12, "x")}},
		"one within another":               {island(4, ""), []redoubt.Stretch{island(10, "ten")}},
		"two over one another":             {island(4, ""), []redoubt.Stretch{island(20, "xx"), island(21, "x")}},
		"one beyond what a part may be":    {island(4, ""), []redoubt.Stretch{island(MaxArrivedPart, "x")}},
		"one more than may be":             {island(4, ""), many},
		"one too large":                    {island(4, ""), []redoubt.Stretch{{From: 100, Bytes: make([]byte, redoubt.MaxIslandBytes+1)}}},
		"together too large":               {island(4, ""), []redoubt.Stretch{{From: 100, Bytes: make([]byte, redoubt.MaxIslandBytes-2)}}},
		"one without a part":               {island(0, ""), []redoubt.Stretch{island(20, "x")}},
		"more than may be in one go":       {island(4, ""), append(many, island(90, "x"))},
		"a part beyond what a part may be": {island(MaxArrivedPart, "x"), nil},
	} {
		if _, err := a.home.KeepPart(ctx, "device", a.in, c.part, c.islands); !errors.Is(err, redoubt.Invalid) && !errors.Is(err, redoubt.Conflict) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if got := a.says(); got != "head 10:ten" {
		t.Errorf("kept %q", got)
	}
	a.apart(4, "", many[1:]...)                                                                 // as many as may be
	a.apart(0, "head", redoubt.Stretch{From: 100, Bytes: make([]byte, redoubt.MaxIslandBytes)}) // and as large
	a.finish()
}

// TestIslandsThatAreDamagedGoWithTheirPart: neither is believed, and the whole bytes before them stay.
func TestIslandsThatAreDamagedGoWithTheirPart(t *testing.T) {
	key := func(a *arriving, n byte) []byte {
		return append(arrivalKey(recArrived, "device", a.home.set("SECRET").id, versionID(a.in.Entry.Stamp)), arrivedApart, 0, 0, 0, n)
	}
	for what, damage := range map[string]func(a *arriving, swap func(key, value []byte)){
		"one that is gone": func(a *arriving, swap func(key, value []byte)) { swap(key(a, 10), nil) },
		"one too many": func(a *arriving, swap func(key, value []byte)) {
			raw, _, err := a.home.engine.Get(key(a, 10))
			if err != nil {
				t.Fatal(err)
			}
			swap(key(a, 30), raw)
		},
		"one in another's place": func(a *arriving, swap func(key, value []byte)) {
			first, _, err := a.home.engine.Get(key(a, 10))
			if err != nil {
				t.Fatal(err)
			}
			second, _, err := a.home.engine.Get(key(a, 20))
			if err != nil {
				t.Fatal(err)
			}
			swap(key(a, 10), second)
			swap(key(a, 20), first)
		},
		"a shorter one": func(a *arriving, swap func(key, value []byte)) {
			raw, _, err := a.home.engine.Get(key(a, 10))
			if err != nil {
				t.Fatal(err)
			}
			swap(key(a, 10), []byte(strings.Replace(string(raw), `"size":3`, `"size":2`, 1)))
		},
		"another digest": func(a *arriving, swap func(key, value []byte)) {
			own := arrivalKey(recArrival, "device", a.home.set("SECRET").id, versionID(a.in.Entry.Stamp))
			raw, _, err := a.home.engine.Get(own)
			if err != nil {
				t.Fatal(err)
			}
			i := bytes.LastIndex(raw, []byte(`"digest":"`)) + len(`"digest":"`)
			raw = bytes.Clone(raw)
			if raw[i]++; raw[i] == '[' || raw[i] == '{' || raw[i] == ':' {
				raw[i] = 'A'
			}
			swap(own, raw)
		},
	} {
		a := newArriving(t, nil)
		a.keep(60_000)
		a.apart(0, "head", island(10, "ten"), island(20, "two"))
		a.restart()
		at := a.left()[0]
		damage(a, func(key, value []byte) {
			batch := new(store.Batch)
			if value == nil {
				batch.Delete(key)
			} else {
				batch.Set(key, value)
			}
			if err := a.home.engine.Commit(context.Background(), batch); err != nil {
				t.Fatal(err)
			}
		})
		if what != "one too many" && what != "one in another's place" && what != "another digest" { // of those the sum is right
			a.checked(false)
		}
		part, islands, err := a.home.Part(context.Background(), "device", at)
		if !errors.Is(err, redoubt.Corrupt) || part != nil || islands != nil {
			t.Errorf("%s: read %q and %d islands, %v", what, part, len(islands), err)
		}
		if left := a.left(); len(left) != 1 || left[0].Part != 0 || left[0].Islands != nil || left[0].Whole != 60_000 {
			t.Errorf("%s: told %+v, want the whole bytes alone", what, left)
		}
		a.in.Content = bytes.NewReader(a.content[60_000:])
		if refused, err := a.home.Apply(context.Background(), "device", []redoubt.Received{a.in}); err != nil || len(refused) > 0 {
			t.Errorf("%s: %+v, %v", what, refused, err)
		}
		if got := a.home.get(a.home.as("s-analyst", ""), a.in.Entry.Name.Key); got != string(a.content) {
			t.Errorf("%s: %d bytes came, and not as they were", what, len(got))
		}
	}
}

// TestARecordOfIslandsThatCannotBeIsOfNothing has records that no node of ours writes.
func TestARecordOfIslandsThatCannotBeIsOfNothing(t *testing.T) {
	a := newArriving(t, nil)
	a.apart(0, "head", island(10, "ten"), island(20, "two"))
	key := arrivalKey(recArrival, "device", a.home.set("SECRET").id, versionID(a.in.Entry.Stamp))
	raw, _, err := a.home.engine.Get(key)
	if err != nil {
		t.Fatal(err)
	}
	for was, becomes := range map[string]string{
		`"from":20`:              `"from":11`,
		`"from":10`:              `"from":4`,
		`"from":10,"size":3`:     `"from":3,"size":3`,
		`"from":20,"size":3`:     `"from":20,"size":-3`,
		`"from":20,"size":3,"di`: `"from":9223372036854775807,"size":3,"di`,
		`"size":3,"digest":"`:    `"size":3,"digest":"AAAA`,
		`"part":4,`:              ``,
	} {
		damaged := strings.Replace(string(raw), was, becomes, 1)
		if damaged == string(raw) {
			t.Fatalf("%s is not in %s", was, raw)
		}
		a.home.overwrite(key, []byte(damaged))
		if left := a.left(); len(left) > 0 {
			t.Errorf("%s is taken for %v", becomes, left)
		}
	}
	a.home.overwrite(key, raw)
	if got := a.says(); got != "head 10:ten 20:two" {
		t.Errorf("kept %q", got)
	}
}

// TestIslandsThatAreNotGoneOnFromAreLetGoOf: Part is told what of it comes to be used.
func TestIslandsThatAreNotGoneOnFromAreLetGoOf(t *testing.T) {
	a := newArriving(t, nil)
	blobs := a.home.blobs()
	a.apart(0, "head", island(10, "ten"), island(20, "two"))
	at := a.left()[0]
	at.Islands = nil
	if part, islands, err := a.home.Part(context.Background(), "device", at); err != nil || string(part) != "head" || islands != nil {
		t.Errorf("read %q and %d islands, %v", part, len(islands), err)
	}
	a.home.charges()
	a.checked(true)
	if got := a.says(); got != "head" || a.home.blobs() != blobs+1 {
		t.Errorf("kept %q in %d blobs", got, a.home.blobs()-blobs)
	}
	a.apart(4, "er", island(10, "TEN"))
	if got := a.says(); got != "header 10:TEN" {
		t.Errorf("kept %q", got)
	}
	a.finish()
}

func TestARotationAndABackupHaveWhatCameBehindALoss(t *testing.T) {
	a := newArriving(t, nil)
	a.keep(60_000)
	a.apart(0, "head", island(10, "ten"))
	if _, err := a.home.RotateKey(context.Background(), a.home.as("officer", ""), "SECRET"); err != nil {
		t.Fatal(err)
	}
	if now := a.home.epochs("SECRET"); len(now) != 1 {
		t.Errorf("epochs %v are held", now)
	}
	a.restore()
	if got := a.says(); got != "head 10:ten" {
		t.Errorf("kept %q", got)
	}
	a.checked(true)
	a.finish()
}

func TestErasureTakesWhatCameBehindALoss(t *testing.T) {
	a := newArriving(t, nil)
	blobs := a.home.blobs()
	a.apart(0, "head", island(10, "ten"))
	if err := a.home.erase(redoubt.Change{Kind: redoubt.ChangeEraseBucket, Bucket: "reports"}); err != nil {
		t.Fatal(err)
	}
	if got := a.home.blobs(); got > blobs {
		t.Errorf("%d blobs are left", got-blobs)
	}
	view := a.home.engine.View()
	defer view.Close()
	it := view.Scan([]byte{recArrived}, []byte{recArrived + 1})
	defer it.Close()
	if it.Next() {
		t.Errorf("the catalogue still has %q", it.Key())
	}
}

// TestWhateverIsKeptInWhateverOrderIsThereAfterACrash keeps parts and islands by chance, and holds them against a model.
func TestWhateverIsKeptInWhateverOrderIsThereAfterACrash(t *testing.T) {
	a := newArriving(t, nil)
	r := rand.New(rand.NewPCG(44, 1))
	whole := []byte(strings.Repeat("what a segment is packed in, ", 20))
	part, islands := 0, map[int]int{}
	for range 150 {
		from, grows := part, r.IntN(12)
		if r.IntN(25) == 0 {
			from, part, islands = 0, 0, map[int]int{}
		}
		upTo := min(part+grows, len(whole))
		free := func(x, y int) bool {
			for f, t := range islands {
				if f > upTo && x < t && f < y {
					return false
				}
			}
			return x > upTo && y <= len(whole)
		}
		fresh := map[int]int{}
		for range r.IntN(3) {
			x := r.IntN(len(whole))
			y := x + 1 + r.IntN(9)
			ok := free(x, y) && len(islands)+len(fresh) < redoubt.MaxIslands
			for f, t := range fresh {
				ok = ok && (y <= f || t <= x)
			}
			if ok {
				fresh[x] = y
			}
		}
		if upTo == from && len(fresh) == 0 || upTo == 0 {
			continue
		}
		var stretches []redoubt.Stretch
		for x, y := range fresh {
			stretches = append(stretches, redoubt.Stretch{From: int64(x), Bytes: whole[x:y]})
			islands[x] = y
		}
		a.apart(int64(from), string(whole[from:upTo]), stretches...)
		part = upTo
		for x := range islands {
			if x <= part {
				delete(islands, x)
			}
		}
		if r.IntN(10) == 0 {
			a.restart()
		}
		got := a.says()
		want := string(whole[:part])
		for x := range len(whole) {
			if y, ok := islands[x]; ok {
				want += fmt.Sprintf(" %d:%s", x, whole[x:y])
			}
		}
		if got != want {
			t.Fatalf("kept %q, want %q", got, want)
		}
	}
	a.checked(true)
	a.finish()
}

// TestAPartOfAsManyRecordsAsMayBeBeginsAnewAsOne has one be of as many as there may be.
func TestAPartOfAsManyRecordsAsMayBeBeginsAnewAsOne(t *testing.T) {
	a := newArriving(t, nil)
	blobs := a.home.blobs()
	a.apart(0, "head", island(10, "ten"))
	key := arrivalKey(recArrival, "device", a.home.set("SECRET").id, versionID(a.in.Entry.Stamp))
	raw, _, err := a.home.engine.Get(key)
	if err != nil {
		t.Fatal(err)
	}
	a.home.overwrite(key, bytes.Replace(raw, []byte(`"parts":1`), fmt.Appendf(nil, `"parts":%d`, maxParts), 1))
	if _, err := a.home.KeepPart(context.Background(), "device", a.in, redoubt.Stretch{From: 4, Bytes: []byte("er")}, nil); !errors.Is(err, redoubt.TooLarge) {
		t.Fatalf("one more: %v", err)
	}
	if no, err := a.home.KeepPart(context.Background(), "device", a.in, island(0, "header"), []redoubt.Stretch{island(10, "ten")}); err != nil || no != nil {
		t.Fatalf("anew: %+v, %v", no, err)
	}
	if got := a.says(); got != "header 10:ten" || a.home.blobs() != blobs+2 {
		t.Errorf("kept %q in %d blobs", got, a.home.blobs()-blobs)
	}
}
