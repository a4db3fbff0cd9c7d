package diode

// Room is n bytes of memory for what is read whole and soon over. Memory that is touched for the first time costs as much as what is done with it, where the
// kernel gives it by pages of 4 KiB; more so in a virtual machine.
func Room(n int) []byte {
	b := make([]byte, n)
	inLargePages(b)
	return b
}
