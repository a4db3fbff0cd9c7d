package enclave

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"redoubt"
)

func TestSmallVersionsReadAtOnceKeepTheirOwnBytesAndNoneAfterTheyAreClosed(t *testing.T) {
	w := open(t, nil)
	s := w.as("s-analyst", "")
	sizes := []int{0, 1, 4096, 16<<10 - 1, 16 << 10, 16<<10 + 1}
	content := func(i int) string { return strings.Repeat(fmt.Sprintf("%d", i), sizes[i]) }
	for i := range sizes {
		w.put(s, fmt.Sprint("k", i), content(i), "")
	}
	var readers sync.WaitGroup
	for i := range sizes {
		readers.Go(func() {
			for range 20 {
				o, err := w.GetObject(context.Background(), s, redoubt.ReadObject{Name: redoubt.ObjectName{Bucket: "reports", Key: fmt.Sprint("k", i)}})
				if err != nil {
					t.Error(err)
					return
				}
				got, err := io.ReadAll(o.Reader(0, -1))
				if err != nil || string(got) != content(i) {
					t.Errorf("%d bytes: got %d, or another's bytes (%v)", sizes[i], len(got), err)
				}
				if err := o.Close(); err != nil {
					t.Error(err)
				}
				if sizes[i] == 4096 {
					if got, err := io.ReadAll(o.Reader(0, -1)); err == nil || len(got) > 0 {
						t.Errorf("closed: got %d bytes and %v, want an error", len(got), err)
					}
				}
			}
		})
	}
	readers.Wait()
}
