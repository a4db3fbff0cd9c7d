package api

import (
	"context"
	"net/http"

	"redoubt"
)

// enrol and renewDevice need no bearer: a one-time token, and the device's own key, are the proof.
func (s *server) enrol(w http.ResponseWriter, r *http.Request) {
	s.proved(w, r, "enrol: ", s.Devices.EnrolDevice)
}

func (s *server) renewDevice(w http.ResponseWriter, r *http.Request) {
	s.proved(w, r, "renew: ", s.Devices.RenewDevice)
}

// proved answers a request that proves itself. As with minting, only some are looked at at once.
func (s *server) proved(w http.ResponseWriter, r *http.Request, what string, do func(context.Context, redoubt.EnrolRequest) (redoubt.Lease, error)) {
	var in redoubt.EnrolRequest
	err := read(w, r, &in)
	if err == nil {
		err = acquire(r.Context(), s.mints)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	lease, err := func() (redoubt.Lease, error) {
		defer func() { <-s.mints }()
		return do(r.Context(), in)
	}()
	if err != nil {
		s.Auth.Refused(r.Context(), r.RemoteAddr, what+redoubt.KindOf(err).Error())
		s.fail(w, r, err)
		return
	}
	_ = answer(w, http.StatusCreated, lease)
}

func (s *server) listDevices(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	all, err := s.Devices.Devices(r.Context(), who)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, map[string]any{"devices": orEmpty(all)})
}

func (s *server) invite(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	inv, err := s.Devices.InviteDevice(r.Context(), who, redoubt.NodeName(r.PathValue("name")))
	if err != nil {
		return err
	}
	return answer(w, http.StatusCreated, inv)
}

func (s *server) endDevice(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	var in struct {
		Wipe   bool   `json:"wipe"`
		Now    bool   `json:"now"`
		Reason string `json:"reason"`
	}
	if err := read(w, r, &in); err != nil {
		return err
	}
	return done(w, s.Devices.EndDevice(r.Context(), who, redoubt.NodeName(r.PathValue("name")), in.Wipe, in.Now, in.Reason))
}

func (s *server) listLinks(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	all, err := s.Links.LinkStatuses(r.Context(), who)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, map[string]any{"links": orEmpty(all)})
}

func (s *server) cutLink(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	var in struct {
		Cut bool `json:"cut"`
	}
	if err := read(w, r, &in); err != nil {
		return err
	}
	return done(w, s.Links.CutLink(r.Context(), who, redoubt.NodeName(r.PathValue("peer")), in.Cut))
}
