package main

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

func TestTheWorkloadIsWhatTheDocsSayOfIt(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	all := workload200(r)
	total := int64(0)
	for _, f := range all {
		total += int64(len(f.content))
	}
	if len(all) != 200 || total != 150*4*kib+45*100*kib+5*mib {
		t.Fatalf("%d files of %d bytes", len(all), total)
	}
	least, err := packed(all)
	if share := float64(least) / float64(total); err != nil || share < 0.62 || share > 0.64 {
		t.Errorf("zstd leaves %.3f of it, %v; want five eighths", share, err)
	}
	before := bytes.Clone(all[199].content)
	changed := edited(r, all)
	small, large := 0, 0
	for _, f := range changed {
		differ := 0
		for i := range f.content {
			if f.content[i] != f.base[i] {
				differ++
			}
		}
		switch {
		case len(f.content) == 4*kib && differ > 3*kib:
			small++
		case len(f.content) == mib && differ > mib/200 && differ <= mib/100:
			large++
		}
	}
	if small != 10 || large != 5 || len(changed) != 15 {
		t.Errorf("%d small and %d large files changed of %d, want 10 and 5", small, large, len(changed))
	}
	if !bytes.Equal(changed[14].base, before) || bytes.Equal(all[199].content, before) {
		t.Error("what is put again is not what changed")
	}
	if least, err := packed(changed); err != nil || least < 40_000 || least > 64_000 {
		t.Errorf("against what they were the changed ones are %d bytes, %v", least, err)
	}
}

func TestATableSetsKillsAgainstTheUndisturbedLoad(t *testing.T) {
	for _, c := range []struct {
		killed row
		want   string
	}{
		{row{what: killedLoad, took: 1, sent: [2]int64{1100, 0}}, "+10.0 % bytes"},
		{row{what: killedLoad, sent: [2]int64{1100, 0}, text: "not done"}, "  not done"},
	} {
		if got := c.killed.line(row{sent: [2]int64{900, 100}}); !bytes.HasSuffix([]byte(got), []byte(c.want)) {
			t.Errorf("got %q, want it to end in %q", got, c.want)
		}
	}
}
