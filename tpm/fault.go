package tpm

import (
	"errors"

	"github.com/google/go-tpm/tpm2"

	"redoubt"
)

// byRecovery is what helps whenever the TPM rightly refuses.
const byRecovery = "open it by its recovery (--key-file FILE, or its passphrase) and seal it anew: redoubt key seal NODE --tpm"

// refusal says of a TPM's answer what people can do about it.
func refusal(op, path string, err error) error {
	e := &redoubt.Error{Op: op, Object: path, Kind: redoubt.Denied}
	switch {
	case errors.Is(err, tpm2.TPMRCLockout):
		e.Err = errors.New("the TPM is locked against guessing, after wrong PINs")
		e.Hint = "wait until it forgives one (minutes to hours, as it was set up), or " + byRecovery
	case errors.Is(err, tpm2.TPMRCAuthFail):
		e.Err = errors.New("wrong PIN")
		e.Hint = "give the right PIN: after a few wrong ones the TPM locks itself"
	case errors.Is(err, tpm2.TPMRCBadAuth):
		e.Err = errors.New("the TPM's owner hierarchy has a password")
		e.Hint = "take the password off the owner hierarchy; the seal does not rest on it"
	case errors.Is(err, tpm2.TPMRCPolicyFail), errors.Is(err, tpm2.TPMRCPCRChanged):
		e.Err = errors.New("the machine was not started as when it was sealed: the TPM's policy does not hold")
		e.Hint = "start the software that it was sealed under; if the change was yours, " + byRecovery
	case errors.Is(err, tpm2.TPMRCIntegrity):
		e.Err = errors.New("it was sealed by another TPM, or the file was altered")
		e.Hint = byRecovery
	case errors.Is(err, tpm2.TPMRCInitialize):
		e.Kind, e.Err = redoubt.Unavailable, errors.New("the TPM was not started by the machine's firmware")
		e.Hint = "an emulated TPM is started with: swtpm socket --tpm2 --flags not-need-init,startup-clear ..."
	case errors.Is(err, tpm2.TPMRCNVSpace):
		e.Kind, e.Err = redoubt.DiskFull, errors.New("the TPM's memory is full")
		e.Hint = "remove an NV index that nothing needs: tpm2_nvundefine"
	default:
		var other *redoubt.Error
		if errors.As(err, &other) {
			return err
		}
		e.Kind, e.Err = redoubt.Unavailable, err
		e.Hint = "the kernel's log may say more of the TPM; " + byRecovery
	}
	return e
}
