// Package enclave is the cloud of one classification level: the one place where a
// request is decided, done and recorded. It implements every service contract of the root package, and it alone
// imports the store, so nothing reaches the bytes around the reference monitor.
//
// Each operation is one function that reads as its own table of contents. A write goes
// mark, check, seal and stage, record, commit, count (PutObject in put.go); a read goes
// find, check, record, open (resolve and GetObject in read.go); a listing walks only what the reader
// dominates (ListObjects in list.go); a rotation or an erasure is put on record as a duty and brought to its end over
// crashes (erase.go); what changes people is planned by identity, committed with its audit
// entry and only then applied (people.go).
//
// The catalogue's layout is in layout.go, a version's record in record.go. Everything is kept by label set, the set of
// all versions of one label: a reader's cost and answers depend on the sets that its
// working label dominates and on no other.
//
// Lock order, outermost first: spillMu, readers.gate, releases.mu, peopleMu, bucketsMu, or rotateMu or links.deviceMu, links.mu or links.bundles, a bucket's gate,
// one name (keyLocks), a label set's epochGate, standingMu, a label set's boundMu. Nobody holds two names but who applies
// what a peer sent, who takes them in order, who ends a job: its record, then its outputs in order, behind their bucket's gate; who ends a
// release: what was rebuilt of it, then its record; and who exports by a consent: that, then the version. A job's own mutex lies
// outside of a bucket's gate and inside readers.gate; those of jobs, services and attempts are innermost, and so are readers.mu, which is taken before an
// attempt's, and releases.view. What takes long or waits for a
// client (a body, a backup's reader, a scrub) is done with none of them held but rotateMu; a spill's search holds spillMu.
package enclave
