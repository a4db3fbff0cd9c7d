// Package bundle is the file that crosses an air gap: signed by the node that made it, sealed to the nodes that it is for,
// and numbered for each of them, so that a lost or repeated stick is noticed. What is inside it does not know.
//
// A file is a head in clear, the sealed content, and a trailer with the signature (docs/spec/bundle.md has every byte).
// Without a key it tells estate, maker, recipients, their numbers, two times and its size, and no label, name or count of any.
//
// Reading goes head → addressed to us → signed by its maker over every sealed byte (Verify) → next in its numbering
// (Bundle.Follows) → opened (Bundle.Open). Nothing is opened before it is verified, and what is opened is held against what was
// verified again, piece by piece, so that a medium that gives other bytes at the second reading gains nothing.
// The caller decompresses and applies; until then there is nothing to undo.
//
// A tagged bundle, which has one recipient, is signed over the tags of its sealed chunks in place of their bytes, and each chunk is
// authenticated as it is opened (docs/adr/0045). It is written and read by who asks for that, and by nobody else.
//
// Verify, Inspect and Bundle may be used by many at once; a Writer by one.
package bundle
