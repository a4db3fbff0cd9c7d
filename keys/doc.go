// Package keys holds an enclave's key hierarchy and seals content under it.
//
//	root            random; held by a passphrase, a key file or an injected Unlock
//	  └ enclave key random; never leaves the keyring; everything named is derived from it (HKDF-SHA256)
//	  └ label key   random, one per (label, epoch); destroying it erases all content under it
//	      └ data key random, one per version of an object; kept wrapped beside the version
//
// The keyring is one file. Nothing in it can be read without the root: labels, epochs
// and secrets lie in a body sealed under a fresh random body key at each rewrite, and
// that key is wrapped under the root. docs/spec/keys.md gives every byte.
//
// # What destroying a key means
//
// DestroyEpoch and DestroyLabel rewrite the keyring without the key, make that durable,
// and then overwrite the old file in place and sync it before it is unlinked. On a disk
// that writes in place this leaves no copy. A disk or file system that remaps blocks
// (flash, copy-on-write, snapshots, backups) may keep the old blocks; whoever has them
// still needs the root. So after destroying a key on such storage, change the unlock
// (ChangeUnlock) and destroy the old passphrase or key file: the old blocks then open
// for nobody. A keyring that somebody copied while its key was live stays readable to
// whoever holds that copy and its unlock; no software can take that back.
//
// # Memory
//
// Close overwrites every key that this package holds as bytes. The expanded AES
// schedules and copies made by the runtime are dropped for the garbage collector, not
// overwritten; swap and core dumps are for the operating system to forbid.
//
// # Lock order
//
// Keyring.mu, then identity.mu. The hot path (NewDataKey, DataKey, Rewrap under a known
// label) takes no lock: it reads an immutable ring through an atomic pointer.
package keys
