package api

import (
	"net/http"

	"redoubt"
)

// mint is the one request that needs no bearer: the subject's own signature is the proof.
func (s *server) mint(w http.ResponseWriter, r *http.Request) {
	var in redoubt.MintRequest
	err := read(w, r, &in)
	if err == nil {
		err = acquire(r.Context(), s.mints)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	minted, err := func() (redoubt.Minted, error) {
		defer func() { <-s.mints }()
		return s.Credentials.MintCredential(r.Context(), in)
	}()
	if err != nil {
		if kind := redoubt.KindOf(err); kind == redoubt.Unauthenticated || kind == redoubt.Expired {
			s.Auth.Refused(r.Context(), r.RemoteAddr, "mint: "+kind.Error())
		}
		s.fail(w, r, err)
		return
	}
	_ = answer(w, http.StatusCreated, minted)
}

func (s *server) listCredentials(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	all, err := s.Credentials.Credentials(r.Context(), who)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, map[string]any{"credentials": orEmpty(all)})
}

func (s *server) revokeCredential(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	return done(w, s.Credentials.RevokeCredential(r.Context(), who, r.PathValue("id")))
}

func (s *server) listPeople(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	all, err := s.People.People(r.Context(), who)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, map[string]any{"people": orEmpty(all)})
}

func (s *server) revokePerson(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	var in struct {
		Reason string `json:"reason"`
	}
	if err := read(w, r, &in); err != nil {
		return err
	}
	return done(w, s.People.RevokePerson(r.Context(), who, redoubt.SubjectName(r.PathValue("name")), in.Reason))
}

func (s *server) listChanges(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	all, err := s.People.Changes(r.Context(), who)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, map[string]any{"changes": orEmpty(all)})
}

func (s *server) propose(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	var in redoubt.Change
	if err := read(w, r, &in); err != nil {
		return err
	}
	c, err := s.People.ProposeChange(r.Context(), who, in)
	if err != nil {
		return err
	}
	return answer(w, http.StatusCreated, c)
}

func (s *server) approve(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	var in redoubt.Signature
	if err := read(w, r, &in); err != nil {
		return err
	}
	c, err := s.People.ApproveChange(r.Context(), who, r.PathValue("id"), in)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, c)
}

func (s *server) listGrants(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	all, err := s.Grants.Grants(r.Context(), who)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, map[string]any{"grants": orEmpty(all)})
}

func (s *server) grant(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	var in redoubt.Grant
	if err := read(w, r, &in); err != nil {
		return err
	}
	g, err := s.Grants.Grant(r.Context(), who, in)
	if err != nil {
		return err
	}
	return answer(w, http.StatusCreated, g)
}

func (s *server) revokeGrant(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	return done(w, s.Grants.RevokeGrant(r.Context(), who, r.PathValue("id")))
}

// orEmpty keeps an empty list from being written as null.
func orEmpty[T any](all []T) []T {
	if all == nil {
		return []T{}
	}
	return all
}
