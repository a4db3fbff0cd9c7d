// Package redoubt holds the nouns and the service contracts of Redoubt: a nation's
// own cloud for every classification level, in one binary.
//
// Everything that a front end may ask of an enclave is an interface here, and every
// value that crosses such an interface is a type here; so a reader who knows this
// package knows what the system can be asked to do. Who decides is package access,
// what is decided about is package label, and who does the work is package enclave,
// which alone may import the store.
//
// Words mean what docs/terms.md says they mean.
package redoubt
