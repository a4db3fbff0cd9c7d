package enclave

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"redoubt"
	"redoubt/store"
)

// Services. One is a system record at the label of who deployed it. Whoever dominates that may call it, and is answered at her own working label by
// an instance that serves that label alone; it reads as its deployer, who must be cleared for it.

const kindService = "job.service" // NAME

const ruleService = "service"

// servicePrefix begins the ID of a credential that stands for a service: identity gives none such.
const servicePrefix = "service:"

// serviceRecord is a service as it is kept.
type serviceRecord struct {
	redoubt.Service
	Cred string    `json:"credential"` // that it was deployed with: it ends with that
	Born time.Time `json:"born"`       // when its first revision was deployed: instances of another deployment never answer for it
}

// service is one in memory. It is immutable: a new revision is another.
type service struct {
	serviceRecord
	set *labelSet
}

// services is what is in memory of them.
type services struct {
	mu    sync.RWMutex
	bySet map[*labelSet]map[redoubt.ServiceName]*service
}

func (e *Enclave) loadServices() error {
	e.services.bySet = map[*labelSet]map[redoubt.ServiceName]*service{}
	view := e.engine.View()
	defer view.Close()
	for _, set := range e.sets.all() {
		err := e.recordsAt(view, set, kindService, func(_ string, value []byte) error {
			s := &service{set: set}
			if err := strictJSON(value, &s.serviceRecord); err != nil {
				return err
			}
			e.services.put(s)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (x *services) put(s *service) {
	if x.bySet[s.set] == nil {
		x.bySet[s.set] = map[redoubt.ServiceName]*service{}
	}
	x.bySet[s.set][s.Name] = s
}

// find gives the service of a name that a set of labels may know of: that of the highest label; of labels that do not compare, the one deployed last.
func (e *Enclave) findService(who redoubt.Credential, name redoubt.ServiceName) *service {
	e.services.mu.RLock()
	defer e.services.mu.RUnlock()
	var best *service
	for _, set := range e.sets.seenBy(who.Working) {
		s := e.services.bySet[set][name]
		if s == nil {
			continue
		}
		if best == nil || set.label.Dominates(best.set.label) || !best.set.label.Dominates(set.label) && s.Made.After(best.Made) {
			best = s
		}
	}
	return best
}

// DeployService makes a service, or a new revision of one.
func (e *Enclave) DeployService(ctx context.Context, who redoubt.Credential, name redoubt.ServiceName, spec redoubt.ServiceSpec) (out redoubt.Service, err error) {
	const op = "DeployService"
	ent, err := e.decide(ctx, ask{op: op, who: who, action: redoubt.ActionSubmitJob, fresh: who.Working, detail: "service " + string(name)})
	if err != nil {
		return out, err
	}
	if err := e.checkService(ctx, op, who, name, spec); err != nil {
		return out, e.noted(ctx, ent, err)
	}
	set, err := e.sets.of(ctx, who.Working)
	if err != nil {
		return out, e.noted(ctx, ent, err)
	}
	e.services.mu.Lock()
	defer e.services.mu.Unlock()
	s := &service{set: set, serviceRecord: serviceRecord{Cred: who.ID, Service: redoubt.Service{Name: name, By: who.Subject, Label: set.label.Banner(), Revision: 1, Made: e.clock().UTC(), Spec: spec}}}
	s.Born = s.Made
	var old *service
	for _, same := range e.sets.equalTo(who.Working) { // one point of the order (1.3)
		if x := e.services.bySet[same][name]; x != nil && (old == nil || x.By != who.Subject) {
			old = x
		}
	}
	if old != nil && old.set != set && old.By == who.Subject {
		return out, e.noted(ctx, ent, &redoubt.Error{Op: op, Object: string(name), Kind: redoubt.Exists, Rule: ruleService, Hint: "you have deployed one of that name at " + old.Label + ": deploy it at that label, or remove it"})
	}
	if old != nil {
		s.Born = old.Born
		if old.By != who.Subject {
			return out, e.noted(ctx, ent, &redoubt.Error{Op: op, Object: string(name), Kind: redoubt.Exists, Rule: ruleService, Hint: fmt.Sprintf("%s has deployed one of that name at this label", old.By)})
		}
		s.Revision = old.Revision + 1
	} else if len(e.services.bySet[set]) >= redoubt.MaxServices {
		return out, e.noted(ctx, ent, &redoubt.Error{Op: op, Kind: redoubt.QuotaExceeded, Rule: ruleService, Hint: fmt.Sprintf("there are %d services at this label", redoubt.MaxServices)})
	}
	value, err := json.Marshal(s.serviceRecord)
	if err != nil {
		return out, e.noted(ctx, ent, err)
	}
	b := new(store.Batch)
	if err := e.putRecordAt(ctx, b, set.label, kindService+"/"+string(name), value); err != nil {
		return out, e.noted(ctx, ent, err)
	}
	done, err := e.standing(who, nil, nil)
	if err != nil {
		return out, e.noted(ctx, ent, err)
	}
	defer done()
	if err := e.commit(ctx, b, ent); err != nil {
		return out, err
	}
	e.services.put(s)
	return s.Service, nil
}

func (e *Enclave) checkService(ctx context.Context, op string, who redoubt.Credential, name redoubt.ServiceName, spec redoubt.ServiceSpec) error {
	bad := func(hint string) error {
		return &redoubt.Error{Op: op, Object: string(name), Kind: redoubt.Invalid, Rule: ruleService, Hint: hint}
	}
	switch u, err := url.Parse(spec.Health); {
	case !scheduleNames.MatchString(string(name)):
		return bad("a service's name is 1 to 63 of a-z, 0-9 and -")
	case spec.Port < 0 || spec.Port > 65535:
		return bad("a port is 1 to 65535")
	case spec.Health != "" && (err != nil || !strings.HasPrefix(spec.Health, "/") || u.Host != ""):
		return bad("the health check is a path, such as /healthz")
	case spec.Seconds < 0 || spec.Seconds > redoubt.MaxServiceSeconds || spec.Idle < 0 || spec.Idle > 7*24*3600:
		return bad(fmt.Sprintf("a request may take %d seconds at most, and an instance may be idle for a week", redoubt.MaxServiceSeconds))
	case spec.Most < 0 || spec.Most > redoubt.MaxServiceInstances:
		return bad(fmt.Sprintf("a service has at most %d instances at a label", redoubt.MaxServiceInstances))
	}
	return e.checkJob(ctx, op, who, who.Working, redoubt.SubmitJob{Module: spec.Module, Image: spec.Image, Args: spec.Args, Env: spec.Env, In: spec.In, Limits: spec.Limits, Driver: spec.Driver})
}

// Services lists those whose label the caller dominates.
func (e *Enclave) Services(ctx context.Context, who redoubt.Credential) ([]redoubt.Service, error) {
	ent, err := e.decide(ctx, ask{op: "Services", who: who, action: redoubt.ActionReadJob, detail: "services"})
	if err != nil {
		return nil, err
	}
	out := []redoubt.Service{}
	e.services.mu.RLock()
	for _, set := range e.look(lookServices, who.Working) {
		for _, name := range slices.Sorted(maps.Keys(e.services.bySet[set])) {
			out = append(out, e.services.bySet[set][name].Service)
		}
	}
	e.services.mu.RUnlock()
	slices.SortFunc(out, func(a, b redoubt.Service) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Label, b.Label))
	})
	return out, e.noteRead(ctx, ent)
}

func noSuchService(op string, name redoubt.ServiceName) error {
	return &redoubt.Error{Op: op, Object: string(name), Kind: redoubt.NotFound, Hint: "redoubt service ls lists those that you may call"}
}

// Service shows the one that a call would reach.
func (e *Enclave) Service(ctx context.Context, who redoubt.Credential, name redoubt.ServiceName) (redoubt.Service, error) {
	ent, err := e.decide(ctx, ask{op: "Service", who: who, action: redoubt.ActionReadJob, detail: "service " + string(name)})
	if err != nil {
		return redoubt.Service{}, err
	}
	s := e.findService(who, name)
	if s == nil {
		return redoubt.Service{}, e.noted(ctx, ent, noSuchService("Service", name))
	}
	return s.Service, e.noteRead(ctx, ent)
}

// RemoveService ends one of the caller's own at her working label.
func (e *Enclave) RemoveService(ctx context.Context, who redoubt.Credential, name redoubt.ServiceName) error {
	const op = "RemoveService"
	ent, err := e.decide(ctx, ask{op: op, who: who, action: redoubt.ActionCancelJob, made: who.Working, detail: "service " + string(name)})
	if err != nil {
		return err
	}
	e.services.mu.Lock()
	defer e.services.mu.Unlock()
	for _, set := range e.sets.equalTo(who.Working) {
		s := e.services.bySet[set][name]
		if s == nil {
			continue
		}
		if s.By != who.Subject { // there is no other of that name at an equivalent label
			ent.Allow, ent.Rule = false, "own-service (5.2)"
			return e.noted(ctx, ent, &redoubt.Error{Op: op, Object: string(name), Kind: redoubt.Denied, Rule: "own-service (5.2)", Hint: fmt.Sprintf("%s has deployed it", s.By)})
		}
		b := new(store.Batch)
		if err := e.putRecordAt(ctx, b, set.label, kindService+"/"+string(name), nil); err != nil {
			return e.noted(ctx, ent, err)
		}
		if err := e.commit(ctx, b, ent); err != nil {
			return err
		}
		delete(e.services.bySet[set], name)
		return nil
	}
	return e.noted(ctx, ent, noSuchService(op, name))
}

// CallService decides and records a call: the caller may know of the service, and whom it acts as may work at the caller's label.
func (e *Enclave) CallService(ctx context.Context, who redoubt.Credential, name redoubt.ServiceName) (redoubt.ServiceCall, error) {
	const op = "CallService"
	a := ask{op: op, who: who, action: redoubt.ActionCallService, fresh: who.Working, detail: "service " + string(name)}
	s := e.findService(who, name)
	if s != nil {
		a.object = s.set.label
	}
	ent, err := e.decide(ctx, a)
	if err != nil {
		return redoubt.ServiceCall{}, err
	}
	if s == nil {
		return redoubt.ServiceCall{}, e.noted(ctx, ent, noSuchService(op, name))
	}
	as := redoubt.Credential{ID: servicePrefix + s.Cred, Subject: s.By, Working: who.Working, Expires: e.clock().Add(time.Minute)}
	if d, _ := e.judge(ctx, ask{op: op, who: as, action: redoubt.ActionCallService, fresh: who.Working}); !d.Allow {
		ent.Allow, ent.Rule = false, d.Rule
		return redoubt.ServiceCall{}, e.noted(ctx, ent, &redoubt.Error{Op: op, Object: string(name), Kind: redoubt.Denied, Rule: d.Rule,
			Hint: fmt.Sprintf("it acts as %s, who may not work at %s now", s.By, who.Working.Banner())})
	}
	if err := e.noteRead(ctx, ent); err != nil {
		return redoubt.ServiceCall{}, err
	}
	return redoubt.ServiceCall{Service: s.Service, At: who.Working, Key: strings.Join([]string{string(name), s.set.name, string(s.By), s.Born.Format(time.RFC3339Nano), e.text(who.Working)}, "\x00"),
		Begin: func() redoubt.JobRun { return e.beginService(s, who) }}, nil
}

// beginService makes what an instance runs on: an attempt that never ends, writes nothing, and sees /in as it is.
func (e *Enclave) beginService(s *service, who redoubt.Credential) *jobRun {
	at := s.set
	if set, err := e.sets.of(context.Background(), who.Working); err == nil {
		at = set
	}
	q := redoubt.SubmitJob{Module: s.Spec.Module, Image: s.Spec.Image, Args: s.Spec.Args, Env: s.Spec.Env, In: s.Spec.In, Limits: s.Spec.Limits, Driver: s.Spec.Driver}
	j := &job{start: s.set, max: at, jobRecord: jobRecord{ID: redoubt.JobID("service " + string(s.Name)), By: s.By, Made: s.Made, Cred: s.Cred, Spec: q}}
	return e.readers.begin(&jobRun{e: e, j: j, ended: make(chan struct{}), label: who.Working, acts: servicePrefix + s.Cred})
}
