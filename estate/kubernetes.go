package estate

import (
	"net"
	"path/filepath"
	"regexp"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// Kubernetes is the cluster that a node runs images on, beside its own machine.
type Kubernetes struct {
	Kubeconfig    string            `json:"kubeconfig"`      // file on the node's machine
	RuntimeClass  string            `json:"runtime_class"`   // NoRuntimeClass: none is named
	Agent         string            `json:"agent"`           // reference with digest of the image that stands beside every program
	Registry      string            `json:"registry"`        // HOST:PORT of the node's interface, as the cluster's machines reach it
	Token         string            `json:"token,omitempty"` // file on the node's machine: what the cluster pulls by
	PriorityClass string            `json:"priority_class,omitempty"`
	Machines      map[string]string `json:"machines,omitempty"` // labels of the cluster's machines that are used
	Annotate      bool              `json:"annotate,omitempty"` // namespaces say in clear whose they are
	Disk          bool              `json:"disk,omitempty"`     // what jobs read and write is on the machines' disks
	Pods          int               `json:"pods,omitempty"`     // of one subject, START and MAX at once
}

// NoRuntimeClass is what runtime_class says where pods run as the cluster runs any.
const NoRuntimeClass = "none"

// Limits of Kubernetes.
const (
	MaxPods     = 1000
	MaxMachines = 16 // labels of them
)

var (
	clusterName  = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$`)                                                  // a DNS subdomain (RFC 1123), as names of cluster-wide objects are
	machineKey   = regexp.MustCompile(`^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$`) // a label's key
	machineValue = regexp.MustCompile(`^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$`)                                         // and its value
	pinnedImage  = regexp.MustCompile(`^[a-z0-9][a-z0-9.:-]{0,252}(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*){1,16}@sha256:[0-9a-f]{64}$`)
)

// kubernetes reads the cluster of a node.
func (r *reader) kubernetes(n *yaml.Node, path string) *Kubernetes {
	k := &Kubernetes{}
	matching := func(into *string, form *regexp.Regexp, what, hint string) func(*yaml.Node, string) {
		return func(n *yaml.Node, path string) {
			if *into = r.text(n, path); *into != "" && !form.MatchString(*into) {
				r.fault(n, path, printable(*into)+" is not "+what, hint)
			}
		}
	}
	file := func(into *string) func(*yaml.Node, string) {
		return func(n *yaml.Node, path string) {
			if *into = r.text(n, path); *into != "" && (!filepath.IsAbs(*into) || filepath.Clean(*into) != *into) {
				r.fault(n, path, printable(*into)+" is not the full path of a file", "write where it lies on the node's machine, from / on")
			}
		}
	}
	r.mapping(n, path,
		field{"kubeconfig", true, file(&k.Kubeconfig)},
		field{"runtime_class", true, matching(&k.RuntimeClass, clusterName, "the name of a RuntimeClass", `name that of gVisor, or write none: then pods stand on the kernel of the cluster's machines`)},
		field{"agent", true, matching(&k.Agent, pinnedImage, "a reference with a digest", "write HOST/NAME@sha256:DIGEST, as redoubt job agent-image and what pushed it print")},
		field{"registry", true, func(n *yaml.Node, path string) {
			k.Registry = r.text(n, path)
			host, port, err := net.SplitHostPort(k.Registry)
			if p, perr := strconv.Atoi(port); k.Registry != "" && (err != nil || host == "" || perr != nil || p < 1 || p > 65535) {
				r.fault(n, path, printable(k.Registry)+" is not HOST:PORT", "write where the cluster's machines reach the node's api")
			}
		}},
		field{"token", false, file(&k.Token)},
		field{"priority_class", false, matching(&k.PriorityClass, clusterName, "the name of a PriorityClass", "")},
		field{"machines", false, func(n *yaml.Node, path string) {
			k.Machines = map[string]string{}
			r.entries(n, path, MaxMachines, func(key, value *yaml.Node, path string) {
				if v := r.text(value, path); !machineKey.MatchString(key.Value) || v != "" && !machineValue.MatchString(v) {
					r.fault(value, path, "is not a label of a machine", "write KEY: VALUE, as kubectl get nodes --show-labels prints them")
				} else {
					k.Machines[key.Value] = v
				}
			})
		}},
		field{"annotate", false, func(n *yaml.Node, path string) { k.Annotate = r.flag(n, path) }},
		field{"volumes", false, func(n *yaml.Node, path string) { k.Disk = r.oneOf(n, path, "memory", "disk") == "disk" }},
		field{"pods", false, func(n *yaml.Node, path string) { k.Pods = int(r.number(n, path, 1, MaxPods)) }},
	)
	return k
}
