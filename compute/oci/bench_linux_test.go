package oci_test

import (
	"runtime"
	"testing"

	"redoubt/compute/computetest"
	"redoubt/compute/oci"
)

// A container's start and end, with a sandbox made for it and in one that was kept.
func BenchmarkRun(b *testing.B) {
	if oci.Dynamic() {
		b.Skip("built with cgo: a sandbox needs a static binary")
	}
	d, err := oci.New(oci.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	program := computetest.Build(b, "linux", runtime.GOARCH)
	for name, max := range map[string]string{"new": "TOP SECRET", "warm": "SECRET"} {
		b.Run(name, func(b *testing.B) {
			r := computetest.NewRun(nil).Between("alice", "SECRET", max)
			spec := withProgram(b, r, program)
			spec.Args = []string{"exit", "0"}
			for i := -1; i < b.N; i++ {
				if i == 0 {
					b.ResetTimer() // the image has been unpacked
				}
				if x, err := d.Run(b.Context(), r.Task(spec)); err != nil || x.Code != 0 {
					b.Fatal(x, err)
				}
			}
		})
	}
}

// What a program reads of a large input, and writes as an output.
func BenchmarkStream(b *testing.B) {
	if oci.Dynamic() {
		b.Skip("built with cgo: a sandbox needs a static binary")
	}
	d, err := oci.New(oci.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	program := computetest.Build(b, "linux", runtime.GOARCH)
	const size = 256 << 20
	large := make([]byte, size)
	for name, args := range map[string][]string{"read": {"read", "/in/b/large"}, "write": {"fill", "/out/large=268435456"}} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(size)
			for range b.N {
				b.StopTimer()
				r := computetest.NewRun(map[string][]byte{"b/large": large})
				spec := withProgram(b, r, program)
				spec.Args = args
				b.StartTimer()
				if x, err := d.Run(b.Context(), r.Task(spec)); err != nil || x.Code != 0 {
					b.Fatal(x, err, r.Said(2))
				}
			}
		})
	}
}
