package tpm

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"redoubt"
	"redoubt/tpm/tpmtest"
)

var root = bytes.Repeat([]byte{0xA5, 0x5A}, 16)

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// measured starts a TPM in which firmware has measured something.
func measured(t *testing.T) *tpmtest.TPM {
	t.Helper()
	m := tpmtest.Start(t)
	measure(t, m)
	return m
}

func measure(t *testing.T, m *tpmtest.TPM) {
	t.Helper()
	for _, n := range DefaultPCRs {
		if err := m.Extend(n, byte(n)+1); err != nil {
			t.Fatal(err)
		}
	}
}

func sealAt(m *tpmtest.TPM) Seal { return Seal{Chip: Chip{m.Path}, PCRs: DefaultPCRs} }

func withPIN(m *tpmtest.TPM, pin string) Seal {
	s := sealAt(m)
	s.WithPIN, s.PIN = true, func() ([]byte, error) { return []byte(pin), nil }
	return s
}

func wantDenied(t *testing.T, err error, kind redoubt.Kind, words string) {
	t.Helper()
	e, ok := errors.AsType[*redoubt.Error](err)
	if !errors.Is(err, kind) || !ok || e.Hint == "" || !strings.Contains(err.Error(), words) {
		t.Errorf("got %v, want %v, saying %q, with a hint", err, kind, words)
	}
}

func TestWhatATPMSealedItOpensAlsoAfterTheMachineWasOff(t *testing.T) {
	m := measured(t)
	env := must[[]byte](t)(sealAt(m).Wrap(slices.Clone(root)))
	if bytes.Contains(env, root) {
		t.Error("the envelope holds the root")
	}
	for what, off := range map[string]func() error{"as it runs": nil, "off in order": m.Off, "power pulled": func() error { m.Kill(); return nil }} {
		if off != nil {
			if err := errors.Join(off(), m.On()); err != nil {
				t.Fatal(err)
			}
			measure(t, m)
		}
		got, err := Seal{Chip: Chip{m.Path}}.Unwrap(env)
		if err != nil || !bytes.Equal(got, root) {
			t.Errorf("%s: got %x, %v", what, got, err)
		}
	}
}

func TestAfterOtherSoftwareWasStartedNothingOpens(t *testing.T) {
	m := measured(t)
	env := must[[]byte](t)(sealAt(m).Wrap(slices.Clone(root)))
	if err := m.Extend(4, 0xEE); err != nil {
		t.Fatal(err)
	}
	_, err := sealAt(m).Unwrap(env)
	wantDenied(t, err, redoubt.Denied, "PCR 4 changed")

	// Who writes into the envelope what the PCRs hold now is refused by the TPM itself.
	e := must[*envelope](t)(parseEnvelope(env))
	forged := sha256.Sum256(append(slices.Clone(e.values[2][:]), bytes.Repeat([]byte{0xEE}, 32)...))
	copy(e.values[2][:], forged[:])
	_, err = sealAt(m).Unwrap(e.encode())
	wantDenied(t, err, redoubt.Denied, "policy does not hold")

	// A PCR that it is not sealed to may hold what it will.
	other := must[[]byte](t)(Seal{Chip: Chip{m.Path}, PCRs: PCRs{7}}.Wrap(slices.Clone(root)))
	if err := m.Extend(4, 0xEF); err != nil {
		t.Fatal(err)
	}
	must[[]byte](t)(sealAt(m).Unwrap(other))
}

func TestAnotherTPMOpensNothingNorDoesNone(t *testing.T) {
	m, other := measured(t), measured(t)
	env := must[[]byte](t)(sealAt(m).Wrap(slices.Clone(root)))
	_, err := sealAt(other).Unwrap(env)
	wantDenied(t, err, redoubt.Denied, "another TPM")

	// Who writes the other TPM's name into the envelope is refused by that TPM.
	e, o := must[*envelope](t)(parseEnvelope(env)), must[*envelope](t)(parseEnvelope(must[[]byte](t)(sealAt(other).Wrap(slices.Clone(root)))))
	e.root = o.root
	_, err = sealAt(other).Unwrap(e.encode())
	wantDenied(t, err, redoubt.Denied, "another TPM")

	_, err = Seal{Chip: Chip{t.TempDir() + "/none"}}.Unwrap(env)
	wantDenied(t, err, redoubt.Unavailable, "no TPM answers")
	if err := m.Do(func(tp transport.TPM) error {
		_, err := tpm2.Clear{AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHLockout, Auth: tpm2.PasswordAuth(nil)}}.Execute(tp)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	_, err = sealAt(m).Unwrap(env)
	wantDenied(t, err, redoubt.Denied, "cleared")
}

func TestAWrongPINIsDeniedAndAfterAFewTheTPMLocksItself(t *testing.T) {
	m := measured(t)
	env := must[[]byte](t)(withPIN(m, "246810").Wrap(slices.Clone(root)))
	if got := must[[]byte](t)(withPIN(m, "246810").Unwrap(env)); !bytes.Equal(got, root) {
		t.Error("another root came back")
	}
	_, err := sealAt(m).Unwrap(env)
	if !errors.Is(err, redoubt.Denied) || !strings.Contains(err.Error(), "PIN is needed") {
		t.Errorf("without a PIN: got %v", err)
	}
	_, err = withPIN(m, "246811").Unwrap(env)
	wantDenied(t, err, redoubt.Denied, "wrong PIN")
	if strings.Contains(err.Error(), "246811") {
		t.Error("the error tells the PIN")
	}
	for range 40 { // the emulated one locks after three
		if _, err = withPIN(m, "246811").Unwrap(env); strings.Contains(err.Error(), "locked") {
			break
		}
	}
	wantDenied(t, err, redoubt.Denied, "locked against guessing")
	_, err = withPIN(m, "246810").Unwrap(env)
	wantDenied(t, err, redoubt.Denied, "locked against guessing")
}

func TestAPINHasItsLengthAndNoZeroByte(t *testing.T) {
	m := measured(t)
	for pin, ok := range map[string]bool{"12345": false, "123456": true, strings.Repeat("7", 32): true, strings.Repeat("7", 33): false, "1234\x0056": false} {
		env, err := withPIN(m, pin).Wrap(slices.Clone(root))
		if ok != (err == nil) || err != nil && !errors.Is(err, redoubt.Invalid) {
			t.Errorf("%q: got %v", pin, err)
		}
		if err == nil {
			must[[]byte](t)(withPIN(m, pin).Unwrap(env))
			must[int](t)(0, sealAt(m).Forget(env))
		}
	}
}

func TestWhatWasForgottenOpensNoCopyOfItsEnvelope(t *testing.T) {
	m := measured(t)
	before := indexesOf(t, m)
	env, other := must[[]byte](t)(sealAt(m).Wrap(slices.Clone(root))), must[[]byte](t)(sealAt(m).Wrap(slices.Clone(root)))
	for range 2 { // again is no error
		if err := sealAt(m).Forget(slices.Clone(env)); err != nil {
			t.Fatal(err)
		}
	}
	_, err := sealAt(m).Unwrap(env)
	wantDenied(t, err, redoubt.Erased, "no longer has its half")
	must[[]byte](t)(sealAt(m).Unwrap(other))
	if got := indexesOf(t, m); got != before+1 {
		t.Errorf("the TPM has %d indexes, want %d", got, before+1)
	}

	// An index of the same number that somebody else made is not removed, and does not open it.
	e := must[*envelope](t)(parseEnvelope(env))
	if err := m.Do(func(tp transport.TPM) error {
		public := e.indexPublic(tpm2.TPM2BDigest{})
		public.Attributes.AuthRead = true
		_, err := tpm2.NVDefineSpace{AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)}, PublicInfo: tpm2.New2B(public)}.Execute(tp)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := sealAt(m).Forget(env); err != nil {
		t.Fatal(err)
	}
	if got := indexesOf(t, m); got != before+2 {
		t.Errorf("another's index was removed: %d, want %d", got, before+2)
	}
	if _, err := sealAt(m).Unwrap(env); err == nil {
		t.Error("it opens by another's index")
	}
	// Nor is the index of an envelope that another TPM sealed.
	far := measured(t)
	elsewhere := must[*envelope](t)(parseEnvelope(must[[]byte](t)(sealAt(far).Wrap(slices.Clone(root)))))
	elsewhere.index = must[*envelope](t)(parseEnvelope(other)).index
	if err := sealAt(m).Forget(elsewhere.encode()); err != nil {
		t.Fatal(err)
	}
	must[[]byte](t)(sealAt(m).Unwrap(other))
}

func TestAnIndexWithOtherContentDoesNotOpen(t *testing.T) {
	m := measured(t)
	env := must[[]byte](t)(sealAt(m).Wrap(slices.Clone(root)))
	e := must[*envelope](t)(parseEnvelope(env))
	if err := m.Do(func(tp transport.TPM) error {
		srk := must[*storageRoot](t)(loadRoot(tp))
		defer srk.unload()
		at, _, err := srk.indexNow(e)
		if err != nil {
			return err
		}
		_, err = tpm2.NVWrite{AuthHandle: tpm2.AuthHandle{Handle: at.Handle, Name: at.Name, Auth: tpm2.PasswordAuth(nil)}, NVIndex: at,
			Data: tpm2.TPM2BMaxNVBuffer{Buffer: make([]byte, halfBytes)}}.Execute(tp)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	_, err := sealAt(m).Unwrap(env)
	wantDenied(t, err, redoubt.Denied, "does not open the root")
}

func TestATPMWithoutRoomSaysSoAndKeepsNothing(t *testing.T) {
	m := measured(t)
	taken := uint32(0x01900000)
	if err := m.Do(func(tp transport.TPM) error {
		for size := uint16(2048); size > 0; {
			_, err := tpm2.NVDefineSpace{AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
				PublicInfo: tpm2.New2B(tpm2.TPMSNVPublic{NVIndex: tpm2.TPMHandle(taken), NameAlg: tpm2.TPMAlgSHA256, DataSize: size,
					Attributes: tpm2.TPMANV{NT: tpm2.TPMNTOrdinary, AuthWrite: true, AuthRead: true}})}.Execute(tp)
			switch {
			case errors.Is(err, tpm2.TPMRCNVSpace):
				size /= 2
			case err != nil:
				return err
			}
			taken++
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	before := indexesOf(t, m)
	_, err := sealAt(m).Wrap(slices.Clone(root))
	wantDenied(t, err, redoubt.DiskFull, "memory is full")
	if got := indexesOf(t, m); got != before {
		t.Errorf("got %d indexes, want %d", got, before)
	}
}

// withoutWrites is a TPM that fails as its memory is written.
type withoutWrites struct{ transport.TPM }

var errWrite = errors.New("the write failed")

func (w withoutWrites) Send(command []byte) ([]byte, error) {
	if binary.BigEndian.Uint32(command[6:]) == uint32(tpm2.TPMCCNVWrite) {
		return nil, errWrite
	}
	return w.TPM.Send(command)
}

func TestAHalfThatCouldNotBeWrittenLeavesNoIndex(t *testing.T) {
	m := measured(t)
	before := indexesOf(t, m)
	if err := m.Do(func(tp transport.TPM) error {
		srk := must[*storageRoot](t)(loadRoot(withoutWrites{tp}))
		defer srk.unload()
		e := &envelope{policy: policy{pcrs: DefaultPCRs, values: must[[][sha256.Size]byte](t)(readPCRs(tp, DefaultPCRs))}}
		if err := srk.keepHalf(e, must[tpm2.TPM2BDigest](t)(e.digest()), nil, root); !errors.Is(err, errWrite) {
			t.Errorf("got %v", err)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if got := indexesOf(t, m); got != before {
		t.Errorf("got %d indexes, want %d", got, before)
	}
}

// indexesOf counts the NV indexes of a TPM.
func indexesOf(t *testing.T, m *tpmtest.TPM) (n int) {
	t.Helper()
	if err := m.Do(func(tp transport.TPM) error {
		got, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: 0x01000000, PropertyCount: 1000}.Execute(tp)
		if err != nil {
			return err
		}
		list, err := got.CapabilityData.Data.Handles()
		n = len(list.Handle)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return n
}

// spy keeps what crosses the bus.
type spy struct {
	transport.TPM
	seen []byte
}

func (s *spy) Send(command []byte) ([]byte, error) {
	answer, err := s.TPM.Send(command)
	s.seen = append(append(s.seen, command...), answer...)
	return answer, err
}

func TestWhoListensOnTheBusSeesNeitherHalfNorPIN(t *testing.T) {
	m := measured(t)
	half, kept, pin := bytes.Repeat([]byte{1, 2, 3, 4}, 8), bytes.Repeat([]byte{9, 8, 7, 6}, 8), []byte("a PIN that is seen")
	if err := m.Do(func(tp transport.TPM) error {
		s := &spy{TPM: tp}
		srk := must[*storageRoot](t)(loadRoot(s))
		defer srk.unload()
		e := &envelope{policy: policy{pcrs: DefaultPCRs, values: must[[][sha256.Size]byte](t)(readPCRs(s, DefaultPCRs)), pin: true}}
		digest := must[tpm2.TPM2BDigest](t)(e.digest())
		if err := errors.Join(srk.sealHalf(e, digest, pin, half), srk.keepHalf(e, digest, pin, kept)); err != nil {
			return err
		}
		if got := must[[]byte](t)(srk.openHalf(e, pin)); !bytes.Equal(got, half) {
			t.Errorf("got %x", got)
		}
		if got := must[[]byte](t)(srk.readHalf(e, pin)); !bytes.Equal(got, kept) {
			t.Errorf("got %x", got)
		}
		for what, secret := range map[string][]byte{"the sealed half": half, "the kept half": kept, "the PIN": pin} {
			if bytes.Contains(s.seen, secret[:8]) {
				t.Errorf("%s crosses the bus in clear", what)
			}
		}
		if len(s.seen) < 1000 {
			t.Error("the bus was not listened to")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}
