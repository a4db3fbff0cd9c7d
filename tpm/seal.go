package tpm

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"redoubt"
)

// Method is what a keyring names a TPM by.
const Method = "tpm2"

// Limits of a PIN.
const (
	MinPINBytes = 6  // a million guesses, and the TPM locks itself after a few
	MaxPINBytes = 32 // a TPM's authorization value is as long as its hash at most
)

const (
	halfBytes  = 32
	firstIndex = 0x01810000 // NV indexes that owners may define (TCG registry of reserved handles): ours lie here
	indexes    = 1 << 16
	indexTries = 32 // of random ones: as many nodes as a TPM has memory for do not take 32 of 65,536
)

// Seal holds a root by a TPM: keys.Unlock and keys.Keeper.
type Seal struct {
	Chip
	PCRs    PCRs                   // of Wrap; an envelope knows its own
	WithPIN bool                   // Wrap takes a PIN; an envelope knows whether it needs one
	PIN     func() ([]byte, error) // asked once for each Wrap and Unwrap that needs it; what it returns is overwritten after use
}

// Method implements keys.Unlock.
func (Seal) Method() string { return Method }

// Wrap seals root to the machine as it runs now, with a half of the key in the TPM's memory. Denied: the TPM refuses.
// Unavailable: there is none.
func (s Seal) Wrap(root []byte) ([]byte, error) {
	const op = "tpm.Wrap"
	if len(s.PCRs) == 0 {
		return nil, &redoubt.Error{Op: op, Kind: redoubt.Invalid, Err: errors.New("no PCR is named")}
	}
	e := &envelope{policy: policy{pcrs: s.PCRs, pin: s.WithPIN}}
	pin, err := s.pin(op, s.WithPIN)
	if err != nil {
		return nil, err
	}
	defer clear(pin)
	halves := make([]byte, 2*halfBytes)
	defer clear(halves)
	if _, err := rand.Read(halves); err != nil {
		return nil, &redoubt.Error{Op: op, Err: err}
	}
	err = s.with(op, func(t transport.TPM, srk *storageRoot) error {
		if e.values, err = readPCRs(t, e.pcrs); err != nil {
			return err
		}
		maker, err := property(t, tpm2.TPMPTManufacturer)
		if err != nil {
			return err
		}
		binary.BigEndian.PutUint32(e.maker[:], maker)
		e.root = srk.name.Buffer
		digest, err := e.digest()
		if err != nil {
			return err
		}
		if err := srk.sealHalf(e, digest, pin, halves[:halfBytes]); err != nil {
			return err
		}
		return srk.keepHalf(e, digest, pin, halves[halfBytes:])
	})
	if err != nil {
		return nil, err
	}
	aead, err := rootCipher(halves)
	if err != nil {
		return nil, &redoubt.Error{Op: op, Err: err}
	}
	e.sealed = aead.Seal(nil, nil, root, e.head())
	return e.encode(), nil
}

// Unwrap opens what Wrap made. Denied: another TPM, other software was started, or a wrong PIN. Erased: the TPM's half
// is gone, by Forget. Unavailable: there is no TPM.
func (s Seal) Unwrap(in []byte) ([]byte, error) {
	const op = "tpm.Unwrap"
	e, err := parseEnvelope(in)
	if err != nil {
		return nil, err
	}
	pin, err := s.pin(op, e.pin)
	if err != nil {
		return nil, err
	}
	defer clear(pin)
	halves := make([]byte, 0, 2*halfBytes)
	defer func() { clear(halves) }()
	err = s.with(op, func(t transport.TPM, srk *storageRoot) error {
		if err := s.sameMachine(op, t, srk, e); err != nil {
			return err
		}
		sealed, err := srk.openHalf(e, pin)
		if err != nil {
			return err
		}
		defer clear(sealed)
		kept, err := srk.readHalf(e, pin)
		defer clear(kept)
		halves = append(append(halves, sealed...), kept...)
		return err
	})
	if err != nil {
		return nil, err
	}
	aead, err := rootCipher(halves)
	if err != nil {
		return nil, &redoubt.Error{Op: op, Err: err}
	}
	root, err := aead.Open(nil, nil, e.sealed, e.head())
	if err != nil {
		return nil, &redoubt.Error{Op: op, Object: s.Path, Kind: redoubt.Denied, Err: errors.New("what the TPM gives does not open the root: its memory or the file was altered"), Hint: byRecovery}
	}
	return root, nil
}

// Forget removes the TPM's half, and looks that it is gone. An envelope of another TPM has none here.
func (s Seal) Forget(in []byte) error {
	const op = "tpm.Forget"
	e, err := parseEnvelope(in)
	if err != nil {
		return err
	}
	return s.with(op, func(t transport.TPM, srk *storageRoot) error {
		if !bytes.Equal(srk.name.Buffer, e.root) {
			return nil
		}
		return srk.forgetHalf(e)
	})
}

// with has do work with the TPM and its storage root key.
func (s Seal) with(op string, do func(transport.TPM, *storageRoot) error) error {
	t, err := s.open(op)
	if err != nil {
		return err
	}
	defer t.Close()
	srk, err := loadRoot(t)
	if err == nil {
		defer srk.unload()
		err = do(t, srk)
	}
	if err != nil {
		return refusal(op, s.Path, err)
	}
	return nil
}

// sameMachine says before the TPM is asked why it would refuse: of itself it does not tell another TPM from a damaged
// file, nor which PCR changed. It is the TPM that refuses, whatever this says.
func (s Seal) sameMachine(op string, t transport.TPM, srk *storageRoot, e *envelope) error {
	if !bytes.Equal(srk.name.Buffer, e.root) {
		return &redoubt.Error{Op: op, Object: s.Path, Kind: redoubt.Denied, Err: errors.New("it was sealed by another TPM, or this one was cleared since"), Hint: byRecovery}
	}
	now, err := readPCRs(t, e.pcrs)
	if err != nil {
		return err
	}
	if changed := e.changed(now); len(changed) > 0 {
		return &redoubt.Error{Op: op, Object: s.Path, Kind: redoubt.Denied, Err: fmt.Errorf("the machine was not started as when it was sealed: PCR %s changed", changed),
			Hint: "start the software that it was sealed under; if the change was yours, " + byRecovery}
	}
	return nil
}

// pin asks for the PIN where one is needed.
func (s Seal) pin(op string, needed bool) ([]byte, error) {
	if !needed {
		return nil, nil
	}
	if s.PIN == nil {
		return nil, &redoubt.Error{Op: op, Kind: redoubt.Denied, Err: errors.New("the TPM's PIN is needed")}
	}
	pin, err := s.PIN()
	if err != nil {
		return nil, err
	}
	// A zero byte would end it early: authorization values are compared without those that they end in (Part 1, 19.6.5).
	if len(pin) < MinPINBytes || len(pin) > MaxPINBytes || bytes.IndexByte(pin, 0) >= 0 {
		clear(pin)
		return nil, &redoubt.Error{Op: op, Kind: redoubt.Invalid, Err: fmt.Errorf("a PIN has %d to %d bytes, none of them zero", MinPINBytes, MaxPINBytes)}
	}
	return pin, nil
}

// rootCipher is what the root is sealed under: a key of both halves.
func rootCipher(halves []byte) (cipher.AEAD, error) {
	if len(halves) != 2*halfBytes {
		return nil, errors.New("the TPM gave halves of another length")
	}
	key, err := hkdf.Key(sha256.New, halves, nil, "redoubt tpm root v1", 32)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}
