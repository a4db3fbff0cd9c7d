package node

import (
	"log/slog"
	"maps"

	"redoubt"
	"redoubt/compute"
	"redoubt/compute/kube"
	"redoubt/compute/oci"
	"redoubt/compute/wasm"
	"redoubt/estate"
	"redoubt/guard/filter"
	"redoubt/sandbox"
)

// Enter must be the first that main does. In a process that was started to work behind walls (a filter, a module, a container's keeper or kernel) or
// in a pod of a cluster it works there and never returns; in any other it does nothing.
func Enter() {
	kube.Enter()
	oci.Enter()
	all := filter.Workers()
	maps.Copy(all, wasm.Workers())
	maps.Copy(all, oci.Workers())
	sandbox.Enter(all)
}

// Drivers are what runs jobs on this machine, by name. images says which images may run; nil: all that a job can read.
func Drivers(images *redoubt.ImagePolicy) (map[string]compute.Driver, error) {
	containers, err := oci.New(oci.Options{Policy: images})
	return map[string]compute.Driver{compute.DriverWasm: wasm.New(), compute.DriverOCI: containers}, err
}

// Cluster is what a driver for the node's cluster is made from, if the estate gives the node one.
func Cluster(e *estate.Estate, n estate.Node) (o kube.Options, ok bool) {
	k := n.Kubernetes
	if k == nil {
		return o, false
	}
	return kube.Options{Kubeconfig: k.Kubeconfig, RuntimeClass: k.RuntimeClass, Agent: k.Agent, Registry: k.Registry, Token: k.Token, Owner: e.Name + "/" + string(n.Name),
		PriorityClass: k.PriorityClass, Machines: k.Machines, Annotate: k.Annotate, Disk: k.Disk, Pods: k.Pods, Images: n.Images}, true
}

// openEngine makes what runs the node's jobs and services. They are closed with the node.
func (n *Node) openEngine(desk interface {
	redoubt.JobDesk
	redoubt.ServiceDesk
}, e *estate.Estate, declared estate.Node) (*compute.Services, error) {
	drivers, err := Drivers(declared.Images)
	if err != nil {
		return nil, err
	}
	for _, d := range drivers {
		n.closing(d.Close)
	}
	if o, ok := Cluster(e, declared); ok {
		o.Log = n.log
		d, err := kube.New(o)
		if err != nil { // the node does its other work; doctor and each job that asks for the cluster tell
			n.log.Error("the node's cluster cannot be used", slog.String("kind", redoubt.KindOf(err).Error()))
		} else {
			n.closing(d.Close)
			drivers[kube.Name] = d
		}
		if at, err := kube.Server(o.Kubeconfig); err == nil {
			n.cluster = []redoubt.Trusted{{Node: n.name, As: redoubt.TrustedCluster, Fingerprint: kube.Authority(o.Kubeconfig), Dials: []string{at}}}
		}
	}
	n.engine = compute.NewEngine(compute.Options{Desk: desk, Drivers: drivers, Log: n.log})
	services := compute.NewServices(desk, drivers, n.log)
	n.closing(services.Close)
	return services, nil
}
