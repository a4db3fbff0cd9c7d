// Package diode sends bundles one way: as datagrams with parity across them and with a manifest that repeats, so that nothing ever
// comes back and the far side still puts whole files together.
//
// The manifest of a transfer is the bundle without its content (bundle.Outline): the head and the end that its maker signed, and the
// digest of each 4 MiB of what is sealed. So who sends holds no node's key and signs nothing, and who receives can hold every
// piece against the maker's own signature before it becomes a file. A transfer's name is the hash of its manifest.
//
// A block is 4 MiB of sealed content, cut into as many shards as fit a datagram each, with Reed–Solomon parity behind them; blocks are
// interleaved, so that a burst takes a little of several. Each datagram carries a tag under a key that both sides share, where they
// share one: what has another tag is dropped before anything is done with it. Without a key, forged datagrams
// can spoil blocks, which are found out by their digest and awaited again; they never become part of a file.
//
// Sender never reads and Stage never writes to the network: the one is given an io.Writer and the other a Source, which has no
// way to send. Stage keeps what came on disk at once, so that it goes on where it was killed. Nothing is opened
// here: what comes is sealed, and the strict reader (package bundle) follows at the node. docs/spec/diode.md has the format.
//
// A Stage may be used by many at once; no file is read or digested under Stage.mu but for single shards. Where it is told to, bundles come together in its
// memory instead, and their files are made durable a little later.
// A Sender is used by one, who may send another load between the datagrams of one.
package diode
