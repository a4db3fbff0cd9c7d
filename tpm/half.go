package tpm

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"

	"github.com/google/go-tpm/tpm2"

	"redoubt"
)

// The two halves of the key that the root is sealed under, as the TPM holds them. A PIN is the authorization value of both,
// and then both are subject to the TPM's protection against guessing.

// sealHalf has the TPM seal half into the envelope.
func (r *storageRoot) sealHalf(e *envelope, policy tpm2.TPM2BDigest, pin, half []byte) error {
	made, err := tpm2.Create{
		ParentHandle: tpm2.AuthHandle{Handle: r.handle, Name: r.name, Auth: r.secret(nil)},
		InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{
			UserAuth: tpm2.TPM2BAuth{Buffer: pin}, Data: tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: half})}},
		InPublic: tpm2.New2B(tpm2.TPMTPublic{Type: tpm2.TPMAlgKeyedHash, NameAlg: tpm2.TPMAlgSHA256, AuthPolicy: policy,
			ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, NoDA: !e.pin}}),
	}.Execute(r.tpm)
	if err != nil {
		return err
	}
	e.public, e.private = made.OutPublic.Bytes(), made.OutPrivate.Buffer
	if len(e.public) > maxPartBytes || len(e.private) > maxPartBytes {
		return errors.New("the TPM gave a sealed object that is too large")
	}
	return nil
}

// openHalf has the TPM open what sealHalf made.
func (r *storageRoot) openHalf(e *envelope, pin []byte) (half []byte, err error) {
	loaded, err := tpm2.Load{
		ParentHandle: tpm2.AuthHandle{Handle: r.handle, Name: r.name, Auth: r.salted(nil)},
		InPrivate:    tpm2.TPM2BPrivate{Buffer: e.private}, InPublic: tpm2.BytesAs2B[tpm2.TPMTPublic](e.public),
	}.Execute(r.tpm)
	if err != nil {
		return nil, err
	}
	defer func() { _, _ = tpm2.FlushContext{FlushHandle: loaded.ObjectHandle}.Execute(r.tpm) }()
	err = r.underPolicy(e.policy, pin, func(s tpm2.Session) error {
		opened, err := tpm2.Unseal{ItemHandle: tpm2.AuthHandle{Handle: loaded.ObjectHandle, Name: loaded.Name, Auth: s}}.Execute(r.tpm)
		if err == nil {
			half = opened.OutData.Buffer
		}
		return err
	})
	return half, err
}

// indexPublic is how our NV indexes are made: read under the policy, written by who knows the PIN, and removed by the
// owner of the machine, which takes what they hold from everybody and gives it to nobody.
func (e *envelope) indexPublic(policy tpm2.TPM2BDigest) tpm2.TPMSNVPublic {
	return tpm2.TPMSNVPublic{NVIndex: tpm2.TPMHandle(e.index), NameAlg: tpm2.TPMAlgSHA256, AuthPolicy: policy, DataSize: halfBytes,
		Attributes: tpm2.TPMANV{NT: tpm2.TPMNTOrdinary, AuthWrite: true, PolicyRead: true, NoDA: !e.pin}}
}

// keepHalf has the TPM keep half in its memory, at an index that is free.
func (r *storageRoot) keepHalf(e *envelope, policy tpm2.TPM2BDigest, pin, half []byte) error {
	var err error
	for range indexTries {
		var at [2]byte
		if _, err := rand.Read(at[:]); err != nil {
			return err
		}
		e.index = firstIndex + uint32(binary.BigEndian.Uint16(at[:]))
		_, err = tpm2.NVDefineSpace{AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: r.secret(nil)},
			Auth: tpm2.TPM2BAuth{Buffer: pin}, PublicInfo: tpm2.New2B(e.indexPublic(policy))}.Execute(r.tpm)
		if !errors.Is(err, tpm2.TPMRCNVDefined) {
			break
		}
	}
	if err != nil {
		return err
	}
	at, _, err := r.indexNow(e)
	if err == nil {
		_, err = tpm2.NVWrite{AuthHandle: tpm2.AuthHandle{Handle: at.Handle, Name: at.Name, Auth: r.secret(pin)}, NVIndex: at,
			Data: tpm2.TPM2BMaxNVBuffer{Buffer: half}}.Execute(r.tpm)
	}
	if err != nil {
		return errors.Join(err, r.forgetHalf(e))
	}
	return nil
}

// readHalf reads what keepHalf kept.
func (r *storageRoot) readHalf(e *envelope, pin []byte) (half []byte, err error) {
	at, _, err := r.indexNow(e)
	if err != nil {
		return nil, err
	}
	err = r.underPolicy(e.policy, pin, func(s tpm2.Session) error {
		read, err := tpm2.NVRead{AuthHandle: tpm2.AuthHandle{Handle: at.Handle, Name: at.Name, Auth: s}, NVIndex: at, Size: halfBytes}.Execute(r.tpm)
		if err == nil {
			half = read.Data.Buffer
		}
		return err
	})
	return half, err
}

// forgetHalf removes the envelope's index, if it is there and is the one that keepHalf made: another's is left alone.
func (r *storageRoot) forgetHalf(e *envelope) error {
	at, public, err := r.indexNow(e)
	if errors.Is(err, redoubt.Erased) {
		return nil
	}
	if err != nil {
		return err
	}
	ours, err := e.digest()
	if err != nil || !bytes.Equal(public.AuthPolicy.Buffer, ours.Buffer) {
		return err
	}
	if _, err := (tpm2.NVUndefineSpace{AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: r.salted(nil)}, NVIndex: at}).Execute(r.tpm); err != nil {
		return err
	}
	if _, _, err := r.indexNow(e); !errors.Is(err, redoubt.Erased) {
		return errors.Join(errors.New("the TPM says that it removed the index, and has it still"), err)
	}
	return nil
}

// indexNow is the envelope's index as the TPM has it now. Erased: it has none.
func (r *storageRoot) indexNow(e *envelope) (tpm2.NamedHandle, *tpm2.TPMSNVPublic, error) {
	read, err := tpm2.NVReadPublic{NVIndex: tpm2.TPMHandle(e.index)}.Execute(r.tpm)
	if errors.Is(err, tpm2.TPMRCHandle) {
		return tpm2.NamedHandle{}, nil, &redoubt.Error{Op: "tpm.index", Kind: redoubt.Erased, Err: errors.New("the TPM no longer has its half of the key: the node was wiped, or sealed anew since"),
			Hint: "a keyring that was wiped opens nothing any more; of one that was sealed anew, use the file that is in force"}
	}
	if err != nil {
		return tpm2.NamedHandle{}, nil, err
	}
	public, err := read.NVPublic.Contents()
	if err != nil {
		return tpm2.NamedHandle{}, nil, err
	}
	return tpm2.NamedHandle{Handle: tpm2.TPMHandle(e.index), Name: read.NVName}, public, nil
}
