package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"redoubt"
	"redoubt/estate"
	"redoubt/node"
	"redoubt/workers"
)

// What `redoubt up` hands to the processes that it starts, beside the passphrase's pipe.
const (
	readyFDEnv    = "REDOUBT_READY_FD"    // one line of JSON goes there: a started
	lifelineFDEnv = "REDOUBT_LIFELINE_FD" // when its other end closes, the node stops
)

// started is how a node tells the one who started it what became of it.
type started struct {
	Runtime node.Runtime `json:"runtime"`
	Error   string       `json:"error,omitempty"`
	Hint    string       `json:"hint,omitempty"`
	Refused bool         `json:"refused,omitempty"`
}

func (a *app) serveCommand() *cobra.Command {
	var file, invitation string
	var half servedHalf
	var h holder
	c := &cobra.Command{Use: "serve NODE [--estate FILE]", Short: "Run one node in the foreground: what a unit file or a container runs",
		Long: `Runs one node until SIGTERM or SIGINT, then lets requests in progress finish and stops. With systemd it
tells readiness (Type=notify).

The estate file must be signed by two officers (FILE.sig), unless it is an exercise. Without --estate the node
runs by the estate that took effect last, which it keeps sealed. The keyring is opened by a passphrase
(` + passphraseFileEnv + `, the systemd credential ` + credentialName + `, or asked for at the terminal), a key
file outside the state, or the machine's TPM 2.0: with --tpm the first start seals it there, and later ones open it
without a flag. An exercise keeps its key file in the state.

A device is enrolled at its first start, with the invitation that an officer of its home made (redoubt device enrol).

A guard that the estate gives a road with an address (road: {listen: …}) runs as two halves, each by itself: --half low
where the lower enclave is, --half high where the higher one is and releases are made. Both read the key of their road
from a file that redoubt diode key made once, and that a person carried.`,
		Example: `  redoubt serve secret --estate /etc/redoubt/estate.yaml --state /var/lib/redoubt
  ` + passphraseFileEnv + `=/run/secrets/pass redoubt serve secret --state /var/lib/redoubt
  redoubt serve outpost --estate estate.yaml --tpm --tpm-pin --invitation invitation.json
  redoubt serve low-high --half low --road-key /etc/redoubt/low-high.road --estate /etc/redoubt/estate.yaml`,
		Args: exactly(1), RunE: func(cmd *cobra.Command, args []string) error {
			err := a.serve(cmd.Context(), redoubt.NodeName(args[0]), file, invitation, half, h)
			if err != nil {
				tellStarter(started{Runtime: node.Runtime{State: node.Failed}, Error: plain(err), Hint: hintFor(err), Refused: errors.Is(err, redoubt.Denied)})
			}
			return err
		}}
	c.Flags().StringVar(&file, "estate", "", "estate `file`; default: the one in force")
	h.makeFlags(c)
	c.Flags().StringVar(&half.side, "half", "", "of a guard: run `low or high` alone")
	c.Flags().StringVar(&half.keyFile, "road-key", "", "with --half: the `file` with the key that both halves share")
	c.Flags().StringVar(&invitation, "invitation", "", "of a device that is not enrolled: the `file` that redoubt device enrol wrote")
	return c
}

// How much a node's heap grows before it is collected keeps it small on a small machine. What it holds for long lies for the most part outside of
// the heap, so collecting costs little; a device, which has little memory, does it twice as often. GOGC in the environment overrides it.
const (
	gcPercent       = 50
	deviceGCPercent = 25
)

func collectAt(percent int) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
}

// servedHalf is the half of a guard that is to run by itself, if one is.
type servedHalf struct{ side, keyFile string }

// key reads the road's key from its file.
func (h servedHalf) key() ([]byte, error) {
	switch {
	case h.side == "" && h.keyFile == "":
		return nil, nil
	case h.side != node.HalfLow && h.side != node.HalfHigh:
		return nil, &usageError{message: "--half is low or high, and --road-key is for a half", hint: "redoubt serve GUARD --half low --road-key FILE"}
	}
	return diodeKeyFile(h.keyFile)
}

func (a *app) serve(ctx context.Context, name redoubt.NodeName, file, invitation string, half servedHalf, h holder) error {
	collectAt(gcPercent)
	keepInherited(readyFDEnv, lifelineFDEnv, passphraseFDEnv)
	st, err := node.OpenState(a.stateDir)
	if err != nil {
		return err
	}
	o := node.Options{State: st, Name: name, Version: version(), Drivers: workers.Drivers, Side: half.side}
	if o.RoadKey, err = half.key(); err != nil {
		return err
	}
	if invitation != "" {
		inv, err := node.ReadInvitation(invitation)
		if err != nil {
			return err
		}
		o.Invitation = &inv
	}
	if o.Estate, o.Document, err = a.estateFor(st, file); err != nil {
		return err
	}
	wiped := st.NotWiped(name)
	if _, err := st.Sealing(name); wiped != nil && errors.Is(err, redoubt.NotFound) {
		return wiped // before anybody is asked for a passphrase; a keyring that was put back Open destroys
	}
	switch {
	case o.Estate == nil || !o.Estate.Exercise:
		o.TPM = h.chip()
		if o.Unlock, err = a.opening(st, name, h); err != nil {
			return cmp.Or(wiped, err)
		}
	case h.tpm != "":
		return errExerciseTPM
	}
	n, err := node.Open(ctx, o)
	if err != nil {
		return err
	}
	if n.IsDevice() {
		collectAt(deviceGCPercent)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	followLifeline(stop)
	return n.Serve(ctx, func(r node.Runtime) {
		tellStarter(started{Runtime: r})
		leaveBeginning()
		notifySystemd("READY=1")
		if r.High != "" {
			a.say("%s is ready: %s", name, whichHalves(r.Half))
			return
		}
		a.say("%s is ready: S3 %s, API %s", name, r.S3URL, r.APIURL)
	})
}

// estateFor is the estate that a node is to run by, with its signatures: the file's, or
// the exercise that the state holds; nil for the one in force.
func (a *app) estateFor(st node.State, file string) (*estate.Estate, estate.Document, error) {
	if file == "" {
		if st.HasExercise() {
			return st.ExerciseEstate()
		}
		return nil, estate.Document{}, nil
	}
	e, err := loadEstate(file)
	if err != nil {
		return nil, estate.Document{}, a.faultsOf(file, err)
	}
	if e.Exercise {
		release, err := lockSoon(st)
		if err != nil {
			return nil, estate.Document{}, err
		}
		defer release()
		if _, err := st.PutExercise(e); err != nil {
			return nil, estate.Document{}, err
		}
		return st.ExerciseEstate()
	}
	sigs, err := readSignatures(file)
	if err != nil {
		return nil, estate.Document{}, err
	}
	doc := e.Document()
	if sigs.Digest == e.Digest() {
		doc.Sigs = sigs.Signatures
	}
	return e, doc, nil
}

// lockSoon takes the state's lock, and waits a while for another node of the same exercise that starts.
func lockSoon(st node.State) (release func(), err error) {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		release, err = st.Lock()
		if !errors.Is(err, redoubt.Unavailable) || time.Now().After(deadline) {
			return release, err
		}
	}
}

// tellStarter writes to the pipe of the process that started us, if there is one.
func tellStarter(s started) {
	if f := inherited(readyFDEnv); f != nil {
		defer f.Close()
		_ = json.NewEncoder(f).Encode(s) // the starter may have gone; the node goes on
	}
}

// followLifeline stops the node when whoever started it in the foreground is gone.
func followLifeline(stop func()) {
	f := inherited(lifelineFDEnv)
	if f == nil {
		return
	}
	go func() { // ends with the process: a read of a pipe cannot be waited out
		_, _ = io.Copy(io.Discard, f)
		stop()
	}()
}

// keepInherited keeps what we were handed from those whom we start: a guard starts its halves and its filters, and whoever waits for the end of a
// pipe would wait for them.
func keepInherited(envs ...string) {
	for _, env := range envs {
		if n, err := strconv.Atoi(os.Getenv(env)); err == nil {
			syscall.CloseOnExec(n)
		}
	}
}

// inherited is a file that the environment names by number, once.
func inherited(env string) *os.File {
	n, err := strconv.Atoi(os.Getenv(env))
	os.Unsetenv(env)
	if err != nil {
		return nil
	}
	return os.NewFile(uintptr(n), env)
}

// notifySystemd tells the service manager of a Type=notify unit (sd_notify(3)).
func notifySystemd(message string) {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return // the unit then fails at its own timeout, which systemd reports
	}
	defer c.Close()
	_, _ = c.Write([]byte(message))
}
