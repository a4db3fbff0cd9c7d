// Package node assembles one node of an estate: keys, store, enclave and front ends. It is
// the only place that wires, so it is the only one to import enclave and to open store drivers.
//
// # The state directory
//
//	DIR/.lock                 held while `up` or a change of the estate runs
//	DIR/.exercise/            an exercise estate only; absent elsewhere
//	    key keyring           the key file and what it opens
//	    sealed                the estate and every subject's private key
//	DIR/NODE/
//	    lock                  held while the node runs
//	    keyring               package keys; in an exercise, key lies beside it; by what it is held shows
//	    estate                sealed: the estate in force, with its signatures
//	    authority ca.pem      sealed: the key of the node's certificate authority; its certificate
//	    ports                 which ports were chosen for addresses with port 0
//	    runtime.json          pid, URLs and owner's token of the running node
//	    store/                the engine's files
//	    log/                  slog JSON: constant messages, no names, no markings
//
// Nothing in it can be read but node names (as folder names), ports, pids, public certificates and
// the token of a run, which opens the node's description and nothing else; a test plants names, markings and content and looks for them.
//
// # Lock order
//
// DIR/.lock, then DIR/NODE/lock, then the keyrings' own.
package node
