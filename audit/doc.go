// Package audit keeps the record of every decision so that nobody, the operator
// included, can alter, drop or reorder it unseen.
//
// An entry is one decision. The enclave commits entries in its store's append stream,
// numbered from 0, in the same batch as what they speak of. Just behind, a Log builds a
// Merkle tree over the stream (RFC 6962 hashes, C2SP tlog-tiles of height 8) and signs
// checkpoints of it (C2SP signed notes, Ed25519). Verify reads everything back and says
// which entry or tile is wrong; proofs hold for one entry, or between two checkpoints,
// with nothing else at hand. docs/spec/audit.md gives every byte.
//
// # What it shows and what it does not
//
// Whatever a checkpoint covers cannot change without its signer. Whoever holds the
// signing key and the whole disk could write another history: that is found by the
// checkpoints that others keep (Verify's trusted), so they must travel. Tamper-evident
// is not complete: an entry that was never recorded leaves no trace, except that a
// session which did not end cleanly shows as a gap.
//
// A checkpoint tells its reader how many entries there are and when it was signed. What
// goes to a lower level must not, so the enclave sends checkpoints downward on a fixed
// schedule as salted hashes, or not at all (RULES 3.5); this package does not decide that.
//
// # Lock order
//
// Recorder: the flush token, then mu. Log has one mutex.
package audit
