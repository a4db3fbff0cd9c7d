package filter_test

import (
	"slices"
	"testing"
	"time"

	"redoubt/guard"
	"redoubt/guard/filter"
)

// The pipeline is both filters, with processes that wait as a guard has them. Between two items the benchmark waits until they do, which is
// what a guard that is not in a hurry sees; cold has none.
func BenchmarkPipeline(b *testing.B) {
	for _, c := range []struct {
		name    string
		content guard.Content
	}{
		{"text-64K", guard.Content{Type: filter.Text, Bytes: []byte(longText(64 << 10))}},
		{"json-64K", trackOf64K()},
		{"png-1MP", pngOf(encodePNG(b, picture(1000, 1000)))},
	} {
		for mode, warm := range map[string]int{"warm": 1, "cold": 0} {
			b.Run(c.name+"/"+mode, func(b *testing.B) {
				s, err := filter.New(filter.Options{Warm: warm})
				if err != nil {
					b.Fatal(err)
				}
				defer s.Close()
				both(b, s, c.content)
				var took []time.Duration
				for b.Loop() {
					b.StopTimer()
					time.Sleep(time.Duration(warm) * 100 * time.Millisecond)
					b.StartTimer()
					begun := time.Now()
					if _, _, err := both(b, s, c.content); err != nil {
						b.Fatal(err)
					}
					took = append(took, time.Since(begun))
				}
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
				b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
			})
		}
	}
}

func longText(n int) string {
	s := ""
	for len(s) < n {
		s += "The quick brown fox jumps over the lazy dog; größer, plus élégant, и так далее.\n"
	}
	return s
}
