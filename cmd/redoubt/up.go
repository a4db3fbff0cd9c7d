package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"redoubt"
	"redoubt/estate"
	"redoubt/node"
)

// upOptions are the flags of up.
type upOptions struct {
	file      string
	detach    bool
	noSamples bool
	holder    holder
}

func (a *app) upCommand() *cobra.Command {
	var o upOptions
	c := &cobra.Command{Use: "up [ESTATE.yaml]", Short: "Start every node of the estate on this machine, each as its own process",
		Long: `Starts the nodes of an estate that are down, waits until they are ready and says where they are. Without a
file that is what the state holds, and in a fresh state the built-in example estate: an exercise with three
enclaves and real public files at every level, under exercise markings.

It stays in the foreground and stops what it started at Ctrl-C; with --detach it returns.

A real estate is signed by two officers (redoubt estate sign) and its keyrings are opened by a passphrase:
` + passphraseFileEnv + ` names a file with it, or up asks once for all nodes. With --tpm new ones are held by the
machine's TPM 2.0 instead, and open without a flag from then on.`,
		Example: `  redoubt up
  redoubt up --detach --json
  ` + passphraseFileEnv + `=/run/secrets/pass redoubt up estate.yaml --state /var/lib/redoubt --detach`,
		Args: between(0, 1), RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				o.file = args[0]
			}
			return a.up(cmd.Context(), o)
		}}
	c.Flags().BoolVar(&o.detach, "detach", false, "return when all nodes are ready")
	c.Flags().BoolVar(&o.noSamples, "no-samples", false, "do not put the sample files into the example estate")
	o.holder.makeFlags(c)
	return a.jsonFlag(c)
}

// up is: find the state, settle the estate, start what is down, fill the example, say where it is, stay.
func (a *app) up(ctx context.Context, o upOptions) error {
	began := time.Now()
	st, release, err := a.lockState()
	if err != nil {
		return err
	}
	defer release()
	e, err := a.settle(st, o.file)
	if err != nil {
		return err
	}
	names, err := a.nodesHere(st, e)
	if err == nil {
		names, err = a.notWiped(st, names)
	}
	if err != nil {
		return err
	}
	started, err := a.startDown(ctx, st, e, names, o)
	leave := func() {
		var all sync.WaitGroup // at once: a node waits for what guards that still run have asked it and not been answered
		for _, p := range started {
			all.Go(p.stop)
		}
		all.Wait()
	}
	if err != nil {
		leave()
		return err
	}
	switch {
	case len(started) > 0:
		a.say("%d of %d nodes started in %.1f s", len(started), len(names), time.Since(began).Seconds())
	case len(names) > 0:
		a.say("all %d nodes were running", len(names))
	}
	if e != nil && isExample(e) && !o.noSamples {
		if err := a.fillExample(ctx, st); err != nil {
			leave()
			return err
		}
	}
	release()
	if err := a.showUp(ctx, st, e); err != nil {
		leave()
		return err
	}
	if o.detach || len(started) == 0 {
		return nil
	}
	return a.stay(ctx, st, started, leave)
}

// settle makes the estate that the command names the state's; nil for a state that holds a real one.
func (a *app) settle(st node.State, file string) (*estate.Estate, error) {
	if file == "" {
		if st.HasExercise() {
			return exerciseOf(st)
		}
		names, err := st.Nodes()
		if err != nil || len(names) > 0 {
			return nil, err
		}
		return st.PutExercise(estate.Example())
	}
	e, err := loadEstate(file)
	if err != nil {
		return nil, a.faultsOf(file, err)
	}
	was, err := exerciseOf(st)
	if err != nil {
		return nil, err
	}
	if was != nil {
		for _, s := range estate.Plan(was, e) {
			if s.Do == "refuse" {
				return nil, &redoubt.Error{Object: s.Noun + " " + s.Name, Kind: redoubt.Denied, Rule: "estate-change", Err: errors.New(s.Why), Hint: "redoubt estate plan " + file}
			}
		}
	}
	if e.Exercise {
		return st.PutExercise(e)
	}
	sigs, err := readSignatures(file)
	if err != nil {
		return nil, err
	}
	if sigs.Digest != e.Digest() || len(sigs.Signatures) == 0 { // who may sign is for each node to say: it knows the estate in force
		if err := estate.Verify(e, nil, sigs); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// nodesHere are the nodes that this machine runs. A guard whose halves run apart is no one machine's: which half is to run here, who starts it says.
func (a *app) nodesHere(st node.State, e *estate.Estate) (names []redoubt.NodeName, err error) {
	apart := func(name redoubt.NodeName) {
		a.say("%s is passed over: its halves run apart, each by redoubt serve %s --half low|high", name, name)
	}
	if e == nil {
		all, err := st.Nodes()
		for _, name := range all {
			if r, err := st.Runtime(name); err == nil && r.Half != "" {
				apart(name)
				continue
			}
			names = append(names, name)
		}
		return names, err
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	for _, n := range e.Nodes {
		if n.Guard != nil && n.Guard.Road.Apart() {
			apart(n.Name)
			continue
		}
		if n.Machine == "" || n.Machine == host {
			names = append(names, n.Name)
		}
	}
	return names, nil
}

// notWiped passes over the devices that were wiped by order of their home, and says so.
func (a *app) notWiped(st node.State, names []redoubt.NodeName) (rest []redoubt.NodeName, err error) {
	for _, name := range names {
		switch err := st.NotWiped(name); {
		case errors.Is(err, redoubt.Erased):
			a.say("%s is passed over: the device was wiped by order of its home; %s", name, hintFor(err))
		case err != nil:
			return nil, err
		default:
			rest = append(rest, name)
		}
	}
	return rest, nil
}

// startDown starts every node that is down, all at once, and waits for them. What it started
// it returns, also beside an error.
func (a *app) startDown(ctx context.Context, st node.State, e *estate.Estate, names []redoubt.NodeName, o upOptions) ([]*process, error) {
	var down []redoubt.NodeName
	for _, name := range names {
		running, err := runs(ctx, st, name)
		if err != nil {
			return nil, err
		}
		if !running {
			down = append(down, name)
		}
	}
	if len(down) == 0 {
		return nil, nil
	}
	var args []string
	var passphrase []byte
	if e == nil || !e.Exercise {
		if o.file != "" {
			file, err := filepath.Abs(o.file)
			if err != nil {
				return nil, err
			}
			args = append(args, "--estate", file)
		}
		by, err := o.holder.arguments()
		if err != nil {
			return nil, err
		}
		args = append(args, by...)
		asks := slices.ContainsFunc(down, func(n redoubt.NodeName) bool { return !sealedByTPM(st, n, o.holder.tpm != "") })
		if asks && o.holder.keyFile == "" && os.Getenv(passphraseFileEnv) == "" {
			if passphrase, err = a.passphrase("Passphrase of the estate"); err != nil {
				return nil, err
			}
			defer clear(passphrase)
		}
	} else if o.holder.tpm != "" {
		return nil, errExerciseTPM
	}
	var started []*process
	for _, some := range devicesLast(e, down) {
		from := len(started)
		for _, name := range some {
			if e != nil && e.Exercise {
				if n, ok := e.Node(name); ok && n.Kind == estate.KindDevice {
					if err := a.enrolHere(ctx, st, name, n.Home); err != nil {
						return started, err
					}
				}
			}
			p, err := a.start(st, name, args, passphrase, o.detach)
			if err != nil {
				return started, err
			}
			started = append(started, p)
		}
		for _, p := range started[from:] {
			a.say("starting %s …", p.name)
			if _, err := p.wait(ctx); err != nil {
				return started, err
			}
		}
	}
	return started, nil
}

// devicesLast puts devices behind the enclaves, which may have to enrol them.
func devicesLast(e *estate.Estate, names []redoubt.NodeName) [2][]redoubt.NodeName {
	var order [2][]redoubt.NodeName
	for _, name := range names {
		i := 0
		if e != nil {
			if n, ok := e.Node(name); ok && n.Kind == estate.KindDevice {
				i = 1
			}
		}
		order[i] = append(order[i], name)
	}
	return order
}

// runs reports whether a node is ready and answers. One that is starting or stopping is waited for: it is neither up
// nor down. So is one that was killed a moment ago, which holds its lock until its last thread is gone.
func runs(ctx context.Context, st node.State, name redoubt.NodeName) (bool, error) {
	for deadline := time.Now().Add(startTimeout); ; {
		r, err := st.Runtime(name)
		if err != nil || r.PID == 0 {
			return false, err
		}
		if r.State == node.Ready && r.APIURL == "" { // a guard, which listens nowhere: it holds its lock, so it runs
			return true, nil
		}
		if r.State == node.Ready {
			if _, err := whatIs(ctx, st, name, r); err == nil {
				return true, nil
			}
		}
		if time.Now().After(deadline) {
			return false, &redoubt.Error{Object: string(name), Kind: redoubt.Unavailable, Err: errors.New("it is " + r.State + ", and does not answer"), Hint: "redoubt down " + string(name)}
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// isExample tells the built-in example estate from one that was made from it.
func isExample(e *estate.Estate) bool {
	return string(e.Document().Text) == string(estate.ExampleText)
}

// samplesMark says in the state that the example's files were put.
func samplesMark(st node.State) string { return filepath.Join(st.Dir(), ".exercise", "samples") }

func (a *app) fillExample(ctx context.Context, st node.State) error {
	if _, err := os.Stat(samplesMark(st)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	n, err := a.putSamples(ctx, st)
	if err != nil {
		return err
	}
	a.say("put %d real public files at every level, under exercise markings", n)
	return os.WriteFile(samplesMark(st), nil, 0o600)
}

// showUp prints where everything is, and what to type next.
func (a *app) showUp(ctx context.Context, st node.State, e *estate.Estate) error {
	doc, err := statusOf(ctx, st, e)
	if err != nil {
		return err
	}
	if a.json {
		return a.print(doc)
	}
	if err := a.statusTable(doc); err != nil {
		return err
	}
	if e == nil || !isExample(e) {
		return nil
	}
	self := "redoubt"
	if a.stateDir != ".redoubt" && os.Getenv("REDOUBT_STATE") == "" {
		self += " --state " + a.stateDir
	}
	_, err = fmt.Fprint(a.out, strings.ReplaceAll(`
Try next:
  redoubt ls s3://reports --as s-analyst@secret
  redoubt ls s3://reports --as gbr-liaison@secret          # the same bucket, another view
  eval "$(redoubt env ts-analyst@topsecret)"               # then any S3 client
  redoubt put FILE s3://reports/NAME --as s-analyst@secret --label "SECRET//REL TO USA, GBR"
  redoubt doctor --sovereignty
  redoubt down
`, "redoubt ", self+" "))
	return err
}

// stay waits in the foreground until it is interrupted, a node ends by itself, or all were stopped from elsewhere.
func (a *app) stay(ctx context.Context, st node.State, started []*process, leave func()) error {
	a.say("running; Ctrl-C stops what was started here")
	ended := make(chan *process, len(started))
	for _, p := range started {
		go func() { // ends with the node, which leave stops
			<-p.ended
			ended <- p
		}()
	}
	for range started {
		select {
		case <-ctx.Done():
			a.say("stopping …")
			leave()
			return nil
		case p := <-ended:
			if err := st.NotWiped(p.name); errors.Is(err, redoubt.Erased) { // as was ordered: the others go on
				a.say("%s ended: the device was wiped by order of its home", p.name)
				continue
			}
			if p.cmd.ProcessState.Success() { // as after a signal of redoubt down: the others go on
				a.say("%s was stopped", p.name)
				continue
			}
			leave()
			return &redoubt.Error{Object: string(p.name), Kind: redoubt.Unavailable, Err: errors.New("the node ended by itself; the others were stopped"),
				Hint: fmt.Sprintf("its log: %s", filepath.Join(a.stateDir, string(p.name), "log", "node.log"))}
		}
	}
	return nil
}
