package tpm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxtpm"

	"redoubt"
)

// DefaultPath is the TPM of a Linux machine, behind the kernel's resource manager, which keeps its users apart.
const DefaultPath = "/dev/tpmrm0"

// Chip names a TPM: a device, or a Unix socket that takes commands and gives answers as the device does. It is opened
// for each use and let go of after it; any number may be in use at once, behind a resource manager.
type Chip struct{ Path string }

const (
	answerTimeout  = 2 * time.Minute // of a socket: making a key may take a slow TPM most of a minute
	retryAtMost    = 2 * time.Second // waited before the last time that a command is sent again
	maxAnswerBytes = 4096            // what the kernel gives at most (tpm.h, TPM_BUFSIZE)
	headerBytes    = 10              // tag 2, size 4, response code 4 (TPM 2.0 Part 1, 18.4)
)

// open connects to the TPM. Unavailable: there is none.
func (c Chip) open(op string) (transport.TPMCloser, error) {
	var t transport.TPMCloser
	st, err := os.Stat(c.Path)
	if err == nil && st.Mode()&os.ModeSocket != 0 {
		var conn net.Conn
		if conn, err = net.Dial("unix", c.Path); err == nil {
			t = socket{conn}
		}
	} else if err == nil {
		t, err = linuxtpm.Open(c.Path)
	}
	if err != nil {
		return nil, &redoubt.Error{Op: op, Object: c.Path, Kind: redoubt.Unavailable, Err: fmt.Errorf("no TPM answers: %w", pathless(err)),
			Hint: "--tpm=PATH or REDOUBT_TPM names another TPM; without one, the keyring opens by its recovery: --key-file FILE, or its passphrase"}
	}
	return t, nil
}

func pathless(err error) error {
	if p, ok := errors.AsType[*os.PathError](err); ok {
		return p.Err
	}
	return err
}

// socket speaks to a TPM over a stream.
type socket struct{ net.Conn }

// Send sends one command and reads its answer whole. A TPM that asks for the command once more, as it does while it saves
// something, gets it, as from the kernel behind a device.
func (s socket) Send(command []byte) (answer []byte, err error) {
	for wait := time.Millisecond; ; wait *= 2 {
		answer, err = s.once(command)
		if err != nil || wait > retryAtMost {
			return answer, err
		}
		switch tpm2.TPMRC(binary.BigEndian.Uint32(answer[6:])) {
		case tpm2.TPMRCRetry, tpm2.TPMRCYielded, tpm2.TPMRCTesting:
			time.Sleep(wait)
		default:
			return answer, nil
		}
	}
}

func (s socket) once(command []byte) ([]byte, error) {
	if err := s.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return nil, err
	}
	if _, err := s.Write(command); err != nil {
		return nil, err
	}
	head := make([]byte, headerBytes)
	if _, err := io.ReadFull(s, head); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[2:])
	if n < headerBytes || n > maxAnswerBytes {
		return nil, fmt.Errorf("an answer of %d bytes", n)
	}
	answer := make([]byte, n)
	copy(answer, head)
	_, err := io.ReadFull(s, answer[headerBytes:])
	return answer, err
}

// maxClockUpdate is how far apart the TPM may save its clock at most (TPM 2.0 Part 1, 36.3.2).
const maxClockUpdate = 1 << 22 * time.Millisecond

// Clock is how long the TPM has had power, ever. It advances while the machine is on and is never set back, but for
// the last minutes before power was pulled, which the TPM did not save: these are added, in the TPM, as if all of what it
// may lose (about seventy minutes at most) had passed. Clearing the TPM sets it to zero, and ends every seal too.
func (c Chip) Clock() (time.Duration, error) {
	const op = "tpm.Clock"
	t, err := c.open(op)
	if err != nil {
		return 0, err
	}
	defer t.Close()
	read, err := tpm2.ReadClock{}.Execute(t)
	if err != nil {
		return 0, refusal(op, c.Path, err)
	}
	info := read.CurrentTime.ClockInfo
	if info.Safe {
		return asDuration(info.Clock), nil
	}
	lost, err := property(t, tpm2.TPMPTClockUpdate)
	if err != nil {
		return 0, refusal(op, c.Path, err)
	}
	if lost == 0 || asDuration(uint64(lost)) > maxClockUpdate {
		lost = uint32(maxClockUpdate / time.Millisecond)
	}
	now := info.Clock + uint64(lost)
	if err := setClock(t, now); err != nil {
		return 0, refusal(op, c.Path, err)
	}
	return asDuration(now), nil
}

func asDuration(ms uint64) time.Duration { return time.Duration(min(ms, 1<<43)) * time.Millisecond } // no further than it counts

// setClock is TPM2_ClockSet (Part 3, 29.3) with the owner's empty password, which the library does not have. It only goes forward.
func setClock(t transport.TPM, ms uint64) error {
	command := binary.BigEndian.AppendUint16(nil, uint16(tpm2.TPMSTSessions))
	command = binary.BigEndian.AppendUint32(command, 35)
	command = binary.BigEndian.AppendUint32(command, 0x128) // TPM_CC_ClockSet
	command = binary.BigEndian.AppendUint32(command, uint32(tpm2.TPMRHOwner))
	command = binary.BigEndian.AppendUint32(command, 9)
	command = binary.BigEndian.AppendUint32(command, uint32(tpm2.TPMRSPW))
	command = append(command, 0, 0, 0, 0, 0) // no nonce, no attributes, an empty password
	command = binary.BigEndian.AppendUint64(command, ms)
	answer, err := t.Send(command)
	if err != nil {
		return err
	}
	if len(answer) < headerBytes {
		return errors.New("a short answer")
	}
	if rc := tpm2.TPMRC(binary.BigEndian.Uint32(answer[6:])); rc != tpm2.TPMRCSuccess {
		return rc
	}
	return nil
}

// property reads one of the TPM's fixed properties; 0 when it has none of that number.
func property(t transport.TPM, which tpm2.TPMPT) (uint32, error) {
	got, err := tpm2.GetCapability{Capability: tpm2.TPMCapTPMProperties, Property: uint32(which), PropertyCount: 1}.Execute(t)
	if err != nil {
		return 0, err
	}
	list, err := got.CapabilityData.Data.TPMProperties()
	if err != nil {
		return 0, err
	}
	if len(list.TPMProperty) != 1 || list.TPMProperty[0].Property != which {
		return 0, nil
	}
	return list.TPMProperty[0].Value, nil
}
