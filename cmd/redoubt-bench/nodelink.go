package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"redoubt/carry/carrytest"
)

// runNodes measures whole nodes over emulated links, and their peers, each alone on a link of its own, all at the same time: each waits for
// its link and not for the processor.
func runNodes(ctx context.Context, o options) error {
	t := &table{}
	var work sync.WaitGroup
	var mu sync.Mutex
	var all error
	begin := func(what string, run func() error) {
		work.Go(func() {
			if err := run(); err != nil {
				mu.Lock()
				defer mu.Unlock()
				all = errors.Join(all, fmt.Errorf("%s: %w", what, err))
			}
		})
	}
	for name := range strings.SplitSeq(o.nodes, ",") {
		road, ok := roads[name]
		if !ok {
			return fmt.Errorf("no link %q: B or C", name)
		}
		if slices.ContainsFunc([]string{"initial", "flash"}, o.does) || road.Down == 0 && slices.ContainsFunc([]string{"bulk", "fair"}, o.does) {
			begin("link "+name, func() error { return runNodeLink(ctx, o, name, road, t) })
		}
		if road.Down > 0 && o.does("bulk") {
			begin("bulk on link "+name, func() error { return runBulk(ctx, o, name, road, t) })
		}
		if road.Down > 0 && o.does("kills") {
			begin("link "+name+", killed", func() error { return runKilled(ctx, o, name, road, t) })
		}
		for _, p := range linkPeers {
			if o.does("peers") && (road.Down == 0 || o.full) {
				for _, congestion := range []string{"cubic", "bbr"} {
					begin(p.name+" on "+name, func() error { return runPeer(ctx, o, name, road, p, congestion, t) })
				}
			}
		}
	}
	work.Wait()
	t.print()
	return all
}

// does says whether a measurement is asked for.
func (o options) does(what string) bool { return len(o.only) == 0 || slices.Contains(o.only, what) }

// nodeBench is a pair whose link is measured.
type nodeBench struct {
	name     string
	road     carrytest.Road
	link     *emulator
	p        *pair
	from, to string // who puts, and where it is looked for
	random   *rand.Rand
	files    []file
	t        *table
}

// Where a device meets its home in the namespaces of an emulated link: below the ports that systems give to outgoing connections.
const (
	meetingAPI   = "10.214.0.1:24712"
	meetingPeers = "10.214.0.1:24711"
)

// newNodeBench brings a pair up and in step over a perfect link, makes the link the one that is measured, and has the device meet its home
// over that anew: nothing is known of it.
func newNodeBench(ctx context.Context, o options, name string, road carrytest.Road, t *table) (b *nodeBench, stop func(), err error) {
	dir, err := os.MkdirTemp(o.dir, "link-")
	if err != nil {
		return nil, nil, err
	}
	link, err := startEmulator(name, carrytest.Road{}, o.seed)
	if err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(dir))
	}
	p, err := newPair(ctx, o, dir, meetingAPI, meetingPeers, map[string]string{home: link.namespaceA, outpost: link.namespaceB}, nil)
	stop = func() {
		if p != nil {
			p.close()
		}
		link.close()
		os.RemoveAll(dir)
	}
	if err != nil {
		stop()
		return nil, nil, err
	}
	b = &nodeBench{name: name, road: road, link: link, p: p, from: outpost, to: home, random: rand.New(rand.NewPCG(o.seed, 2)), t: t}
	if o.fromHome {
		b.from, b.to = home, outpost
	}
	b.files = workload200(b.random)
	p.end(outpost, syscall.SIGTERM)
	link.become(road, o.seed)
	began := time.Now()
	if err = p.start(ctx, outpost); err == nil {
		err = p.inStep(ctx, "met")
	}
	if err != nil {
		stop()
		return nil, nil, err
	}
	b.note("device started, met and in step both ways", "%.1f s", time.Since(began).Seconds())
	return b, stop, nil
}

func (b *nodeBench) note(what, format string, args ...any) {
	fmt.Fprintf(os.Stderr, "link %s  %-44s %s\n", b.name, what, fmt.Sprintf(format, args...))
}

func runNodeLink(ctx context.Context, o options, name string, road carrytest.Road, t *table) error {
	b, stop, err := newNodeBench(ctx, o, name, road, t)
	if err != nil {
		return err
	}
	defer stop()
	for _, m := range []struct {
		name string
		run  func(context.Context) error
		when bool
	}{{"initial", b.initial, true}, {"update", b.update, o.does("initial")}, {"bulk", b.bulk, road.Down == 0}, {"flash", b.flash, true}, {"fair", b.fair, road.Down == 0}} {
		if m.when && o.does(m.name) {
			if err := m.run(ctx); err != nil {
				return fmt.Errorf("%s: %w", m.name, err)
			}
		}
	}
	t.add(row{link: name, what: "device, peak RSS", who: ours, text: fmt.Sprintf("%.0f MiB", b.p.peakMiB(outpost))})
	t.add(row{link: name, what: "home, peak RSS", who: ours, text: fmt.Sprintf("%.0f MiB", b.p.peakMiB(home))})
	return nil
}

// transferred is what a load took.
type transferred struct {
	took  time.Duration
	floor time.Duration
	up    float64  // took over floor, of the time that the link was up
	sent  [2]int64 // bytes into the link: from who puts, and towards it
	all   []arrived
}

// transfer puts files at one end, one after the other, and waits until the other shows every version, with its content.
func (b *nodeBench) transfer(ctx context.Context, files []file) (x transferred, err error) {
	least, err := packed(files)
	if err != nil {
		return x, err
	}
	age, before, start := b.link.age(), b.link.sent(), time.Now()
	defer func() {
		after := b.link.sent()
		if x.sent = [2]int64{after[0] - before[0], after[1] - before[1]}; b.from == outpost { // the device is the far end of the emulator
			x.sent[0], x.sent[1] = x.sent[1], x.sent[0]
		}
	}()
	all := make([]arrived, len(files))
	x.all = all
	for i, f := range files {
		all[i].path = "/bench/" + f.name
		if all[i].version, err = b.p.put(b.from, all[i].path, f.content, ""); err != nil {
			return x, err
		}
	}
	if all, err = b.p.await(ctx, b.to, all); err != nil {
		return x, err
	}
	x.took, x.floor = all[len(all)-1].at.Sub(start), b.road.Floor(least, age)
	x.up = b.road.UpTime(age, x.took).Seconds() / b.road.UpTime(age, x.floor).Seconds()
	for i, f := range files {
		got, err := b.p.get(b.to, all[i])
		if err != nil {
			return x, err
		}
		if !bytes.Equal(got, f.content) {
			return x, fmt.Errorf("%s has other content at %s", f.name, b.to)
		}
	}
	return x, nil
}

func (b *nodeBench) row(what string, x transferred) {
	b.t.add(row{link: b.name, what: what, who: ours, took: x.took, floor: x.floor, up: x.up, sent: x.sent})
}

const initialLoad, updateLoad, bulkLoad, flashLoad = "initial, 200 files", "update", "5 MiB bulk", "4 KiB FLASH under bulk"

func (b *nodeBench) initial(ctx context.Context) error {
	x, err := b.transfer(ctx, b.files)
	if err == nil {
		b.row(initialLoad, x)
	}
	return err
}

func (b *nodeBench) update(ctx context.Context) error {
	x, err := b.transfer(ctx, edited(b.random, b.files))
	if err == nil {
		b.row(updateLoad, x)
	}
	return err
}

// bulkBytes is what FLASH overtakes.
const bulkBytes = 5 * mib

func (b *nodeBench) bulk(ctx context.Context) error {
	x, err := b.transfer(ctx, []file{{name: "bulk", content: noise(b.random, bulkBytes)}})
	if err == nil {
		b.row(bulkLoad, x)
	}
	return err
}

// bulkBegins are where in a turn of a link that comes and goes bulk begins: where little more is to be sent when the link goes than goes in the time that
// is left, the last of it waits for the link to come back, whatever the rest took. So one beginning says little, and the mean of them is what is told.
var bulkBegins = []float64{0, 0.25, 0.5, 0.75}

// runBulk measures bulk on a link that comes and goes, from several beginnings at the same time, each on a link of its own that is in use.
func runBulk(ctx context.Context, o options, name string, road carrytest.Road, t *table) error {
	all, errs := make([]transferred, len(bulkBegins)), make([]error, len(bulkBegins))
	var work sync.WaitGroup
	for i, share := range bulkBegins {
		work.Go(func() {
			errs[i] = func() error {
				b, stop, err := newNodeBench(ctx, o, fmt.Sprintf("%s-bulk%d", name, i), road, t)
				if err != nil {
					return err
				}
				defer stop()
				if _, err := b.transfer(ctx, []file{{name: "warm", content: noise(b.random, 256*kib)}}); err != nil {
					return err
				}
				cycle := road.Up + road.Down
				at := time.Duration(share * float64(cycle))
				select {
				case <-time.After((at - b.link.age()%cycle + cycle) % cycle):
				case <-ctx.Done():
					return ctx.Err()
				}
				all[i], err = b.transfer(ctx, []file{{name: "bulk", content: noise(b.random, bulkBytes)}})
				x := all[i]
				t.add(row{link: name, what: bulkLoad, who: ours, took: x.took, floor: x.floor, up: x.up, sent: x.sent, text: fmt.Sprintf("begun %.0f s into a turn of the link", at.Seconds())})
				return err
			}()
		})
	}
	work.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	mean := row{link: name, what: bulkLoad + ", mean", who: ours}
	for _, x := range all {
		n := len(all)
		mean.took, mean.floor, mean.up = mean.took+x.took/time.Duration(n), mean.floor+x.floor/time.Duration(n), mean.up+x.up/float64(n)
	}
	t.add(mean)
	return nil
}

// keepBusy has bulk wait at one end until the function that it gives is called.
func (b *nodeBench) keepBusy(ctx context.Context) (stop func() error) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	r := rand.New(rand.NewPCG(b.random.Uint64(), 3))
	go func() {
		var waiting []arrived
		for n := 0; ; n++ {
			path := fmt.Sprintf("/bench/busy-%d", n)
			version, err := b.p.put(b.from, path, noise(r, bulkBytes), "")
			if waiting = append(waiting, arrived{path: path, version: version}); err == nil && len(waiting) > 1 { // the next is there before one ends
				_, err = b.p.await(ctx, b.to, waiting[:1])
				waiting = waiting[1:]
			}
			if err != nil {
				ended <- err
				return
			}
		}
	}()
	return func() error {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			return err
		}
		return nil
	}
}

// flash puts 4 KiB of FLASH ten seconds into bulk, and then again and again. What met an
// outage, and what was put while such waited, is counted by itself.
func (b *nodeBench) flash(ctx context.Context) (err error) {
	const flashes, first, every = 40, 10 * time.Second, 3 * time.Second
	stop := b.keepBusy(ctx)
	defer func() { err = errors.Join(err, stop()) }()
	took := make([]time.Duration, flashes)
	begun := make([]time.Time, flashes)
	cut := make([]bool, flashes)
	errs := make([]error, flashes)
	var work sync.WaitGroup
	wait := first
	for i := range flashes {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
		wait = every/2 + time.Duration(b.random.Int64N(int64(every)))
		content := noise(b.random, 4*kib)
		work.Go(func() {
			path := fmt.Sprintf("/bench/flash-%d", i)
			start, age := time.Now(), b.link.age()
			version, err := b.p.put(b.from, path, content, "flash")
			all := []arrived{{path: path, version: version}}
			if err == nil {
				all, err = b.p.await(ctx, b.to, all)
			}
			begun[i], took[i], cut[i], errs[i] = start, all[0].at.Sub(start), b.road.DownAt(age) || b.road.DownAt(age+time.Second), err
		})
	}
	work.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	var up []float64
	met, behind, late := 0, 0, time.Time{} // when the last came that met an outage
	for i, d := range took {
		switch at := begun[i].Add(d); {
		case cut[i]:
			met++
			if at.After(late) {
				late = at
			}
		case begun[i].Before(late):
			behind++
		default:
			up = append(up, d.Seconds())
		}
	}
	if len(up) == 0 {
		return errors.New("every FLASH met an outage")
	}
	b.t.add(row{link: b.name, what: flashLoad, who: ours, took: took[0], text: fmt.Sprintf("p50 %.2f s, p90 %.2f s, most %.2f s (%d; %d more met an outage, %d stood behind one that did)",
		quantile(up, 0.5), quantile(up, 0.9), quantile(up, 1), len(up), met, behind)})
	return nil
}

// fair fills the link beside one TCP flow, and says what each had.
func (b *nodeBench) fair(ctx context.Context) (err error) {
	const settle, measure = 20 * time.Second, 60 * time.Second
	const tcp, udp = 6, 17
	stop := b.keepBusy(ctx)
	defer func() { err = errors.Join(err, stop()) }()
	beside, cancel := context.WithCancel(ctx)
	defer cancel()
	out, in := b.link.namespaceA, b.link.namespaceB
	at := b.link.addressB
	if b.from == outpost {
		out, in, at = in, out, b.link.addressA
	}
	if _, err := startTCP(beside, out, in, at); err != nil {
		return err
	}
	var before [2]int64
	for _, phase := range []time.Duration{settle, measure} {
		before = [2]int64{b.link.arrived(tcp), b.link.arrived(udp)}
		select {
		case <-time.After(phase):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	them, us := float64(b.link.arrived(tcp)-before[0]), float64(b.link.arrived(udp)-before[1])
	b.t.add(row{link: b.name, what: "one TCP flow beside us", who: ours, text: fmt.Sprintf("%s keeps %.0f %% of %.0f kbit/s", tcpCongestion,
		100*them/(us+them), (us+them)*8/measure.Seconds()/1000)})
	return nil
}

// runKilled repeats the initial load while the ends are killed in turn.
func runKilled(ctx context.Context, o options, name string, road carrytest.Road, t *table) error {
	const every = 20 * time.Second
	b, stop, err := newNodeBench(ctx, o, name+"-kill", road, t)
	if err != nil {
		return err
	}
	defer stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	kills, killed := 0, make(chan error, 1)
	go func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				killed <- nil
				return
			}
			victim := []string{outpost, home}[kills%2]
			b.p.end(victim, syscall.SIGKILL)
			if err := b.p.start(context.WithoutCancel(ctx), victim); err != nil {
				cancel()
				killed <- err
				return
			}
			kills++
		}
	}()
	limited, done := context.WithTimeout(ctx, killLimit)
	x, err := b.transfer(limited, b.files)
	done()
	cancel()
	if fault := <-killed; fault != nil {
		return errors.Join(fault, err)
	}
	text := fmt.Sprintf("%d kills", kills)
	if errors.Is(err, context.DeadlineExceeded) {
		n, err := b.p.shown(b.to, x.all)
		if err != nil {
			return err
		}
		x.took, text = 0, fmt.Sprintf("not done in %.0f s: %d of %d files, %s", killLimit.Seconds(), n, len(x.all), text)
	} else if err != nil {
		return err
	}
	t.add(row{link: name, what: killedLoad, who: ours, took: x.took, floor: x.floor, up: x.up, sent: x.sent, text: text})
	return nil
}

// killLimit is how long the load may take whose ends are killed: more than twice what it takes undisturbed on link C.
const killLimit = 1200 * time.Second

const killedLoad = "initial, an end killed every 20 s"
