package api

import (
	"bufio"
	"mime"
	"net/http"
	"time"

	"redoubt"
)

// auditQuery is redoubt.AuditQuery as it is sent. It travels in a body, not in the address, for it may name objects.
type auditQuery struct {
	Subject redoubt.SubjectName `json:"subject"`
	Action  redoubt.Action      `json:"action"`
	Outcome string              `json:"outcome"`
	Rule    string              `json:"rule"`
	Since   time.Time           `json:"since"`
	Until   time.Time           `json:"until"`
	Bucket  redoubt.BucketName  `json:"bucket"`
	Key     string              `json:"key"`
	Request string              `json:"request"`
	From    uint64              `json:"from"`
	Max     int                 `json:"max"`
}

func (q auditQuery) query() (redoubt.AuditQuery, error) {
	if q.Outcome != "" && q.Outcome != "allow" && q.Outcome != "deny" {
		return redoubt.AuditQuery{}, &redoubt.Error{Op: "api", Kind: redoubt.Invalid, Hint: `outcome is "allow", "deny" or left out`}
	}
	if q.Max < 0 || q.Key != "" && q.Bucket == "" {
		return redoubt.AuditQuery{}, &redoubt.Error{Op: "api", Kind: redoubt.Invalid, Hint: "max is not negative, and a key needs its bucket"}
	}
	return redoubt.AuditQuery{
		Subject: q.Subject, Action: q.Action, Outcome: q.Outcome, Rule: q.Rule, Since: q.Since, Until: q.Until,
		Object: redoubt.ObjectName{Bucket: q.Bucket, Key: q.Key}, Request: q.Request, From: q.From, Max: q.Max,
	}, nil
}

func (s *server) searchAudit(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	var in auditQuery
	if err := read(w, r, &in); err != nil {
		return err
	}
	q, err := in.query()
	if err != nil {
		return err
	}
	out, found := newLines(w), 0
	err = s.Audit.SearchAudit(r.Context(), who, q, func(rec redoubt.AuditRecord) error {
		found++
		return out.write("record", rec)
	})
	return out.end("end", map[string]int{"records": found}, err)
}

func (s *server) verifyAudit(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	var in struct {
		Trusted []string `json:"trusted"` // checkpoints that the caller kept
	}
	if err := read(w, r, &in); err != nil {
		return err
	}
	report, err := s.Audit.VerifyAudit(r.Context(), who, in.Trusted)
	if err != nil {
		return err
	}
	report.Faults = orEmpty(report.Faults)
	return answer(w, http.StatusOK, report)
}

func (s *server) exportAudit(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	var in struct {
		Format string     `json:"format"`
		Query  auditQuery `json:"query"`
	}
	if err := read(w, r, &in); err != nil {
		return err
	}
	q, err := in.Query.query()
	if err != nil {
		return err
	}
	if in.Format != "ocsf" && in.Format != "cef" && in.Format != "syslog" {
		return &redoubt.Error{Op: "api", Kind: redoubt.Invalid, Hint: "format is ocsf, cef or syslog"}
	}
	out := &body{w: w, typ: "text/plain; charset=utf-8"}
	if in.Format == "ocsf" {
		out.typ = "application/jsonl"
	}
	return out.end(s.Audit.ExportAudit(r.Context(), who, in.Format, q, out))
}

func (s *server) why(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	recs, err := s.Audit.Why(r.Context(), who, r.PathValue("request"))
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, map[string]any{"records": orEmpty(recs)})
}

func (s *server) archiveAudit(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	var in struct {
		Before    time.Time `json:"before"`
		Recipient string    `json:"recipient"`
	}
	if err := read(w, r, &in); err != nil {
		return err
	}
	if in.Before.IsZero() {
		return &redoubt.Error{Op: "api", Kind: redoubt.Invalid, Hint: "before is the time before which entries are archived"}
	}
	out := &body{w: w, typ: "application/octet-stream"}
	return out.end(s.Archives.ArchiveAudit(r.Context(), who, in.Before, in.Recipient, out))
}

func (s *server) confirmArchive(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	var in struct {
		SHA256 string `json:"sha256"`
	}
	if err := read(w, r, &in); err != nil {
		return err
	}
	a, err := s.Archives.ConfirmArchive(r.Context(), who, in.SHA256)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, a)
}

// maxQueryLine is over any query: eleven short fields and an object's key.
const maxQueryLine = 64 << 10

// searchArchive reads a query on one line, and behind it an archive of any length.
func (s *server) searchArchive(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	if typ, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || typ != "application/octet-stream" {
		return &redoubt.Error{Op: "api", Kind: redoubt.Invalid, Hint: "send Content-Type: application/octet-stream"}
	}
	content := bufio.NewReaderSize(r.Body, maxQueryLine)
	line, err := content.ReadSlice('\n')
	if err != nil {
		return &redoubt.Error{Op: "api", Kind: redoubt.Invalid, Hint: "begin with a query on one line of at most 64 KiB"}
	}
	var in auditQuery
	if err := decode(line, &in); err != nil {
		return err
	}
	q, err := in.query()
	if err != nil {
		return err
	}
	out, found := newLines(w), 0
	err = s.Archives.SearchArchive(r.Context(), who, q, content, func(rec redoubt.AuditRecord) error {
		found++
		return out.write("record", rec)
	})
	return out.end("end", map[string]int{"records": found}, err)
}
