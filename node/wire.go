package node

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"redoubt"
	"redoubt/api"
	"redoubt/compute"
	"redoubt/enclave"
	"redoubt/estate"
	"redoubt/keys"
	"redoubt/registry"
	"redoubt/s3"
	"redoubt/store/embedded"
)

// storeDir holds the engine's files within a node's folder.
const storeDir = "store"

// secretEngine is the keyring's secret that the engine seals its files under. It is kept, not
// derived, so that a restored enclave, which has the keys of its origin, has an engine key of its own.
const secretEngine = "store/embedded"

func freshKey() ([]byte, error) {
	key := make([]byte, 32)
	_, err := rand.Read(key)
	return key, err
}

// handlers are the faces of a node before they listen.
type handlers struct{ s3, api http.Handler }

// wire opens what the node is made of and joins it: the engine under the keyring, the
// enclave over both, and the faces over the enclave's contracts alone.
func (n *Node) wire(ctx context.Context, o Options, e *estate.Estate, declared estate.Node, ring *keys.Keyring) (handlers, error) {
	key, err := ring.Secret(secretEngine, freshKey)
	if err != nil {
		return handlers{}, err
	}
	defer clear(key)
	engine, err := embedded.Open(filepath.Join(n.dir, storeDir), embedded.Options{Key: key, Logger: n.log})
	if err != nil {
		return handlers{}, err
	}
	var idKeys []byte
	if n.device != nil {
		idKeys = n.device.kept.IDKeys
	}
	clock := o.Clock
	if clock == nil {
		clock = time.Now
	}
	agreements, err := compiledAgreements(e, n.name, clock)
	if err != nil {
		return handlers{}, errors.Join(err, engine.Close())
	}
	cloud, err := enclave.Open(ctx, enclave.Options{IDKeys: idKeys, Agreements: agreements, Partners: e.PartnerPeople(declared.Name),
		Name: declared.Name, Kind: declared.Kind, Policy: e.MarkingPolicy(), Floor: declared.Floor(), Ceiling: declared.Ceiling(),
		Engine: engine, Keys: ring, People: append(slices.Clone(e.People), e.GuardPeople(declared.Name)...), Buckets: bucketsOf(e, declared),
		Estate: e.Name, Origins: e.Origins(), Guards: declaredGuards(e, declared.Name), Quotas: declared.Quotas, AuditKeep: e.AuditKeep(),
		Destinations: declared.Destinations, Dial: n.reach.dial, Runc: declared.Runc.Granted(),
		Links: n.homeLink(declared), Devices: declaredDevices(e, declared.Name),
		Region: Region, Version: o.Version, Clock: o.Clock, Rand: o.Rand, Log: n.log,
	})
	if err != nil {
		return handlers{}, errors.Join(err, engine.Close())
	}
	n.closing(cloud.Close)
	if err := n.join(e, cloud, ring); err != nil {
		return handlers{}, err
	}
	files, err := n.bundles(e, cloud)
	if err != nil {
		return handlers{}, err
	}
	gate, giving, err := n.openGateway(e, cloud)
	if err != nil {
		return handlers{}, err
	}
	n.cloud, n.gateway = cloud, gate
	services, err := n.openEngine(cloud, e, declared, o.Drivers)
	if err != nil {
		return handlers{}, err
	}
	if declared.Kind == estate.KindEnclave && len(e.Guards(n.name)) > 0 {
		n.joins = func(ctx context.Context) { n.learnRaises(ctx, e, o.State, cloud) }
	}
	control := api.Options{Auth: cloud, Credentials: cloud, People: cloud, Grants: cloud, Audit: cloud, Archives: cloud, Keys: cloud, Maintenance: cloud, Devices: cloud, Links: n.peers, Conflicts: cloud, Bundles: files, Finds: cloud, Spills: cloud, Exports: cloud, Jobs: cloud, Schedules: cloud, Services: cloud, Host: services,
		OwnerToken: n.runtime.Token, Stopping: n.stopping, Trusts: func() []redoubt.Trusted { return slices.Concat(n.peers.trusts(), gate.trusts(), n.outside) }, Ceiling: declared.Ceiling(), NodeWide: nodeMetrics(), Log: n.log}
	if gate != nil {
		control.Partners, control.PartnerSource = cloud, giving
	}
	if n.joins != nil {
		control.Releases, control.ReleaseSource, control.ReleaseTarget, control.RaiseSource, control.RaiseTarget, control.Raises = cloud, cloud, cloud, files, files, cloud
	}
	return handlers{
		s3: s3.New(s3.Options{Objects: cloud, Lists: cloud, Uploads: cloud, Buckets: cloud, Auth: cloud, Policy: e.MarkingPolicy(),
			Region: Region, Domain: VirtualHostDomain, Clock: cloud.Now, Log: n.log, UnsignedInClear: declared.S3.Clear}),
		api: n.besides(api.New(control), registry.New(registry.Options{Objects: cloud, Lists: cloud, Uploads: cloud, Auth: cloud, Clock: cloud.Now, Log: n.log})),
	}, nil
}

// besides serves the registry of images on the listener of the node's own interface, under /v2/.
func (n *Node) besides(control http.Handler, images *registry.Registry) http.Handler {
	n.closing(images.Close)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if registry.Serves(r.URL.Path) {
			images.ServeHTTP(w, r)
			return
		}
		control.ServeHTTP(w, r)
	})
}

// nodeMetrics are those of the process: the front end shows them to who dominates the ceiling.
func nodeMetrics() []prometheus.Collector {
	return []prometheus.Collector{collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})}
}

// declaredDevices are the devices whose home the node is.
func declaredDevices(e *estate.Estate, home redoubt.NodeName) (all []enclave.DeclaredDevice) {
	for _, d := range e.Devices(home) {
		all = append(all, enclave.DeclaredDevice{Name: d.Name, Floor: d.Floor(), Ceiling: d.Ceiling(), Lease: d.Lease(), Carries: d.Carries, Budget: d.Budget,
			Meets: d.Meets, Addresses: meetingPlace(d.Peers)})
	}
	return all
}

// meetingPlace is where others dial a device, as the estate says.
func meetingPlace(l *estate.Listener) []string {
	if l == nil {
		return nil
	}
	return meetingAddresses(l.Listen, *l)
}

// homeLink is a device's link to its home; an enclave has none.
func (n *Node) homeLink(declared estate.Node) []redoubt.Link {
	if n.device == nil {
		return nil
	}
	return []redoubt.Link{{Peer: n.device.home, Key: n.device.homeKey, Recipient: n.device.kept.Recipient, Bound: declared.Ceiling(), Subscriptions: declared.Carries, Budget: declared.Budget}}
}

// join makes the node ready to meet its peers; a device whose lease has ended must first be given another.
func (n *Node) join(e *estate.Estate, cloud *enclave.Enclave, ring *keys.Keyring) error {
	var err error
	if n.peers, err = newPeers(n.dir, n.name, e.Name, cloud, &n.reach, ring, cloud.Now, n.log); err != nil {
		return err
	}
	n.closing(n.peers.close)
	if n.device == nil {
		return nil
	}
	n.peers.device, n.device.clock = n.device, cloud.Now
	n.device.forget = n.peers.tickets.Close
	n.device.erase = sync.OnceFunc(func() { close(n.wiped) })
	cloud.SetMakers(whole(n.device.kept.Makers))
	if err := cloud.SetNeighbours(context.Background(), n.device.kept.Neighbours); err != nil { // the estate may have changed since: the home tells again
		n.log.Warn("neighbours are not met until the home has told of them again", slog.String("why", redoubt.KindOf(err).Error()))
	}
	if n.peers.silent && n.device.lapsed() {
		return &redoubt.Error{Op: "node.renew", Object: string(n.name), Kind: redoubt.Expired, Err: errors.Join(errLapsed, errors.New("it is in radio silence, and does not ask for another")),
			Hint: "remove " + filepath.Join(n.dir, silentFile) + ", which ends the silence, and start it again"}
	}
	return n.device.renew(context.Background())
}

// openEngine makes what runs the node's jobs and services.
func (n *Node) openEngine(desk interface {
	redoubt.JobDesk
	redoubt.ServiceDesk
}, e *estate.Estate, declared estate.Node, open func(*estate.Estate, estate.Node, *slog.Logger) (map[string]compute.Driver, []redoubt.Trusted, error)) (*compute.Services, error) {
	var drivers map[string]compute.Driver
	if open != nil {
		var err error
		if drivers, n.outside, err = open(e, declared, n.log); err != nil {
			return nil, err
		}
	}
	for _, d := range drivers {
		n.closing(d.Close)
	}
	for _, d := range declared.Destinations {
		n.outside = append(n.outside, redoubt.Trusted{Node: n.name, As: redoubt.TrustedDestination, Dials: []string{d.Address}})
	}
	n.engine = compute.NewEngine(compute.Options{Desk: desk, Drivers: drivers, Log: n.log})
	services := compute.NewServices(desk, drivers, n.log)
	n.closing(services.Close)
	return services, nil
}
