package tpm

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"redoubt"
)

// PCRs are platform configuration registers of the SHA-256 bank, ascending.
type PCRs []uint

// DefaultPCRs bind to firmware (0), option ROMs (2), what was booted (4) and the Secure Boot policy (7).
var DefaultPCRs = PCRs{0, 2, 4, 7}

const pcrCount = 24 // of a PC client's TPM

// ParsePCRs reads a list such as "0,2,4,7".
func ParsePCRs(text string) (PCRs, error) {
	bad := func(why string) error {
		return &redoubt.Error{Op: "tpm.ParsePCRs", Object: text, Kind: redoubt.Invalid, Err: errors.New(why), Hint: "such as 0,2,4,7"}
	}
	var all PCRs
	for _, word := range strings.Split(text, ",") {
		n, err := strconv.ParseUint(word, 10, 8)
		switch {
		case err != nil || n >= pcrCount || strconv.FormatUint(n, 10) != word:
			return nil, bad("a PCR is a number from 0 to 23")
		case n == 16 || n == 23:
			return nil, bad(fmt.Sprintf("anybody may reset PCR %d: it binds nothing", n))
		case slices.Contains(all, uint(n)):
			return nil, bad(fmt.Sprintf("PCR %d is named twice", n))
		}
		all = append(all, uint(n))
	}
	slices.Sort(all)
	return all, nil
}

func (p PCRs) String() string {
	var words []string
	for _, n := range p {
		words = append(words, strconv.FormatUint(uint64(n), 10))
	}
	return strings.Join(words, ",")
}

// policy is under which condition the TPM gives its halves out.
type policy struct {
	pcrs   PCRs
	values [][sha256.Size]byte // of pcrs
	pin    bool
}

func (p policy) selection() tpm2.TPMLPCRSelection {
	return tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(p.pcrs...)}}}
}

// digest is the policy as objects and NV indexes carry it. We compute it ourselves, of the values that we sealed to.
func (p policy) digest() (tpm2.TPM2BDigest, error) {
	c, err := tpm2.NewPolicyCalculator(tpm2.TPMAlgSHA256)
	if err != nil {
		return tpm2.TPM2BDigest{}, err
	}
	var all []byte
	for _, v := range p.values {
		all = append(all, v[:]...)
	}
	sum := sha256.Sum256(all)
	err = tpm2.PolicyPCR{Pcrs: p.selection(), PcrDigest: tpm2.TPM2BDigest{Buffer: sum[:]}}.Update(c)
	if err == nil && p.pin {
		err = tpm2.PolicyAuthValue{}.Update(c)
	}
	return tpm2.TPM2BDigest{Buffer: c.Hash().Digest}, err
}

// readPCRs gives the values of PCRs now. NotImplemented: the TPM has no SHA-256 bank.
func readPCRs(t transport.TPM, pcrs PCRs) ([][sha256.Size]byte, error) {
	values := make([][sha256.Size]byte, len(pcrs))
	for i, n := range pcrs { // one at a time: a TPM gives eight at most, and may give fewer
		got, err := tpm2.PCRRead{PCRSelectionIn: policy{pcrs: PCRs{n}}.selection()}.Execute(t)
		if err != nil {
			return nil, err
		}
		if len(got.PCRValues.Digests) != 1 || len(got.PCRValues.Digests[0].Buffer) != sha256.Size {
			return nil, &redoubt.Error{Op: "tpm.readPCRs", Kind: redoubt.NotImplemented, Err: fmt.Errorf("the TPM has no PCR %d in its SHA-256 bank", n),
				Hint: "turn the SHA-256 bank on, in the firmware's settings"}
		}
		copy(values[i][:], got.PCRValues.Digests[0].Buffer)
	}
	return values, nil
}

// changed are the PCRs that hold something else than what was sealed to.
func (p policy) changed(now [][sha256.Size]byte) (all PCRs) {
	for i, n := range p.pcrs {
		if p.values[i] != now[i] {
			all = append(all, n)
		}
	}
	return all
}
