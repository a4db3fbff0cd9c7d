// Package replica keeps two nodes' journals in step over a link: what one has and the other is to have is sent, decided anew
// where it arrives, made durable and acknowledged. It holds contracts of the root alone, so nothing that it does
// goes round either enclave's reference monitor; a label set above the link's bound does not exist for it.
//
// A Session goes hello → summary → want → send → Journal.Apply → ack (Run in session.go):
//
//   - hello: both say who they are and which life of their state they are in. Who lost its state, or meets
//     somebody who did, forgets what was acknowledged.
//   - summary and want, for a label set of which nothing is acknowledged: fingerprints of ranges of the set's
//     stamps, divided down to what differs (reconcile.go). In the steady state no question is asked: each side keeps, in its own
//     journal's numbers, how far the other has acknowledged.
//   - send: what is urgent first (queue.go), small versions together, each compressed against the version that its writer
//     built on where the peer is known to hold that (send.go).
//   - apply and ack: durable before it is acknowledged; refusals singly (receive.go).
//
// Nothing is kept here between sessions: what counts is in Journal and LinkState. The messages are in wire.go and docs/spec/replica.md.
//
// Locks: outbox.mu, ackQueue.mu and tally.mu; none is taken inside another, and nothing is called with one held.
package replica
