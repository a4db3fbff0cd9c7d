package filter

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"redoubt"
	"redoubt/guard"
	"redoubt/sandbox"
)

// OwnName is the code base of the filters that are written here.
const OwnName = "redoubt"

// workerName is our one worker: what it is to do it is told with its input.
const workerName = "filter"

// task is what a worker is told before the content.
type task struct {
	Do     string `json:"do"` // a media type, or a step of one
	Schema []byte `json:"schema,omitempty"`
}

// reply is what a worker tells before what it wrote.
type reply struct {
	Refused  *refusal          `json:"refused,omitempty"`
	Findings []redoubt.Finding `json:"findings,omitempty"`
}

// Limits of what goes between us and a worker.
const (
	maxHeadBytes   = 1 << 20 // of a task or a reply
	MaxSchemaBytes = 256 << 10
)

// doers are what our worker can do: each writes a content anew.
var doers = map[string]func(in, schema []byte, n *notes) ([]byte, error){
	Text: noPDF(cleanText),
	JSON: noPDF(cleanJSON),
	XML:  noPDF(cleanXML),
	CSV:  noPDF(cleanCSV),
	PNG:  cleanPNG,
	JPEG: cleanJPEG,

	pdfLook:  lookPDF,
	pdfWrite: writePDF,
	zipOpen:  openZIP,
	zipBuild: buildZIP,
}

// Workers are those of our own filters, for sandbox.Enter.
func Workers() map[string]sandbox.Worker {
	return map[string]sandbox.Worker{workerName: work}
}

func work(in io.Reader, out io.Writer) error {
	var t task
	if err := readHead(in, &t); err != nil {
		return err
	}
	content, err := io.ReadAll(io.LimitReader(in, maxBetween+1))
	if err != nil {
		return err
	}
	do := doers[t.Do]
	if do == nil || len(content) > maxBetween {
		return fmt.Errorf("no task %q for %d bytes", t.Do, len(content))
	}
	n := newNotes(OwnName)
	clean, err := do(content, t.Schema, n)
	var r reply
	if err != nil && !errors.As(err, &r.Refused) {
		return err
	}
	if err != nil {
		clean = nil
	}
	r.Findings = n.findings()
	head, err := head(r)
	if err != nil {
		return err
	}
	if _, err := out.Write(head); err != nil {
		return err
	}
	_, err = out.Write(clean)
	return err
}

// head is a length and JSON.
func head(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...), nil
}

func readHead(in io.Reader, v any) error {
	var n uint32
	if err := binary.Read(in, binary.BigEndian, &n); err != nil {
		return err
	}
	if n > maxHeadBytes {
		return errors.New("a head that is too long")
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(in, b); err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	return d.Decode(v)
}

// own is a filter that our worker runs.
type own struct {
	do   string
	pool *pool
}

func (o own) Name() string { return OwnName }

// Clean has a worker write the content anew.
func (o own) Clean(ctx context.Context, in guard.Content) ([]byte, []redoubt.Finding, error) {
	if len(in.Schema) > MaxSchemaBytes {
		return nil, nil, denied(OwnName, refuse("", "the schema has %d bytes, and %d may be", len(in.Schema), MaxSchemaBytes))
	}
	out, seen, err := ask(ctx, o.pool, o.do, in.Schema, in.Bytes)
	if err != nil {
		return nil, seen, denied(OwnName, err)
	}
	return out, seen, nil
}

// ask has a worker do one thing. What it replies it is believed no more than any program: a reply that is none is a failure.
func ask(ctx context.Context, p *pool, do string, schema, content []byte) ([]byte, []redoubt.Finding, error) {
	if len(content) > maxBetween {
		return nil, nil, refuse("", "it has %d bytes, and %d may be", len(content), maxBetween)
	}
	h, err := head(task{Do: do, Schema: schema})
	if err != nil {
		return nil, nil, err
	}
	out, err := p.run(ctx, append(h, content...))
	if err != nil {
		return nil, nil, err
	}
	var r reply
	rest := bytes.NewReader(out)
	if err := readHead(rest, &r); err != nil {
		return nil, nil, fmt.Errorf("the worker's reply: %w", err)
	}
	if len(r.Findings) > redoubt.MaxReleaseReport {
		return nil, nil, errors.New("the worker's reply has too many findings")
	}
	for i := range r.Findings { // a worker speaks of its own step, and ends nothing by a finding
		f := &r.Findings[i]
		f.Step, f.Rule, f.Detail, f.Fatal = "filter "+OwnName, clip(f.Rule), clip(f.Detail), false
	}
	if r.Refused != nil {
		return nil, r.Findings, &refusal{Rule: clip(r.Refused.Rule), Hint: clip(r.Refused.Hint)}
	}
	if rest.Len() == 0 && len(content) > 0 {
		return nil, nil, errors.New("the worker wrote nothing")
	}
	return out[len(out)-rest.Len():], r.Findings, nil
}

// ownProgram is the sandbox of our worker.
func ownProgram() sandbox.Program {
	return sandbox.Program{Name: OwnName, Worker: workerName,
		Limits: sandbox.Limits{Memory: 1 << 30, CPU: 60 * time.Second, Wall: 60 * time.Second, Output: maxBetween + maxHeadBytes}}
}
