package embedded_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"redoubt/store"
	"redoubt/store/embedded"
)

func openBench(b *testing.B) *embedded.Engine {
	b.Helper()
	e, err := embedded.Open(b.TempDir(), embedded.Options{Key: testKey})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { e.Close() })
	return e
}

// putVersion commits what a PUT of 4 KiB commits: the blob, a record of 300 bytes, a pointer, a
// counter and an audit entry.
func putVersion(e store.Engine, n int64, content []byte) error {
	s, err := e.Stage(context.Background())
	if err != nil {
		return err
	}
	if _, err := s.Write(content); err != nil {
		return err
	}
	if err := s.Finish(); err != nil {
		return err
	}
	b := &store.Batch{Links: []store.Staged{s}}
	b.Set(fmt.Appendf(nil, "v/bucket/object-%09d/1", n), content[:300])
	b.Set(fmt.Appendf(nil, "p/%09d", n), fmt.Appendf(nil, "%d", s.Ref()))
	b.Add([]byte("usage/bucket"), int64(len(content)))
	b.Append(content[300:500])
	return e.Commit(context.Background(), b)
}

func cpuSeconds() float64 {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return float64(u.Utime.Sec+u.Stime.Sec) + float64(u.Utime.Usec+u.Stime.Usec)/1e6
}

func BenchmarkCommit4KiB(b *testing.B) {
	for _, writers := range []int{1, 8, 16, 64} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			e := openBench(b)
			var next atomic.Int64
			var wg sync.WaitGroup
			before, cpu := e.Stats(), cpuSeconds()
			b.ResetTimer()
			for w := range writers {
				wg.Go(func() {
					content := make([]byte, 4096)
					r := rand.NewChaCha8([32]byte{byte(w)})
					r.Read(content)
					for {
						n := next.Add(1)
						if n > int64(b.N) {
							return
						}
						if err := putVersion(e, n, content); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
			b.ReportMetric(float64(e.Stats().Syncs-before.Syncs)/float64(b.N), "syncs/op")
			b.ReportMetric((cpuSeconds()-cpu)*1e6/float64(b.N), "cpu-µs/op")
		})
	}
}

// filled is an engine with n versions.
func filled(b *testing.B, n int) *embedded.Engine {
	e := openBench(b)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			content := make([]byte, 4096)
			rand.NewChaCha8([32]byte{1}).Read(content)
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				if err := putVersion(e, i, content); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := e.Scrub(context.Background(), []byte{1}, []byte{store.AppendPrefix}); err != nil { // compacts: reads are measured at rest
		b.Fatal(err)
	}
	return e
}

func get(b *testing.B, e *embedded.Engine, n int, piece []byte) {
	if _, ok, err := e.Get(fmt.Appendf(nil, "p/%09d", n)); !ok || err != nil {
		b.Fatal(ok, err)
	}
	if _, ok, err := e.Get(fmt.Appendf(nil, "v/bucket/object-%09d/1", n)); !ok || err != nil {
		b.Fatal(ok, err)
	}
	blob, err := e.OpenBlob(store.BlobRef(n))
	if err != nil {
		b.Fatal(err)
	}
	if _, err := blob.ReadAt(piece, 0); err != nil {
		b.Fatal(err)
	}
	blob.Close()
}

func BenchmarkRead(b *testing.B) {
	const versions = 200_000
	e := filled(b, versions)
	b.Run("get=2,blob=4KiB", func(b *testing.B) {
		piece := make([]byte, 4096)
		cpu := cpuSeconds()
		for b.Loop() {
			get(b, e, 1+rand.IntN(versions), piece)
		}
		b.ReportMetric((cpuSeconds()-cpu)*1e6/float64(b.N), "cpu-µs/op")
	})
	b.Run("get", func(b *testing.B) {
		for b.Loop() {
			e.Get(fmt.Appendf(nil, "p/%09d", 1+rand.IntN(versions)))
		}
	})
	b.Run("blob=4KiB", func(b *testing.B) {
		piece := make([]byte, 4096)
		for b.Loop() {
			blob, err := e.OpenBlob(store.BlobRef(1 + rand.IntN(versions)))
			if err != nil {
				b.Fatal(err)
			}
			blob.ReadAt(piece, 0)
			blob.Close()
		}
	})
	b.Run("scan", func(b *testing.B) {
		keys := 0
		for b.Loop() {
			v := e.View()
			it := v.Scan([]byte("v/"), []byte("v0"))
			for it.Next() {
				keys++
			}
			it.Close()
			v.Close()
		}
		b.ReportMetric(float64(keys)/b.Elapsed().Seconds(), "keys/s")
	})
}

func BenchmarkStream64MiB(b *testing.B) {
	e := openBench(b)
	piece := make([]byte, 256<<10)
	rand.NewChaCha8([32]byte{}).Read(piece)
	var refs []store.BlobRef
	b.Run("write", func(b *testing.B) {
		b.SetBytes(64 << 20)
		for b.Loop() {
			s, err := e.Stage(context.Background())
			if err != nil {
				b.Fatal(err)
			}
			for range 256 {
				if _, err := s.Write(piece); err != nil {
					b.Fatal(err)
				}
			}
			if err := s.Finish(); err != nil {
				b.Fatal(err)
			}
			if err := e.Commit(context.Background(), &store.Batch{Links: []store.Staged{s}}); err != nil {
				b.Fatal(err)
			}
			refs = append(refs, s.Ref())
		}
	})
	b.Run("read", func(b *testing.B) {
		b.SetBytes(64 << 20)
		for b.Loop() {
			blob, err := e.OpenBlob(refs[rand.IntN(len(refs))])
			if err != nil {
				b.Fatal(err)
			}
			for off := int64(0); off < 64<<20; off += int64(len(piece)) {
				if _, err := blob.ReadAt(piece, off); err != nil {
					b.Fatal(err)
				}
			}
			blob.Close()
		}
	})
}
