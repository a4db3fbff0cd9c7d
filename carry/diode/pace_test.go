package diode

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math"
	"testing"
	"time"

	"redoubt"
	"redoubt/faketime"
)

func TestARateIsKeptToTheBit(t *testing.T) {
	for _, rate := range []int64{MinRate, 1_000_000, 333_333_333, 10_000_000_000} {
		faketime.Test(t, func(t *testing.T) {
			p := newPacer(rate)
			ctx := context.Background()
			if err := p.wait(ctx, 1228); err != nil {
				t.Fatal(err)
			}
			for p.next.Before(time.Now()) { // what may go at once at the beginning has gone
				p.wait(ctx, 1228)
			}
			p.wait(ctx, 1228)
			began, first := time.Now(), p.next
			const n = 50_000
			for range n {
				p.wait(ctx, 1228)
			}
			want := time.Duration(float64(n) * 1228 * 8 / float64(rate) * 1e9)
			if got := p.next.Sub(first); math.Abs(float64(got-want)) > 1 {
				t.Errorf("at %d bits/s %d datagrams are planned to take %v, want %v", rate, n, got, want)
			}
			if got := time.Since(began); math.Abs(float64(got-want)) > float64(3*time.Millisecond) && math.Abs(float64(got-want)) > 1228*8/float64(rate)*1e9 {
				t.Errorf("at %d bits/s %d datagrams took %v, want %v", rate, n, got, want)
			}
		})
	}
}

func TestWhatASleepLostIsNotMadeUpForInABurst(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		p := newPacer(10_000_000)
		ctx := context.Background()
		atOnce := func() (n int) {
			for began := time.Now(); ; n++ {
				p.wait(ctx, 1250) // a millisecond each
				if time.Since(began) > 0 {
					return n
				}
			}
		}
		first := atOnce()
		time.Sleep(time.Second)
		if after := atOnce(); first > 4 || after > 4 || after < 2 {
			t.Errorf("%d went at once at the beginning, %d after a second's sleep", first, after)
		}
	})
}

func TestAPaceIsGivenUp(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		p := newPacer(MinRate)
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		began, err := time.Now(), error(nil)
		for err == nil {
			err = p.wait(ctx, MaxDatagram) // nine seconds each
		}
		if err != context.DeadlineExceeded || time.Since(began) != 10*time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}

// goodput sends a bundle in fake time over a road that loses a tenth, and says which part of the rate arrived as the bundle's bytes.
func goodput(t testing.TB, file []byte, seed uint64) (share float64, whole bool) {
	p := newPost(t)
	defer func() {
		p.Stage.Close()
		p.Stage = nil
	}()
	w := newRoad(seed, p.Take)
	w.loss = 0.1
	q := plan()
	q.Rate = 10_000_000
	began := time.Now()
	send(t, w, q, file)
	sent := time.Since(began)
	files := p.files()
	for _, got := range files {
		whole = bytes.Equal(got, file)
	}
	return float64(len(file)) * 8 / float64(q.Rate) / sent.Seconds(), whole && len(files) == 1
}

func TestAtATenthLostMoreThanFourFifthsOfTheRateIsGoodput(t *testing.T) {
	file := newBundle(t, 1, 64<<20)
	seeds := uint64(4)
	if testing.Short() {
		seeds = 1
	}
	for seed := range seeds {
		faketime.Test(t, func(t *testing.T) {
			share, whole := goodput(t, file, seed)
			t.Logf("seed %d: %.4f of the rate", seed, share)
			if share < 0.80 || !whole {
				t.Errorf("seed %d: %.3f of the rate, whole and undamaged: %v", seed, share, whole)
			}
		})
	}
}

// BenchmarkReceive is what a receiver can take: datagrams to disk, a tenth of them lost and made again.
func BenchmarkReceive(b *testing.B) {
	file := newBundle(b, 1, 64<<20)
	all := record(b, plan(), file)
	b.SetBytes(int64(len(file)))
	for b.Loop() {
		p := newPost(b)
		n := 0
		for i, d := range all {
			if i%10 != 9 {
				p.Take(d)
				n++
			}
		}
		if p.Settle(); len(p.staged()) != 0 {
			b.Fatal("not whole")
		}
		p.Stage.Close()
		p.Stage = nil
	}
}

// BenchmarkSend is what a sender can send where its rate allows it.
func BenchmarkSend(b *testing.B) {
	file := newBundle(b, 1, 64<<20)
	b.SetBytes(int64(len(file)))
	for b.Loop() {
		w := newRoad(1, func([]byte) {})
		w.loss = 1
		send(b, w, plan(), file)
	}
}

// TestWhatIsSentBetweenComesWhole, and so does what it is sent between: in blocks of which parity is made ahead, read from a file; and no number is lacking
// or used twice, nor is it sent faster.
func TestWhatIsSentBetweenComesWhole(t *testing.T) {
	large, small := newBundle(t, 1, 13<<20), newBundle(t, 2, 5<<20)
	p := newPost(t)
	var seqs []uint32
	w := newRoad(1, func(b []byte) {
		if len(b) > runAt+8 {
			seqs = append(seqs, binary.BigEndian.Uint32(b[runAt+4:]))
		}
		p.Take(b)
	})
	plan := plan()
	plan.Interleave = 1 // four groups of the large one
	s, err := NewSender(w, plan)
	if err != nil {
		t.Fatal(err)
	}
	load := func(file []byte) *Load {
		l, err := s.Load(t.Context(), bytes.NewReader(file), int64(len(file)), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	l, n := load(large), 0
	l.Between = func(ctx context.Context) error {
		if n++; n%4000 == 1 { // in each group, the manifest's first piece among it
			return s.Send(ctx, load(small), nil)
		}
		return nil
	}
	if err := s.Send(t.Context(), l, nil); err != nil {
		t.Fatal(err)
	}
	p.has(large, small)
	if c := p.Counts(); n < 3*4000 || c.Lost != 0 || c.Spoiled != 0 || int64(len(seqs)) != s.Datagrams {
		t.Errorf("%d datagrams, %d of them of the large one: %+v", len(seqs), n, c)
	}
	for i, seq := range seqs {
		if seq != uint32(i) {
			t.Fatalf("datagram %d has the number %d", i, seq)
		}
	}
	l = load(large)
	l.Between = func(context.Context) error { return redoubt.Unavailable }
	if err := s.Send(t.Context(), l, nil); !errors.Is(err, redoubt.Unavailable) {
		t.Errorf("what fails between: %v", err)
	}
}
