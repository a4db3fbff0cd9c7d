package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"redoubt"
)

func (a *app) linkCut(cut bool) *cobra.Command {
	var w who
	use, short := "cut", "Cut a device's links, for an exercise: it works on alone until they are restored"
	long := `Its home meets the device no more. Where the same subject reaches the device from here, all links that it has by now are
cut there too: to its home, and to the neighbours that it meets without it. Where it cannot be reached it goes on with its
neighbours, and the command says so. To cut one link at a device, say so there: redoubt link cut PEER --as ADMIN@DEVICE.`
	if !cut {
		use, short = "restore", "Let a device, its home and its neighbours meet again"
		long = `Its home meets the device again. Where the same subject reaches the device from here, all of its links are restored there,
those to its neighbours too. Where it cannot be reached, what was cut there stays so, and the command says so.`
	}
	c := &cobra.Command{Use: use + " DEVICE [--as ADMIN@HOME]", Short: short, Long: long, Example: "  redoubt link " + use + " outpost", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			device := redoubt.NodeName(args[0])
			if w.as == "" {
				home, subject := a.administrator(device)
				if subject == "" {
					return &usageError{message: "--as is needed", hint: "an administrator of the home; only in an exercise can the command play one"}
				}
				w.as = subject + "@" + string(home)
			}
			return interrupted(cmd.Context(), a.cutBoth(cmd.Context(), w, device, cut))
		}}
	c.Flags().StringVar(&w.as, "as", "", "act as `ADMIN@HOME`")
	w.moreFlags(c)
	return c
}

// cutBoth cuts or restores a link at the node where at acts. When that is the device's home, the device is told as well: it
// need not be in reach, but told, it leaves its neighbours too, and dials at once when restored.
func (a *app) cutBoth(ctx context.Context, at who, device redoubt.NodeName, cut bool) error {
	s, err := a.open(ctx, at)
	if err != nil {
		return err
	}
	defer s.close()
	if err := s.api.CutLink(ctx, device, cut); err != nil {
		return err
	}
	links, err := s.api.Links(ctx)
	if err != nil {
		return err
	}
	here, done, undo := s.node, "cut", "redoubt link restore "+string(device)
	if !cut {
		done, undo = "restored", "redoubt link status "+string(device)
	}
	if slices.ContainsFunc(links, func(l redoubt.LinkStatus) bool { return l.Home }) { // a device: what its peer does is not its to say
		a.say("%s at %s: the link to %s", done, here, device)
		return nil
	}
	there := at
	there.as, there.far = string(s.subject)+"@"+string(device), remote{}
	peers, err := a.cutAll(ctx, there, here, cut)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil && cut:
		a.say("cut at %s alone: %s could not be told (%s), and goes on with the neighbours that it has; %s", here, device, plain(err), undo)
	case err != nil:
		a.say("restored at %s alone: %s could not be told (%s), and what was cut there stays so; %s", here, device, plain(err), undo)
	case cut:
		a.say("cut at both ends: %s works on alone, without %s; %s", device, list(peers), undo)
	default:
		a.say("restored at both ends: %s may meet %s; %s", device, list(peers), undo)
	}
	return nil
}

// cutAll has a device of a home cut or restore every link that it has, and gives whom they join it to.
func (a *app) cutAll(ctx context.Context, device who, home redoubt.NodeName, cut bool) (peers []redoubt.NodeName, err error) {
	s, err := a.open(ctx, device)
	if err != nil {
		return nil, err
	}
	defer s.close()
	links, err := s.api.Links(ctx)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(links, func(l redoubt.LinkStatus) bool { return l.Home && l.Peer == home }) {
		return nil, fmt.Errorf("%s is no device of %s", s.node, home)
	}
	for _, l := range links {
		if err := s.api.CutLink(ctx, l.Peer, cut); err != nil {
			return nil, err
		}
		peers = append(peers, l.Peer)
	}
	return peers, nil
}
