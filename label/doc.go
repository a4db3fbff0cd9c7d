// Package label is the lattice of markings: what Redoubt decides every access by.
//
// A [Label] is one point of an order, compiled from a marking policy to bits. It has three parts that
// count and several that are only shown:
//
//	classification      SECRET                      how high
//	categories          SI-G ABCD/TK, RD, ATOMAL    what one must be read into; all of them are needed
//	audience            REL TO USA, GBR             the explicit set of nations that may read, or ALL
//	shown only          ORCON, PROPIN, FGI, LES …   handling marks, the owner, how the audience was spelled
//
// A dominates B when A's classification is at least B's, A's categories include B's and A's audience is
// within B's. So SECRET, which is for the owner alone, is above SECRET//REL TO USA, GBR; and a subject of
// one nation, whose audience is that nation, reads what names it.
//
//	usa, err := label.Builtin("USA")
//	l, err := usa.Parse("S//SI/TK//NF")            // any spelling; err is *ParseError, each fault with its place
//	l.Banner()                                     // SECRET//SI/TK//NOFORN
//	who, err := usa.Clearance("TOP SECRET//SI/TK", "USA")
//	who.Dominates(l)                               // true
//
// # The audience
//
// It is stored as the nations that may read, never as those that may not: a nation that the policy
// learns of later is in no old set. FVEY, ACGU and TEYE are read as their members; NATO and every other
// group is one opaque atom, until its membership is signed data. Classified material without REL TO is
// for its owner alone; NOFORN is the same point spelled otherwise. UNCLASSIFIED without a caveat on
// release is for ALL. Handling marks never touch the audience, save those that force NOFORN (HCS, EXDIS,
// NODIS, SBU-NF, LES-NF).
//
// Joining the material of owners that share no reader leaves an audience of nobody. Such a label is a
// legal point, near the top of the order: it dominates what it should, and no clearance dominates it, for
// a subject always has a nation. Only a release resolves it.
//
// Some audiences that joins, meets and clearances produce have no spelling in any marking manual. They
// are written `AUDIENCE GBR`, `AUDIENCE NONE` or `AUDIENCE ALL`, as the last segment, in nation order;
// Parse reads that segment too, and an audience that has an ordinary spelling is always written in it.
//
// # The law of the order
//
// Over the labels of one policy Dominates is reflexive and transitive, and antisymmetric up to
// [Label.Equivalent]; [Join] is the least upper and [Meet] the greatest lower bound. The zero Label and a
// label of another policy stand outside: they dominate nothing and nothing dominates them.
//
// # Policies
//
// A [Policy] is data: an XML SPIF 2.1 file, read by [ReadSPIF]. Its vocabulary is closed: what it does not name
// is refused. The built-in ones stand in policies/ with their public sources. The grammar is code: that of
// the United States banner line in usa*.go, and a plain one for all others in plain.go.
//
// Everything here is immutable once made and safe for use by many goroutines at once.
package label
