package diode

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

const largePage = 2 << 20 // of amd64, and of arm64 with pages of 4 KiB

// inLargePages asks for pages of 2 MiB where they fit into b: one fault in place of 512. The kernel gives them as it has them, and small ones else
// (madvise(2), MADV_HUGEPAGE).
func inLargePages(b []byte) {
	at := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	from := int(-at & (largePage - 1))
	if whole := (len(b) - from) / largePage * largePage; whole > 0 {
		_ = unix.Madvise(b[from:from+whole], unix.MADV_HUGEPAGE)
	}
}
