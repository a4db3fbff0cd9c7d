package sandbox

// Dynamic reports whether the tests were built with cgo.
var Dynamic = dynamic

// FD is where it lies.
func (b *Binary) FD() int { return int(b.file.Fd()) }
