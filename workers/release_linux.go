package workers

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// release gives the kernel back the memory of what was mapped from a file and is not written to: should it be read again, it comes from there. Only
// whole pages go; what shares one with something else stays.
func release(mapped []byte) {
	page := uintptr(os.Getpagesize())
	begin := uintptr(unsafe.Pointer(unsafe.SliceData(mapped)))
	skip, end := (page-begin%page)%page, uintptr(len(mapped))-(begin+uintptr(len(mapped)))%page
	if uintptr(len(mapped)) > skip+page && end > skip {
		_ = unix.Madvise(mapped[skip:end], unix.MADV_DONTNEED) // else it stays, as it did
	}
}
