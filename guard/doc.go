// Package guard is the only path between two enclaves. What goes up it raises by itself; what goes down it releases after two
// filters and two people. It holds neither side's keys: it is handed contracts of the root, and each side decides for itself.
//
// # Raise
//
// [Feeder] is the low half and [Taker] the high half of a raise: two processes, joined by one-way datagrams (package carry/diode). The low
// node writes what it has not yet handed over as bundles that are sealed to the high node, so that neither half can read or alter them.
// Nothing comes back: the low half knows what it holds and what it sent, and no more. It keeps no bundle on a disk, and asks the low node again
// for what it lost.
//
// # Release
//
// [Releaser] takes a request through a pipeline that is one straight line, in which every step is always invoked:
//
//	open → policy → type → filter → filter → words → verdict        and, when two reviewers have signed
//	open → signatures → target → receipt
//
// The two filters of a type come from different code bases and run in processes of their own ([Filter]; package guard/filter). What leaves is
// what the second wrote anew. The source asks the reviewers, and the target checks what they signed: a guard that was taken over can
// withhold, and can release nothing.
package guard
