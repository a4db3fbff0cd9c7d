package enclave

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"redoubt"
	"redoubt/label"
)

// The rules that refuse an export, beside those of a release that hold for it too (ruleOrigin, ruleConsent).
const (
	ruleNation     = "nation-of-the-audience (1.5)"
	ruleKAS        = "key-of-the-consent (1.5)"
	ruleAuthor     = "another-than-its-author"
	ruleExportSize = "size-of-an-export"
)

// kindExport are the records of what left as a file, at the label of the version: VERSION/ID → redoubt.SpillExport.
const kindExport = "export"

func exportsOf(version redoubt.VersionID) string { return kindExport + "/" + string(version) + "/" }

// exports gives the files that a version left as.
func (e *Enclave) exports(set *labelSet, version redoubt.VersionID) (all []redoubt.SpillExport, err error) {
	view := e.engine.View()
	defer view.Close()
	lower := append(rangeKey(recHead, systemBucketID, set.id), exportsOf(version)...)
	it := view.Scan(lower, nextPrefix(lower))
	defer it.Close()
	for it.Next() {
		rec, err := decodeRecord(it.Value())
		var x redoubt.SpillExport
		if err == nil {
			err = strictJSON(rec.inline, &x)
		}
		if err != nil {
			return nil, &redoubt.Error{Op: kindExport, Kind: redoubt.Corrupt, Err: err}
		}
		all = append(all, x)
	}
	return all, it.Err()
}

// ExportVersion lets one version leave the estate: find, decide, hold against the label, digest, record, give; see redoubt.ExportService.
func (e *Enclave) ExportVersion(ctx context.Context, who redoubt.Credential, q redoubt.ExportVersion) (out redoubt.Exported, _ redoubt.Object, err error) {
	const op = "ExportVersion"
	if err := validName(op, q.Name); err != nil {
		return out, nil, err
	}
	if q.Reason == "" || len(q.Reason) > redoubt.MaxExportReason {
		return out, nil, &redoubt.Error{Op: op, Kind: redoubt.Invalid, Hint: fmt.Sprintf("an export has a reason of 1 to %d bytes", redoubt.MaxExportReason)}
	}
	if err := e.validNation(op, q.Nation); err != nil {
		return out, nil, err
	}
	if q.KAS != "" && !validDigest(q.KAS) {
		return out, nil, &redoubt.Error{Op: op, Kind: redoubt.Invalid, Rule: ruleKAS}
	}
	taken := e.readers.taken.Load()
	b, f, ent, err := e.lookAt(ctx, op, who, redoubt.ActionExportZTDF, q.Name, q.Version)
	if err != nil {
		return out, nil, err
	}
	l := f.set.label
	ent.Detail = "to " + q.Nation + ": " + q.Reason
	refuse := func(kind redoubt.Kind, rule, hint string) (redoubt.Exported, redoubt.Object, error) {
		ent.Allow, ent.Rule = false, rule
		return redoubt.Exported{}, nil, e.noted(ctx, ent, &redoubt.Error{Op: op, Object: q.Name.String(), Kind: kind, Rule: rule, Hint: hint})
	}
	marks, originator, unproved := e.consentTo(op, f.rec, l, l) // another owner's material is FGI (RULES 1.4)
	switch {
	case strings.IndexByte(string(b.Name), '.') >= 0:
		return refuse(redoubt.Denied, ruleOrigin, "it is of another enclave: export it where it was made")
	case unproved != nil:
		ent.Allow, ent.Rule = false, ruleConsent
		return out, nil, e.noted(ctx, ent, unproved)
	case !l.ForAll() && !slices.Contains(l.ReleasableTo(), q.Nation):
		return refuse(redoubt.Denied, ruleNation, l.Banner()+" is not releasable to "+q.Nation+": redoubt release request gives a version a wider audience, by two reviewers")
	case redoubt.SubjectName(f.rec.author) == who.Subject || originator == who.Subject: // so nobody writes, labels and lets out alone
		return refuse(redoubt.Denied, ruleAuthor, "you wrote it: another reviewer exports it")
	case f.rec.size > redoubt.MaxExportBytes:
		return refuse(redoubt.TooLarge, ruleExportSize, fmt.Sprintf("an export has at most %d bytes", redoubt.MaxExportBytes))
	}
	asked := ask{op: op, who: who, action: redoubt.ActionExportZTDF, name: q.Name, object: l, detail: "while it was sent"}
	given := &consentedExport{e: e, asked: asked, b: b, set: f.set, version: e.ids.versionID(f.rec.id), q: q, originator: originator, marks: marks}
	if err := given.look(ctx, op, who); err != nil { // before all of it is read for its digest
		ent.Allow, ent.Rule = false, ruleOf(err)
		return out, nil, e.noted(ctx, ent, err)
	}
	made := time.Unix(0, f.rec.id.time()).UTC()
	xml, err := l.To4774(label.Options4774{Kind: label.Originator4774, Created: made})
	if err != nil {
		return out, nil, e.noted(ctx, ent, &redoubt.Error{Op: op, Object: q.Name.String(), Kind: redoubt.Internal, Err: err})
	}
	o := &object{e: e, name: q.Name, set: f.set, rec: f.rec, latest: q.Version == "", taken: taken}
	sum := sha256.New()
	if err = o.open(); err == nil {
		_, err = io.Copy(sum, o.Reader(0, -1))
	}
	if err == nil { // durable before a byte leaves, with what leaves
		ent.Version, ent.Bytes, ent.Detail = f.rec.id[:], f.rec.size, fmt.Sprintf("to %s, sha256 %x: %s", q.Nation, sum.Sum(nil), q.Reason)
		err = given.use(ctx, op, who, hex.EncodeToString(sum.Sum(nil)), ent)
	} else {
		err = e.noted(ctx, ent, err)
	}
	if err != nil {
		o.Close()
		return out, nil, err
	}
	o.asked, o.since, o.request = asked, ent.Time, redoubt.RequestID(ctx) // it is given for as long as she may have it
	out = redoubt.Exported{Version: e.ids.versionID(f.rec.id), Label: l.Banner(), Classification: l.Classification(), Categories: l.Categories(), ReleasableTo: l.ReleasableTo(), XML: string(xml),
		Nation: q.Nation, ContentType: f.rec.attrs.ContentType, SizeBytes: f.rec.size, SHA256: hex.EncodeToString(sum.Sum(nil)), Made: made.Truncate(time.Second), Consent: given.told()}
	if l.ForAll() {
		out.ReleasableTo = []string{"ALL"}
	}
	return out, o, nil
}

// validNation says whether there is such a nation. That is known to everybody: it is said before anything is looked at, and tells of nothing.
func (e *Enclave) validNation(op, nation string) error {
	if _, err := e.policy.Clearance(e.policy.Lowest().Banner(), nation); err != nil || nation != strings.ToUpper(nation) || nation == e.policy.Nation() {
		return &redoubt.Error{Op: op, Kind: redoubt.Invalid, Hint: "name the partner nation by its code in policy " + e.policy.Name() + ", such as GBR, and not the own one"}
	}
	return nil
}
