package main

import (
	"fmt"
	"math/rand/v2"

	"github.com/klauspost/compress/zstd"
)

// file is one of the workload.
type file struct {
	name    string
	content []byte
	base    []byte // what it was before it changed; nil: it is new
}

// letters are 32: text of them at random has five bits of information in a byte, so zstd leaves five eighths of it, as of the files that
// the workload was first measured with, and finds nothing to repeat.
const letters = "abcdefghijklmnopqrstuvwxyz012345"

// text is n letters at random.
func text(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = letters[r.IntN(len(letters))]
	}
	return b
}

// noise is n bytes that nothing makes shorter.
func noise(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.UintN(256))
	}
	return b
}

// workload200 is the 200 files: 150 of 4 KiB, 45 of 100 KiB, 5 of 1 MiB.
func workload200(r *rand.Rand) (all []file) {
	for _, k := range []struct {
		kind    string
		n, size int
	}{{"small", 150, 4 * kib}, {"middle", 45, 100 * kib}, {"large", 5, mib}} {
		for i := range k.n {
			all = append(all, file{name: fmt.Sprintf("%s-%03d", k.kind, i), content: text(r, k.size)})
		}
	}
	return all
}

const editRuns = 16 // in each large file

// edited changes one per cent of each of the five large files, in 16 places, and all of ten small ones; these are returned.
func edited(r *rand.Rand, all []file) (changed []file) {
	for i := range all {
		f := all[i]
		f.base = f.content
		switch {
		case len(f.content) == mib:
			f.content = append([]byte(nil), f.base...)
			for range editRuns {
				n := len(f.content) / 100 / editRuns
				copy(f.content[r.IntN(len(f.content)-n):], text(r, n))
			}
		case len(f.content) == 4*kib && len(changed) < 10:
			f.content = text(r, len(f.base))
		default:
			continue
		}
		all[i] = f
		changed = append(changed, f)
	}
	return changed
}

// packed is how many bytes zstd leaves of files, each by itself and a changed one against what it was: what must cross a link at least.
func packed(files []file) (n int64, err error) {
	for _, f := range files {
		options := []zstd.EOption{zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false)}
		if f.base != nil {
			options = append(options, zstd.WithEncoderDictRaw(1, f.base))
		}
		enc, err := zstd.NewWriter(nil, options...)
		if err != nil {
			return 0, err
		}
		n += int64(min(len(enc.EncodeAll(f.content, nil)), len(f.content)))
		enc.Close()
	}
	return n, nil
}
