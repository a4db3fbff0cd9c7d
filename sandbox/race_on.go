//go:build race

package sandbox

// instrumented tells that the race detector is built in, which maps terabytes as shadow: memory limits cannot be set then. No such
// binary is ever deployed.
const instrumented = true
