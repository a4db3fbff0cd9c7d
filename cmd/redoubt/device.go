package main

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"redoubt"
	"redoubt/node"
)

func (a *app) deviceCommand() *cobra.Command {
	c := &cobra.Command{Use: "device", Short: "Devices that work cut off: enrol, look at, revoke and wipe them",
		Long: `A device is declared in the estate, which two officers sign, and enrolled once at its home with an invitation.
It works as long as its lease lasts, whether its home can be reached or not; the lease is renewed whenever the two meet.`,
		Example: `  redoubt device enrol outpost --to invitation.json --as officer@secret
  redoubt serve outpost --estate estate.yaml --invitation invitation.json      # on the device
  redoubt device list --as officer@secret
  redoubt device wipe outpost --reason "left behind" --as officer@secret`}
	c.AddCommand(a.deviceEnrol(), a.deviceList(), a.deviceShow(), a.deviceRevoke(), a.deviceWipe())
	return c
}

func (a *app) deviceEnrol() *cobra.Command {
	var w who
	var to string
	c := &cobra.Command{Use: "enrol DEVICE --to FILE --as OFFICER@HOME", Short: "Make an invitation that lets a device enrol, once",
		Long: `Writes an invitation: where the home is, its certificate, and a token that is good once and for a day. Whoever
has the file may enrol as that device, so carry it as you would a key. The device makes its own keys, which never leave it.`,
		Example: "  redoubt device enrol outpost --to invitation.json --as officer@secret", Args: exactly(1),
		RunE: a.withSession(&w, func(ctx context.Context, s *session, args []string) error {
			inv, err := a.invite(ctx, s, redoubt.NodeName(args[0]))
			if err != nil {
				return err
			}
			if err := node.WriteInvitation(to, inv); err != nil {
				return err
			}
			if a.json {
				return a.print(map[string]any{"device": inv.Device, "home": inv.Home, "file": to, "expires": inv.Expires})
			}
			a.say("%s: until %s it lets %s enrol once: redoubt serve %s --invitation %s", to, inv.Expires.Local().Format("2006-01-02 15:04"), args[0], args[0], to)
			return nil
		})}
	w.flags(c)
	c.Flags().StringVar(&to, "to", "", "the `file` to write")
	required(c, "to")
	return a.jsonFlag(c)
}

// invite asks for an invitation and adds where the home is.
func (a *app) invite(ctx context.Context, s *session, name redoubt.NodeName) (node.Invitation, error) {
	st, err := a.state()
	if err != nil {
		return node.Invitation{}, err
	}
	r, err := st.Runtime(s.node)
	if err != nil {
		return node.Invitation{}, err
	}
	if len(r.Peers) == 0 {
		return node.Invitation{}, &redoubt.Error{Object: string(s.node), Kind: redoubt.Invalid, Err: errors.New("the enclave says nowhere that devices may meet it"),
			Hint: "add peers: {listen: ADDRESS:PORT} to it in the estate, and make the invitation on its own machine"}
	}
	ca, err := os.ReadFile(st.CAFile(s.node))
	if err != nil {
		return node.Invitation{}, err
	}
	if block, _ := pem.Decode(ca); block == nil {
		return node.Invitation{}, &redoubt.Error{Object: st.CAFile(s.node), Kind: redoubt.Corrupt}
	}
	inv := node.Invitation{API: r.APIURL, Authority: string(ca), Peers: r.Peers}
	inv.Invitation, err = s.api.InviteDevice(ctx, name)
	return inv, err
}

func (a *app) deviceList() *cobra.Command {
	var w who
	c := &cobra.Command{Use: "list --as OFFICER@HOME", Aliases: []string{"ls"}, Short: "The devices of a home, and what became of each",
		Example: "  redoubt device list --as officer@secret --json", Args: exactly(0),
		RunE: a.withSession(&w, func(ctx context.Context, s *session, _ []string) error {
			all, err := s.api.Devices(ctx)
			if err != nil {
				return err
			}
			return a.showDevices(all)
		})}
	w.flags(c)
	return a.jsonFlag(c)
}

func (a *app) showDevices(all []redoubt.Device) error {
	if a.json {
		return a.print(map[string]any{"devices": all})
	}
	t := a.table("DEVICE", "STATE", "RANGE", "ENROLLED", "LEASE ENDS", "REASON")
	day := func(at time.Time) string {
		if at.IsZero() {
			return "-"
		}
		return at.Local().Format("2006-01-02 15:04")
	}
	for _, d := range all {
		state := d.State
		if d.WipeUnheard {
			state += ", wipe never confirmed"
		}
		t.row(string(d.Name), state, d.Range.Floor+" to "+d.Range.Ceiling, day(d.Enrolled), day(d.Lease), dash(d.Reason))
	}
	return t.flush()
}

func (a *app) deviceShow() *cobra.Command {
	var w who
	c := &cobra.Command{Use: "show DEVICE --as OFFICER@HOME", Short: "One device", Example: "  redoubt device show outpost --as officer@secret --json", Args: exactly(1),
		RunE: a.withSession(&w, func(ctx context.Context, s *session, args []string) error {
			all, err := s.api.Devices(ctx)
			if err != nil {
				return err
			}
			for _, d := range all {
				if string(d.Name) != args[0] {
					continue
				}
				if a.json {
					return a.print(d)
				}
				return a.showDevices([]redoubt.Device{d})
			}
			return &redoubt.Error{Object: args[0], Kind: redoubt.NotFound, Hint: "redoubt device list --as " + w.as}
		})}
	w.flags(c)
	return a.jsonFlag(c)
}

func (a *app) deviceRevoke() *cobra.Command {
	var w who
	var reason string
	c := &cobra.Command{Use: "revoke DEVICE --reason TEXT --as OFFICER@HOME", Short: "End a device: nothing is taken from it or sent to it any more",
		Long: `Takes effect before it returns. What the device holds it can use until its lease ends: to destroy it, order a wipe
instead, which reaches the device when it is met. A device that is found again is enrolled anew.`,
		Example: `  redoubt device revoke outpost --reason "captured" --as officer@secret`, Args: exactly(1),
		RunE: a.withSession(&w, func(ctx context.Context, s *session, args []string) error {
			return s.api.EndDevice(ctx, redoubt.NodeName(args[0]), false, false, reason)
		})}
	w.flags(c)
	c.Flags().StringVar(&reason, "reason", "", "why, a `text`; it stays in the records")
	required(c, "reason")
	return c
}

func (a *app) deviceWipe() *cobra.Command {
	var w who
	var now bool
	var reason string
	c := &cobra.Command{Use: "wipe DEVICE --reason TEXT --as OFFICER@HOME", Short: "Have a device destroy its keys when it is met",
		Long: `The device first hands over the work that its home does not have, and then destroys its root key, without which
nothing that it holds opens. With --now it does not hand over. Until it is met it keeps what it holds, for as long as its
lease lasts: redoubt device show tells when it has confirmed. Wiped, it does not start any more, with a keyring that is
put back either: to use it again, its folder is removed and it is enrolled anew.`,
		Example: `  redoubt device wipe outpost --reason "end of the exercise" --as officer@secret
  redoubt device wipe outpost --now --reason "captured" --as officer@secret`, Args: exactly(1),
		RunE: a.withSession(&w, func(ctx context.Context, s *session, args []string) error {
			if err := s.api.EndDevice(ctx, redoubt.NodeName(args[0]), true, now, reason); err != nil {
				return err
			}
			a.say("ordered; %s confirms when it has been met: redoubt device show %s --as %s", args[0], args[0], w.as)
			return nil
		})}
	w.flags(c)
	c.Flags().BoolVar(&now, "now", false, "at once when it is met, without handing over its work")
	c.Flags().StringVar(&reason, "reason", "", "why, a `text`; it stays in the records")
	required(c, "reason")
	return c
}

// enrolHere invites the devices of an exercise that are not enrolled yet, as an officer of each home: it plays everybody.
func (a *app) enrolHere(ctx context.Context, st node.State, name, home redoubt.NodeName) error {
	if st.Enrolled(name) {
		return nil
	}
	e, _, err := st.ExerciseEstate()
	if err != nil {
		return err
	}
	for _, p := range e.People {
		for _, r := range p.Roles {
			if r != redoubt.RoleOfficer {
				continue
			}
			s, err := a.open(ctx, who{as: string(p.Name) + "@" + string(home)})
			if err != nil {
				return err
			}
			defer s.close()
			inv, err := a.invite(ctx, s, name)
			if err != nil {
				return err
			}
			if err := os.MkdirAll(st.NodeDir(name), 0o700); err != nil {
				return err
			}
			return node.WriteInvitation(st.InvitationPath(name), inv)
		}
	}
	return &redoubt.Error{Object: string(name), Kind: redoubt.Invalid, Err: fmt.Errorf("nobody at %s may enrol a device", home)}
}
