// Package filter has the filters of a guard: for each type of content two, from different code bases, each in a process of its own that
// the kernel walls in (package sandbox). What leaves is what the second wrote anew from what the first wrote anew.
//
//	type               first                            second
//	text/plain         this package                     ICU (uconv)
//	application/json   this package, JSON Schema        jq
//	application/xml    this package, XML Schema         libxml2 (xmllint)
//	text/csv           this package, a table's schema   CPython's csv
//	image/png          this package, noise              netpbm and libpng
//	image/jpeg         this package, noise              libjpeg-turbo
//	application/pdf    poppler: pages as pictures       this package, noise, a new PDF
//	application/zip    this package, members by type    libarchive (bsdtar)
//
// docs/filters.md tells what each verifies and rebuilds, and what neither can promise.
//
// # The line
//
// The first filter is Go code, which reads content that may be hostile, and writes from what it understood a content in one form: one spelling
// of every value, nothing that is not looked at. The second is a program of this machine that was written by others and reads that form alone.
// Where both are to write the same, they are held against each other, and a difference refuses.
//
// [Worker] must be the first that main calls: our own filters run in our own binary, executed anew.
//
//	set, err := filter.New(filter.Options{})
//	pair, err := set.Pair("application/json")
//
// A type of which this machine lacks a filter has no pair, and the error names the package to install.
package filter
