// Command words counts the words of the files below /in, and writes the most frequent to /out/words.csv. It is a WebAssembly module:
//
//	GOOS=wasip1 GOARCH=wasm go build -o words.wasm ./examples/wasm/words
//	redoubt job run --wasm words.wasm --in s3://reports --out s3://reports/words/ --as s-analyst@secret -- --top 20
package main

import (
	"bufio"
	"cmp"
	"encoding/csv"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

func main() {
	top := flag.Int("top", 100, "how many words")
	flag.Parse()
	if err := run(*top); err != nil {
		fmt.Fprintln(os.Stderr, "words:", err)
		os.Exit(1)
	}
}

func run(top int) error {
	count, files := map[string]int{}, 0
	err := filepath.WalkDir("/in", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		return words(path, count)
	})
	if err != nil {
		return err
	}
	all := slices.SortedFunc(maps.Keys(count), func(a, b string) int { return cmp.Or(cmp.Compare(count[b], count[a]), cmp.Compare(a, b)) })
	f, err := os.Create("/out/words.csv")
	if err != nil {
		return err
	}
	w := csv.NewWriter(f)
	for _, word := range all[:min(top, len(all))] {
		if err := w.Write([]string{word, strconv.Itoa(count[word])}); err != nil {
			return err
		}
	}
	if w.Flush(); w.Error() != nil {
		return w.Error()
	}
	fmt.Printf("%d words of %d files\n", len(all), files)
	return f.Close()
}

func words(path string, count map[string]int) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	s.Split(bufio.ScanWords)
	for s.Scan() {
		if word := strings.ToLower(strings.TrimFunc(s.Text(), func(r rune) bool { return !unicode.IsLetter(r) })); word != "" {
			count[word]++
		}
	}
	return s.Err()
}
