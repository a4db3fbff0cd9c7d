package client

import (
	"context"
	"errors"
	"io"
	"net/url"
	"strconv"

	"redoubt"
)

// PutModule keeps a WebAssembly module under its SHA-256 in hex.
func (c *Client) PutModule(ctx context.Context, digest string, module io.Reader) error {
	res, err := c.request(ctx, "PUT", "/v1/modules/"+url.PathEscape(digest), "application/octet-stream", module)
	if err != nil {
		return err
	}
	return res.Body.Close()
}

// HasModule says whether the node has a module for jobs at the credential's label.
func (c *Client) HasModule(ctx context.Context, digest string) (bool, error) {
	var out struct {
		There bool `json:"there"`
	}
	err := c.call(ctx, "GET", "/v1/modules/"+url.PathEscape(digest), nil, &out)
	return out.There, err
}

// SubmitJob submits a job.
func (c *Client) SubmitJob(ctx context.Context, q redoubt.SubmitJob) (out redoubt.Job, err error) {
	return out, c.call(ctx, "POST", "/v1/jobs", q, &out)
}

func jobPath(id redoubt.JobID, rest string) string {
	return "/v1/jobs/" + url.PathEscape(string(id)) + rest
}

// Jobs lists jobs, newest first.
func (c *Client) Jobs(ctx context.Context, q redoubt.ListJobs) ([]redoubt.Job, error) {
	var out struct {
		Jobs []redoubt.Job `json:"jobs"`
	}
	v := url.Values{}
	for name, value := range map[string]string{"state": string(q.State), "after": string(q.After)} {
		if value != "" {
			v.Set(name, value)
		}
	}
	if q.Max > 0 {
		v.Set("max", strconv.Itoa(q.Max))
	}
	err := c.query(ctx, "/v1/jobs", v, &out)
	return out.Jobs, err
}

// Job shows one.
func (c *Client) Job(ctx context.Context, id redoubt.JobID) (out redoubt.Job, err error) {
	return out, c.call(ctx, "GET", jobPath(id, ""), nil, &out)
}

// WaitJob waits, for a while, until the job's state is another.
func (c *Client) WaitJob(ctx context.Context, id redoubt.JobID, not redoubt.JobState) (out redoubt.Job, err error) {
	return out, c.query(ctx, jobPath(id, "/wait"), url.Values{"not": {string(not)}}, &out)
}

// maxLogPiece bounds what a node answers with at once of a log.
const maxLogPiece = 1 << 20

// JobLog gives a piece of the log from a byte on, where the next begins, and whether more may come.
func (c *Client) JobLog(ctx context.Context, id redoubt.JobID, from int64, wait bool) (text []byte, next int64, more bool, err error) {
	d := *c
	base := *c.base
	base.RawQuery = url.Values{"from": {strconv.FormatInt(from, 10)}, "wait": {strconv.FormatBool(wait)}}.Encode()
	d.base = &base
	res, err := d.request(ctx, "GET", jobPath(id, "/log"), "", nil)
	if err != nil {
		return nil, 0, false, err
	}
	defer res.Body.Close()
	if text, err = io.ReadAll(io.LimitReader(res.Body, maxLogPiece+1)); err == nil {
		next, err = strconv.ParseInt(res.Header.Get("Redoubt-Log-Next"), 10, 64)
	}
	if err == nil && (len(text) > maxLogPiece || next != from+int64(len(text))) {
		err = errors.New("that is no piece of a log")
	}
	if err != nil {
		return nil, 0, false, &redoubt.Error{Op: "JobLog", Kind: redoubt.Unavailable, Err: err}
	}
	return text, next, res.Header.Get("Redoubt-Log-More") == "true", nil
}

// CancelJob ends one.
func (c *Client) CancelJob(ctx context.Context, id redoubt.JobID) error {
	return c.call(ctx, "DELETE", jobPath(id, ""), nil, nil)
}

func schedulePath(name redoubt.ScheduleName) string {
	return "/v1/schedules/" + url.PathEscape(string(name))
}

// PutSchedule makes or replaces one.
func (c *Client) PutSchedule(ctx context.Context, s redoubt.Schedule) (out redoubt.Schedule, err error) {
	return out, c.call(ctx, "PUT", schedulePath(s.Name), map[string]any{"cron": s.Cron, "on": s.On, "job": s.Job}, &out)
}

// Schedules lists them.
func (c *Client) Schedules(ctx context.Context) ([]redoubt.Schedule, error) {
	var out struct {
		Schedules []redoubt.Schedule `json:"schedules"`
	}
	err := c.call(ctx, "GET", "/v1/schedules", nil, &out)
	return out.Schedules, err
}

// RemoveSchedule ends one.
func (c *Client) RemoveSchedule(ctx context.Context, name redoubt.ScheduleName) error {
	return c.call(ctx, "DELETE", schedulePath(name), nil, nil)
}

func servicePath(name redoubt.ServiceName, rest string) string {
	return "/v1/services/" + url.PathEscape(string(name)) + rest
}

// DeployService makes a service, or a new revision of one.
func (c *Client) DeployService(ctx context.Context, name redoubt.ServiceName, spec redoubt.ServiceSpec) (out redoubt.Service, err error) {
	return out, c.call(ctx, "PUT", servicePath(name, ""), spec, &out)
}

// Services lists them.
func (c *Client) Services(ctx context.Context) ([]redoubt.Service, error) {
	var out struct {
		Services []redoubt.Service `json:"services"`
	}
	err := c.call(ctx, "GET", "/v1/services", nil, &out)
	return out.Services, err
}

// Service shows one.
func (c *Client) Service(ctx context.Context, name redoubt.ServiceName) (out redoubt.Service, err error) {
	return out, c.call(ctx, "GET", servicePath(name, ""), nil, &out)
}

// ServiceLog gives what its instances have written last.
func (c *Client) ServiceLog(ctx context.Context, name redoubt.ServiceName) ([]byte, error) {
	res, err := c.request(ctx, "GET", servicePath(name, "/log"), "", nil)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	return io.ReadAll(io.LimitReader(res.Body, maxAnswerBytes))
}

// RemoveService ends one.
func (c *Client) RemoveService(ctx context.Context, name redoubt.ServiceName) error {
	return c.call(ctx, "DELETE", servicePath(name, ""), nil, nil)
}
