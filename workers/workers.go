// Package workers is what this binary runs walled in: the guards' filters, and the drivers of jobs and services. It stands beside package node, which is
// given the drivers, so that whoever builds on a node alone builds no kernel and no client of a cluster.
package workers

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

// Local are what runs jobs on this machine, by name. images says which images may run; nil: all that a job can read.
func Local(images *redoubt.ImagePolicy) (map[string]compute.Driver, error) {
	containers, err := oci.New(oci.Options{Policy: images})
	binary, _ := slim() // Drivers tells why there is none
	return map[string]compute.Driver{compute.DriverWasm: wasm.New(binary), compute.DriverOCI: containers}, err
}

// Trusted runs images on the machine's own kernel; nil where the estate does not give it to a node.
func Trusted(n estate.Node) (*oci.Trusted, error) {
	if n.Runc == nil {
		return nil, nil
	}
	return oci.NewTrusted(oci.Options{Policy: n.Images})
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

// Drivers are what runs the jobs and services of a node, by name, and whom it believes and dials for that.
func Drivers(e *estate.Estate, n estate.Node, log *slog.Logger) (drivers map[string]compute.Driver, trusts []redoubt.Trusted, err error) {
	if drivers, err = Local(n.Images); err != nil {
		return nil, nil, err
	}
	if _, err := slim(); err != nil {
		log.Warn("modules begin more slowly: the binary that was built in to run them cannot be used", slog.Any("error", err))
	}
	if t, err := Trusted(n); err != nil {
		return nil, nil, err
	} else if t != nil {
		drivers[redoubt.DriverRunc] = t
	}
	o, ok := Cluster(e, n)
	if !ok {
		return drivers, nil, nil
	}
	o.Log = log
	if d, err := kube.New(o); err != nil { // the node does its other work; doctor and each job that asks for the cluster tell
		log.Error("the node's cluster cannot be used", slog.String("kind", redoubt.KindOf(err).Error()))
	} else {
		drivers[kube.Name] = d
	}
	if at, err := kube.Server(o.Kubeconfig); err == nil {
		trusts = []redoubt.Trusted{{Node: n.Name, As: redoubt.TrustedCluster, Fingerprint: kube.Authority(o.Kubeconfig), Dials: []string{at}}}
	}
	return drivers, trusts, nil
}
