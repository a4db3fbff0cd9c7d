// Package estate is the declared whole: one strict, versioned YAML file that names the
// marking policy, the nodes, the people and what each may do.
//
// [Read] takes a file apart by hand, node by node, so that every fault is found in one
// reading and told with its line and column ([Faults]). Nothing is guessed and nothing
// is skipped: an unknown field, a key given twice, an anchor, a second document or a
// noun that is not built yet makes the file no estate at all.
//
// An estate takes effect when two of its security officers have signed its [Estate.Digest]
// ([Signatures]); once one is in force, two officers of the one in force sign what
// replaces it ([Verify]). So who holds the disk, the binary and the file changes nothing.
//
//	e, err := estate.Load("estate.yaml") // err is estate.Faults when the file can be read and is wrong
//	err = estate.Verify(e, nil, sigs)
//	for _, c := range estate.Plan(old, e) { fmt.Println(c) }
package estate
