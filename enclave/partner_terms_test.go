package enclave

import (
	"context"
	"testing"
)

// renewed has the gateway begin anew with an agreement that was signed anew.
func (a *ally) renewed(change func(*Agreement)) {
	a.t.Helper()
	a.o.Agreements[0].Serial++
	change(&a.o.Agreements[0])
	a.restart(false)
	if err := a.RefreshPartners(context.Background()); err != nil {
		a.t.Fatal(err)
	}
}

func TestAnAgreementBeginsAtTheMomentAnotherEnds(t *testing.T) {
	a := openAlly(t, nil)
	a.o.Agreements[1].Recipient = "r"
	a.renewed(func(p *Agreement) {
		next := &a.o.Agreements[1]
		next.NotBefore, next.Expires = p.Expires, p.Expires.Add(p.Expires.Sub(p.NotBefore))
	})
	has := func() (gbr, fra bool) {
		_, gbr = a.Links()[gbrGateway]
		_, fra = a.Links()["fra--orbite"]
		return gbr, fra
	}
	if gbr, fra := has(); !gbr || fra {
		t.Fatalf("links before: gbr %v, fra %v", gbr, fra)
	}
	a.time.add(a.o.Agreements[0].Expires.Sub(a.clock()))
	if err := a.RefreshPartners(context.Background()); err != nil {
		t.Fatal(err)
	}
	if gbr, fra := has(); gbr || !fra {
		t.Errorf("links afterwards: gbr %v, fra %v, want that of fra alone", gbr, fra)
	}
}
