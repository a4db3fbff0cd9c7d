package enclave

import (
	"context"

	"redoubt"
	"redoubt/label"
)

// CopyObject makes a new version from another one. The label of what is read goes
// with it: the copy's is at least the join of source, working label and bucket default (RULES 2.4).
func (e *Enclave) CopyObject(ctx context.Context, who redoubt.Credential, in redoubt.CopyObject) (redoubt.Version, error) {
	const op = opCopy
	opened, err := e.GetObject(ctx, who, redoubt.ReadObject{Name: in.Source, ID: in.SourceID, If: in.SourceIf})
	if err != nil {
		return redoubt.Version{}, sourceError(err)
	}
	src := opened.(*object)
	defer src.Close()
	if src.rec.size > redoubt.MaxPutBytes {
		return redoubt.Version{}, &redoubt.Error{Op: op, Kind: redoubt.TooLarge, Rule: "one request copies at most 5 GiB; copy it by parts"}
	}
	put := redoubt.PutObject{Name: in.Target, Label: in.Label, Attributes: src.rec.attrs, Tags: src.rec.tags,
		Retention: in.Retention, Hold: in.Hold, If: in.If, SizeBytes: src.rec.size, Body: src.Reader(0, -1)}
	if in.ReplaceAttributes != nil {
		put.Attributes = *in.ReplaceAttributes
	}
	put.Attributes = copiedFrom(src.rec, src.set.label, who.Subject, put.Attributes)
	if in.ReplaceTags != nil {
		put.Tags = *in.ReplaceTags
	}
	sums := newSums(in.SumAlgorithm, put.Body)
	if sums != nil {
		put.Body = sums
	}
	kept, md5 := src.rec.sums, ""
	if src.rec.md5 != nil && src.rec.md5Parts == 0 {
		md5 = e.etag(src.rec)
	}
	if kept.Composite {
		kept = redoubt.Checksums{}
	}
	put.Digest = src.rec.contentSum // the same bytes, whatever of their checksums goes along
	put.Finish = func() (redoubt.Checksums, string, error) {
		if sums != nil {
			return sums.result(), md5, nil
		}
		return kept, md5, nil
	}
	return e.putCopy(ctx, who, put, src.set.label)
}

const opCopy = "CopyObject"

// sourceError keeps a failed condition on the source from looking like one on the target.
func sourceError(err error) error {
	if redoubt.KindOf(err) == redoubt.NotModified {
		return &redoubt.Error{Op: opCopy, Kind: redoubt.PreconditionFail, Err: err}
	}
	return err
}

// putCopy is PutObject for content that was read at source's label.
func (e *Enclave) putCopy(ctx context.Context, who redoubt.Credential, in redoubt.PutObject, source label.Label) (redoubt.Version, error) {
	const op = opCopy
	b, err := e.bucket(op, in.Name.Bucket)
	if err != nil {
		return redoubt.Version{}, e.missingBucket(ctx, ask{op: op, who: who, action: redoubt.ActionPutObject, name: in.Name}, err)
	}
	l, err := e.markCopy(op, b, who, in.Label, source)
	if err != nil {
		return redoubt.Version{}, e.unmarked(ctx, ask{op: op, who: who, action: redoubt.ActionPutObject, bucket: b, name: in.Name}, err)
	}
	in.Label = l.Banner()
	return e.putAs(ctx, op, who, b, l, in)
}

// markCopy is mark for derived content: what is asked for may only raise the join.
func (e *Enclave) markCopy(op string, b *bucket, who redoubt.Credential, asked string, source label.Label) (label.Label, error) {
	least := label.Join(source, who.Working)
	if !b.facts.Default.IsZero() {
		least = label.Join(least, b.facts.Default)
	}
	if least.IsZero() {
		return label.Label{}, &redoubt.Error{Op: op, Kind: redoubt.Denied, Rule: "no label joins source and target (2.4)"}
	}
	if asked == "" {
		return least, nil
	}
	l, err := e.mark(op, b, who, asked)
	if err != nil {
		return label.Label{}, err
	}
	if !l.Dominates(least) {
		return label.Label{}, &redoubt.Error{Op: op, Kind: redoubt.Denied, Rule: "a copy's label is at least the join of its sources (2.4)"}
	}
	if !keepsConsentMarks(l, least) {
		return label.Label{}, &redoubt.Error{Op: op, Kind: redoubt.Denied, Rule: ruleKeepsMarks, Hint: "ask for " + least.Banner() + ", or for no label"}
	}
	return l, nil
}
