package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"redoubt"
	"redoubt/estate"
	"redoubt/keys"
	"redoubt/node"
	"redoubt/tpm"
)

const (
	tpmEnv            = "REDOUBT_TPM"          // the TPM, when it is not tpm.DefaultPath
	pinFileEnv        = "REDOUBT_TPM_PIN_FILE" // a file with its PIN
	pinCredentialName = "redoubt-tpm-pin"      // of systemd's LoadCredential
)

var errExerciseTPM = &redoubt.Error{Kind: redoubt.Denied, Err: errors.New("an exercise keeps its keys in its state, and no TPM holds them"), Hint: "leave --tpm out, or make a real estate"}

// holder says by which ways a keyring is to be opened or made: the flags of the commands that do.
type holder struct {
	keyFile string
	tpm     string // path; "": no TPM was asked for
	pcrs    string
	pin     bool   // sealed with one
	newPIN  string // file with it; "": asked for as the old one is
}

// openFlags are those for a keyring that is there: whether a TPM holds it, it says itself.
func (h *holder) openFlags(c *cobra.Command) {
	c.Flags().StringVar(&h.keyFile, "key-file", "", "key `file` that opens the keyring, instead of a passphrase; of one that a TPM holds, its recovery")
	h.pathFlag(c, "the TPM that holds the keyring, at `PATH`; default: "+tpmEnv+" or "+tpm.DefaultPath)
}

// makeFlags are those for a keyring that may have to be made.
func (h *holder) makeFlags(c *cobra.Command) {
	c.Flags().StringVar(&h.keyFile, "key-file", "", "key `file` that opens the keyring, instead of a passphrase; with --tpm, beside the TPM, as recovery")
	h.pathFlag(c, "hold a new keyring by the machine's TPM 2.0, or by that at `PATH`: a device or a Unix socket")
	h.sealFlags(c)
}

func (h *holder) pathFlag(c *cobra.Command, what string) {
	c.Flags().StringVar(&h.tpm, "tpm", "", what)
	c.Flags().Lookup("tpm").NoOptDefVal = chipPath("")
}

func (h *holder) sealFlags(c *cobra.Command) {
	c.Flags().StringVar(&h.pcrs, "tpm-pcrs", tpm.DefaultPCRs.String(), "what the TPM is to find unchanged, when it is sealed to: a `list` of PCRs")
	c.Flags().BoolVar(&h.pin, "tpm-pin", false, "have the TPM ask for a PIN at each start: "+pinFileEnv+", the systemd credential "+pinCredentialName+", or the terminal")
}

func chipPath(named string) string {
	for _, path := range []string{named, os.Getenv(tpmEnv)} {
		if path != "" {
			return path
		}
	}
	return tpm.DefaultPath
}

// arguments hands what was asked for on to another process of ours.
func (h *holder) arguments() (args []string, err error) {
	if h.keyFile != "" {
		file, err := filepath.Abs(h.keyFile)
		if err != nil {
			return nil, err
		}
		args = append(args, "--key-file", file)
	}
	if h.tpm != "" {
		path, err := filepath.Abs(h.tpm)
		if err != nil {
			return nil, err
		}
		args = append(args, "--tpm="+path, "--tpm-pcrs", h.pcrs)
		if h.pin {
			args = append(args, "--tpm-pin")
		}
	}
	return args, nil
}

// chip is the TPM that a node that is opened or made by h goes by.
func (h *holder) chip() *tpm.Chip { return &tpm.Chip{Path: chipPath(h.tpm)} }

// making is how a new keyring is held.
func (a *app) making(h holder, prompt string) (keys.Unlock, error) {
	switch {
	case h.tpm == "" && h.keyFile != "":
		return keys.KeyFile(h.keyFile), nil
	case h.tpm == "":
		return keys.Passphrase(func() ([]byte, error) { return a.passphrase(prompt) }), nil
	}
	seal, err := a.newSeal(h)
	if err != nil || h.keyFile == "" {
		return seal, err
	}
	return keys.Several(seal, keys.KeyFile(h.keyFile)), nil
}

// newSeal is a seal to the machine as it runs now.
func (a *app) newSeal(h holder) (keys.Unlock, error) {
	pcrs, err := tpm.ParsePCRs(h.pcrs)
	if err != nil {
		return nil, err
	}
	return tpm.Seal{Chip: *h.chip(), PCRs: pcrs, WithPIN: h.pin, PIN: func() ([]byte, error) { return a.newPIN(h.newPIN) }}, nil
}

// opening is how a node's keyring is opened: by the TPM if one holds it, then by what was given or can be asked for; a
// node without a keyring makes one.
func (a *app) opening(st node.State, name redoubt.NodeName, h holder) (keys.Unlock, error) {
	prompt := "Passphrase of node " + string(name)
	ways, err := st.Sealing(name)
	if errors.Is(err, redoubt.NotFound) {
		return a.making(h, prompt)
	}
	if err != nil {
		return nil, err
	}
	methods := methodsOf(ways)
	var by []keys.Unlock
	if slices.Contains(methods, tpm.Method) {
		by = append(by, tpm.Seal{Chip: *h.chip(), PIN: a.pin})
	} else if h.tpm != "" {
		return nil, &redoubt.Error{Object: "node " + string(name), Kind: redoubt.Denied, Err: errors.New("its keyring is held by " + strings.Join(methods, " and ") + ", and by no TPM"),
			Hint: "redoubt key seal " + string(name) + " seals it to the TPM"}
	}
	switch {
	case h.keyFile != "":
		by = append(by, keys.KeyFile(h.keyFile))
	case len(by) == 0 || slices.Contains(methods, "passphrase"):
		by = append(by, keys.Passphrase(func() ([]byte, error) { return a.passphrase(prompt) }))
	}
	if len(by) == 1 {
		return by[0], nil
	}
	if seal, ok := by[0].(tpm.Seal); ok {
		by[0] = preferred{seal, a}
	}
	return keys.Several(by...), nil
}

// preferred is a TPM beside which a recovery was given: it says why it did not open before that is tried.
type preferred struct {
	tpm.Seal
	a *app
}

func (p preferred) Unwrap(envelope []byte) ([]byte, error) {
	root, err := p.Seal.Unwrap(envelope)
	if err != nil {
		p.a.say("the TPM does not open the keyring, its recovery is tried: %s", plain(err))
	}
	return root, err
}

func methodsOf(ways []keys.Way) (methods []string) {
	for _, w := range ways {
		methods = append(methods, w.Method)
	}
	return methods
}

// sealedByTPM says whether a TPM holds a node's keyring; made is what holds one that is yet to be made.
func sealedByTPM(st node.State, name redoubt.NodeName, made bool) bool {
	ways, err := st.Sealing(name)
	if errors.Is(err, redoubt.NotFound) {
		return made
	}
	return slices.Contains(methodsOf(ways), tpm.Method)
}

// pin asks for the PIN of a TPM, once: each wrong one counts.
func (a *app) pin() ([]byte, error) {
	return a.pinFrom(func() ([]byte, error) { return a.ask("PIN of the TPM", pinFileEnv+"=FILE") })
}

// newPIN asks for one that is new, twice at a terminal.
func (a *app) newPIN(file string) ([]byte, error) {
	if file != "" {
		return passphraseFile(file)
	}
	return a.pinFrom(func() ([]byte, error) { return a.askTwice("New PIN of the TPM", pinFileEnv+"=FILE") })
}

func (a *app) pinFrom(terminal func() ([]byte, error)) ([]byte, error) {
	if path := os.Getenv(pinFileEnv); path != "" {
		return passphraseFile(path)
	}
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); dir != "" {
		if path := filepath.Join(dir, pinCredentialName); fileExists(path) {
			return passphraseFile(path)
		}
	}
	return terminal()
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (a *app) keySeal() *cobra.Command {
	var h holder
	var recoveryKey, recoveryPass string
	var none bool
	c := &cobra.Command{Use: "seal NODE", Short: "Hold a stopped node's keyring by the machine's TPM, with a recovery beside it",
		Long: `Draws a new root key and seals it to the TPM 2.0 of the machine as it runs now: from then on the node starts
without a passphrase, and its disk opens nothing elsewhere. The recovery opens it when the TPM does not: after a
change of firmware or kernel, or on another machine. Then run this again, to seal it anew. What the TPM kept of an
earlier seal is destroyed.

The keyring is opened by its TPM, or else by --key-file or its passphrase. Without a recovery's flag a new passphrase
is asked for. With --no-recovery only this TPM opens it, in this state of the machine, and there is a backup or
nothing beside it: for a device that a wipe is to make useless, since a recovery opens copies of its disk too.
The node must be down. A device that was enrolled without this TPM must reach its home at its next start.`,
		Example: `  redoubt key seal secret --recovery-key-file /media/safe/secret.key
  redoubt key seal outpost --tpm-pin --no-recovery
  redoubt key seal secret --key-file /media/safe/secret.key --recovery-key-file /media/safe/secret.key   # after an update`, Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if n := flagsGiven(cmd, "recovery-key-file", "recovery-passphrase-file", "no-recovery"); n > 1 {
				return usage(cmd, "name one recovery, or none")
			}
			if h.tpm == "" {
				h.tpm = chipPath("")
			}
			h.pin = h.pin || h.newPIN != ""
			next, err := a.newSeal(h)
			if err != nil {
				return err
			}
			switch {
			case none:
			case recoveryKey != "":
				next = keys.Several(next, keys.KeyFile(recoveryKey))
			case recoveryPass != "":
				next = keys.Several(next, keys.Passphrase(func() ([]byte, error) { return passphraseFile(recoveryPass) }))
			default:
				next = keys.Several(next, keys.Passphrase(func() ([]byte, error) {
					return a.askTwice("New passphrase, for recovery", "--recovery-passphrase-file FILE")
				}))
			}
			return a.seal(redoubt.NodeName(args[0]), h, next)
		}}
	h.openFlags(c)
	h.sealFlags(c)
	c.Flags().StringVar(&h.newPIN, "new-pin-file", "", "`file` with the PIN to seal with, when it is another than opens it now")
	c.Flags().StringVar(&recoveryKey, "recovery-key-file", "", "key `file` that opens it beside the TPM; made when it is not there")
	c.Flags().StringVar(&recoveryPass, "recovery-passphrase-file", "", "`file` with the passphrase that opens it beside the TPM")
	c.Flags().BoolVar(&none, "no-recovery", false, "nothing but the TPM opens it")
	return c
}

func flagsGiven(c *cobra.Command, names ...string) (n int) {
	for _, name := range names {
		if c.Flags().Changed(name) {
			n++
		}
	}
	return n
}

// seal has next hold a node's keyring.
func (a *app) seal(name redoubt.NodeName, h holder, next keys.Unlock) error {
	st, err := a.state()
	if err != nil {
		return err
	}
	if st.HasExercise() {
		return errExerciseTPM
	}
	if err := hasNode(st, name); err != nil {
		return err
	}
	h.tpm = ifSealed(st, name, h.tpm)
	now, err := a.opening(st, name, h)
	if err != nil {
		return err
	}
	if err := node.ChangeUnlock(st, name, now, next); err != nil {
		return err
	}
	ways, err := st.Sealing(name)
	if err != nil {
		return err
	}
	a.say("the keyring of %s is held by %s", name, sealText(ways))
	return nil
}

// ifSealed is path for a keyring that a TPM holds, and nothing for another, which is to be opened without.
func ifSealed(st node.State, name redoubt.NodeName, path string) string {
	if sealedByTPM(st, name, false) {
		return path
	}
	return ""
}

// sealText says in words by what a keyring is held.
func sealText(ways []keys.Way) string {
	var words []string
	for _, w := range ways {
		text := map[string]string{"passphrase": "a passphrase", "key-file": "a key file"}[w.Method]
		if d, err := tpm.Describe(w.Envelope); w.Method == tpm.Method && err == nil {
			text = fmt.Sprintf("TPM 2.0 (%s, PCR %s", d.Maker, d.PCRs)
			if d.PIN {
				text += ", PIN"
			}
			text += ")"
		}
		if text == "" {
			text = w.Method
		}
		words = append(words, text)
	}
	return strings.Join(words, " or ")
}

// checkSeals says by what each node's keyring is held.
func checkSeals(d *diagnosis, st node.State, nodes []nodeStatus) {
	for _, n := range nodes {
		ways, err := st.Sealing(n.Name)
		if err != nil || n.Wiped {
			continue // not made yet, or of no use; one that is damaged is told of with its node
		}
		name := "seal of " + string(n.Name)
		d.add("ok", name, "", "its keyring is held by %s", sealText(ways))
		if n.Kind == estate.KindDevice && !st.HasExercise() && !slices.Contains(methodsOf(ways), tpm.Method) {
			d.add("warn", name, "redoubt key seal "+string(n.Name)+" --no-recovery, with the machine's TPM", "no TPM holds this device: only while it is off, and without what opens it, does it tell a captor nothing")
		}
		for _, w := range ways {
			seal, err := tpm.Describe(w.Envelope)
			if w.Method != tpm.Method || err != nil {
				continue
			}
			if len(seal.Unmeasured) > 0 {
				d.add("warn", name, "turn measured boot on in the firmware, or choose others: redoubt key seal "+string(n.Name)+" --tpm-pcrs LIST", "nothing was measured into PCR %s: they bind it to no software", seal.Unmeasured)
			}
			if len(ways) == 1 {
				d.add("warn", name, "keep a backup, or: redoubt key seal "+string(n.Name)+" with a recovery", "it has no recovery: after a change of firmware or kernel, or without this TPM, it does not open")
			}
		}
	}
}
