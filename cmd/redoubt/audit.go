package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/spf13/cobra"

	"redoubt"
)

func (a *app) auditCommand() *cobra.Command {
	c := &cobra.Command{Use: "audit", Short: "Verify, search, export and archive the record of every decision",
		Example: `  redoubt audit verify
  redoubt audit search --outcome deny --since 1h --as officer@secret
  redoubt audit export --format ocsf --as officer@secret > audit.jsonl`}
	c.AddCommand(a.auditVerify(), a.auditSearch(), a.auditExport(), a.auditArchive())
	return c
}

// maxKept bounds a file of kept checkpoints: one a day for ten years.
const (
	maxKept      = 4000
	maxKeptBytes = maxKept << 10
)

// readKept reads the checkpoints kept from earlier, by node.
func readKept(path string) (map[redoubt.NodeName][]string, error) {
	kept := map[redoubt.NodeName][]string{}
	if path == "" {
		return kept, nil
	}
	data, err := readLimited(path, maxKeptBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return kept, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &kept)
	}
	if err != nil {
		return nil, &redoubt.Error{Object: path, Kind: redoubt.Corrupt, Err: err, Hint: "name the file that audit verify --kept wrote"}
	}
	return kept, nil
}

func writeKept(path string, kept map[redoubt.NodeName][]string) error {
	for n, c := range kept {
		if len(c) > maxKept {
			kept[n] = c[len(c)-maxKept:]
		}
	}
	data, err := json.MarshalIndent(kept, "", " ")
	if err != nil {
		return err
	}
	return replaceFile(path, append(data, '\n'), 0o600)
}

// auditFlags select records.
type auditFlags struct {
	subject, action, outcome, rule, since, until, object, request string
	most                                                          int
}

func (f *auditFlags) flags(c *cobra.Command) {
	c.Flags().StringVar(&f.subject, "subject", "", "of this `subject`")
	c.Flags().StringVar(&f.action, "action", "", "of this `action`, such as GetObject")
	c.Flags().StringVar(&f.outcome, "outcome", "", "`allow|deny`")
	c.Flags().StringVar(&f.rule, "rule", "", "decided by this `rule`")
	c.Flags().StringVar(&f.since, "since", "", "from this `time` (RFC 3339), or so long ago (1h)")
	c.Flags().StringVar(&f.until, "until", "", "to this `time`, or so long ago")
	c.Flags().StringVar(&f.object, "object", "", "about `s3://BUCKET[/KEY]`: names are kept as HMACs, so one must be known")
	c.Flags().StringVar(&f.request, "request", "", "of this request `ID`")
	c.Flags().IntVar(&f.most, "max", 0, "at most `N` records; 0: all")
}

func (f *auditFlags) query(c *cobra.Command) (q redoubt.AuditQuery, err error) {
	q = redoubt.AuditQuery{Subject: redoubt.SubjectName(f.subject), Action: redoubt.Action(f.action), Outcome: f.outcome, Rule: f.rule, Request: f.request, Max: f.most}
	if f.outcome != "" && f.outcome != "allow" && f.outcome != "deny" {
		return q, usage(c, "--outcome wants allow or deny")
	}
	if q.Since, err = instant(c, f.since); err != nil {
		return q, err
	}
	if q.Until, err = instant(c, f.until); err != nil {
		return q, err
	}
	if f.object != "" {
		p, err := parsePlace(f.object)
		if err != nil {
			return q, err
		}
		q.Object = p.name()
	}
	return q, nil
}

// instant is a time, or so long ago.
func instant(c *cobra.Command, s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		return time.Now().Add(-d).UTC(), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, usage(c, s+" is neither a time such as 2031-12-31T18:00:00Z nor a length such as 90m")
	}
	return t, nil
}

func (a *app) auditSearch() *cobra.Command {
	var w who
	var f auditFlags
	var archives archiveFlags
	c := &cobra.Command{Use: "search --as SUBJECT@NODE", Short: "Records of decisions whose label the credential dominates", Args: exactly(0),
		Long: `Searches the log of a running node. With --archive, it searches archives of that node's log instead, which are
opened here, and verified and searched there: they show what the log would have shown at the same working label.`,
		Example: `  redoubt audit search --outcome deny --since 24h --as officer@secret
  redoubt audit search --object s3://reports/walden.pdf --json --as officer@secret`}
	c.RunE = a.withSession(&w, func(ctx context.Context, s *session, _ []string) error {
		q, err := f.query(c)
		if err != nil {
			return err
		}
		records := []redoubt.AuditRecord{}
		found := func(r redoubt.AuditRecord) error { records = append(records, r); return nil }
		if len(archives.files) > 0 {
			err = archives.each(c, func(file string, opened io.Reader) error {
				return inFile(file, s.api.SearchArchive(ctx, q, opened, found))
			})
		} else {
			err = s.api.SearchAudit(ctx, q, found)
		}
		if err != nil {
			return err
		}
		return a.showRecords(records)
	})
	w.flags(c)
	f.flags(c)
	archives.flags(c, "search these instead of the running log: ")
	return a.jsonFlag(c)
}

// inFile names the file in an error that does not.
func inFile(file string, err error) error {
	e, ok := err.(*redoubt.Error)
	if !ok || e.Object != "" {
		return err
	}
	out := *e
	out.Object = file
	return &out
}

func (a *app) showRecords(records []redoubt.AuditRecord) error {
	if a.json {
		return a.print(map[string]any{"records": records})
	}
	t := a.table("NUMBER", "TIME", "SUBJECT", "ACTION", "DECISION", "RULE", "LABEL", "REQUEST")
	for _, r := range records {
		word := "deny"
		if r.Allow {
			word = "allow"
		}
		t.row(fmt.Sprint(r.Number), r.Time.Local().Format("2006-01-02 15:04:05"), dash(string(r.Subject)), string(r.Action), word, dash(r.Rule), dash(r.Label), dash(r.Request))
	}
	return t.flush()
}

func (a *app) auditExport() *cobra.Command {
	var w who
	var f auditFlags
	var format, out string
	c := &cobra.Command{Use: "export --format ocsf|cef|syslog --as SUBJECT@NODE", Short: "Records for another system, one a line", Args: exactly(0),
		Example: "  redoubt audit export --format cef --since 24h --to audit.cef --as officer@secret"}
	c.RunE = a.withSession(&w, func(ctx context.Context, s *session, _ []string) error {
		q, err := f.query(c)
		if err != nil {
			return err
		}
		if format != "ocsf" && format != "cef" && format != "syslog" {
			return usage(c, "--format wants ocsf, cef or syslog")
		}
		if out == "" || out == "-" {
			return s.api.ExportAudit(ctx, format, q, a.out)
		}
		return writeStream(out, func(w io.Writer) error { return s.api.ExportAudit(ctx, format, q, w) })
	})
	w.flags(c)
	f.flags(c)
	c.Flags().StringVar(&format, "format", "ocsf", "`ocsf|cef|syslog`")
	c.Flags().StringVar(&out, "to", "-", "`file` to write to; - is stdout")
	return c
}

// writeStream makes a file (mode 0600) of what fill writes, when all of it was written.
func writeStream(path string, fill func(io.Writer) error) error {
	r, w := io.Pipe()
	go func() { w.CloseWithError(fill(w)) }() // ends when writeWhole has read to the end, or closes r
	defer r.Close()
	return writeWhole(path, r)
}

func (a *app) whyCommand() *cobra.Command {
	var w who
	c := &cobra.Command{Use: "why REQUEST --as SUBJECT@NODE", Short: "Explain the decisions of one request to who may know them",
		Long:    "Explains a request by its ID: the header x-amz-request-id or Redoubt-Request of its answer, or the RequestId of an S3\nerror.",
		Example: "  redoubt why 7QK3XB… --as s-analyst@secret", Args: exactly(1),
		RunE: a.withSession(&w, func(ctx context.Context, s *session, args []string) error {
			records, err := s.api.Why(ctx, args[0])
			if err != nil {
				return err
			}
			return a.showRecords(records)
		})}
	w.flags(c)
	return a.jsonFlag(c)
}
