package enclave

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"strings"

	"redoubt"
	"redoubt/label"
)

// PutModule keeps a module for jobs whose START dominates the working label.
func (e *Enclave) PutModule(ctx context.Context, who redoubt.Credential, digest string, module io.Reader) error {
	const op = "PutModule"
	if b, err := hex.DecodeString(digest); err != nil || len(b) != sha256.Size || strings.ToLower(digest) != digest {
		return &redoubt.Error{Op: op, Kind: redoubt.Invalid, Hint: "a module is named by its SHA-256, 64 hex digits"}
	}
	ent, err := e.decide(ctx, ask{op: op, who: who, action: redoubt.ActionSubmitJob, fresh: who.Working, detail: "module " + digest})
	if err != nil {
		return err
	}
	h := sha256.New()
	_, err = e.PutObject(ctx, e.own(who.Working), redoubt.PutObject{Name: moduleName(digest), SizeBytes: -1,
		Body: io.TeeReader(&atMost{r: module, left: redoubt.MaxModuleBytes, what: "a module"}, h),
		Finish: func() (sums redoubt.Checksums, _ string, err error) {
			if hex.EncodeToString(h.Sum(nil)) != digest {
				err = &redoubt.Error{Op: op, Kind: redoubt.BadDigest}
			}
			return sums, "", err
		}})
	if err != nil {
		return e.noted(ctx, ent, err)
	}
	return e.record(ctx, ent)
}

func moduleName(digest string) redoubt.ObjectName {
	return redoubt.ObjectName{Bucket: JobBucket, Key: "module/" + digest}
}

// atMost fails where more comes than may.
type atMost struct {
	r    io.Reader
	left int64
	what string
}

func (a *atMost) Read(p []byte) (int, error) {
	n, err := a.r.Read(p)
	if a.left -= int64(n); a.left < 0 {
		return 0, &redoubt.Error{Op: "job", Kind: redoubt.TooLarge, Rule: a.what + " is larger than may be"}
	}
	return n, err
}

// HasModule says whether a module is there for jobs at the working label.
func (e *Enclave) HasModule(ctx context.Context, who redoubt.Credential, digest string) (bool, error) {
	ent, err := e.decide(ctx, ask{op: "HasModule", who: who, action: redoubt.ActionSubmitJob, fresh: who.Working, detail: "module " + digest})
	if err != nil {
		return false, err
	}
	has, err := e.hasModule(who.Working, digest)
	return has, errors.Join(err, e.noteRead(ctx, ent))
}

func (e *Enclave) hasModule(at label.Label, digest string) (bool, error) {
	f, err := e.moduleAt(at, digest)
	return f.rec != nil && e.clock().UnixNano() < f.rec.id.time()+int64(redoubt.ModuleLife/2), err // one that is old is put once more, lest it go before the job runs
}

// moduleAt finds a module that a label dominates.
func (e *Enclave) moduleAt(at label.Label, digest string) (found, error) {
	b, err := e.readable("job", JobBucket)
	if err != nil {
		return found{}, err
	}
	f, _, err := e.current(e.engine, lookCurrent, b, at, moduleName(digest).Key)
	return f, err
}

// keepModules puts the modules of schedules, services and jobs that wait once more before they go.
func (e *Enclave) keepModules(ctx context.Context) error {
	type need struct {
		at     label.Label
		digest string
	}
	all := map[need]bool{}
	s := &e.jobs.schedules
	s.mu.Lock()
	for set, of := range s.bySet {
		for _, x := range of {
			if x.Job.Module != "" {
				all[need{set.label, x.Job.Module}] = true
			}
		}
	}
	s.mu.Unlock()
	e.services.mu.RLock()
	for set, of := range e.services.bySet {
		for _, x := range of {
			if x.Spec.Module != "" {
				all[need{set.label, x.Spec.Module}] = true
			}
		}
	}
	e.services.mu.RUnlock()
	e.jobs.mu.Lock()
	for _, l := range e.jobs.lanes {
		for _, j := range l.waiting {
			if j.waits.Load() && j.Spec.Module != "" {
				all[need{j.start.label, j.Spec.Module}] = true
			}
		}
	}
	e.jobs.mu.Unlock()
	var errs []error
	for n := range all {
		f, err := e.moduleAt(n.at, n.digest)
		if err != nil || f.rec == nil || e.clock().UnixNano() < f.rec.id.time()+int64(redoubt.ModuleLife/4) {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, e.keepModule(ctx, n.at, moduleName(n.digest)))
	}
	return errors.Join(errs...)
}

func (e *Enclave) keepModule(ctx context.Context, at label.Label, name redoubt.ObjectName) error {
	o, err := e.GetObject(ctx, e.own(at), redoubt.ReadObject{Name: name})
	if redoubt.KindOf(err) == redoubt.NotFound && err != nil {
		return nil // it is gone: the schedule says so when it is due
	}
	if err != nil {
		return err
	}
	defer o.Close()
	_, err = e.PutObject(ctx, e.own(at), redoubt.PutObject{Name: name, SizeBytes: o.Version().SizeBytes, Body: o.Reader(0, -1)})
	return err
}
