// Package kube runs container images for jobs as pods of a Kubernetes cluster, through client-go.
//
//	func main() {
//		kube.Enter() // in a pod it works there, and goes no further
//		...
//	driver, err := kube.New(kube.Options{Kubeconfig: "cluster.kubeconfig", RuntimeClass: "gvisor", Agent: "registry/agent@sha256:…", Registry: "10.0.0.5:7443", …})
//
// A pod has up to three containers:
//
//	agent  (init)  our own binary, of the image that Options.Agent names: copies itself into a volume, and ends
//	in             the same image, where the job has inputs: takes them, and keeps them in memory
//	job            the job's image. What runs first in it is our binary, which waits; the node has it start the program, and talks with it
//
// The node talks with both over exec streams of the API server: no port is opened, no network path is used, and nothing that a job is given, says or
// writes stands in an object of the cluster or in a log of its kubelets. A program's arguments and environment go the same way.
//
// A cluster has no lazy /in. Before a job begins, the driver reads all that lies under its /in, so that the job has risen to the join of it all.
//
// The program runs under the same user as the binary beside it, and may do to it what it likes. It gains nothing by that: what comes back is taken as
// the program's own words, within limits, and whatever it read was read before.
//
// Pods of one share (subject, START, MAX) are in a namespace of their own. Its name is drawn from a key that the driver makes when it is made, so that
// who sees the cluster's objects cannot tell by trial whose they are. A driver that is made removes what an earlier one with the same owner left.
package kube
