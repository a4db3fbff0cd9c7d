// Package s3 is the S3 front end of a node: it turns HTTP requests into calls of the service contracts of
// package redoubt, and their answers into what S3 clients understand. It decides nothing about labels:
// the services behind it do, on every verb. It holds no state between requests.
//
// # One request, from the wire to the contract
//
//	ServeHTTP      names the request, sets its deadlines, and catches what goes wrong
//	parseTarget    which bucket and key, path style or virtual host; the path is never cleaned: a/../b is a key
//	route          the one table of operations; what is not offered stands in it by name
//	authenticate   SigV4 in the header or the query; a POST form carries its own
//	handler        one function an operation: read what was asked, call the service, write the answer
//	fail           the one way out for errors, through the one table in errors.go
//
// # What the client learns
//
// Of an error from a service only Kind, Rule and Hint leave this package, and of an Internal one nothing.
// NotFound has one text for each form of request (key, version, upload), whether the thing never was
// or may not be known of. Request IDs are random, so that they do not count other people's requests.
//
// # Content on its way in
//
// A payload reader computes every digest in one pass, and compares them before the service commits (Finish in
// redoubt.PutObject). The content digest of the signature, the chunk signatures of aws-chunked
// bodies, trailers, Content-MD5 and x-amz-checksum-* are all held to. Content that no signature covers is taken over
// TLS only.
//
// MD5 and SHA-1 are here because the protocol names them, as checksums against accidents, never
// as protection; so they run outside the enforcement of GODEBUG=fips140=only (crypto/fips140.WithoutEnforcement).
//
// The support table is docs/spec/s3.md.
package s3
