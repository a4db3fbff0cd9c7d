package node

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"redoubt"
	"redoubt/carry"
)

// Times of dialling.
const (
	dialTimeout = 20 * time.Second // of UDP alone, before TCP is tried too; and then of both
	knownUDP    = 90 * time.Second // the same where UDP has worked: it is the link that is down, and TCP would be the worse road when it is back
	roadGrace   = 3 * time.Second  // that UDP has more where TCP was quicker

	dialPause    = 250 * time.Millisecond // after a meeting; it doubles with each dialling that came to nothing, and each meeting that did not last
	metWell      = 5 * time.Second
	dialPauseMax = 30 * time.Second
	lookPause    = 2 * time.Second // between two looks at whether neighbours are to be dialled
)

// dial keeps a device in a meeting with its home, over UDP, and over TCP where that is closed. A link that is restored is
// dialled at once.
func (p *peers) dial(ctx context.Context) {
	pause := dialPause
	why := "" // home was not met, as the log has it already
	for {
		restored, waited, ok := p.waitRestored(ctx, p.device.home)
		if !ok {
			return
		}
		if waited { // the link was cut when the last pause was over
			pause, why = dialPause, ""
		}
		m, err := p.dialUntil(ctx, restored)
		if m != nil {
			met := time.Now()
			<-m.ended
			if why = ""; time.Since(met) >= metWell {
				pause = dialPause
			}
		} else if now := reason(err); now != why && ctx.Err() == nil && !errors.Is(err, context.Canceled) {
			why = now
			p.log.Info("home is not met; it is tried again until it is", slog.String("why", why))
		}
		select {
		case <-time.After(jittered(pause)):
			pause = min(2*pause, dialPauseMax)
		case <-restored:
			pause, why = dialPause, ""
		case <-ctx.Done():
		}
	}
}

// dialUntil is dialOnce, given up when what may be dialled has changed meanwhile.
func (p *peers) dialUntil(ctx context.Context, changed <-chan struct{}) (*meeting, error) {
	dialling, stop := context.WithCancel(ctx)
	defer stop()
	p.work.Go(func() {
		select {
		case <-changed:
			stop()
		case <-dialling.Done():
		}
	})
	return p.dialOnce(ctx, dialling, p.clientTLS(), p.device.home, p.device.addresses)
}

// jittered spreads those who were cut off together.
func jittered(d time.Duration) time.Duration {
	var b [1]byte
	rand.Read(b[:])
	return d/2 + d*time.Duration(b[0])/256
}

// dialOnce tries the roads; a meeting lasts as long as ctx. Beside no meeting it returns why the last road gave none.
func (p *peers) dialOnce(ctx, dialling context.Context, config *tls.Config, peer redoubt.NodeName, to []netip.AddrPort) (*meeting, error) {
	alone := dialTimeout
	if p.road(peer).BytesPerSec > 0 {
		alone = knownUDP
	}
	d, err := p.dialRoads(dialling, alone, func(ctx context.Context, road string) (carry.Conn, error) { return p.dialRoad(ctx, road, config, to) })
	if err != nil {
		return nil, err
	}
	if d.road == "tcp" {
		p.forgetRoad(peer)
	}
	if m := p.meet(ctx, d.conn, d.road); m != nil {
		return m, nil
	}
	return nil, &redoubt.Error{Op: "carry.dial", Object: d.road, Kind: redoubt.Denied, Err: errors.New("the link is not one of ours any more")}
}

// dialled is what came of one road.
type dialled struct {
	conn carry.Conn
	road string
	err  error
}

// dialRoads dials over UDP alone for a while, and then over TCP too, for where UDP is closed. A link that was down lets both through at the
// same time: then UDP is taken.
func (p *peers) dialRoads(ctx context.Context, alone time.Duration, dialRoad func(ctx context.Context, road string) (carry.Conn, error)) (dialled, error) {
	ctx, cancel := context.WithTimeout(ctx, alone+dialTimeout)
	defer cancel()
	came := make(chan dialled, 2)
	waiting := 0
	dial := func(road string) {
		waiting++
		p.work.Go(func() {
			conn, err := dialRoad(ctx, road)
			came <- dialled{conn, road, err}
		})
	}
	defer func() { // who comes too late is not met
		cancel()
		for range waiting {
			if d := <-came; d.conn != nil {
				d.conn.Close()
			}
		}
	}()
	dial("udp")
	byTCP, grace := time.After(alone), (<-chan time.Time)(nil)
	var second dialled
	for {
		select {
		case d := <-came:
			waiting--
			switch {
			case d.err == nil && (d.road == "udp" || waiting == 0):
				if second.conn != nil {
					second.conn.Close()
				}
				return d, nil
			case d.err == nil:
				second, grace = d, time.After(roadGrace)
			case waiting > 0: // the other may still give one
			case second.conn != nil:
				return second, nil
			case byTCP == nil:
				return dialled{}, d.err
			default: // UDP was refused
				byTCP = nil
				dial("tcp")
			}
		case <-byTCP:
			byTCP = nil
			dial("tcp")
		case <-grace:
			return second, nil
		}
	}
}

func (p *peers) dialRoad(ctx context.Context, road string, config *tls.Config, to []netip.AddrPort) (carry.Conn, error) {
	if road == "udp" {
		return p.udp.Dial(ctx, config, to...)
	}
	return carry.DialTCP(ctx, carry.Config{}, config, func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		var errs error
		for _, a := range to {
			c, err := d.DialContext(ctx, "tcp", a.String())
			if err == nil {
				return c, nil
			}
			errs = errors.Join(errs, err)
		}
		return nil, errs
	})
}
