package enclave

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"redoubt"
)

func (w *world) deploy(who redoubt.Credential, name redoubt.ServiceName) redoubt.Service {
	w.t.Helper()
	s, err := w.DeployService(context.Background(), who, name, redoubt.ServiceSpec{Module: w.module(who), In: []redoubt.JobInput{{Bucket: "reports"}}})
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func TestAServiceIsForWhoDominatesItsLabel(t *testing.T) {
	w := open(t, nil)
	ctx := context.Background()
	s, u := w.as("s-analyst", "SECRET"), w.as("u-analyst", "")
	w.deploy(s, "tool")
	_, above := w.CallService(ctx, u, "tool")
	_, never := w.CallService(ctx, u, "none")
	if above == nil || never == nil || strings.ReplaceAll(above.Error(), "tool", "none") != never.Error() {
		t.Errorf("a service above: %v, one that never was: %v", above, never)
	}
	if all, err := w.Services(ctx, u); err != nil || len(all) != 0 {
		t.Errorf("the list below shows %v %v", all, err)
	}
	call, err := w.CallService(ctx, s, "tool")
	if err != nil || call.At.Banner() != "SECRET" || call.Service.Revision != 1 {
		t.Fatalf("got %+v %v", call, err)
	}
	// Who may work higher than its deployer is not answered: it would act beyond his clearance.
	if _, err := w.CallService(ctx, w.as("ts-analyst", top), "tool"); !errors.Is(err, redoubt.Denied) {
		t.Errorf("beyond its deployer's clearance: %v", err)
	}
	if _, err := w.CallService(ctx, w.as("ts-analyst", "SECRET"), "tool"); err != nil {
		t.Errorf("another caller at its label: %v", err)
	}
}

func TestAnInstanceReadsAtItsLabelAsItsDeployer(t *testing.T) {
	w := open(t, nil)
	ctx := context.Background()
	low, high := w.as("s-analyst", "UNCLASSIFIED"), w.as("s-analyst", "SECRET")
	w.deploy(low, "tool")
	w.put(low, "a", "low", "")
	w.put(high, "a", "high", "")
	for who, want := range map[*redoubt.Credential]string{&low: "low", &high: "high"} {
		call, err := w.CallService(ctx, *who, "tool")
		if err != nil {
			t.Fatal(err)
		}
		r := call.Begin()
		if got := read(t, r, "reports/a"); got != want {
			t.Errorf("at %s it reads %q, want %q", who.Working.Banner(), got, want)
		}
		w.put(*who, "later", want, "")
		if got := read(t, r, "reports/later"); got != want {
			t.Errorf("what came later is %q", got)
		}
		if err := r.Put(ctx, "x", 1, strings.NewReader("x")); err == nil {
			t.Error("an instance wrote an object")
		}
	}
	call, err := w.CallService(ctx, high, "tool")
	if err != nil {
		t.Fatal(err)
	}
	r := call.Begin()
	if err := w.RevokeCredential(ctx, w.as("officer", ""), low.ID); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.Open(ctx, "reports/a"); err == nil {
		t.Error("it reads on after what it was deployed with was revoked")
	}
	if _, err := w.CallService(ctx, high, "tool"); err == nil {
		t.Error("it is called after what it was deployed with was revoked")
	}
}

func TestServicesAreTheirDeployers(t *testing.T) {
	w := open(t, nil)
	ctx, who := context.Background(), w.as("s-analyst", "")
	first := w.deploy(who, "tool")
	if second := w.deploy(who, "tool"); first.Revision != 1 || second.Revision != 2 {
		t.Errorf("revisions are %d and %d", first.Revision, second.Revision)
	}
	other := w.as("ts-analyst", "SECRET")
	if _, err := w.DeployService(ctx, other, "tool", redoubt.ServiceSpec{Module: w.module(other)}); !errors.Is(err, redoubt.Exists) {
		t.Errorf("another's name: %v", err)
	}
	if err := w.RemoveService(ctx, other, "tool"); !errors.Is(err, redoubt.Denied) {
		t.Errorf("removing another's: %v", err)
	}
	// One of a lower label does not stand in the way of a higher one.
	w.deploy(w.as("s-analyst", "UNCLASSIFIED"), "tool")
	if got, err := w.Service(ctx, who, "tool"); err != nil || got.Label != "SECRET" || got.Revision != 2 {
		t.Errorf("the higher caller reaches %+v %v", got, err)
	}
	w.restart(true)
	who = w.as("s-analyst", "")
	if all, err := w.Services(ctx, who); err != nil || len(all) != 2 || fmt.Sprint(all[0].Name, all[0].Label, all[0].Revision) != "toolSECRET2" {
		t.Errorf("after a crash there are %+v %v", all, err)
	}
	if err := w.RemoveService(ctx, who, "tool"); err != nil {
		t.Fatal(err)
	}
	if got, err := w.Service(ctx, who, "tool"); err != nil || got.Label != "UNCLASSIFIED" {
		t.Errorf("then the lower one answers: %+v %v", got, err)
	}
	for name, spec := range map[string]redoubt.ServiceSpec{"no program": {}, "a port": {Module: w.module(who), Port: 70000}, "a path": {Module: w.module(who), Health: "http://elsewhere/"}, "too many": {Module: w.module(who), Most: 1000}, "no module": {Module: strings.Repeat("0", 64)}} {
		if _, err := w.DeployService(ctx, who, "x", spec); !errors.Is(err, redoubt.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
