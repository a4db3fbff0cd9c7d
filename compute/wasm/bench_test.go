package wasm

import (
	"encoding/binary"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"redoubt"
	"redoubt/compute"
	"redoubt/compute/computetest"
)

// tiny assembles the least module that answers: it writes one text, and ends.
func tiny(text string) []byte {
	section := func(id byte, content ...byte) []byte {
		return append(binary.AppendUvarint([]byte{id}, uint64(len(content))), content...)
	}
	name := func(s string) []byte { return append(binary.AppendUvarint(nil, uint64(len(s))), s...) }
	data := binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, 16), uint32(len(text)))
	data = append(append(data, make([]byte, 8)...), text...)
	code := []byte{0, 0x41, 1, 0x41, 0, 0x41, 1, 0x41, 8, 0x10, 0, 0x1a, 0x0b} // fd_write(1, iovs 0, 1 of them, written to 8); drop
	return slices.Concat([]byte("\x00asm\x01\x00\x00\x00"),
		section(1, 2, 0x60, 4, 0x7f, 0x7f, 0x7f, 0x7f, 1, 0x7f, 0x60, 0, 0),
		section(2, slices.Concat([]byte{1}, name("wasi_snapshot_preview1"), name("fd_write"), []byte{0, 0})...),
		section(3, 1, 1), section(5, 1, 0, 1),
		section(7, slices.Concat([]byte{2}, name("memory"), []byte{2, 0}, name("_start"), []byte{0, 1})...),
		section(10, append(binary.AppendUvarint([]byte{1}, uint64(len(code))), code...)...),
		section(11, slices.Concat([]byte{1, 0, 0x41, 0, 0x0b}, binary.AppendUvarint(nil, uint64(len(data))), data)...))
}

func TestTheLeastModuleAnswers(t *testing.T) {
	i, _, err := begin(t, tiny("Content-Type: text/plain\n\nhi"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if w, err := request(i, "GET", "/svc/x/", ""); err != nil || w.Body.String() != "hi" {
		t.Errorf("got %q %v", w.Body, err)
	}
}

func benchmarkCall(b *testing.B, module []byte) {
	r := computetest.NewRun(nil)
	d := New(nil)
	var all []compute.Instance
	for range 2 {
		i, err := d.Begin(b.Context(), compute.Service{JobRun: r, Spec: redoubt.ServiceSpec{Module: r.SetModule(module)}, Limits: redoubt.JobLimits{Memory: 64 << 20}, Timeout: time.Minute, At: "SECRET", Log: b.Output()})
		if err != nil {
			b.Fatal(err)
		}
		defer i.Close()
		all = append(all, i)
	}
	req := httptest.NewRequest("GET", "/svc/x/", nil)
	b.Run("one after the other", func(b *testing.B) {
		took := make([]time.Duration, 0, b.N)
		for b.Loop() {
			began := time.Now()
			if err := all[0].Call(httptest.NewRecorder(), req); err != nil {
				b.Fatal(err)
			}
			took = append(took, time.Since(began))
		}
		slices.Sort(took)
		b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
		b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
	})
	b.Run("two at once", func(b *testing.B) {
		var left atomic.Int64
		left.Store(int64(b.N))
		var wg sync.WaitGroup
		began := time.Now()
		for _, i := range all {
			wg.Go(func() {
				for left.Add(-1) >= 0 {
					if err := i.Call(httptest.NewRecorder(), req); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "calls/s")
	})
}

func BenchmarkCallOfTheLeastModule(b *testing.B) {
	benchmarkCall(b, tiny("Content-Type: text/plain\n\nhi"))
}

func BenchmarkCallOfAGoModule(b *testing.B) {
	module, err := hello()
	if err != nil {
		b.Fatal(err)
	}
	benchmarkCall(b, module)
}
