package wasm

import (
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

func TestTheLeastModuleAnswers(t *testing.T) {
	i, _, err := begin(t, computetest.Answering("Content-Type: text/plain\n\nhi"), nil)
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
	benchmarkCall(b, computetest.Answering("Content-Type: text/plain\n\nhi"))
}

func BenchmarkCallOfAGoModule(b *testing.B) {
	module, err := hello()
	if err != nil {
		b.Fatal(err)
	}
	benchmarkCall(b, module)
}

// What a module reads of a large input and writes as an output, and one that does neither.
func BenchmarkStream(b *testing.B) {
	d := New(nil)
	defer d.Close()
	program := computetest.Build(b, "wasip1", "wasm")
	const size = 256 << 20
	large := map[string][]byte{"b/large": make([]byte, size)}
	for _, do := range []struct {
		name  string
		args  []string
		bytes int64
	}{{"nothing", []string{"exit", "0"}, 0}, {"read", []string{"read", "/in/b/large"}, size}, {"write", []string{"fill", "/out/large=268435456"}, size}} {
		b.Run(do.name, func(b *testing.B) {
			b.SetBytes(do.bytes)
			for b.Loop() {
				r := computetest.NewRun(large) // an output is put once
				x, err := d.Run(b.Context(), r.Task(redoubt.SubmitJob{Module: r.SetModule(program), Args: do.args}))
				if err != nil || x.Code != 0 {
					b.Fatal(x, err, r.Said(2))
				}
			}
		})
	}
}
