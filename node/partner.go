package node

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"redoubt"
	"redoubt/client"
	"redoubt/enclave"
	"redoubt/estate"
	"redoubt/replica"
)

// Agreements with other estates, at the enclave that is their gateway. It asks each partner's gateway for what is for it, by the address, the
// authority and the key that both estates signed, and answers the partner's likewise. Neither pushes.

// How long a gateway waits after a partner's answer was no bundle: after an error longer each time, up to partnerPause.
const (
	partnerFirstPause = time.Second
	partnerPause      = time.Minute
)

// compiledAgreements are those that a node is the gateway of, as its enclave knows them.
func compiledAgreements(e *estate.Estate, name redoubt.NodeName, clock func() time.Time) (all []enclave.Agreement, err error) {
	if err := e.OfficersAgree(); err != nil {
		return nil, err
	}
	flow := func(f *estate.Flow, err error) (*enclave.AgreementFlow, error) {
		if f == nil || err != nil {
			return nil, err
		}
		return &enclave.AgreementFlow{Bound: f.Bound, Buckets: f.Buckets, Convert: f.Convert}, nil
	}
	for _, p := range e.Partners(name) {
		a := &p.Agreement.Agreement
		out := enclave.Agreement{Name: a.Name, Serial: a.Serial, Digest: a.Digest(), Estate: p.Other.Estate, Peer: redoubt.PartnerName(p.Other.Estate, p.Other.Gateway.Node),
			Self: redoubt.PartnerName(p.Own.Estate, p.Own.Gateway.Node), NotBefore: a.NotBefore, Expires: a.Expires, Key: p.Key(), Recipient: p.Other.Gateway.Recipient, Policy: p.Policy(), Terms: p.Terms()}
		if out.Gives, err = flow(p.Gives(clock)); err != nil {
			return nil, err
		}
		if out.Takes, err = flow(p.Takes(clock)); err != nil {
			return nil, err
		}
		for _, r := range p.Other.People {
			out.People = append(out.People, redoubt.SubjectName(p.Other.Estate+"."+r.Name))
		}
		all = append(all, out)
	}
	return all, nil
}

// gateway is a node's side of its agreements.
type gateway struct {
	node     redoubt.NodeName
	cloud    *enclave.Enclave
	partners []estate.Partner
	takes    map[redoubt.NodeName]*replica.Bundles // by partner
	stage    string
	log      *slog.Logger
}

// giving is what partners' gateways are handed by: each by a Bundles of its own, so that one who reads slowly keeps no other waiting.
type giving struct {
	to   map[redoubt.NodeName]*replica.Bundles
	none *replica.Bundles // decides, and refuses, on record
}

// HandPartner is replica's; see redoubt.PartnerSource.
func (g giving) HandPartner(ctx context.Context, who redoubt.Credential, have redoubt.BundleMark, w io.Writer) (redoubt.BundleMark, error) {
	files := g.to[redoubt.NodeName(who.Subject)]
	if files == nil {
		files = g.none
	}
	return files.HandPartner(ctx, who, have, w)
}

// openGateway joins what goes between estates.
func (n *Node) openGateway(e *estate.Estate, cloud *enclave.Enclave) (g *gateway, out giving, err error) {
	g = &gateway{node: n.name, cloud: cloud, partners: e.Partners(n.name), takes: map[redoubt.NodeName]*replica.Bundles{}, stage: filepath.Join(n.dir, stageDir), log: n.log}
	if len(g.partners) == 0 {
		return nil, out, nil
	}
	o := replica.BundleOptions{Identity: cloud.BundleIdentity, Sign: cloud.SignBundle, Clock: cloud.Now, Stage: g.stage, Log: n.log, Node: redoubt.PartnerName(e.Name, n.name)}
	for _, p := range g.partners {
		peer := redoubt.PartnerName(p.Other.Estate, p.Other.Gateway.Node)
		taking, err := cloud.PartnerTaking(peer)
		if errors.Is(err, redoubt.NotFound) {
			continue
		}
		if err != nil {
			return nil, out, err
		}
		in := o
		in.Estate, in.Policy, in.Journal, in.State, in.Ledger, in.Tickets = p.Other.Estate, p.Policy(), taking, taking, taking, taking
		g.takes[peer] = replica.NewBundles(in)
	}
	all := cloud.PartnerGiving()
	o.Estate, o.Policy, o.Journal, o.State, o.Ledger, o.Raises = e.Name, e.MarkingPolicy(), all, cloud, all, all
	out.to, out.none = map[redoubt.NodeName]*replica.Bundles{}, replica.NewBundles(o)
	for _, p := range g.partners {
		out.to[redoubt.PartnerName(p.Other.Estate, p.Other.Gateway.Node)] = replica.NewBundles(o)
	}
	return g, out, nil
}

// serve fetches from every partner until ctx ends, and keeps the links in step with what is in force.
func (g *gateway) serve(ctx context.Context) {
	var work sync.WaitGroup
	for _, p := range g.partners {
		peer := redoubt.PartnerName(p.Other.Estate, p.Other.Gateway.Node)
		if files := g.takes[peer]; files != nil {
			work.Go(func() { g.fetch(ctx, p, peer, files) })
		}
	}
	work.Go(func() {
		for ctx.Err() == nil {
			if err := g.cloud.RefreshPartners(ctx); err != nil && ctx.Err() == nil {
				g.log.Error("what partners are given is not in step with their agreements", slog.String("kind", redoubt.KindOf(err).Error()))
			}
			pause(ctx, partnerPause)
		}
	})
	work.Wait()
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// fetch takes one partner's bundles as they come.
func (g *gateway) fetch(ctx context.Context, p estate.Partner, peer redoubt.NodeName, files *replica.Bundles) {
	d := &dialler{node: p.Other.Gateway.Node, subject: redoubt.SubjectName(redoubt.PartnerName(p.Own.Estate, g.node)), sign: g.cloud.SignBundle, clock: g.cloud.Now,
		card: func() (Card, error) {
			at := p.Other.Gateway
			return Card{Node: at.Node, Key: at.Key, Recipient: at.Recipient, CA: at.CA, API: at.API}, nil
		}}
	far := client.Partner{As: func(ctx context.Context) (*client.Client, error) {
		c, err := d.client(ctx)
		if err == nil {
			g.cloud.PartnerBlocked(peer, "") // it is in reach, and may have nothing for long
		}
		return c, err
	}}
	wait, told := partnerFirstPause, ""
	for ctx.Err() == nil {
		err := g.cloud.PartnerStands(peer)
		if err == nil {
			err = g.fetchOne(ctx, far, peer, files)
		}
		if ctx.Err() != nil {
			return
		}
		why := ""
		if err != nil && !errors.Is(err, redoubt.NotModified) {
			why = redoubt.KindOf(err).Error()
		}
		g.cloud.PartnerBlocked(peer, why)
		if why == "" {
			wait = partnerFirstPause
			told = ""
			continue
		}
		if told != why {
			g.log.Warn("nothing is taken of a partner now", slog.String("partner", string(peer)), slog.String("kind", why))
			told = why
		}
		pause(ctx, wait)
		wait = min(2*wait, partnerPause)
	}
}

// fetchOne takes the next bundle; NotModified: there was none.
func (g *gateway) fetchOne(ctx context.Context, far client.Partner, peer redoubt.NodeName, files *replica.Bundles) error {
	taken, err := g.cloud.Taken(ctx, peer)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(g.stage, "partner-*")
	if err != nil {
		return &redoubt.Error{Op: "node.fetchOne", Err: cause(err)}
	}
	defer f.Close()
	if err := os.Remove(f.Name()); err != nil { // a crash leaves nothing
		return &redoubt.Error{Op: "node.fetchOne", Err: cause(err)}
	}
	if _, err := far.HandPartner(ctx, taken.Last, f); err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return &redoubt.Error{Op: "node.fetchOne", Err: cause(err)}
	}
	_, err = files.TakePartner(ctx, f)
	if errors.Is(err, redoubt.Exists) {
		return nil
	}
	return err
}

// trusts is whom the node believes and dials by its agreements.
func (g *gateway) trusts() (all []redoubt.Trusted) {
	if g == nil {
		return nil
	}
	for _, p := range g.partners {
		if p.Other.Gives == nil {
			continue
		}
		name := redoubt.PartnerName(p.Other.Estate, p.Other.Gateway.Node)
		all = append(all, redoubt.Trusted{Node: name, As: redoubt.TrustedPartner, Fingerprint: keyPrint(p.Key()), Dials: dialledBy(p.Other.Gateway.API)})
		if block, _ := pem.Decode([]byte(p.Other.Gateway.CA)); block != nil {
			if cert, err := x509.ParseCertificate(block.Bytes); err == nil {
				all = append(all, redoubt.Trusted{Node: name, As: redoubt.TrustedPartner, Fingerprint: keyPrint(cert.Raw)})
			}
		}
	}
	return all
}
