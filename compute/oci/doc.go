// Package oci runs container images for jobs, on gVisor, which is embedded in our binary. It needs no engine, no daemon, no device and no privilege
// but user namespaces.
//
//	func main() {
//		oci.Enter() // in a process that a driver started it works there, and goes no further
//		sandbox.Enter(oci.Workers())
//		...
//	driver, err := oci.New(oci.Options{Images: registry})
//
// A run is these processes, each our own binary executed anew:
//
//	node       asks the registry, and the job for what the program reads and writes; the only one that holds keys
//	unpacker   (package sandbox) makes one read-only file system of an image's layers, in memory; once an image and share
//	keeper     the first process of namespaces of its own, of which it is root and nobody outside; serves /in and /out
//	gVisor     the kernel that the program has, in further namespaces with an empty root, no capability and gVisor's own system call filter
//
// Nothing of a job is on a disk in clear: the root is an EROFS image in sealed memory, what the program writes into its root and /tmp is gVisor's
// memory, and /out is a file system in memory that the keeper alone sees. (A machine that swaps must encrypt its swap, as for any other secret.)
//
// /in is lazy. The sandbox speaks gVisor's file protocol with the keeper, and the keeper asks the node for each name, listing and file when the
// program reaches for it: what it does not open raises nothing, and what lies beyond MAX answers as what is not there. There is no FUSE in it, and no
// descriptor of the machine's files in the sandbox.
//
// A sandbox is kept for a while after a run, and serves the same share again where its label could not rise; each run in it has a root, a /tmp
// and an /out of its own. An image that was unpacked for one share is not used for another. So nothing tells a job of what others did.
//
// With runc (Trusted), for trusted work alone, the keeper starts the program on the machine's kernel, and copies the image and /in before.
//
// When a run ends, for whatever reason, or its node is killed, its keeper is: it is the first of its process namespace, and everything in there,
// all mounts among it, goes with it.
package oci
