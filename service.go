package redoubt

import (
	"context"
	"net/http"
	"time"

	"redoubt/label"
)

// ServiceName names a service within a node and a label: 1 to 63 of a-z, 0-9 and "-".
type ServiceName string

// Limits of services.
const (
	MaxServices          = 1000    // of one label
	MaxServiceBody       = 8 << 20 // bytes of a request
	MaxServiceInstances  = 64      // of one service at one label
	MaxServiceSeconds    = 3600
	DefaultServiceTime   = 30 * time.Second
	DefaultServiceIdle   = time.Minute
	MaxServiceLogBytes   = 256 << 10
	MaxServiceWaiting    = 256 // requests of one service at one label that wait for an instance
	ServicePath          = "/svc/"
	ServiceLabelHeader   = "Redoubt-Label" // of an answer: the label that the request was answered at
	ServiceSubjectHeader = "Redoubt-Subject"
)

// ServiceSpec is a service as it is deployed. One of Module and Image is set.
type ServiceSpec struct {
	Module  string     `json:"module,omitempty"` // SHA-256 of a WebAssembly module, hex: run anew for each request, which it is given as RFC 3875 (CGI) says
	Image   string     `json:"image,omitempty"`  // BUCKET/NAME:TAG: runs on, and answers HTTP on Port
	Args    []string   `json:"args,omitempty"`
	Env     []string   `json:"env,omitempty"`
	In      []JobInput `json:"in,omitempty"` // what is under /in, as it is when it is read
	Limits  JobLimits  `json:"limits,omitzero"`
	Driver  string     `json:"driver,omitempty"`
	Port    int        `json:"port,omitempty"`    // of an image; 8080
	Health  string     `json:"health,omitempty"`  // path that answers 200 when an image is up; "": a connection is enough
	Seconds int64      `json:"seconds,omitempty"` // that one request may take; DefaultServiceTime
	Idle    int64      `json:"idle,omitempty"`    // seconds without a request after which an instance ends; DefaultServiceIdle
	Most    int        `json:"most,omitempty"`    // instances at one label; one for each processor
}

// Service is a service as its reader may see it.
type Service struct {
	Name      ServiceName       `json:"name"`
	By        SubjectName       `json:"by"`    // as whom it acts
	Label     string            `json:"label"` // banner of who deployed it; who dominates it may call it
	Revision  int               `json:"revision"`
	Made      time.Time         `json:"made"`
	Spec      ServiceSpec       `json:"spec"`
	Instances []ServiceInstance `json:"instances,omitempty"`
}

// ServiceInstance is what runs of a service at one label.
type ServiceInstance struct {
	Label    string    `json:"label"` // banner
	Revision int       `json:"revision"`
	State    string    `json:"state"` // "ready", "failed"
	Running  int       `json:"running"`
	Requests int64     `json:"requests"`
	Failed   int64     `json:"failed"`
	Fault    string    `json:"fault,omitempty"`
	Since    time.Time `json:"since,omitzero"`
}

// ServiceService is what people do about services. A service is seen and called by who dominates its label; changed and removed by who deployed it,
// at that label.
type ServiceService interface {
	// DeployService makes a service, or a new revision of one.
	DeployService(ctx context.Context, who Credential, name ServiceName, spec ServiceSpec) (Service, error)
	Services(ctx context.Context, who Credential) ([]Service, error)
	Service(ctx context.Context, who Credential, name ServiceName) (Service, error)
	RemoveService(ctx context.Context, who Credential, name ServiceName) error
}

// ServiceHost answers for services that run on this node.
type ServiceHost interface {
	// Serve answers one request at the working label of who. An error was not answered yet.
	Serve(w http.ResponseWriter, r *http.Request, who Credential, name ServiceName) error
	// Running tells what runs of a service at labels that one dominates.
	Running(s Service, at label.Label) []ServiceInstance
	// Log gives what instances of a service have written, at labels that one dominates.
	Log(s Service, at label.Label) []byte
}

// ServiceCall is a request that was let in.
type ServiceCall struct {
	Service Service
	At      label.Label // that it is answered at: the caller's working label
	Key     string      // names service, its label and At: instances of another key never serve it
	// Begin gives an instance what it runs on. It reads as who deployed the service, at At.
	Begin func() JobRun
}

// ServiceDesk is what a host of services is handed of an enclave.
type ServiceDesk interface {
	// CallService decides and records that somebody calls a service.
	CallService(ctx context.Context, who Credential, name ServiceName) (ServiceCall, error)
}
