package main

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

func TestWhatOnlyTheBeginningUsedIsLeft(t *testing.T) {
	resident := func() int {
		status, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(status), "RssFile:")
		kib, err := strconv.Atoi(strings.Fields(rest)[0])
		if err != nil {
			t.Fatal(err)
		}
		return kib
	}
	before := resident()
	leaveBeginning()
	if after := resident(); after > before*3/4 {
		t.Errorf("of %d KiB of files %d are held yet", before, after)
	}
}
