package filter_test

import (
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"redoubt/guard"
	"redoubt/guard/filter"
	"redoubt/label"
)

// The pipeline is both filters, with processes that wait as a guard has them, and the search of what they leave for 10,000 words and for markings.
// Between two items the benchmark waits until they do, which is what a guard that is not in a hurry sees; cold has none.
func BenchmarkPipeline(b *testing.B) {
	policy, err := label.Builtin("USA")
	if err != nil {
		b.Fatal(err)
	}
	as, err := policy.Parse("CONFIDENTIAL")
	if err != nil {
		b.Fatal(err)
	}
	var list []string
	for i := range guard.MaxWords {
		list = append(list, fmt.Sprintf("codeword%d", i))
	}
	words, err := guard.NewWords(list, policy)
	if err != nil {
		b.Fatal(err)
	}
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
				began := cpu(b)
				for b.Loop() {
					b.StopTimer()
					time.Sleep(time.Duration(warm) * 100 * time.Millisecond)
					b.StartTimer()
					begun := time.Now()
					out, _, err := both(b, s, c.content)
					if err != nil {
						b.Fatal(err)
					}
					if found := words.SearchContent(c.content.Type, out, as); len(found) > 0 {
						b.Fatal(found)
					}
					took = append(took, time.Since(begun))
				}
				b.ReportMetric(float64((cpu(b)-began).Microseconds())/1000/float64(len(took)), "cpu-ms")
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
				b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
			})
		}
	}
}

// cpu is the processor time that we and the processes that ended have used: what the pipeline costs where it has the machine to itself, and no
// less where it has not.
func cpu(b *testing.B) (sum time.Duration) {
	b.Helper()
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if err := syscall.Getrusage(who, &u); err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	return sum
}

func longText(n int) string {
	s := ""
	for len(s) < n {
		s += "The quick brown fox jumps over the lazy dog; größer, plus élégant, и так далее.\n"
	}
	return s
}
