package enclave

import (
	"context"
	"io"
	"time"

	"redoubt"
	"redoubt/access"
)

// standing lets a write be committed only while its credential stands, and what it was allowed is still: one that was
// revoked, or had its subject's clearance or a grant taken, while content came in commits nothing. asked are each with the entry
// that allowed it. The caller calls done after its commit; a revocation that returns has waited for it.
func (e *Enclave) standing(who redoubt.Credential, asked *ask, entry *entry) (done func(), err error) {
	e.standingMu.RLock()
	if who.ID != ownCredential {
		err := e.partnersLive(who.Subject)
		if live := e.live(who); redoubt.KindOf(live) == redoubt.Unauthenticated && live != nil {
			err = live
		}
		if err == nil && asked != nil {
			err = e.stillAllowed(asked, entry)
		}
		if err != nil {
			e.standingMu.RUnlock()
			return nil, err
		}
	}
	return e.standingMu.RUnlock, nil
}

// stillAllowed refuses what is allowed no more, and has its entry say so.
func (e *Enclave) stillAllowed(asked *ask, entry *entry) error {
	if asked.action == "" {
		return nil
	}
	d := e.again(asked, entry.Time)
	if d.Allow {
		return nil
	}
	entry.Allow, entry.Rule = false, d.Rule
	return e.refusal(d, *asked)
}

// again asks the monitor once more for what was allowed at since: by clearance, roles, grants and bucket as they are now, and at that
// time, so that what was begun before a credential expired may end.
func (e *Enclave) again(asked *ask, since time.Time) access.Decision {
	a := e.today(asked)
	req := e.request(&a, since)
	if redoubt.KindOf(req.Live) == redoubt.Expired {
		req.Live = nil
	}
	return e.monitor.Check(&req)
}

// today is the same question about the bucket as it is now.
func (e *Enclave) today(asked *ask) ask {
	a := *asked
	if b := (*e.buckets.Load())[a.name.Bucket]; b != nil {
		a.bucket = b
	}
	return a
}

// lasting is content that is read for as long as its reader may: a download ends with the right to it.
type lasting struct {
	r io.Reader
	o *object
}

func (l *lasting) Read(p []byte) (int, error) {
	if err := l.o.stands(); err != nil {
		return 0, err
	}
	return l.r.Read(p)
}

// WriteTo asks before each piece that is handed over, which is half a MiB at most.
func (l *lasting) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(lastingWriter{w, l.o}, l.r)
}

type lastingWriter struct {
	w io.Writer
	o *object
}

func (l lastingWriter) Write(p []byte) (int, error) {
	if err := l.o.stands(); err != nil {
		return 0, err
	}
	return l.w.Write(p)
}

// stands refuses to go on with what its reader may read no more, on the record.
func (o *object) stands() error {
	if d := o.e.again(&o.asked, o.since); d.Allow {
		return nil
	}
	_, err := o.e.decide(redoubt.WithRequest(context.Background(), o.request), o.e.today(&o.asked))
	return err
}
