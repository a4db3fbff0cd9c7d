package sandbox

// Dynamic reports whether the tests were built with cgo.
var Dynamic = dynamic
