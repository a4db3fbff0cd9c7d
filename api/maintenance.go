package api

import (
	"net/http"
	"sync"
	"time"

	"redoubt"
)

// progressEvery paces the progress lines of a check.
const progressEvery = 250 * time.Millisecond

func (s *server) listKeys(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	all, err := s.Keys.Keys(r.Context(), who)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, map[string]any{"keys": orEmpty(all)})
}

func (s *server) rotateKey(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	var in struct {
		Label string `json:"label"`
	}
	if err := read(w, r, &in); err != nil {
		return err
	}
	status, err := s.Keys.RotateKey(r.Context(), who, in.Label)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, status)
}

func (s *server) erase(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	var in struct {
		Bucket  redoubt.BucketName `json:"bucket"`
		Key     string             `json:"key"`
		Version redoubt.VersionID  `json:"version"`
		Reason  string             `json:"reason"`
	}
	if err := read(w, r, &in); err != nil {
		return err
	}
	if in.Bucket == "" || in.Key == "" || in.Version == "" {
		return &redoubt.Error{Op: "api", Kind: redoubt.Invalid, Hint: "an erasure names bucket, key and version"}
	}
	return done(w, s.Keys.EraseVersion(r.Context(), who, redoubt.ObjectName{Bucket: in.Bucket, Key: in.Key}, in.Version, in.Reason))
}

// progress is one line of a check under way. Total is 0 while it is not known.
type progress struct {
	Done  int64 `json:"done"`
	Total int64 `json:"total"`
}

func (s *server) check(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	out := newLines(w)
	var mu sync.Mutex
	var last time.Time
	report, err := s.Maintenance.Check(r.Context(), who, func(done, total int64) {
		mu.Lock()
		defer mu.Unlock()
		if now := time.Now(); now.Sub(last) >= progressEvery {
			last = now
			_ = out.write("progress", progress{done, total})
		}
	})
	report.Faults = orEmpty(report.Faults)
	return out.end("report", report, err)
}

func (s *server) backup(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	var in struct {
		Recipient string `json:"recipient"`
	}
	if err := read(w, r, &in); err != nil {
		return err
	}
	out := &body{w: w, typ: "application/octet-stream"}
	return out.end(s.Maintenance.Backup(r.Context(), who, in.Recipient, out))
}

func (s *server) compact(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	return done(w, s.Maintenance.Compact(r.Context(), who))
}

func (s *server) usage(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	all, err := s.Maintenance.Usage(r.Context(), who)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, map[string]any{"usage": orEmpty(all)})
}

func (s *server) find(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	var q redoubt.FindObjects
	if err := read(w, r, &q); err != nil {
		return err
	}
	page, err := s.Finds.Find(r.Context(), who, q)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, page)
}

func (s *server) regrade(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	var q redoubt.Regrade
	if err := read(w, r, &q); err != nil {
		return err
	}
	out, err := s.Spills.Upgrade(r.Context(), who, q)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, out)
}

func (s *server) reportSpill(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	var in struct {
		Bucket  redoubt.BucketName `json:"bucket"`
		Key     string             `json:"key"`
		Version redoubt.VersionID  `json:"version"`
		Reason  string             `json:"reason"`
		Erase   bool               `json:"erase"`

		Spare []redoubt.VersionID `json:"spare"`
	}
	if err := read(w, r, &in); err != nil {
		return err
	}
	out, err := s.Spills.ReportSpill(r.Context(), who, redoubt.Spill{Name: redoubt.ObjectName{Bucket: in.Bucket, Key: in.Key}, Version: in.Version, Reason: in.Reason, Erase: in.Erase, Spare: in.Spare})
	if err != nil {
		return err
	}
	return answer(w, http.StatusCreated, out)
}

func (s *server) listSpills(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	all, err := s.Spills.Spills(r.Context(), who)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, map[string]any{"spills": orEmpty(all)})
}

func (s *server) listErased(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	newest, all, err := s.Spills.ErasedElsewhere(r.Context(), who)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, map[string]any{"erased": orEmpty(newest), "all": all})
}

func (s *server) showSpill(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	out, err := s.Spills.Spill(r.Context(), who, r.PathValue("id"))
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, out)
}
