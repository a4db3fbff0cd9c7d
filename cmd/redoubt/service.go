package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"redoubt"
)

func (a *app) serviceCommand() *cobra.Command {
	c := &cobra.Command{Use: "service", Short: "Run programs that answer HTTP requests, an instance for each label",
		Long: `A service answers at the node's api_url under /svc/NAME/, to any bearer token that dominates the label it was deployed
at. Each caller is answered at her own working label by an instance that serves that label alone; the answer says it
in Redoubt-Label. A WebAssembly module is run anew for each request, which it is given as CGI says (RFC 3875); an
image runs on and answers on its port. Instances begin when they are called and end when they are idle.`,
		Example: `  redoubt service deploy hello --wasm hello.wasm --as s-analyst@secret
  eval "$(redoubt env s-analyst@secret)"
  curl --cacert "$AWS_CA_BUNDLE" -H "Authorization: Bearer $REDOUBT_TOKEN" "$REDOUBT_API_URL/svc/hello/"
  redoubt service ls --as s-analyst@secret
  redoubt service logs hello --as s-analyst@secret
  redoubt service rm hello --as s-analyst@secret`}
	c.AddCommand(a.serviceDeploy(), a.serviceLs(), a.serviceLogs(), a.serviceRm())
	return c
}

func (a *app) serviceDeploy() *cobra.Command {
	var w who
	var j jobSpec
	var q redoubt.ServiceSpec
	var idle time.Duration
	c := &cobra.Command{Use: "deploy NAME (--wasm FILE | --image REF) --as SUBJECT@NODE [-- ARGS]", Short: "Make a service, or a new revision of one",
		Long: `Deploys a service that acts as the subject. A new revision takes over once an instance of it can answer; what the old
one is answering then it answers to the end. One that cannot be begun leaves the old one where it is.`,
		Example: `  redoubt service deploy hello --wasm hello.wasm --in s3://reports --as s-analyst@secret
  redoubt service deploy tiles --image tools/tiles:2 --port 8080 --health /healthz --as s-analyst@secret`, Args: cobra.MinimumNArgs(1),
		RunE: a.withSession(&w, func(ctx context.Context, s *session, args []string) error {
			if err := j.read(args[1:]); err != nil {
				return err
			}
			if err := j.put(ctx, a, s); err != nil {
				return err
			}
			q.Module, q.Image, q.Args, q.Env, q.In, q.Limits, q.Driver, q.Seconds, q.Idle = j.q.Module, j.q.Image, j.q.Args, j.q.Env, j.q.In, j.q.Limits, j.q.Driver, j.q.Seconds, int64(idle/time.Second)
			out, err := s.api.DeployService(ctx, redoubt.ServiceName(args[0]), q)
			if err != nil {
				return err
			}
			if a.json {
				return a.print(out)
			}
			a.say("revision %d of %s at %s", out.Revision, out.Name, out.Label)
			_, err = fmt.Fprintln(a.out, s.at.api+redoubt.ServicePath+args[0]+"/")
			return err
		})}
	w.flags(c)
	j.programFlags(c)
	f := c.Flags()
	f.DurationVar(&j.timeout, "timeout", 0, "`time` that one request may take; default 30s, 1h at most")
	f.DurationVar(&idle, "idle", 0, "`time` without a request after which an instance ends; default 1m")
	f.IntVar(&q.Most, "most", 0, "`instances` at one label; default one for each processor")
	f.IntVar(&q.Port, "port", 0, "`port` that an image answers on; default 8080")
	f.StringVar(&q.Health, "health", "", "`path` that answers 200 when an image is up; default: a connection is enough")
	return a.jsonFlag(c)
}

func (a *app) serviceLs() *cobra.Command {
	var w who
	c := &cobra.Command{Use: "ls --as SUBJECT@NODE", Short: "The services that the subject may call, and what runs of them", Example: "  redoubt service ls --as s-analyst@secret --json", Args: exactly(0),
		RunE: a.withSession(&w, func(ctx context.Context, s *session, _ []string) error {
			all, err := s.api.Services(ctx)
			if err != nil {
				return err
			}
			if a.json {
				return a.print(map[string]any{"services": all})
			}
			t := a.table("NAME", "BY", "LABEL", "REVISION", "PROGRAM", "ANSWERS AT", "STATE", "RUNNING", "REQUESTS", "FAILED", "FAULT")
			for _, x := range all {
				row := []string{string(x.Name), string(x.By), x.Label, fmt.Sprint(x.Revision), programOf(redoubt.SubmitJob{Image: x.Spec.Image, Module: x.Spec.Module})}
				if len(x.Instances) == 0 {
					t.row(append(row, "", "idle", "0", "", "", "")...)
				}
				for _, i := range x.Instances {
					state := i.State
					if i.Running == 0 && state == "ready" {
						state = "idle"
					}
					t.row(append(row, i.Label, state, fmt.Sprint(i.Running), fmt.Sprint(i.Requests), fmt.Sprint(i.Failed), i.Fault)...)
				}
			}
			return t.flush()
		})}
	w.flags(c)
	return a.jsonFlag(c)
}

func (a *app) serviceLogs() *cobra.Command {
	var w who
	c := &cobra.Command{Use: "logs NAME --as SUBJECT@NODE", Short: "What a service's instances have written last, at labels that the subject dominates", Example: "  redoubt service logs hello --as s-analyst@secret", Args: exactly(1),
		RunE: a.withSession(&w, func(ctx context.Context, s *session, args []string) error {
			text, err := s.api.ServiceLog(ctx, redoubt.ServiceName(args[0]))
			if err == nil {
				_, err = a.out.Write(text)
			}
			return err
		})}
	w.flags(c)
	return c
}

func (a *app) serviceRm() *cobra.Command {
	var w who
	c := &cobra.Command{Use: "rm NAME --as SUBJECT@NODE", Short: "End a service of the subject's, at the label that it was deployed at", Example: "  redoubt service rm hello --as s-analyst@secret", Args: exactly(1),
		RunE: a.withSession(&w, func(ctx context.Context, s *session, args []string) error {
			return s.api.RemoveService(ctx, redoubt.ServiceName(args[0]))
		})}
	w.flags(c)
	return c
}
