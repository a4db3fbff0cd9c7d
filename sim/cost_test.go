package sim_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"redoubt"
	"redoubt/carry"
	"redoubt/redoubttest"
	"redoubt/replica"
)

// What docs/scaling.md is worked out from. Engines are in memory here: what a disk costs is in docs/benchmarks.md.

// costs is a home with n devices, each of one enclave; only the home's side is looked at.
func costs(b *testing.B, n int, subs ...redoubt.Subscription) (home *redoubttest.Stack, all []*redoubttest.Stack) {
	b.Helper()
	now := func() redoubttest.Options { return redoubttest.Options{Time: time.Now, Ceiling: "SECRET"} }
	o := now()
	o.Name, o.Disk = "home", redoubttest.NewDisk(b)
	home = redoubttest.New(b, o)
	var links []redoubt.Link
	for i := range n {
		o := now()
		o.Seed, o.Name = uint64(i+1), redoubt.NodeName(fmt.Sprintf("device-%d", i))
		d := redoubttest.New(b, o)
		links = append(links, redoubt.Link{Peer: d.Name(), Key: d.JournalKey(), Bound: d.Label("SECRET"), Subscriptions: subs})
		if err := d.SetLinks(context.Background(), []redoubt.Link{{Peer: "home", Key: home.JournalKey(), Bound: d.Label("SECRET")}}); err != nil {
			b.Fatal(err)
		}
		all = append(all, d)
	}
	if err := home.SetLinks(context.Background(), links); err != nil {
		b.Fatal(err)
	}
	return home, all
}

func write(b *testing.B, s *redoubttest.Stack, from, n int) {
	b.Helper()
	who := s.As(s.Mint("s-analyst", ""))
	for i := range n {
		body := strings.Repeat("x", 200)
		name := redoubt.ObjectName{Bucket: "reports", Key: fmt.Sprintf("k%07d", from+i)}
		if _, err := s.PutObject(context.Background(), who, redoubt.PutObject{Name: name, SizeBytes: 200, Body: strings.NewReader(body)}); err != nil {
			b.Fatal(err)
		}
	}
}

func inUse() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapInuse + m.StackInuse)
}

// spent is how much CPU this process uses in a while.
func spent(d time.Duration) time.Duration {
	var before, after syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &before)
	time.Sleep(d)
	syscall.Getrusage(syscall.RUSAGE_SELF, &after)
	return time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
}

// BenchmarkIdleMeeting tells what a meeting costs that has nothing to say, both ends of it: memory, and CPU a day.
func BenchmarkIdleMeeting(b *testing.B) {
	const n = 100
	for b.Loop() {
		home, all := costs(b, n)
		write(b, home, 0, 1)
		codecs := new(replica.Codecs)
		idle := spent(10 * time.Second) // what the nodes cost by themselves
		before := inUse()
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan error, 2*n)
		for _, d := range all {
			x, y := redoubttest.NewRoad(0)
			for _, side := range []struct {
				s    *redoubttest.Stack
				peer redoubt.NodeName
				road *redoubttest.Road
			}{{home, d.Name(), x}, {d, "home", y}} {
				end := replica.New(replica.Options{Estate: "example", Node: side.s.Name(), Peer: side.peer, Journal: side.s, State: side.s, Conn: side.road, Codecs: codecs})
				go func() { done <- end.Run(ctx) }()
			}
		}
		for _, d := range all {
			for who := d.As(d.Mint("s-analyst", "")); ; time.Sleep(10 * time.Millisecond) {
				if page, err := d.ListVersions(ctx, who, redoubt.ListVersions{Bucket: "reports", Max: 10}); err != nil || len(page.Versions) == 1 {
					break
				}
			}
		}
		b.ReportMetric((inUse()-before)/n/1024, "KiB/meeting")
		b.ReportMetric((spent(10*time.Second)-idle).Seconds()*8640/n, "CPU-s/meeting-day")
		b.ReportMetric(idle.Seconds()*8640/(n+1), "CPU-s/node-day")
		stop()
		for range 2 * n {
			<-done
		}
	}
}

// BenchmarkWake tells what one write at home costs for each meeting under way that it is not for.
func BenchmarkWake(b *testing.B) {
	const n, writes = 100, 200
	for b.Loop() {
		home, all := costs(b, n, redoubt.Subscription{Bucket: "imagery", Out: true})
		write(b, home, 0, 1)
		ctx, stop := context.WithCancel(context.Background())
		done, codecs := make(chan error, 2*n), new(replica.Codecs)
		for _, d := range all {
			x, y := redoubttest.NewRoad(0)
			for _, end := range []*replica.Session{
				replica.New(replica.Options{Estate: "example", Node: "home", Peer: d.Name(), Journal: home, State: home, Conn: x, Codecs: codecs}),
				replica.New(replica.Options{Estate: "example", Node: d.Name(), Peer: "home", Journal: d, State: d, Conn: y, Codecs: codecs}),
			} {
				go func() { done <- end.Run(ctx) }()
			}
		}
		spent(5 * time.Second) // they have met
		idle := spent(5 * time.Second)
		go func() {
			for i := range writes { // one every 20 ms
				write(b, home, 1+i, 1)
				time.Sleep(20 * time.Millisecond)
			}
		}()
		b.ReportMetric(float64((spent(5*time.Second)-idle).Microseconds())/writes/n, "CPU-us/write-meeting")
		stop()
		for range 2 * n {
			<-done
		}
	}
}

// BenchmarkCompare tells what it takes to compare equal states of many versions, at one end, and what it says.
func BenchmarkCompare(b *testing.B) {
	for _, n := range []int{1000, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			home, all := costs(b, 1)
			write(b, home, 0, n)
			ctx := context.Background()
			for b.Loop() {
				count := 0
				if _, err := home.Inventory(ctx, all[0].Name(), "USA@1 SECRET", func(redoubt.Stamp) error { count++; return nil }); err != nil || count != n {
					b.Fatal(count, err)
				}
			}
		})
	}
}

// BenchmarkJournal tells what a node with links keeps of a version more than one without, and how fast a peer takes versions in.
func BenchmarkJournal(b *testing.B) {
	const n = 20_000
	for b.Loop() {
		linkTwo(b, n)
	}
}

func linkTwo(b *testing.B, n int) {
	disk := redoubttest.NewDisk(b)
	home := redoubttest.New(b, redoubttest.Options{Seed: 1, Name: "home", Ceiling: "SECRET", Time: time.Now, Disk: disk})
	write(b, home, 0, n)
	alone, err := disk.Bytes()
	if err != nil {
		b.Fatal(err)
	}
	device := redoubttest.New(b, redoubttest.Options{Seed: 2, Name: "device", Ceiling: "SECRET", Time: time.Now})
	for _, x := range [][2]*redoubttest.Stack{{home, device}, {device, home}} {
		if err := x[0].SetLinks(context.Background(), []redoubt.Link{{Peer: x[1].Name(), Key: x[1].JournalKey(), Bound: home.Label("SECRET")}}); err != nil {
			b.Fatal(err)
		}
	}
	before, err := disk.Bytes()
	if err != nil {
		b.Fatal(err)
	}
	write(b, home, n, n)
	linked, err := disk.Bytes()
	if err != nil {
		b.Fatal(err)
	}
	x, y := redoubttest.NewRoad(0)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	ends := []*replica.Session{
		replica.New(replica.Options{Estate: "example", Node: "home", Peer: "device", Journal: home, State: home, Conn: x}),
		replica.New(replica.Options{Estate: "example", Node: "device", Peer: "home", Journal: device, State: device, Conn: y}),
	}
	began, done := time.Now(), make(chan error, 2)
	for _, e := range ends {
		go func() { done <- e.Run(ctx) }()
	}
	for ends[0].Status().Sent["USA@1 SECRET"] < int64(2*n) {
		time.Sleep(5 * time.Millisecond)
	}
	spent := time.Since(began)
	_, sent := x.Bytes()
	b.ReportMetric(float64(2*n)/spent.Seconds(), "versions/s")
	b.ReportMetric(float64(sent)/float64(2*n), "road-B/version")
	b.ReportMetric(float64(alone)/float64(n), "catalogue-B/version")
	b.ReportMetric(float64(linked-before-alone)/float64(n), "journal-B/version")
	stop()
	<-done
	<-done
}

// BenchmarkIdleRoad tells how many bytes an idle link over UDP costs a day, from two minutes of one: payloads, both ways.
func BenchmarkIdleRoad(b *testing.B) {
	for b.Loop() {
		a, z := roads(b)
		time.Sleep(5 * time.Second) // what a beginning costs is not idle
		before := a.Stats()
		const watched = 2 * time.Minute
		time.Sleep(watched)
		after := a.Stats()
		n := after.SentBytes - before.SentBytes + after.ReceivedBytes - before.ReceivedBytes
		b.ReportMetric(float64(n)*float64(24*time.Hour/watched)/1024, "KiB/day")
		a.Close()
		z.Close()
	}
}

// roads is a connection over UDP on this machine.
func roads(b *testing.B) (a, z carry.Conn) {
	b.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		b.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		b.Fatal(err)
	}
	cert := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}
	anybody := func(tls.ConnectionState) error { return nil }
	var ends []*carry.Endpoint
	var addresses []netip.AddrPort
	for _, c := range []carry.Config{{Server: &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAnyClientCert, VerifyConnection: anybody}}, {}} {
		socket, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		end, err := carry.NewEndpoint(c, socket)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { end.Close() })
		ends = append(ends, end)
		addresses = append(addresses, socket.LocalAddr().(*net.UDPAddr).AddrPort())
	}
	accepted := make(chan carry.Conn, 1)
	go func() {
		c, _ := ends[0].Accept(context.Background())
		accepted <- c
	}()
	a, err = ends[1].Dial(context.Background(), &tls.Config{Certificates: []tls.Certificate{cert}, InsecureSkipVerify: true, VerifyConnection: anybody}, addresses[0])
	if err != nil {
		b.Fatal(err)
	}
	return a, <-accepted
}
