package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"redoubt"
	"redoubt/client"
	"redoubt/cmd/redoubt/samples"
	"redoubt/label"
	"redoubt/node"
)

// fillers are the people of the example estate who put its files, with the lowest clearance first.
var fillers = []redoubt.SubjectName{"u-analyst", "s-analyst", "ts-analyst"}

// putSamples puts the sample files into the example estate by the ordinary way: each by an analyst
// with her own key, at a working label equal to the file's.
func (a *app) putSamples(ctx context.Context, st node.State) (int, error) {
	all, err := samples.All()
	if err != nil {
		return 0, err
	}
	e, _, err := st.ExerciseEstate()
	if err != nil {
		return 0, err
	}
	type desk struct {
		node  redoubt.NodeName
		label string
	}
	work := map[desk][]samples.Sample{}
	for _, s := range all {
		for _, p := range s.Puts {
			work[desk{p.Node, p.Label}] = append(work[desk{p.Node, p.Label}], s)
		}
	}
	var wg sync.WaitGroup
	var count atomic.Int64
	faults := make(chan error, len(work))
	for d, files := range work {
		wg.Go(func() {
			l, err := e.MarkingPolicy().Parse(d.label)
			if err == nil {
				var who redoubt.SubjectName
				if who, err = filler(e.MarkingPolicy(), e.People, l); err == nil {
					err = putAs(ctx, st, who, d.node, d.label, files, &count)
				}
			}
			if err != nil {
				faults <- fmt.Errorf("put the sample files at %s: %w", d.node, err)
			}
		})
	}
	wg.Wait()
	close(faults)
	var failed []error
	for err := range faults {
		failed = append(failed, err)
	}
	return int(count.Load()), errors.Join(failed...)
}

// filler is the first analyst cleared for l.
func filler(p *label.Policy, people []redoubt.Person, l label.Label) (redoubt.SubjectName, error) {
	for _, name := range fillers {
		for _, person := range people {
			if person.Name != name {
				continue
			}
			if c, err := p.Clearance(person.Clearance, person.Nation); err == nil && c.Dominates(l) {
				return name, nil
			}
		}
	}
	return "", &redoubt.Error{Op: "samples", Object: l.Banner(), Kind: redoubt.Internal, Err: errors.New("nobody in the example is cleared for it")}
}

func putAs(ctx context.Context, st node.State, subject redoubt.SubjectName, name redoubt.NodeName, marking string, files []samples.Sample, count *atomic.Int64) error {
	key, err := st.SubjectKey(subject)
	if err != nil {
		return err
	}
	at, err := stateFaces(st, name)
	if err != nil {
		return err
	}
	s, err := dial(ctx, at, subject, name, key, who{label: marking})
	if err != nil {
		return err
	}
	defer s.close()
	for _, f := range files {
		content, err := f.Content()
		if err != nil {
			return err
		}
		_, err = s.objects.Put(ctx, client.Upload{Name: redoubt.ObjectName{Bucket: f.Bucket, Key: f.Key}, ContentType: f.ContentType,
			Meta: map[string]string{"source": asciiOnly(f.Source), "licence": asciiOnly(f.Licence), "exercise": "marking made up for the exercise"},
			Body: bytes.NewReader(content), SizeBytes: int64(len(content))})
		if err != nil {
			return err
		}
		count.Add(1)
	}
	return nil
}

// asciiOnly is a header's value: S3 metadata travels as ASCII.
func asciiOnly(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c < ' ' || c > '~' {
			b[i] = '?'
		}
	}
	return string(b)
}
