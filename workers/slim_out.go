//go:build !slim

package workers

// built is nothing: what is built without make runs modules by itself.
var built string
