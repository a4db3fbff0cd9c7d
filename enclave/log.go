package enclave

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"

	"golang.org/x/mod/sumdb/tlog"

	"redoubt"
	"redoubt/audit"
	"redoubt/label"
	"redoubt/store"
)

// stream is the engine's append stream as the audit log reads it, and the log's tree
// kept in the catalogue.
type stream struct{ engine store.Engine }

func (s stream) Len() uint64 { return s.engine.Stats().Appended }

func (s stream) First() uint64 { return s.engine.Stats().FirstAppend }

func (s stream) Read(ctx context.Context, from, to uint64, each func(n uint64, entry []byte) error) error {
	view := s.engine.View()
	defer view.Close()
	it := view.Scan(store.AppendKey(from), store.AppendKey(to))
	defer it.Close()
	for next := from; next < to; next++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !it.Next() || string(it.Key()) != string(store.AppendKey(next)) {
			if err := it.Err(); err != nil {
				return err
			}
			return &redoubt.Error{Op: "audit entries", Kind: redoubt.NotFound}
		}
		if err := each(next, it.Value()); err != nil {
			return err
		}
	}
	return nil
}

func tileKey(t tlog.Tile) []byte {
	return binary.BigEndian.AppendUint64([]byte{recTree, 'T', byte(t.L)}, uint64(t.N))
}

func checkpointKey(step uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{recTree, 'C'}, step)
}

func (s stream) Tile(t tlog.Tile) ([]byte, error) {
	data, ok, err := s.engine.Get(tileKey(t))
	if err == nil && (!ok || len(data) < t.W*tlog.HashSize) {
		err = &redoubt.Error{Op: "audit tile", Kind: redoubt.NotFound}
	}
	return data, err
}

// latestKey holds the newest checkpoint; of the others one in keepCheckpoints entries is kept.
var latestKey = []byte{recTree, 'L'}

const keepCheckpoints = 1 << 12

func (s stream) Save(ctx context.Context, tiles []audit.TileData, size uint64, checkpoint []byte) error {
	b := new(store.Batch)
	for _, t := range tiles {
		b.Set(tileKey(t.Tile), t.Data)
	}
	b.Set(latestKey, checkpoint)
	b.Set(checkpointKey(size/keepCheckpoints), checkpoint)
	return s.engine.Commit(ctx, b)
}

func (s stream) Latest() ([]byte, error) {
	last, ok, err := s.engine.Get(latestKey)
	if err == nil && !ok {
		err = &redoubt.Error{Op: "audit checkpoint", Kind: redoubt.NotFound}
	}
	return last, err
}

func (s stream) Checkpoints(from uint64, limit int) (out [][]byte, err error) {
	err = s.checkpoints(from, func(note []byte) bool {
		out = append(out, append([]byte(nil), note...))
		return len(out) < limit
	})
	return out, err
}

func (s stream) checkpoints(from uint64, each func([]byte) bool) error {
	view := s.engine.View()
	defer view.Close()
	it := view.Scan(checkpointKey(from/keepCheckpoints), []byte{recTree, 'C' + 1})
	defer it.Close()
	for it.Next() {
		if !each(it.Value()) {
			return nil
		}
	}
	return it.Err()
}

// openAudit begins an audit session.
func (e *Enclave) openAudit(ctx context.Context) error {
	signer, err := e.keyring.Signer()
	if err != nil {
		return err
	}
	s := stream{e.engine}
	if e.tree, err = audit.NewLog(ctx, "redoubt/"+string(e.name), signer, s, s, e.clock); err != nil {
		return err
	}
	appendOnly := func(ctx context.Context, entries [][]byte) error {
		return e.engine.Commit(ctx, &store.Batch{Appends: entries})
	}
	e.recorder, err = audit.NewRecorder(ctx, "node."+string(e.name), s, appendOnly, e.clock)
	return err
}

// visible tells which entries a working label may see: those whose label it dominates. An
// entry without a label speaks of the node and needs its ceiling.
func (e *Enclave) visible(working label.Label) func(string) bool {
	known := map[string]bool{"": working.Dominates(e.ceiling)}
	return func(text string) bool {
		ok, seen := known[text]
		if !seen {
			l, err := label.ParseText([]byte(text), e.policy)
			ok = err == nil && e.sees(lookAudit, working, l)
			known[text] = ok
		}
		return ok
	}
}

// SearchAudit gives the records that the caller's working label dominates.
func (e *Enclave) SearchAudit(ctx context.Context, who redoubt.Credential, q redoubt.AuditQuery, each func(redoubt.AuditRecord) error) error {
	return e.search(ctx, who, redoubt.ActionSearchAudit, false, q, func(f audit.Found) error { return each(e.auditRecord(f)) })
}

// search decides, records and walks the log.
func (e *Enclave) search(ctx context.Context, who redoubt.Credential, action redoubt.Action, self bool, q redoubt.AuditQuery, each func(audit.Found) error) error {
	entry, err := e.decide(ctx, ask{op: string(action), who: who, action: action, self: self})
	if err != nil {
		return err
	}
	if err := e.record(ctx, entry); err != nil {
		return err
	}
	if err := e.recorder.Flush(ctx); err != nil {
		return err
	}
	query := e.auditQuery(who, q)
	if self {
		query.Subject = string(who.Subject)
	}
	for f, err := range audit.Search(ctx, stream{e.engine}, query) {
		if err != nil {
			return err
		}
		if err := each(f); err != nil {
			return err
		}
	}
	return nil
}

// auditQuery is a query as the log takes it, for who asks.
func (e *Enclave) auditQuery(who redoubt.Credential, q redoubt.AuditQuery) audit.Query {
	query := audit.Query{Visible: e.visible(who.Working), Numbers: who.Working.Dominates(e.ceiling),
		Subject: string(q.Subject), Action: string(q.Action), Rule: q.Rule,
		Request: q.Request, Outcome: q.Outcome, Since: q.Since, Until: q.Until, From: q.From, Max: q.Max}
	if q.Object.Bucket != "" {
		query.Bucket = e.namer.Bucket(string(q.Object.Bucket))
		if q.Object.Key != "" {
			query.Name = e.namer.Name(string(q.Object.Bucket), q.Object.Key)
		}
	}
	if !query.Numbers {
		query.From = 0 // numbers count what the reader may not see: to search from one would tell how much that is
	}
	return query
}

func (e *Enclave) auditRecord(f audit.Found) redoubt.AuditRecord {
	x := &f.Entry
	r := redoubt.AuditRecord{Number: f.Number, Time: x.Time, Subject: redoubt.SubjectName(x.Subject), Credential: x.Credential,
		Action: redoubt.Action(x.Action), Allow: x.Allow, Rule: x.Rule, Outcome: x.Kind, Label: e.banner(x.Label), Working: e.banner(x.Working),
		Bytes: x.Bytes, Count: x.Count, Request: x.Request, Detail: x.Detail}
	if x.Name != [16]byte{} {
		r.Name = hex.EncodeToString(x.Name[:])
	}
	if x.Bucket != [16]byte{} {
		r.Bucket = hex.EncodeToString(x.Bucket[:])
	}
	if len(x.Version) == 16 {
		r.Version = e.ids.versionID(versionID(x.Version))
	}
	return r
}

func (e *Enclave) banner(text string) string {
	if text == "" {
		return ""
	}
	l, err := label.ParseText([]byte(text), e.policy)
	if err != nil {
		return text
	}
	return l.Banner()
}

// VerifyAudit reads the whole log back. What it counts needs the node's ceiling.
func (e *Enclave) VerifyAudit(ctx context.Context, who redoubt.Credential, trusted []string) (redoubt.AuditReport, error) {
	entry, err := e.decide(ctx, ask{op: "VerifyAudit", who: who, action: redoubt.ActionVerifyAudit})
	if err != nil {
		return redoubt.AuditReport{}, err
	}
	if err := e.record(ctx, entry); err != nil {
		return redoubt.AuditReport{}, err
	}
	report := redoubt.AuditReport{Node: e.name, Faults: []string{}}
	var marks []audit.Checkpoint
	for _, text := range trusted {
		c, err := audit.ParseCheckpoint([]byte(text), e.tree.Verifier())
		if err != nil {
			return report, &redoubt.Error{Op: "VerifyAudit", Kind: redoubt.Invalid, Err: err, Hint: "the checkpoint was not signed by this node's log; is it another node's?"}
		}
		marks = append(marks, c)
	}
	e.archiveMu.RLock() // before the tree follows: else entries could be gone, and the record of it not covered yet
	defer e.archiveMu.RUnlock()
	if err := e.tree.Advance(ctx); err != nil {
		report.Faults = append(report.Faults, err.Error())
	}
	s := stream{e.engine}
	sum, err := audit.Verify(ctx, s, s, e.tree.Verifier(), marks, func(f audit.Fault) { report.Faults = append(report.Faults, f.What+": "+f.Text) })
	if err != nil && !errors.Is(err, redoubt.Corrupt) {
		return report, err
	}
	report.OK = len(report.Faults) == 0
	switch {
	case who.Working.Dominates(e.ceiling):
		report.Entries, report.Checkpoint, report.VerifierKey = sum.Entries, string(sum.Checkpoint.Note), e.tree.VerifierKey()
		report.KeptFrom = sum.First
		if report.Archives, err = e.archives(); err != nil {
			return report, err
		}
	case !report.OK: // a fault is told by numbers of entries, which count those above the caller too
		report.Faults = []string{"the log does not verify: verify it again with a credential at the node's ceiling"}
	}
	return report, nil
}

// ExportAudit writes what SearchAudit would find, one line a record.
func (e *Enclave) ExportAudit(ctx context.Context, who redoubt.Credential, format string, q redoubt.AuditQuery, w io.Writer) error {
	var encode func(dst []byte, node string, f audit.Found) ([]byte, error)
	switch format {
	case "ocsf":
		encode = audit.AppendOCSF
	case "cef":
		encode = func(dst []byte, node string, f audit.Found) ([]byte, error) {
			return audit.AppendCEF(dst, node, f), nil
		}
	case "syslog":
		encode = func(dst []byte, node string, f audit.Found) ([]byte, error) {
			return audit.AppendSyslog(dst, node, f), nil
		}
	default:
		return &redoubt.Error{Op: "ExportAudit", Kind: redoubt.Invalid, Hint: "formats are ocsf, cef and syslog"}
	}
	var line []byte
	return e.search(ctx, who, redoubt.ActionSearchAudit, false, q, func(f audit.Found) error {
		var err error
		if line, err = encode(line[:0], string(e.name), f); err != nil {
			return err
		}
		if n := len(line); n == 0 || line[n-1] != '\n' {
			line = append(line, '\n')
		}
		_, err = w.Write(line)
		return err
	})
}

// Why gives the records of one request: an officer any that she may see, anybody else her own.
func (e *Enclave) Why(ctx context.Context, who redoubt.Credential, request string) ([]redoubt.AuditRecord, error) {
	if request == "" {
		return nil, &redoubt.Error{Op: "Why", Kind: redoubt.Invalid, Hint: "give the request ID of the answer"}
	}
	subject, _ := e.identity.Subject(who.Subject)
	out := []redoubt.AuditRecord{}
	err := e.search(ctx, who, redoubt.ActionExplain, !subject.Has(redoubt.RoleOfficer), redoubt.AuditQuery{Request: request},
		func(f audit.Found) error { out = append(out, e.auditRecord(f)); return nil })
	if err == nil && len(out) == 0 {
		err = &redoubt.Error{Op: "Why", Kind: redoubt.NotFound}
	}
	return out, err
}
