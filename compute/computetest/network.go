package computetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"redoubt"
)

func testNetwork(t *testing.T, s *suite) {
	if !s.Network {
		r := NewRun(nil)
		spec := s.load(t, r, "exit", "0")
		spec.Network = []string{"home:443"}
		if x := s.run(t, r, spec); x.Code != -1 || !strings.Contains(x.Why, "network") {
			t.Errorf("got %+v, want no network", x)
		}
		return
	}
	far, admin := listen(t), listen(t)
	go echo(far)
	reaching := func(args ...string) (*Run, redoubt.SubmitJob) {
		r := NewRun(nil).Reach("home.example.mil:443", dialler(far)).Reach("home.example.mil:80", func(context.Context) (redoubt.JobConn, error) {
			return nil, &redoubt.Error{Op: "Dial", Kind: redoubt.Denied, Hint: "the job has risen beyond it"}
		})
		spec := s.load(t, r, args...)
		spec.Network = []string{"home.example.mil:443", "home.example.mil:80", "other:443"}
		return r, spec
	}
	r, spec := reaching("talk", "home.example.mil:443=hello", "pour", fmt.Sprintf("home.example.mil:443=%d", 32<<20), "talk", "home.example.mil:443=again")
	if x := s.run(t, r, spec); x.Code != 0 || r.Said(1) != fmt.Sprintf("hellotook %d\nagain", 32<<20) {
		t.Errorf("got %+v and %q; it said %q", x, r.Said(1), tail(r.Said(2)))
	}
	if got := r.Reads(); !slices.Contains(got, "dial home.example.mil:443") {
		t.Errorf("it asked %q", got)
	}
	args, want := []string{"forged", "198.18.0.2:53"}, "true\ntrue\ntrue\ntrue\n"
	for _, to := range []string{"home.example.mil:80", "home.example.mil:22", "198.18.0.2:22", "198.18.0.9:443", "198.18.0.0:443", "other:443", "elsewhere.example.mil:443", "192.0.2.1:443", "169.254.169.254:80",
		"[fe80::1]:443", "[::1]:443", "127.0.0.1:22", "255.255.255.255:443", "224.0.0.1:443", admin.Addr().String(), far.Addr().String()} {
		args, want = append(args, "dial", to), want+"refused\n"
	}
	r, spec = reaching(args...)
	if x := s.run(t, r, spec); x.Code != 0 || r.Said(1) != want {
		t.Errorf("got %+v and %q; it said %q", x, r.Said(1), tail(r.Said(2)))
	}
	for _, got := range r.Reads() {
		if strings.HasPrefix(got, "dial ") && got != "dial home.example.mil:80" && got != "dial other:443" {
			t.Errorf("%q was asked", got)
		}
	}
	if !strings.Contains(r.Said(2), "no connection to home.example.mil:80: the job has risen beyond it") {
		t.Errorf("the log does not say why: %q", r.Said(2))
	}

	// What is cut off is not as what has ended.
	held := make(chan net.Conn, 1)
	go func() {
		c, err := far.Accept()
		if err == nil {
			io.CopyN(c, c, 1)
			held <- c
		}
	}()
	r = NewRun(nil).Reach("home:443", func(ctx context.Context) (redoubt.JobConn, error) {
		c, err := dialler(far)(ctx)
		return cutOff{c}, err
	})
	spec = s.load(t, r, "hears", "home:443")
	spec.Network = []string{"home:443"}
	if x := s.run(t, r, spec); x.Code != 0 || r.Said(1) != "ended true\n" {
		t.Errorf("got %+v and %q; it said %q", x, r.Said(1), tail(r.Said(2)))
	}
	(<-held).Close()
	spec = s.load(t, r, "hears", "home:443")
	if x := s.run(t, r, spec); x.Code == 0 {
		t.Errorf("without a network: %+v, %q", x, r.Said(1))
	}
}

// cutOff is a connection that something ends.
type cutOff struct{ redoubt.JobConn }

func (c cutOff) Read(b []byte) (int, error) {
	c.JobConn.Read(b)
	return 0, errors.New("cut off")
}

// listen is where connections of these tests go.
func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// echo answers three connections with what they say.
func echo(l net.Listener) {
	for range 3 {
		c, err := l.Accept()
		if err != nil {
			return
		}
		io.Copy(c, c)
		c.Close()
	}
}

func dialler(l net.Listener) func(context.Context) (redoubt.JobConn, error) {
	return func(ctx context.Context) (redoubt.JobConn, error) {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
		if err != nil {
			return nil, err
		}
		return c.(*net.TCPConn), nil
	}
}
