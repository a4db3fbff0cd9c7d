// Package tpm holds a keyring's root by a TPM 2.0: the disk alone opens nothing, nor does the disk with another TPM, nor
// with the same one after other software was started on the machine.
//
// A Seal is a keys.Unlock (and keys.Keeper) of method "tpm2", which node and the commands hand in. The root is sealed
// under a key of two halves, and both are needed:
//
//   - one lies sealed in the envelope, as an object under the storage root key of the owner hierarchy (ECC P-256, from
//     the TCG's template, made anew at each use);
//   - one lies in the TPM's own memory, in an NV index. Forget removes it, and then the envelope and every copy of it,
//     wherever a disk has kept one, opens nothing on this machine either.
//
// Both are given out under one policy: the chosen PCRs of the SHA-256 bank hold what they held when it was sealed, and,
// when a PIN was set, the PIN, under the TPM's own protection against guessing. What crosses the bus is enciphered in
// sessions that are salted to the storage root key, whose name the envelope holds: whoever listens, or answers in the TPM's
// place, learns nothing when the node opens. Sealing trusts the TPM that answers then. docs/spec/tpm.md gives every byte.
//
// A Chip's Clock is what a device counts its lease by beside its own count: a disk that is put back does not turn it back.
//
// It takes github.com/google/go-tpm, and is no part of the trusted base for that: what it says is believed as far as the
// root that it gives opens the keyring.
package tpm
