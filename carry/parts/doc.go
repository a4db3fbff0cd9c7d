// Package parts splits a file to the size of a medium and puts it together again, also when parts are lost or damaged: Reed–Solomon
// across the parts, in stripes, so that as many parts as there are parity parts may be gone at every place of the file.
//
// It repairs accidents. Its checksums have no key: whoever alters parts on purpose makes it give another file, which the
// strict reader (package bundle) refuses. So repair comes before that reader, and this package is trusted with nothing.
// docs/spec/parts.md has the format.
package parts
