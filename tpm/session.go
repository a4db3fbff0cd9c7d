package tpm

import (
	"crypto/fips140"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

const nonceBytes = 16 // at least half the session's hash (TPM 2.0 Part 1, 19.6.4)

// storageRoot is the storage root key, loaded, and the end of the sessions that are salted to it.
type storageRoot struct {
	tpm    transport.TPM
	handle tpm2.TPMHandle
	name   tpm2.TPM2BName
	public tpm2.TPMTPublic
}

// loadRoot makes the storage root key, which is the same each time until the TPM is cleared, and loads it.
func loadRoot(t transport.TPM) (*storageRoot, error) {
	made, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(t)
	if err != nil {
		return nil, err
	}
	r := &storageRoot{tpm: t, handle: made.ObjectHandle, name: made.Name}
	public, err := made.OutPublic.Contents()
	if err == nil {
		r.public = *public
		// The name that the TPM gives must be that of the key that it shows: it is what envelopes are held to.
		var name *tpm2.TPM2BName
		if name, err = tpm2.ObjectName(public); err == nil {
			r.name = *name
		}
	}
	if err != nil {
		r.unload()
		return nil, err
	}
	return r, nil
}

func (r *storageRoot) unload() {
	_, _ = tpm2.FlushContext{FlushHandle: r.handle}.Execute(r.tpm) // a resource manager does it too, when it is let go of
}

// salted is a session for one command that proves auth.
func (r *storageRoot) salted(auth []byte) tpm2.Session {
	return session{tpm2.HMAC(tpm2.TPMAlgSHA256, nonceBytes, tpm2.Auth(auth), tpm2.Salted(r.handle, r.public))}
}

// secret is salted with the command's first parameter enciphered, which a command without one does not take.
func (r *storageRoot) secret(auth []byte) tpm2.Session {
	return session{tpm2.HMAC(tpm2.TPMAlgSHA256, nonceBytes, tpm2.Auth(auth), tpm2.Salted(r.handle, r.public), tpm2.AESEncryption(128, tpm2.EncryptIn))}
}

// underPolicy has do work in a session that satisfies p, as far as the TPM agrees. What it answers is enciphered.
func (r *storageRoot) underPolicy(p policy, pin []byte, do func(tpm2.Session) error) error {
	with := []tpm2.AuthOption{tpm2.Salted(r.handle, r.public), tpm2.AESEncryption(128, tpm2.EncryptOut)}
	if p.pin {
		with = append(with, tpm2.Auth(pin))
	}
	plain, end, err := tpm2.PolicySession(r.tpm, tpm2.TPMAlgSHA256, nonceBytes, with...)
	if err != nil {
		return err
	}
	defer func() { _ = end() }() // the TPM has let go of it, where the command failed
	if _, err := (tpm2.PolicyPCR{PolicySession: plain.Handle(), Pcrs: p.selection()}).Execute(r.tpm); err != nil {
		return err
	}
	if p.pin {
		if _, err := (tpm2.PolicyAuthValue{PolicySession: plain.Handle()}).Execute(r.tpm); err != nil {
			return err
		}
	}
	return do(session{plain})
}

// session is one of the library's, whose parameters are enciphered with AES-CFB, as the TPM's specification has it (Part 1, 21.3).
// CFB is an approved mode of operation (NIST SP 800-38A) that Go's FIPS module does not contain, and that it therefore refuses where it
// is enforced. So that much, and no more, is done without enforcement: the block cipher, the key agreement, derivation and HMACs of
// the session stay under it. Nothing rests on it but that who listens on the bus between processor and TPM learns nothing.
type session struct{ tpm2.Session }

func (s session) Encrypt(parameter []byte) (err error) {
	fips140.WithoutEnforcement(func() { err = s.Session.Encrypt(parameter) })
	return err
}

func (s session) Decrypt(parameter []byte) (err error) {
	fips140.WithoutEnforcement(func() { err = s.Session.Decrypt(parameter) })
	return err
}
