// Package access is the reference monitor: the one function that decides.
//
// [Monitor.Check] takes every fact that a decision rests on in one [Request] and gives a [Decision]. It holds
// no state, asks nobody and allocates nothing for what it allows, so that it can be asked on every version,
// everywhere. Facts that are not given are zero, and zero values refuse: an unset label dominates nothing, a
// subject that was not resolved has no clearance, an action that is not in the table has no class.
//
// The order of the checks is the order of their weight, and the first that refuses ends it:
//
//  1. the credential is live, its subject is known and current, and its working label lies within the
//     subject's clearance and the node's range;
//  2. the labels (RULES 2.1, 2.3, 3.4): no read up, no write down, alter only at the label it was made at, officers'
//     records only at the ceiling where they lie;
//  3. the roles: what the subject is for, and the right to go past GOVERNANCE retention;
//  4. reserved names and read-only buckets: for the node's own subject alone, and for what a guard brought;
//  5. need to know: a closed bucket wants a grant, and a denying grant wins over any other;
//  6. the estate's own rules, which can only deny.
//
// Nothing later can undo what an earlier check refused, and there is no role, grant or setting that reads
// above a label: an administrator is refused by the same line as everybody else.
//
// What a refused caller may know is part of the decision. Where the labels or need to know hide an object,
// Known is false, Kind is NotFound, and the rule is for the audit log only.
//
// Everything here is immutable and may be called by many goroutines at once.
package access
