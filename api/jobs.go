package api

import (
	"mime"
	"net/http"
	"strconv"

	"redoubt"
)

// Headers of a piece of a job's log.
const (
	LogNextHeader = "Redoubt-Log-Next" // the byte at which the next piece begins
	LogMoreHeader = "Redoubt-Log-More" // "true" while more may come
)

// jobRoutes are those of a node that runs jobs.
func (s *server) jobRoutes(mux *http.ServeMux) {
	if s.Jobs == nil {
		return
	}
	for pattern, handle := range map[string]handler{
		"GET /v1/modules/{digest}":      s.hasModule,
		"PUT /v1/modules/{digest}":      s.putModule,
		"POST /v1/jobs":                 s.submitJob,
		"GET /v1/jobs":                  s.listJobs,
		"GET /v1/jobs/{id}":             s.showJob,
		"GET /v1/jobs/{id}/wait":        s.waitJob,
		"GET /v1/jobs/{id}/log":         s.jobLog,
		"DELETE /v1/jobs/{id}":          s.cancelJob,
		"GET /v1/schedules":             s.listSchedules,
		"PUT /v1/schedules/{name}":      s.putSchedule,
		"DELETE /v1/schedules/{name}":   s.removeSchedule,
		"GET /v1/services":              s.listServices,
		"GET /v1/services/{name}":       s.showService,
		"GET /v1/services/{name}/log":   s.serviceLog,
		"PUT /v1/services/{name}":       s.deployService,
		"DELETE /v1/services/{name}":    s.removeService,
		redoubt.ServicePath + "{name}/": s.callService,
		redoubt.ServicePath + "{name}":  s.callService,
	} {
		mux.HandleFunc(pattern, s.as(handle))
	}
}

func (s *server) hasModule(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	there, err := s.Jobs.HasModule(r.Context(), who, r.PathValue("digest"))
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, map[string]bool{"there": there})
}

func (s *server) putModule(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	if typ, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || typ != octets {
		return &redoubt.Error{Op: "api", Kind: redoubt.Invalid, Hint: "send Content-Type: " + octets}
	}
	if err := s.Jobs.PutModule(r.Context(), who, r.PathValue("digest"), r.Body); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *server) submitJob(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	var q redoubt.SubmitJob
	if err := read(w, r, &q); err != nil {
		return err
	}
	out, err := s.Jobs.SubmitJob(r.Context(), who, q)
	if err != nil {
		return err
	}
	return answer(w, http.StatusCreated, out)
}

func jobID(r *http.Request) redoubt.JobID { return redoubt.JobID(r.PathValue("id")) }

func (s *server) listJobs(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	q := redoubt.ListJobs{State: redoubt.JobState(r.URL.Query().Get("state")), After: redoubt.JobID(r.URL.Query().Get("after"))}
	if n := r.URL.Query().Get("max"); n != "" {
		var err error
		if q.Max, err = strconv.Atoi(n); err != nil || q.Max < 1 || q.Max > redoubt.MaxJobsListed {
			return &redoubt.Error{Op: "api", Kind: redoubt.Invalid, Hint: "max is 1 to " + strconv.Itoa(redoubt.MaxJobsListed)}
		}
	}
	all, err := s.Jobs.Jobs(r.Context(), who, q)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, map[string]any{"jobs": orEmpty(all)})
}

func (s *server) showJob(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	out, err := s.Jobs.Job(r.Context(), who, jobID(r))
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, out)
}

// waitJob answers when the state is not the one that the caller knows, or after a while.
func (s *server) waitJob(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	ctx, cancel, waits := s.held(r)
	defer cancel()
	defer waits()
	out, err := s.Jobs.WaitJob(ctx, who, jobID(r), redoubt.JobState(r.URL.Query().Get("not")))
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, out)
}

func (s *server) jobLog(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	from, err := strconv.ParseInt(r.URL.Query().Get("from"), 10, 64)
	if err != nil && r.URL.Query().Get("from") != "" {
		return &redoubt.Error{Op: "api", Kind: redoubt.Invalid, Hint: "from is the number of a byte"}
	}
	ctx, cancel, waits := s.held(r)
	defer cancel()
	defer waits()
	text, next, more, err := s.Jobs.JobLog(ctx, who, jobID(r), from, r.URL.Query().Get("wait") == "true")
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", octets)
	h.Set(LogNextHeader, strconv.FormatInt(next, 10))
	h.Set(LogMoreHeader, strconv.FormatBool(more))
	_, err = w.Write(text)
	return err
}

func (s *server) cancelJob(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	if err := s.Jobs.CancelJob(r.Context(), who, jobID(r)); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *server) listSchedules(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	all, err := s.Schedules.Schedules(r.Context(), who)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, map[string]any{"schedules": orEmpty(all)})
}

func (s *server) putSchedule(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	var in struct {
		Cron string            `json:"cron"`
		On   *redoubt.JobInput `json:"on"`
		Job  redoubt.SubmitJob `json:"job"`
	}
	if err := read(w, r, &in); err != nil {
		return err
	}
	out, err := s.Schedules.PutSchedule(r.Context(), who, redoubt.Schedule{Name: redoubt.ScheduleName(r.PathValue("name")), Cron: in.Cron, On: in.On, Job: in.Job})
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, out)
}

func (s *server) removeSchedule(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	if err := s.Schedules.RemoveSchedule(r.Context(), who, redoubt.ScheduleName(r.PathValue("name"))); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// running adds what runs of a service at labels that the caller dominates.
func (s *server) running(x redoubt.Service, who redoubt.Credential) redoubt.Service {
	x.Instances = s.Host.Running(x, who.Working)
	return x
}

func (s *server) listServices(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	all, err := s.Services.Services(r.Context(), who)
	if err != nil {
		return err
	}
	for i := range all {
		all[i] = s.running(all[i], who)
	}
	return answer(w, http.StatusOK, map[string]any{"services": orEmpty(all)})
}

func serviceName(r *http.Request) redoubt.ServiceName {
	return redoubt.ServiceName(r.PathValue("name"))
}

func (s *server) showService(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	out, err := s.Services.Service(r.Context(), who, serviceName(r))
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, s.running(out, who))
}

func (s *server) serviceLog(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	x, err := s.Services.Service(r.Context(), who, serviceName(r))
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", octets)
	_, err = w.Write(s.Host.Log(x, who.Working))
	return err
}

func (s *server) deployService(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	var spec redoubt.ServiceSpec
	if err := read(w, r, &spec); err != nil {
		return err
	}
	out, err := s.Services.DeployService(r.Context(), who, serviceName(r), spec)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, s.running(out, who))
}

func (s *server) removeService(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	if err := s.Services.RemoveService(r.Context(), who, serviceName(r)); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// callService has a service answer. What it answers is its own, and no page of the node's.
func (s *server) callService(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	w.Header().Set("Content-Security-Policy", "sandbox")
	r.Header.Del("Authorization")
	return s.Host.Serve(w, r, who, serviceName(r))
}
