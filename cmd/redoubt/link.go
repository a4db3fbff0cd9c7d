package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"redoubt"
	"redoubt/estate"
)

func (a *app) linkCommand() *cobra.Command {
	c := &cobra.Command{Use: "link", Short: "Links between a device and its home: how they do, cut and restore them, radio silence",
		Example: `  redoubt link status outpost
  redoubt link ls --as s-analyst@outpost
  redoubt link cut outpost          # for an exercise
  redoubt link restore outpost
  redoubt link silence outpost      # it receives, and sends nothing
  redoubt link wait outpost         # until both sides are in step
  redoubt link watch outpost`}
	c.AddCommand(a.linkList(), a.linkStatus(), a.linkCut(true), a.linkCut(false), a.linkSilence(), a.linkWait(), a.linkWatch())
	return c
}

// linkView is a link from both its ends, as far as they can be asked.
type linkView struct {
	redoubt.LinkStatus
	Device         redoubt.NodeName     `json:"device"`
	Home           redoubt.NodeName     `json:"home"`
	ToDevice       *redoubt.LinkPending `json:"to_device,omitempty"` // what the home has for the device; absent: the home cannot be asked
	ToHome         *redoubt.LinkPending `json:"to_home,omitempty"`
	BudgetToDevice []redoubt.LinkBudget `json:"budget_to_device,omitempty"`
	BudgetToHome   []redoubt.LinkBudget `json:"budget_to_home,omitempty"`
	// What either end signs its bundles with, as the other knows it.
	DeviceKey string `json:"device_key,omitempty"`
	HomeKey   string `json:"home_key,omitempty"`
}

// asWhom are the subjects that look at both ends of a link: as --as says, or in an exercise an officer, who sees all of it.
func (a *app) asWhom(w who, device redoubt.NodeName) (home redoubt.NodeName, atHome, atDevice who, err error) {
	e := a.exercise()
	if n, ok := e.Node(device); ok && n.Kind == estate.KindDevice {
		home = n.Home
	}
	subject, at := "", redoubt.NodeName("")
	if w.as != "" {
		s, n, err := w.parts()
		if err != nil {
			return "", w, w, err
		}
		subject, at = string(s), n
	} else {
		for _, p := range e.People {
			for _, r := range p.Roles {
				if r == redoubt.RoleOfficer && subject == "" {
					subject = string(p.Name)
				}
			}
		}
		if subject == "" {
			return "", w, w, &usageError{message: "--as is needed", hint: "SUBJECT@HOME or SUBJECT@DEVICE; only in an exercise can the command play an officer"}
		}
	}
	if home == "" {
		home = at
	}
	if home == "" {
		return "", w, w, &redoubt.Error{Object: string(device), Kind: redoubt.NotFound, Err: errors.New("no device of that name"), Hint: "redoubt device list --as OFFICER@HOME"}
	}
	atHome, atDevice = w, w
	atHome.as, atDevice.as = subject+"@"+string(home), subject+"@"+string(device)
	if at == device {
		atHome.as = "" // who is known at the device alone sees its end
	}
	return home, atHome, atDevice, nil
}

// linkOf asks both ends of a link. One of them is enough.
func (a *app) linkOf(ctx context.Context, w who, device redoubt.NodeName) (linkView, error) {
	home, atHome, atDevice, err := a.asWhom(w, device)
	if err != nil {
		return linkView{}, err
	}
	v := linkView{Device: device, Home: home}
	ask := func(w who, peer redoubt.NodeName, pending **redoubt.LinkPending, budgets *[]redoubt.LinkBudget, key *string) error {
		if w.as == "" {
			return &redoubt.Error{Object: string(peer), Kind: redoubt.NotFound}
		}
		s, err := a.open(ctx, w)
		if err != nil {
			return err
		}
		defer s.close()
		all, err := s.api.Links(ctx)
		if err != nil {
			return err
		}
		for _, l := range all {
			if l.Peer == peer {
				*key, l.PeerKey = l.PeerKey, ""
				*pending, *budgets = &l.Pending, l.Budgets
				if v.LinkStatus.Peer == "" {
					v.LinkStatus = l
				}
				v.Cut, v.Silent = v.Cut || l.Cut, v.Silent || l.Silent
				return nil
			}
		}
		return &redoubt.Error{Object: string(peer), Kind: redoubt.NotFound, Err: errors.New("there is no link to it"), Hint: "redoubt device list --as OFFICER@HOME"}
	}
	err = ask(atHome, device, &v.ToDevice, &v.BudgetToDevice, &v.DeviceKey)
	if other := ask(atDevice, home, &v.ToHome, &v.BudgetToHome, &v.HomeKey); err != nil && other != nil {
		return v, err
	}
	v.Pending, v.Budgets = redoubt.LinkPending{}, nil
	for _, p := range []*redoubt.LinkPending{v.ToDevice, v.ToHome} {
		if p != nil {
			for of, w := range p.ByPrecedence {
				v.Pending.Add(of, w.Versions, w.Bytes)
			}
		}
	}
	return v, nil
}

func (a *app) linkList() *cobra.Command {
	var w who
	c := &cobra.Command{Use: "ls --as SUBJECT@NODE", Short: "The links of one node: an enclave's devices, or a device's home and neighbours",
		Long:    "Counts cover what the subject's working label dominates.",
		Example: "  redoubt link ls --as s-analyst@secret\n  redoubt link ls --as s-analyst@outpost --json", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.open(cmd.Context(), w)
			if err != nil {
				return err
			}
			defer s.close()
			all, err := s.api.Links(cmd.Context())
			if err != nil {
				return interrupted(cmd.Context(), err)
			}
			if a.json {
				return a.print(map[string]any{"links": all})
			}
			t := a.table("PEER", "STATE", "ROAD", "WAITING", "LAST CONTACT")
			for _, l := range all {
				state, contact := l.State, "-"
				if l.Cut {
					state += ", cut"
				}
				if !l.LastContact.IsZero() {
					contact = l.LastContact.Local().Format("2006-01-02 15:04")
				}
				t.row(string(l.Peer), state, dash(l.Road), waitingText(redoubt.LinkWaiting{Versions: l.Pending.Versions, Bytes: l.Pending.Bytes}), contact)
			}
			return t.flush()
		}}
	w.flags(c)
	return a.jsonFlag(c)
}

func (a *app) linkStatus() *cobra.Command {
	var w who
	c := &cobra.Command{Use: "status DEVICE [--as SUBJECT@NODE]", Short: "How a device's link does, and what waits at either end",
		Long: `Asks the home and, where it can be reached from here, the device. Counts cover what the subject's working label
dominates. In an exercise an officer of the estate is played without --as.`,
		Example: "  redoubt link status outpost --json\n  redoubt link status outpost --as s-analyst@secret", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			v, err := a.linkOf(cmd.Context(), w, redoubt.NodeName(args[0]))
			if err != nil {
				return interrupted(cmd.Context(), err)
			}
			if a.json {
				return a.print(v)
			}
			_, err = fmt.Fprint(a.out, v.text(time.Now()))
			return err
		}}
	c.Flags().StringVar(&w.as, "as", "", "act as `SUBJECT@NODE`")
	w.moreFlags(c)
	return a.jsonFlag(c)
}

// text is the view for people.
func (v linkView) text(now time.Time) string {
	var b strings.Builder
	state := v.State
	if v.Cut {
		state += ", cut"
	}
	if v.Silent {
		state += ", silent"
	}
	if v.Road != "" {
		state += " over " + strings.ToUpper(v.Road)
	}
	if v.RTTMillis > 0 {
		state += fmt.Sprintf(", %.0f ms", v.RTTMillis)
	}
	if v.BytesPerSec > 0 {
		state += fmt.Sprintf(", up to %s/s", bytesText(int64(v.BytesPerSec)))
	}
	fmt.Fprintf(&b, "%s – %s: %s\n", v.Device, v.Home, state)
	side := func(what string, p *redoubt.LinkPending, budgets []redoubt.LinkBudget) {
		if p == nil {
			fmt.Fprintf(&b, "  %-14s cannot be asked from here\n", what)
			return
		}
		fmt.Fprintf(&b, "  %-14s %s\n", what, waitingText(redoubt.LinkWaiting{Versions: p.Versions, Bytes: p.Bytes}))
		for of := redoubt.Flash; ; of-- {
			if w, ok := p.ByPrecedence[of]; ok {
				fmt.Fprintf(&b, "    %-12s %s\n", of, waitingText(w))
			}
			if of == redoubt.Routine {
				break
			}
		}
		for _, x := range budgets {
			fmt.Fprintf(&b, "    budget       %s of %s today, %s\n", bytesText(x.Spent), bytesText(x.PerDay), x.Label)
		}
	}
	side("to the device:", v.ToDevice, v.BudgetToDevice)
	side("to the home:", v.ToHome, v.BudgetToHome)
	fmt.Fprintf(&b, "  this meeting:  %d sent (%s), %d received%s\n", v.Sent, bytesText(v.SentBytes), v.Received, v.progress())
	if !v.LastContact.IsZero() {
		fmt.Fprintf(&b, "  last contact:  %s\n", v.LastContact.Local().Format("2006-01-02 15:04"))
	}
	if !v.LeaseExpires.IsZero() {
		fmt.Fprintf(&b, "  lease:         ends %s, in %s\n", v.LeaseExpires.Local().Format("2006-01-02 15:04"), v.LeaseExpires.Sub(now).Truncate(time.Minute))
	}
	return b.String()
}

// waitingText says what waits, and for how long.
func waitingText(w redoubt.LinkWaiting) string {
	text := fmt.Sprintf("%d versions, %s", w.Versions, bytesText(w.Bytes))
	if w.Seconds > 0 {
		text += fmt.Sprintf(", about %s", (time.Duration(w.Seconds*float64(time.Second)) + time.Second).Truncate(time.Second))
	}
	return text
}

// progress is how much of what this end had for the other has gone, since nothing waited.
func (v linkView) progress() string {
	if v.Progress == 0 {
		return ""
	}
	const width = 24
	done := int(min(v.Progress, 1) * width)
	return fmt.Sprintf("  [%s%s] %.0f %%", strings.Repeat("=", done), strings.Repeat(" ", width-done), 100*min(v.Progress, 1))
}

func (a *app) linkSilence() *cobra.Command {
	var w who
	c := &cobra.Command{Use: "silence DEVICE [on|off] [--as ADMIN@DEVICE]", Short: "Radio silence: the device receives, and sends nothing until it is ended",
		Long: `From the moment this returns the device sends nothing by its link and dials nobody, over restarts too.
Its home takes it for an outage. Over UDP the device still takes what was under way, and FLASH, until the home
gives the connection up, 10 minutes after the last sign of life. After that, over TCP and after a restart it
receives nothing until the silence is ended. Bundles by file work all the while.`,
		Example: "  redoubt link silence outpost\n  redoubt link silence outpost off\n  redoubt link silence outpost on --as admin@outpost",
		Args:    between(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			device, silent := redoubt.NodeName(args[0]), true
			if len(args) == 2 {
				if args[1] != "on" && args[1] != "off" {
					return &usageError{message: fmt.Sprintf("%q is neither on nor off", args[1]), hint: "redoubt link silence " + args[0] + " off"}
				}
				silent = args[1] == "on"
			}
			if w.as == "" {
				_, subject := a.administrator(device)
				if subject == "" {
					return &usageError{message: "--as is needed", hint: "an administrator who is known at the device; only in an exercise can the command play one"}
				}
				w.as = subject + "@" + string(device)
			}
			if err := a.silenceAt(cmd.Context(), w, silent); err != nil {
				return interrupted(cmd.Context(), err)
			}
			if silent {
				a.say("silent: it receives, and sends nothing; redoubt link silence %s off", device)
			} else {
				a.say("it speaks again; redoubt link status %s", device)
			}
			return nil
		}}
	c.Flags().StringVar(&w.as, "as", "", "act as `ADMIN@DEVICE`")
	w.moreFlags(c)
	return c
}

// silenceAt tells a device, by the link that the device itself says its home is at: silence is of all its links.
func (a *app) silenceAt(ctx context.Context, at who, silent bool) error {
	s, err := a.open(ctx, at)
	if err != nil {
		return err
	}
	defer s.close()
	links, err := s.api.Links(ctx)
	if err != nil {
		return err
	}
	for _, l := range links {
		if l.Home {
			return s.api.SilenceLink(ctx, l.Peer, silent)
		}
	}
	return &redoubt.Error{Object: string(s.node), Kind: redoubt.Invalid, Err: errors.New("radio silence is a device's"),
		Hint: "redoubt link cut DEVICE ends what an enclave sends to one of its devices"}
}

// administrator is an administrator of a device's home, in an exercise.
func (a *app) administrator(device redoubt.NodeName) (home redoubt.NodeName, subject string) {
	e := a.exercise()
	n, ok := e.Node(device)
	if !ok {
		return "", ""
	}
	for _, p := range e.People {
		for _, r := range p.Roles {
			if r == redoubt.RoleAdmin {
				return n.Home, string(p.Name)
			}
		}
	}
	return n.Home, ""
}

func (a *app) linkWait() *cobra.Command {
	var w who
	var limit time.Duration
	c := &cobra.Command{Use: "wait DEVICE [--as SUBJECT@NODE]", Short: "Wait until a device and its home are in step",
		Long: `Returns when the link is up and nothing waits at either end that the subject may see. Exit code 1 when --timeout
passes first.`,
		Example: "  redoubt link wait outpost --timeout 5m", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), limit)
			defer cancel()
			w.life = bulkLife
			for {
				v, err := a.linkOf(ctx, w, redoubt.NodeName(args[0]))
				if err == nil && v.State == "up" && v.Pending.Versions == 0 {
					a.say("%s and %s are in step", v.Device, v.Home)
					return nil
				}
				if err != nil && ctx.Err() == nil && !errors.Is(err, redoubt.Unavailable) {
					return err
				}
				select {
				case <-ctx.Done():
					if cmd.Context().Err() != nil {
						return cmd.Context().Err()
					}
					return &redoubt.Error{Object: args[0], Kind: redoubt.Unavailable, Err: fmt.Errorf("not in step after %s: %d versions wait", limit, v.Pending.Versions), Hint: "redoubt link status " + args[0]}
				case <-time.After(waitEvery):
				}
			}
		}}
	c.Flags().StringVar(&w.as, "as", "", "act as `SUBJECT@NODE`")
	w.moreFlags(c)
	c.Flags().DurationVar(&limit, "timeout", 2*time.Minute, "how long, a `time`")
	return c
}

func (a *app) linkWatch() *cobra.Command {
	var w who
	var until bool
	c := &cobra.Command{Use: "watch DEVICE [--as SUBJECT@NODE]", Short: "The same as status, live, until Ctrl-C", Args: exactly(1),
		Example: "  redoubt link watch outpost\n  redoubt link watch outpost --until-in-step",
		RunE: func(cmd *cobra.Command, args []string) error {
			w.life = bulkLife
			f, isFile := a.out.(*os.File)
			over := isFile && term.IsTerminal(int(f.Fd()))
			lines, last := 0, ""
			for {
				v, err := a.linkOf(cmd.Context(), w, redoubt.NodeName(args[0]))
				if cmd.Context().Err() != nil {
					return nil
				}
				text := ""
				if err != nil {
					text = "cannot be asked now: " + plain(err) + "\n"
				} else {
					text = v.text(time.Now())
				}
				if over && lines > 0 { // over the last picture
					fmt.Fprintf(a.out, "\x1b[%dA\x1b[J", lines)
				}
				if over || text != last {
					fmt.Fprint(a.out, text)
				}
				lines, last = strings.Count(text, "\n"), text
				if until && err == nil && v.State == "up" && v.Pending.Versions == 0 {
					a.say("%s and %s are in step", v.Device, v.Home)
					return nil
				}
				select {
				case <-cmd.Context().Done():
					return nil
				case <-time.After(watchEvery):
				}
			}
		}}
	c.Flags().StringVar(&w.as, "as", "", "act as `SUBJECT@NODE`")
	c.Flags().BoolVar(&until, "until-in-step", false, "end when nothing waits at either end that the subject may see")
	w.moreFlags(c)
	return c
}

const (
	watchEvery = time.Second
	waitEvery  = 200 * time.Millisecond
)
