package api

import (
	"context"
	"net/http"
	"time"

	"redoubt"
)

// enrol and renewDevice need no bearer: a one-time token, and the device's own key, are the proof.
func (s *server) enrol(w http.ResponseWriter, r *http.Request) {
	proved(s, w, r, "enrol: ", s.Devices.EnrolDevice)
}

func (s *server) renewDevice(w http.ResponseWriter, r *http.Request) {
	proved(s, w, r, "renew: ", s.Devices.RenewDevice)
}

// proved answers a request that proves itself. As with minting, only some are looked at at once.
func proved[T any](s *server, w http.ResponseWriter, r *http.Request, what string, do func(context.Context, redoubt.EnrolRequest) (T, error)) {
	var in redoubt.EnrolRequest
	err := read(w, r, &in)
	if err == nil {
		err = acquire(r.Context(), s.mints)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	given, err := func() (T, error) {
		defer func() { <-s.mints }()
		return do(r.Context(), in)
	}()
	if err != nil {
		s.Auth.Refused(r.Context(), r.RemoteAddr, what+redoubt.KindOf(err).Error())
		s.fail(w, r, err)
		return
	}
	_ = answer(w, http.StatusCreated, given)
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

func (s *server) silenceLink(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	var in struct {
		Silent bool `json:"silent"`
	}
	if err := read(w, r, &in); err != nil {
		return err
	}
	return done(w, s.Links.SilenceLink(r.Context(), who, redoubt.NodeName(r.PathValue("peer")), in.Silent))
}

// conflictView is a conflict as it is told.
type conflictView struct {
	Bucket   redoubt.BucketName `json:"bucket"`
	Key      string             `json:"key"`
	Label    string             `json:"label"`
	Versions []rivalView        `json:"versions"`
}

type rivalView struct {
	ID       redoubt.VersionID   `json:"version"`
	Maker    redoubt.NodeName    `json:"node"`
	Author   redoubt.SubjectName `json:"author"`
	Modified time.Time           `json:"modified"`
	Bytes    int64               `json:"bytes"`
	Marker   bool                `json:"delete_marker,omitempty"`
	Current  bool                `json:"current,omitempty"`
}

func (s *server) listConflicts(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	all, err := s.Conflicts.Conflicts(r.Context(), who)
	if err != nil {
		return err
	}
	out := make([]conflictView, len(all))
	for i, c := range all {
		out[i] = conflictView{Bucket: c.Name.Bucket, Key: c.Name.Key, Label: c.Label}
		for j, v := range c.Versions {
			out[i].Versions = append(out[i].Versions, rivalView{v.ID, v.Maker, v.Author, v.Modified, v.SizeBytes, v.Marker, j == 0})
		}
	}
	return answer(w, http.StatusOK, map[string]any{"conflicts": out})
}

func (s *server) resolveConflict(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	var in struct {
		Bucket redoubt.BucketName `json:"bucket"`
		Key    string             `json:"key"`
		Keep   redoubt.VersionID  `json:"keep"`
	}
	if err := read(w, r, &in); err != nil {
		return err
	}
	v, err := s.Conflicts.ResolveConflict(r.Context(), who, redoubt.ObjectName{Bucket: in.Bucket, Key: in.Key}, in.Keep)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, map[string]any{"version": v.ID})
}
