package node

import (
	"bytes"
	"context"
	"crypto/tls"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"redoubt/carry"
	"redoubt/carry/carrytest"
	"redoubt/keys"
)

// keeper is one end of a meeting, that keeps its tickets.
type keeper struct {
	p    *peers
	cert tls.Certificate
}

// TestTicketsOutliveTheNodeAndNobodyReadsThem has two meet, restarts them, and looks at what lies on the disk.
func TestTicketsOutliveTheNodeAndNobodyReadsThem(t *testing.T) {
	var ends [2]keeper
	for i := range ends {
		dir := t.TempDir()
		ring, err := keys.Create(filepath.Join(dir, "keyring"), keys.KeyFile(filepath.Join(dir, "key")), nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ring.Close() })
		ends[i].p = &peers{dir: dir, ring: ring, log: slog.New(slog.DiscardHandler)}
		if ends[i].cert, err = linkCertificate(ring, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	if meetKept(t, ends) {
		t.Error("who never met had a short handshake")
	}
	for _, e := range ends {
		plain := e.p.tickets.Kept()
		sealed, err := os.ReadFile(filepath.Join(e.p.dir, ticketsFile))
		if err != nil || bytes.Contains(sealed, plain[4:40]) || bytes.Contains(sealed, ends[0].cert.Certificate[0][:64]) || bytes.Contains(sealed, ends[1].cert.Certificate[0][:64]) {
			t.Errorf("what is on the disk is not sealed: %v", err)
		}
	}
	if !meetKept(t, ends) {
		t.Error("after a restart of both the handshake was a full one")
	}
	if err := os.WriteFile(filepath.Join(ends[1].p.dir, ticketsFile), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if meetKept(t, ends) {
		t.Error("a short handshake stood on nonsense")
	}
}

// meetKept has the two meet, twice, and ends what keeps their tickets: both have put them on disk then. It tells whether the first handshake was short.
func meetKept(t *testing.T, ends [2]keeper) (short bool) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	var keeping sync.WaitGroup
	defer keeping.Wait()
	defer stop()
	network := carrytest.NewNetwork(1, carrytest.Road{})
	defer network.Wait()
	anybody := func(tls.ConnectionState) error { return nil }
	sockets := [2]*carrytest.Socket{network.Listen("10.0.0.1:7"), network.Listen("10.0.0.2:7")}
	var points [2]*carry.Endpoint
	for i, e := range ends {
		var err error
		if e.p.tickets, err = openTickets(e.p.dir, e.p.ring, time.Now, e.p.log); err != nil {
			t.Fatal(err)
		}
		keeping.Go(func() { e.p.keepTickets(ctx) })
		config := carry.Config{Tickets: e.p.tickets}
		if i == 1 {
			config.Server = &tls.Config{Certificates: []tls.Certificate{e.cert}, ClientAuth: tls.RequireAnyClientCert, VerifyConnection: anybody}
		}
		if points[i], err = carry.NewEndpoint(config, sockets[i]); err != nil {
			t.Fatal(err)
		}
		defer points[i].Close()
	}
	var mu sync.Mutex
	full := false
	sockets[0].Tap(func(b []byte, _ netip.AddrPort) {
		mu.Lock()
		defer mu.Unlock()
		full = full || b[0] == 3 // a fragment of TLS
	})
	client := &tls.Config{Certificates: []tls.Certificate{ends[0].cert}, InsecureSkipVerify: true, VerifyConnection: anybody}
	for i := range 2 { // again at once: what that changes is not written yet when they end
		if _, err := points[0].Dial(ctx, client, sockets[1].Addr()); err != nil {
			t.Fatal(err)
		}
		if _, err := points[1].Accept(ctx); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			mu.Lock()
			short = !full
			mu.Unlock()
		}
	}
	stop()
	keeping.Wait()
	for _, e := range ends {
		if kept, err := e.p.ring.OpenFile(filepath.Join(e.p.dir, ticketsFile), purposeTickets); err != nil || !bytes.Equal(kept, e.p.tickets.Kept()) {
			t.Errorf("who has ended has not kept its tickets: %v", err)
		}
	}
	return short
}

func TestTicketsThatGoOnChangingAreWrittenEverMoreSeldom(t *testing.T) {
	wait, writes := ticketsEvery, 0
	for took := time.Duration(0); took < time.Minute; took += wait {
		wait = nextTicketsWait(wait, wait)
		writes++
	}
	if wait != ticketsAtMost || writes > 15 {
		t.Errorf("in a minute of changes they are written %d times, in the end each %v", writes, wait)
	}
	if got := nextTicketsWait(wait, ticketsAtMost+1); got != ticketsEvery {
		t.Errorf("after a rest the next is written %v later", got)
	}
}
