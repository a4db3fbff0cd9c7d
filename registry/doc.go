// Package registry is a node's registry of container images: the OCI Distribution API, version 1.1, over labelled objects. An image is pushed
// into an ordinary bucket; each of its blobs, its manifests and its tags is a version there, with the label of the credential that pushed it. So
// a pull sees what its credential dominates, a tag of the same name stands once for each label, images travel to devices and over guards as
// versions do, and nothing here decides any of that: the services behind it do, on every verb. package image has the keys, and reads them.
//
// # One request, from the wire to the contract
//
//	ServeHTTP      names the request, and catches what goes wrong
//	authenticate   Basic with REDOUBT_TOKEN as its password, or Bearer
//	route          the one table of paths, from the right: a repository's name may hold "blobs" and "manifests"
//	handler        one function an operation: read what was asked, call the service, write the answer
//	fail           the one way out for errors, through the one table in errors.go
//
// # What a client learns
//
// What it may not know of has the answer of what never was, to the byte. Whether a blob "is there already" is asked of what the client dominates
// alone: nothing is shared between labels, however often it is pushed.
//
// # What is believed
//
// Content is held to its digest before it is committed, and again when it is read: S3 clients write the same keys.
//
// Lock order: Registry.mu is never held while a session's own lock is waited for.
//
// docs/spec/registry.md has the operations, limits and keys.
package registry
