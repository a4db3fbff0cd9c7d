package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"redoubt"
	"redoubt/client"
)

func (a *app) jobCommand() *cobra.Command {
	c := &cobra.Command{Use: "job", Short: "Run programs on what a subject may read, with labels that follow",
		Long: `A job is a WebAssembly module or a container image, walled in. Its inputs are files under /in/BUCKET/KEY, as they stood
when it was submitted; what it writes under /out becomes objects when it has ended well. It starts at the working
label, START, and rises by each name and content that it reads, to --max-label at most: every output carries the
join of START and all that was read. What becomes of it is told to who dominates MAX; others see "submitted".`,
		Example: `  redoubt job run --wasm words.wasm --in s3://reports/2026/ --out s3://reports/words/ --as s-analyst@secret -- --top 10
  redoubt job run --wasm words.wasm --in s3://reports --out s3://reports/words/ --label UNCLASSIFIED --max-label SECRET --detach --json --as s-analyst@secret
  redoubt job logs ID -f --as s-analyst@secret
  redoubt job ls --as s-analyst@secret`}
	c.AddCommand(a.jobRun(), a.jobWait(), a.jobLs(), a.jobShow(), a.jobLogs(), a.jobCancel(), a.jobAgentImage())
	return c
}

// jobSpec is a job as flags say it.
type jobSpec struct {
	q            redoubt.SubmitJob
	wasm, out    string
	in           []string
	timeout      time.Duration
	memory, disk string
	at           string // MAX
}

// programFlags say what runs, and what it may use.
func (j *jobSpec) programFlags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&j.wasm, "wasm", "", "WebAssembly module (WASI preview 1) to run, a `file`")
	f.StringVar(&j.q.Image, "image", "", "image to run, `BUCKET/NAME:TAG` of the node's registry")
	f.StringArrayVar(&j.in, "in", nil, "what it may read, `s3://BUCKET/PREFIX`; again for more")
	f.StringArrayVar(&j.q.Env, "env", nil, "a variable of its environment, `NAME=VALUE`; again for more")
	f.StringVar(&j.memory, "memory", "", "memory that it may use, a `size` such as 512MiB, which is the default")
	f.StringVar(&j.disk, "disk", "", "what it may have written at once, a `size`; default 1GiB")
	f.Float64Var(&j.q.Limits.CPUs, "cpus", 0, "`processors` that it may use; default 1")
	f.IntVar(&j.q.Limits.Processes, "processes", 0, "`processes` and threads that it may have; default 256")
	f.StringVar(&j.q.Driver, "driver", "", "`driver` that runs it; default: wasm for a module, oci for an image; kube: the node's cluster; runc: this machine's own kernel, for trusted work, where the estate grants it")
}

func (j *jobSpec) flags(c *cobra.Command) {
	j.programFlags(c)
	f := c.Flags()
	f.StringVar(&j.out, "out", "", "where what it writes goes, `s3://BUCKET/PREFIX`")
	f.StringVar(&j.at, "max-label", "", "how far it may rise, a `marking`; default: not above its working label")
	f.DurationVar(&j.timeout, "timeout", 0, "`time` that the program may run in one attempt, compiling aside; default 1h, 168h at most")
	f.StringArrayVar(&j.q.Network, "network", nil, "what an image may connect to, `HOST:PORT` as the estate names it; again for more. Its label is the job's MAX (--max-label)")
	f.IntVar(&j.q.Retries, "retries", 0, "further `attempts` after one that failed, 10 at most")
}

// read makes the job of the flags. The module is read, and put where it is not there yet, by put.
func (j *jobSpec) read(args []string) (err error) {
	j.q.Args, j.q.Max = args, j.at
	if (j.wasm == "") == (j.q.Image == "") {
		return &usageError{message: "a job runs a module or an image", hint: "one of --wasm FILE and --image BUCKET/NAME:TAG"}
	}
	j.q.Seconds = int64((j.timeout + time.Second - 1) / time.Second)
	for _, in := range j.in {
		p, err := parsePlace(in)
		if err != nil {
			return err
		}
		j.q.In = append(j.q.In, redoubt.JobInput{Bucket: p.bucket, Prefix: p.key})
	}
	if j.out != "" {
		p, err := parsePlace(j.out)
		if err != nil {
			return err
		}
		j.q.Out = redoubt.JobInput{Bucket: p.bucket, Prefix: p.key}
	}
	for _, size := range []struct {
		text string
		into *int64
	}{{j.memory, &j.q.Limits.Memory}, {j.disk, &j.q.Limits.Disk}} {
		if size.text == "" {
			continue
		}
		if *size.into, err = parseSize(size.text); err != nil {
			return err
		}
	}
	return nil
}

// put has the node keep the module, where it does not.
func (j *jobSpec) put(ctx context.Context, a *app, s *session) error {
	if j.wasm == "" {
		return nil
	}
	f, err := os.Open(j.wasm)
	if err != nil {
		return &usageError{message: err.Error(), hint: "GOOS=wasip1 GOARCH=wasm go build makes a module"}
	}
	defer f.Close()
	h := sha256.New()
	size, err := io.Copy(h, f)
	if err != nil {
		return err
	}
	j.q.Module = hex.EncodeToString(h.Sum(nil))
	if there, err := s.api.HasModule(ctx, j.q.Module); err != nil || there {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	p := a.progress(j.wasm, size)
	defer p.end()
	return s.api.PutModule(ctx, j.q.Module, &telling{r: f, at: p.at})
}

// telling tells how much was read.
type telling struct {
	r  io.Reader
	n  int64
	at func(int64)
}

func (t *telling) Read(b []byte) (int, error) {
	n, err := t.r.Read(b)
	t.n += int64(n)
	t.at(t.n)
	return n, err
}

func (a *app) jobRun() *cobra.Command {
	var w who
	var j jobSpec
	var detach bool
	c := &cobra.Command{Use: "run (--wasm FILE | --image REF) [--in s3://BUCKET/PREFIX]... --out s3://BUCKET/PREFIX --as SUBJECT@NODE [-- ARGS]", Short: "Submit a job, show what it says, and end with its exit code",
		Long: `Submits a job and waits for it: what it says goes to standard output, and its exit code is the command's. Ctrl-C
cancels the job. With --detach it prints the ID and leaves.`,
		Example: `  redoubt job run --wasm words.wasm --in s3://reports --out s3://reports/words/ --as s-analyst@secret -- --top 10
  redoubt job run --image tools/convert:1 --in s3://imagery/raw/ --out s3://imagery/small/ --memory 1GiB --timeout 10m --as s-analyst@secret
  redoubt job run --wasm words.wasm --in s3://reports --label UNCLASSIFIED --max-label SECRET --detach --json --as s-analyst@secret`,
		RunE: a.withSession(&w, func(ctx context.Context, s *session, args []string) error {
			if err := j.read(args); err != nil {
				return err
			}
			if err := j.put(ctx, a, s); err != nil {
				return err
			}
			job, err := s.api.SubmitJob(ctx, j.q)
			if err != nil {
				return err
			}
			if detach {
				if a.json {
					return a.print(job)
				}
				_, err := fmt.Fprintln(a.out, job.ID)
				return err
			}
			err = a.atMax(ctx, w, s, job, func(top *session) error {
				if !a.json {
					if err := a.follow(ctx, top.api, job.ID, 0); err != nil {
						return err
					}
				}
				return a.awaitJob(ctx, top.api, job.ID)
			})
			if ctx.Err() != nil {
				return a.cancelForeground(w, job)
			}
			return err
		})}
	w.flags(c)
	j.flags(c)
	c.Flags().BoolVar(&detach, "detach", false, "print the ID and leave")
	return a.jsonFlag(c)
}

// atMax has the subject work at a job's MAX, where that is not the session's own label.
func (a *app) atMax(ctx context.Context, w who, s *session, job redoubt.Job, do func(*session) error) error {
	if job.Max == s.minted.Label {
		return do(s)
	}
	w.label = job.Max
	top, err := a.open(ctx, w)
	if err != nil {
		return err
	}
	defer top.close()
	return do(top)
}

// cancelForeground ends a job that its submitter no longer waits for.
func (a *app) cancelForeground(w who, job redoubt.Job) error {
	ctx, stop := context.WithTimeout(context.Background(), 10*time.Second)
	defer stop()
	w.label = job.Start
	s, err := a.open(ctx, w)
	if err == nil {
		defer s.close()
		err = s.api.CancelJob(ctx, job.ID)
	}
	if err != nil {
		return &halfDone{message: "interrupted; the job may run on", hint: fmt.Sprintf("redoubt job cancel %s --as %s", job.ID, w.as)}
	}
	return context.Canceled
}

// follow shows what a job says until it has ended.
func (a *app) follow(ctx context.Context, c *client.Client, id redoubt.JobID, from int64) error {
	for {
		text, next, more, err := c.JobLog(ctx, id, from, true)
		if err != nil {
			return err
		}
		if _, err := a.out.Write(text); err != nil {
			return err
		}
		if from = next; !more {
			return nil
		}
	}
}

// awaitJob waits for a job's end, and ends as it did.
func (a *app) awaitJob(ctx context.Context, c *client.Client, id redoubt.JobID) error {
	job, err := c.Job(ctx, id)
	for err == nil && !job.State.Final() {
		job, err = c.WaitJob(ctx, id, job.State)
	}
	if err != nil {
		return err
	}
	if a.json {
		if err := a.print(job); err != nil {
			return err
		}
	} else if job.State != redoubt.JobDone && job.ExitCode < 0 {
		a.tell("the job "+string(job.State)+": "+dash(job.Why), "redoubt job show "+string(id)+" tells more")
	}
	switch {
	case job.State == redoubt.JobDone:
		return nil
	case job.ExitCode > 0 && job.ExitCode < 256:
		return exitError(job.ExitCode)
	}
	return exitError(exitFailed)
}

// withJob is withSession for a command about one job.
func (a *app) withJob(w *who, do func(ctx context.Context, s *session, id redoubt.JobID) error) func(*cobra.Command, []string) error {
	return a.withSession(w, func(ctx context.Context, s *session, args []string) error {
		err := do(ctx, s, redoubt.JobID(args[0]))
		var told *redoubt.Error
		if errors.As(err, &told) && told.Kind == redoubt.NotFound && told.Hint == "" {
			told.Hint = "redoubt job ls lists the jobs that this credential may know of"
		}
		return err
	})
}

func (a *app) jobWait() *cobra.Command {
	var w who
	c := &cobra.Command{Use: "wait ID --as SUBJECT@NODE", Short: "Wait for a job's end, and end with its exit code",
		Long:    `Waits for a job with a credential that dominates its MAX. The exit code is the job's; 1 where it did not end by itself.`,
		Example: "  redoubt job wait ID --as s-analyst@secret --json", Args: exactly(1),
		RunE: a.withJob(&w, func(ctx context.Context, s *session, id redoubt.JobID) error { return a.awaitJob(ctx, s.api, id) })}
	w.flags(c)
	return a.jsonFlag(c)
}

func (a *app) jobLs() *cobra.Command {
	var w who
	var q redoubt.ListJobs
	var state string
	c := &cobra.Command{Use: "ls --as SUBJECT@NODE", Short: "The jobs of a node that the subject may know of, newest first",
		Example: "  redoubt job ls --in running --as s-analyst@secret", Args: exactly(0),
		RunE: a.withSession(&w, func(ctx context.Context, s *session, _ []string) error {
			q.State = redoubt.JobState(state)
			all, err := s.api.Jobs(ctx, q)
			if err != nil {
				return err
			}
			if a.json {
				return a.print(map[string]any{"jobs": all})
			}
			t := a.table("ID", "STATE", "BY", "START", "MAX", "LABEL", "SUBMITTED", "TOOK", "EXIT", "PROGRAM")
			for _, j := range all {
				took, exit := "", ""
				if !j.Ended.IsZero() && !j.Began.IsZero() {
					took, exit = j.Ended.Sub(j.Began).Round(time.Millisecond).String(), fmt.Sprint(j.ExitCode)
				}
				t.row(string(j.ID), string(j.State), string(j.By), j.Start, j.Max, j.Label, j.Made.Local().Format("2006-01-02 15:04:05"), took, exit, programOf(j.Spec))
			}
			return t.flush()
		})}
	w.flags(c)
	c.Flags().StringVar(&state, "in", "", "`state`: submitted, running, done, failed or canceled")
	c.Flags().IntVar(&q.Max, "max", 100, "most that are shown, `1000` at most")
	return a.jsonFlag(c)
}

func programOf(q redoubt.SubmitJob) string {
	if q.Image != "" {
		return q.Image
	}
	return "module " + q.Module[:min(12, len(q.Module))]
}

func (a *app) jobShow() *cobra.Command {
	var w who
	c := &cobra.Command{Use: "show ID --as SUBJECT@NODE", Short: "Everything about a job that the subject may know",
		Example: "  redoubt job show ID --as s-analyst@secret", Args: exactly(1),
		RunE: a.withJob(&w, func(ctx context.Context, s *session, id redoubt.JobID) error {
			j, err := s.api.Job(ctx, id)
			if err != nil {
				return err
			}
			if a.json {
				return a.print(j)
			}
			return a.showJob(j)
		})}
	w.flags(c)
	return a.jsonFlag(c)
}

func (a *app) showJob(j redoubt.Job) error {
	t := a.table("", "")
	row := func(name, value string) {
		if value != "" {
			t.row(name, value)
		}
	}
	row("job", string(j.ID))
	row("state", string(j.State))
	row("why", j.Why)
	row("program", programOf(j.Spec))
	row("arguments", strings.Join(quoted(j.Spec.Args), " "))
	row("by", string(j.By))
	row("started by", j.Spec.From)
	row("start", j.Start)
	row("max", j.Max)
	row("label", j.Label)
	for _, in := range j.Spec.In {
		row("in", place{in.Bucket, in.Prefix}.String())
	}
	if j.Spec.Out.Bucket != "" {
		row("out", place{j.Spec.Out.Bucket, j.Spec.Out.Prefix}.String())
	}
	row("submitted", j.Made.Local().Format(time.RFC3339))
	if !j.Began.IsZero() {
		row("attempt", fmt.Sprintf("%d of %d, begun %s", j.Attempt, j.Spec.Retries+1, j.Began.Local().Format(time.RFC3339)))
	}
	if !j.Ended.IsZero() {
		row("ended", j.Ended.Local().Format(time.RFC3339))
		row("exit code", fmt.Sprint(j.ExitCode))
	}
	for _, o := range j.Outputs {
		row("output", fmt.Sprintf("%s  %s  %s", place{j.Spec.Out.Bucket, o.Key}, bytesText(o.Bytes), o.Version))
	}
	if j.LogBytes > 0 {
		row("log", bytesText(j.LogBytes)+": redoubt job logs "+string(j.ID))
	}
	return t.flush()
}

func quoted(args []string) (out []string) {
	for _, s := range args {
		out = append(out, fmt.Sprintf("%q", s))
	}
	return out
}

func (a *app) jobLogs() *cobra.Command {
	var w who
	var follow bool
	c := &cobra.Command{Use: "logs ID --as SUBJECT@NODE", Short: "What a job has written to standard output and standard error",
		Example: "  redoubt job logs ID -f --as s-analyst@secret", Args: exactly(1),
		RunE: a.withJob(&w, func(ctx context.Context, s *session, id redoubt.JobID) error {
			if follow {
				return a.follow(ctx, s.api, id, 0)
			}
			var from int64
			for {
				text, next, more, err := s.api.JobLog(ctx, id, from, false)
				if err != nil {
					return err
				}
				if _, err := a.out.Write(text); err != nil {
					return err
				}
				if from = next; !more || len(text) == 0 {
					return nil
				}
			}
		})}
	w.flags(c)
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the job has ended")
	return c
}

func (a *app) jobCancel() *cobra.Command {
	var w who
	c := &cobra.Command{Use: "cancel ID --as SUBJECT@NODE", Short: "End a job that the subject has submitted",
		Long: `Ends a job at once; nothing that it wrote is kept. It takes who submitted it, at START or at MAX. At START the answer is
the same whether the job had ended already or not.`,
		Example: "  redoubt job cancel ID --as s-analyst@secret", Args: exactly(1),
		RunE: a.withJob(&w, func(ctx context.Context, s *session, id redoubt.JobID) error { return s.api.CancelJob(ctx, id) })}
	w.flags(c)
	return c
}
