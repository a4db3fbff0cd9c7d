package node

import (
	"log/slog"
	"maps"

	"redoubt"
	"redoubt/compute"
	"redoubt/compute/wasm"
	"redoubt/guard/filter"
	"redoubt/sandbox"
)

// Workers are all that this binary can be behind walls: main begins with sandbox.Enter of them.
func Workers() map[string]sandbox.Worker {
	all := filter.Workers()
	maps.Copy(all, wasm.Workers())
	return all
}

// Drivers are what runs jobs on this machine, by name.
func Drivers() map[string]compute.Driver {
	return map[string]compute.Driver{compute.DriverWasm: wasm.New()}
}

// openEngine makes what runs the node's jobs and services. They are closed with the node.
func (n *Node) openEngine(desk interface {
	redoubt.JobDesk
	redoubt.ServiceDesk
}, log *slog.Logger) *compute.Services {
	drivers := Drivers()
	for _, d := range drivers {
		n.closing(d.Close)
	}
	n.engine = compute.NewEngine(compute.Options{Desk: desk, Drivers: drivers, Log: log})
	services := compute.NewServices(desk, drivers, log)
	n.closing(services.Close)
	return services
}
