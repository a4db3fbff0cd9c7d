package enclave

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"redoubt"
	"redoubt/access"
	"redoubt/label"
)

// What a job says over a network leaves at the job's label, and what it hears counts as of the label of who says it. So a destination has one label: a
// job that connects to it rises to that label first, and that is its MAX from its submission on. It could not go on beyond: that it falls silent, when, and
// when it begins again as another attempt, would tell the destination what it met there.

const (
	dialTimeout   = 10 * time.Second
	ruleJobSpeaks = "connections (5.1)"
)

// Dialer connects to an address that the estate gives a destination.
type Dialer func(ctx context.Context, address string) (redoubt.JobConn, error)

// granted is what the estate file grants to people by their names.
type granted struct {
	destinations map[string]*destination
	dial         Dialer
	runc         []redoubt.SubjectName
}

// destination is one that the estate names, compiled.
type destination struct {
	redoubt.Destination
	label label.Label
}

func newGranted(o Options) (granted, error) {
	g := granted{destinations: map[string]*destination{}, dial: o.Dial, runc: o.Runc}
	for _, d := range o.Destinations {
		l, err := o.Policy.Parse(d.Label)
		if err == nil && (!redoubt.ValidDestination(d.Name) || g.destinations[d.Name] != nil) {
			err = errors.New("it has no name of its own")
		}
		if err != nil {
			return g, &redoubt.Error{Op: "enclave.Open", Object: d.Name, Kind: redoubt.Invalid, Err: err}
		}
		d.Bytes = cmp.Or(d.Bytes, redoubt.DefaultDestinationCap)
		g.destinations[d.Name] = &destination{d, l}
	}
	return g, nil
}

func noDestination(op, name string) error {
	return &redoubt.Error{Op: op, Object: name, Kind: redoubt.NotFound, Hint: "there is no such destination for this job, or not any more"}
}

// connects asks whether a job at a label may speak with a destination. nil is one that is not there.
func (d *destination) connects(op string, who redoubt.Credential, max label.Label, detail string) ask {
	a := ask{op: op, who: who, action: redoubt.ActionConnect, fresh: max, detail: detail}
	if d != nil {
		a.object, a.granted = d.label, d.Subjects
	}
	return a
}

// checkGranted decides, as a job is submitted, on what the estate file grants by name: its destinations, and the machine's own kernel.
func (e *Enclave) checkGranted(ctx context.Context, op string, who redoubt.Credential, max label.Label, q redoubt.SubmitJob) error {
	if len(q.Network) > redoubt.MaxJobDestinations {
		return &redoubt.Error{Op: op, Kind: redoubt.Invalid, Rule: ruleJobSpec, Hint: fmt.Sprintf("a job has at most %d destinations", redoubt.MaxJobDestinations)}
	}
	if q.Driver == redoubt.DriverRunc {
		if err := e.trusted(ctx, op, who, max); err != nil {
			return err
		}
	}
	for i, name := range q.Network {
		if slices.Contains(q.Network[:i], name) {
			return &redoubt.Error{Op: op, Object: name, Kind: redoubt.Invalid, Rule: ruleJobSpec, Hint: "it is named twice"}
		}
		d := e.granted.destinations[name]
		_, err := e.decide(ctx, d.connects(op, who, max, "to "+name))
		if k := redoubt.KindOf(err); err != nil && k == redoubt.NotFound { // of every name that is none of the caller's
			return &redoubt.Error{Op: op, Object: name, Kind: redoubt.Invalid, Rule: ruleJobSpec, Hint: "there is no such destination for this job up to its MAX: the estate file names those of a node, and whose jobs may (destinations)"}
		}
		if told := new(redoubt.Error); errors.As(err, &told) && told.Kind == redoubt.Denied {
			if told.Rule == access.RuleSpeaksAtMax {
				return &redoubt.Error{Op: op, Object: name, Kind: redoubt.Invalid, Rule: ruleJobSpec, Hint: fmt.Sprintf("a job that connects to it has its label for MAX, no more and no less: --max-label %q", d.Label)}
			}
			told.Object = name
			told.Hint = cmp.Or(told.Hint, fmt.Sprintf("it is accredited for %s: nothing of a job at %s may be told to it", d.Label, who.Working.Banner()))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// grantedIn is what of a job the estate file grants by name, for the record of who asked for it and of each attempt.
func grantedIn(q redoubt.SubmitJob) (s string) {
	if q.Driver == redoubt.DriverRunc {
		s = " on " + redoubt.DriverRunc
	}
	if len(q.Network) > 0 {
		s += " with connections to " + strings.Join(q.Network, ", ")
	}
	return s
}

// trusted decides whether a subject's jobs may run on the machine's own kernel.
func (e *Enclave) trusted(ctx context.Context, op string, who redoubt.Credential, max label.Label) error {
	_, err := e.decide(ctx, ask{op: op, who: who, action: redoubt.ActionRunTrusted, object: max, fresh: max, granted: e.granted.runc, detail: "driver " + redoubt.DriverRunc})
	if k := redoubt.KindOf(err); err != nil && k == redoubt.NotFound {
		return &redoubt.Error{Op: op, Object: redoubt.DriverRunc, Kind: redoubt.Denied, Rule: "not-granted (5.1)", Hint: "the estate file says whose jobs may ask for this driver (runc); without --driver it runs on gVisor"}
	}
	return err
}

// Dial connects: find, decide, rise, record, dial.
func (r *jobRun) Dial(ctx context.Context, to string) (redoubt.JobConn, error) {
	const op = "Dial"
	e, d := r.e, r.e.granted.destinations[to]
	if !slices.Contains(r.j.Spec.Network, to) {
		return nil, noDestination(op, to)
	}
	if r.dials.Add(1) > redoubt.MaxJobDials {
		return nil, &redoubt.Error{Op: op, Object: to, Kind: redoubt.QuotaExceeded, Hint: fmt.Sprintf("an attempt connects %d times at most", redoubt.MaxJobDials)}
	}
	ent, err := e.decide(ctx, d.connects(op, r.who(r.risen()), r.j.max.label, "job "+string(r.j.ID)+" to "+to))
	if told := new(redoubt.Error); errors.As(err, &told) && (told.Kind == redoubt.NotFound || told.Rule == access.RuleSpeaksAtMax) { // the estate file has changed since its submission
		err = noDestination(op, to)
	}
	if err != nil {
		return nil, err
	}
	c := &jobConn{r: r, d: d}
	if err := r.connect(c); err != nil {
		return nil, e.noted(ctx, ent, err)
	}
	if err := e.record(ctx, ent); err != nil { // before anything is said
		c.hangUp("")
		return nil, err
	}
	within, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if e.granted.dial == nil {
		err = errors.New("this enclave has no network")
	} else if err = c.open(e.granted.dial(within, d.Address)); err == nil {
		return c, nil
	}
	c.hangUp("")
	return nil, &redoubt.Error{Op: op, Object: to, Kind: redoubt.Unavailable, Err: err}
}

// connect has the destination's label be the job's, and counts the connection.
func (r *jobRun) connect(c *jobConn) error {
	refused := func(rule, hint string) error {
		return &redoubt.Error{Op: "Dial", Object: c.d.Name, Kind: redoubt.Denied, Rule: rule, Hint: hint}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.ends.Load():
		return refused(ruleJobEnds, "the job has ended")
	case r.spilt:
		return refused(ruleJobSpilt, "what the job had read was taken out as a spill")
	case !c.d.allows(r.label):
		return refused(ruleJobSpeaks, "the job has read what its originator alone may let leave")
	case len(r.conns) >= redoubt.MaxJobConnections:
		return &redoubt.Error{Op: "Dial", Object: c.d.Name, Kind: redoubt.QuotaExceeded, Hint: fmt.Sprintf("a job has at most %d connections at once", redoubt.MaxJobConnections)}
	case r.spent[c.d] >= c.d.Bytes:
		return &redoubt.Error{Op: "Dial", Object: c.d.Name, Kind: redoubt.QuotaExceeded, Hint: "the attempt has sent and taken all bytes that the estate lets it"}
	}
	if r.conns == nil {
		r.conns, r.spent = map[*jobConn]bool{}, map[*destination]int64{}
	}
	r.conns[c] = true
	r.risesTo(label.Join(r.label, c.d.label))
	return nil
}

// allows says whether a job at a label may speak with it. What bears marks of an originator's leaves an enclave by her consent alone (RULES 1.5).
func (d *destination) allows(at label.Label) bool {
	return d.label.Dominates(at) && len(redoubt.ConsentMarks(at)) == 0
}

// risesTo sets the job's label, and cuts off whom it may speak with no more: by marks that the order knows nothing of. r.mu is held: nothing of what it rose by was told yet.
func (r *jobRun) risesTo(l label.Label) {
	r.label = l
	for c := range r.conns {
		if !c.d.allows(l) {
			c.cut("the job read what its originator alone may let leave")
		}
	}
}

// hangUp ends all connections of the attempt.
func (r *jobRun) hangUp() {
	r.mu.Lock()
	all := make([]*jobConn, 0, len(r.conns))
	for c := range r.conns {
		all = append(all, c)
	}
	r.mu.Unlock()
	for _, c := range all {
		c.hangUp("the job ended")
	}
}

// spend counts bytes towards what an attempt may say to a destination and hear of it.
func (r *jobRun) spend(d *destination, n int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.spent[d] += int64(n)
	return r.spent[d] <= d.Bytes
}

// jobConn is one connection. Each piece that passes is decided anew: a right that has ended ends it.
type jobConn struct {
	r              *jobRun
	d              *destination
	sent, received atomic.Int64

	mu   sync.Mutex // guards what follows; taken while the attempt's may be held
	conn redoubt.JobConn
	why  string // it was cut off
	done bool
}

// errCut is what either side of a connection is told that was cut off.
var errCut = errors.New("the connection was cut off")

// open takes what was dialled, unless the job has been cut off from it meanwhile.
func (c *jobConn) open(conn redoubt.JobConn, err error) error {
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.why != "" || c.done {
		return errors.Join(errCut, conn.Close())
	}
	c.conn = conn
	return nil
}

// cut ends it at once. Nothing is written to the destination any more when it returns, and what the machine has not sent yet is not sent: the
// destination sees a connection that was reset, and takes no part for the whole.
func (c *jobConn) cut(why string) { c.end(why, true) }

// end ends it: at once, or once what was written is sent.
func (c *jobConn) end(why string, atOnce bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.why = cmp.Or(c.why, why); c.conn == nil {
		return
	}
	if tcp, ok := c.conn.(interface{ SetLinger(sec int) error }); ok && atOnce {
		_ = tcp.SetLinger(0)
	}
	_ = c.conn.Close()
}

// stands says whether a piece may pass.
func (c *jobConn) stands() error {
	c.mu.Lock()
	why := c.why
	c.mu.Unlock()
	if why != "" {
		return errCut
	}
	if d, _ := c.r.e.judge(context.Background(), c.d.connects("Dial", c.r.who(c.r.risen()), c.d.label, "")); !d.Allow {
		c.cut(d.Rule)
		return errCut
	}
	return nil
}

// passes counts a piece of n bytes.
func (c *jobConn) passes(n int) error {
	if !c.r.spend(c.d, n) {
		c.cut("all bytes that the estate lets an attempt send and take are spent")
		return errCut
	}
	return c.stands()
}

// Read takes what the destination says.
func (c *jobConn) Read(b []byte) (int, error) {
	n, err := c.conn.Read(b)
	if n > 0 {
		if err := c.passes(n); err != nil {
			return 0, err
		}
		c.received.Add(int64(n))
	}
	return n, err
}

// Write says something to the destination.
func (c *jobConn) Write(b []byte) (int, error) {
	if err := c.passes(len(b)); err != nil {
		return 0, err
	}
	n, err := c.conn.Write(b)
	c.sent.Add(int64(n))
	return n, err
}

// CloseWrite says that nothing more is sent.
func (c *jobConn) CloseWrite() error { return c.conn.CloseWrite() }

// Close ends the connection, and puts on record what passed.
func (c *jobConn) Close() error { return c.hangUp("") }

func (c *jobConn) hangUp(why string) error {
	c.end(cmp.Or(why, "closed"), false)
	c.mu.Lock()
	done, ended := c.done, c.why
	c.done = true
	c.mu.Unlock()
	if done {
		return nil
	}
	c.r.mu.Lock()
	delete(c.r.conns, c)
	c.r.mu.Unlock()
	sent, received := c.sent.Load(), c.received.Load()
	ent := c.r.e.describe(context.Background(), c.d.connects("Dial", c.r.who(c.r.j.max.label), c.r.j.max.label,
		fmt.Sprintf("job %s to %s ends: sent %d, took %d, %s", c.r.j.ID, c.d.Name, sent, received, ended)), true, ruleJobSpeaks)
	ent.Bytes = sent + received
	return c.r.e.record(context.Background(), ent)
}

var _ io.ReadWriteCloser = (*jobConn)(nil)
