package node

import (
	"log/slog"
	"maps"

	"redoubt"
	"redoubt/compute"
	"redoubt/compute/oci"
	"redoubt/compute/wasm"
	"redoubt/guard/filter"
	"redoubt/sandbox"
)

// Enter must be the first that main does. In a process that was started to work behind walls (a filter, a module, a container's keeper or kernel) it
// works there and never returns; in any other it does nothing.
func Enter() {
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

// openEngine makes what runs the node's jobs and services. They are closed with the node.
func (n *Node) openEngine(desk interface {
	redoubt.JobDesk
	redoubt.ServiceDesk
}, images *redoubt.ImagePolicy, log *slog.Logger) (*compute.Services, error) {
	drivers, err := Drivers(images)
	if err != nil {
		return nil, err
	}
	for _, d := range drivers {
		n.closing(d.Close)
	}
	n.engine = compute.NewEngine(compute.Options{Desk: desk, Drivers: drivers, Log: log})
	services := compute.NewServices(desk, drivers, log)
	n.closing(services.Close)
	return services, nil
}
