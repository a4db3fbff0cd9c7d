// Package identity knows the people of a node: who they are, what they are cleared for, which credentials
// act for them, what they need to know, and what has been revoked.
//
// The [Registry] holds all of it in memory and writes nothing. A mutation verifies everything, changes nothing
// that anybody can see, and returns the [Record]s that say what happened; the enclave commits them together
// with the audit entry and then calls [Registry.Apply]. So nothing takes effect that is not durable, and
// nothing is durable that was not decided. At start the same records come back through [Registry.Load], in any order.
//
// Secrets are derived from one node secret and the access key ID, and never stored: a stolen record store holds
// nothing that signs. Public keys are all that is known of people.
//
// What takes two officers (RULES 4.2): every change of a person. The two are different live officers, neither is
// the person concerned, and neither made the other an officer or gave the other a key. What takes one: revoking.
// Revocations only grow, and outlive what they revoke.
//
// # Locks
//
// There is one, Registry.mu. Subject, Live, SigningKey and Bearer take none. Mint may be called by many at once.
// Propose, Approve, Grant and the revocations verify against what has been applied: their caller keeps them in
// one line, from the call until Apply has returned.
package identity
