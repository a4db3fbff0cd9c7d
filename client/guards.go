package client

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"redoubt"
)

// RequestRelease asks for a release of a version at the node.
func (c *Client) RequestRelease(ctx context.Context, q redoubt.RequestRelease) (out redoubt.Release, err error) {
	return out, c.call(ctx, "POST", "/v1/releases", map[string]any{"bucket": q.Name.Bucket, "key": q.Name.Key, "version": q.Version, "to": q.To, "label": q.Label,
		"as": q.Key, "keep": q.Keep, "reason": q.Reason, "seconds": int64(q.Life / time.Second), "after": q.After}, &out)
}

// Releases lists releases, newest first.
func (c *Client) Releases(ctx context.Context, q redoubt.ListReleases) ([]redoubt.Release, error) {
	var out struct {
		Releases []redoubt.Release `json:"releases"`
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
	err := c.query(ctx, "/v1/releases", v, &out)
	return out.Releases, err
}

// query is a GET with a query.
func (c *Client) query(ctx context.Context, path string, v url.Values, out any) error {
	d := *c
	base := *c.base
	base.RawQuery = v.Encode()
	d.base = &base
	return d.call(ctx, "GET", path, nil, out)
}

func releasePath(id redoubt.ReleaseID, rest string) string {
	return "/v1/releases/" + url.PathEscape(string(id)) + rest
}

func guardPath(id redoubt.ReleaseID, rest string) string {
	return "/v1/guard/releases/" + url.PathEscape(string(id)) + rest
}

// Release shows one.
func (c *Client) Release(ctx context.Context, id redoubt.ReleaseID) (out redoubt.Release, err error) {
	return out, c.call(ctx, "GET", releasePath(id, ""), nil, &out)
}

// OpenRebuilt opens the bytes that would leave.
func (c *Client) OpenRebuilt(ctx context.Context, id redoubt.ReleaseID) (io.ReadCloser, error) {
	res, err := c.send(ctx, "GET", releasePath(id, "/content"), nil)
	if err != nil {
		return nil, err
	}
	return res.Body, nil
}

// ApproveRelease gives a reviewer's signature.
func (c *Client) ApproveRelease(ctx context.Context, id redoubt.ReleaseID, sig string) (out redoubt.Release, err error) {
	return out, c.call(ctx, "POST", releasePath(id, "/approve"), map[string]string{"signature": sig}, &out)
}

// ConsentRelease gives the originator's signature.
func (c *Client) ConsentRelease(ctx context.Context, id redoubt.ReleaseID, sig string) (out redoubt.Release, err error) {
	return out, c.call(ctx, "POST", releasePath(id, "/consent"), map[string]string{"signature": sig}, &out)
}

// DenyRelease ends a release.
func (c *Client) DenyRelease(ctx context.Context, id redoubt.ReleaseID, reason string) (out redoubt.Release, err error) {
	return out, c.call(ctx, "POST", releasePath(id, "/deny"), map[string]string{"reason": reason}, &out)
}

// Raises tells of the node's raises.
func (c *Client) Raises(ctx context.Context) ([]redoubt.RaiseStatus, error) {
	var out struct {
		Raises []redoubt.RaiseStatus `json:"raises"`
	}
	err := c.call(ctx, "GET", "/v1/raises", nil, &out)
	return out.Raises, err
}

// RaiseAnew has everything raised once more.
func (c *Client) RaiseAnew(ctx context.Context, peer redoubt.NodeName) error {
	return c.call(ctx, "POST", "/v1/raises/"+url.PathEscape(string(peer))+"/anew", nil, nil)
}

// Guard is a node as a guard asks it: redoubt.ReleaseSource, ReleaseTarget, RaiseSource and RaiseTarget. Who asks is whose token the
// client has; the credentials that the methods are given say nothing.
type Guard struct {
	// As gives a client with a fresh token.
	As func(ctx context.Context) (*Client, error)
}

// PendingReleases waits for work.
func (g Guard) PendingReleases(ctx context.Context, _ redoubt.Credential, state redoubt.ReleaseState) ([]redoubt.ReleaseID, error) {
	c, err := g.As(ctx)
	if err != nil {
		return nil, err
	}
	var out struct {
		Releases []redoubt.ReleaseID `json:"releases"`
	}
	err = c.query(ctx, "/v1/guard/releases", url.Values{"state": {string(state)}}, &out)
	return out.Releases, err
}

// fetch gets content and what is told of it.
func (g Guard) fetch(ctx context.Context, path string, told any) (redoubt.Object, error) {
	c, err := g.As(ctx)
	if err != nil {
		return nil, err
	}
	res, err := c.send(ctx, "GET", path, nil)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if err := json.Unmarshal([]byte(res.Header.Get("Redoubt-Release")), told); err != nil {
		return nil, &redoubt.Error{Op: "GET " + path, Kind: redoubt.Unavailable, Err: err}
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, redoubt.MaxReleaseBytes+1))
	if err == nil && len(b) > redoubt.MaxReleaseBytes {
		err = errors.New("the content is too large")
	}
	if err != nil {
		return nil, &redoubt.Error{Op: "GET " + path, Kind: redoubt.Unavailable, Err: err}
	}
	return inMemory(b), nil
}

// inMemory is content in memory.
type inMemory []byte

func (h inMemory) Version() redoubt.Version { return redoubt.Version{SizeBytes: int64(len(h))} }
func (h inMemory) Close() error             { return nil }
func (h inMemory) Reader(off, n int64) io.Reader {
	if n < 0 {
		n = int64(len(h)) - off
	}
	return io.NewSectionReader(bytes.NewReader(h), off, n)
}

// FetchRelease opens the source of a requested release.
func (g Guard) FetchRelease(ctx context.Context, _ redoubt.Credential, id redoubt.ReleaseID) (work redoubt.ReleaseWork, o redoubt.Object, err error) {
	o, err = g.fetch(ctx, guardPath(id, "/source"), &work)
	return work, o, err
}

// FetchApproved gives what was signed.
func (g Guard) FetchApproved(ctx context.Context, _ redoubt.Credential, id redoubt.ReleaseID) (p redoubt.ReleasePackage, o redoubt.Object, err error) {
	o, err = g.fetch(ctx, guardPath(id, "/approved"), &p)
	return p, o, err
}

// push sends content with what is told of it.
func (g Guard) push(ctx context.Context, path string, told any, content io.Reader, out any) error {
	c, err := g.As(ctx)
	if err != nil {
		return err
	}
	b, err := json.Marshal(told)
	if err != nil {
		return err
	}
	if content == nil {
		content = bytes.NewReader(nil)
	}
	res, err := c.requestWith(ctx, "POST", path, "application/octet-stream", content, http.Header{"Redoubt-Release": {ascii(b)}})
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxAnswerBytes)).Decode(out); err != nil {
		return &redoubt.Error{Op: "POST " + path, Kind: redoubt.Unavailable, Err: err}
	}
	return nil
}

// ascii escapes what a header may not hold: JSON text stays the same JSON.
func ascii(b []byte) string {
	var out bytes.Buffer
	for _, r := range string(b) {
		if r < 0x80 {
			out.WriteByte(byte(r))
			continue
		}
		q := strconv.QuoteRuneToASCII(r) // '\u00e9' or '\U0001f600'
		if len(q) == len(`'\u0000'`) {
			out.WriteString(q[1 : len(q)-1])
			continue
		}
		r -= 0x10000
		for _, half := range []rune{0xd800 + r>>10, 0xdc00 + r&0x3ff} {
			out.WriteString(`\u` + strconv.FormatInt(int64(half), 16))
		}
	}
	return out.String()
}

// SubmitRelease tells what the pipeline came to.
func (g Guard) SubmitRelease(ctx context.Context, _ redoubt.Credential, id redoubt.ReleaseID, v redoubt.ReleaseVerdict, content io.Reader) error {
	return g.push(ctx, guardPath(id, "/verdict"), v, content, nil)
}

// FinishRelease tells what the target said.
func (g Guard) FinishRelease(ctx context.Context, _ redoubt.Credential, id redoubt.ReleaseID, receipt *redoubt.ReleaseReceipt, refused string) error {
	c, err := g.As(ctx)
	if err != nil {
		return err
	}
	return c.call(ctx, "POST", guardPath(id, "/finished"), map[string]any{"receipt": receipt, "refused": refused}, nil)
}

// AcceptRelease brings a release to its target.
func (g Guard) AcceptRelease(ctx context.Context, _ redoubt.Credential, p redoubt.ReleasePackage, content io.Reader) (out redoubt.ReleaseReceipt, err error) {
	return out, g.push(ctx, "/v1/guard/accept", p, content, &out)
}

// ReleaseTaken asks the target whether it took a release.
func (g Guard) ReleaseTaken(ctx context.Context, _ redoubt.Credential, p redoubt.ReleasePublic) (redoubt.ReleaseReceipt, bool, error) {
	const path = "/v1/guard/taken"
	c, err := g.As(ctx)
	if err != nil {
		return redoubt.ReleaseReceipt{}, false, err
	}
	var out struct {
		Taken   *bool                   `json:"taken"`
		Receipt *redoubt.ReleaseReceipt `json:"receipt"`
	}
	if err := c.call(ctx, "POST", path, p, &out); err != nil {
		return redoubt.ReleaseReceipt{}, false, err
	}
	if out.Taken == nil || *out.Taken != (out.Receipt != nil) { // an answer that says neither ends nothing
		return redoubt.ReleaseReceipt{}, false, &redoubt.Error{Op: "POST " + path, Kind: redoubt.Unavailable, Err: errors.New("the answer is not whole")}
	}
	if !*out.Taken {
		return redoubt.ReleaseReceipt{}, false, nil
	}
	return *out.Receipt, true, nil
}

type markView struct {
	Numbering string    `json:"numbering,omitempty"`
	Serial    uint64    `json:"serial"`
	ID        string    `json:"id,omitempty"`
	Created   time.Time `json:"created,omitzero"`
}

// HandRaise gets the next bundle to be raised.
func (g Guard) HandRaise(ctx context.Context, _ redoubt.Credential, peer redoubt.NodeName, have redoubt.BundleMark, w io.Writer) (m redoubt.BundleMark, err error) {
	return handed(ctx, g.As, "/v1/guard/raise/hand", map[string]any{"peer": peer, "have": viewMark(have)}, w)
}

// HandAgain gets what an earlier bundle held.
func (g Guard) HandAgain(ctx context.Context, _ redoubt.Credential, peer redoubt.NodeName, have redoubt.BundleMark, serial uint64, w io.Writer) (m redoubt.BundleMark, err error) {
	return handed(ctx, g.As, "/v1/guard/raise/again", map[string]any{"peer": peer, "have": viewMark(have), "serial": serial}, w)
}

func viewMark(m redoubt.BundleMark) (v markView) {
	if m.Serial > 0 {
		v = markView{hex.EncodeToString(m.Numbering[:]), m.Serial, hex.EncodeToString(m.ID[:]), m.Created}
	}
	return v
}

// handed gets a bundle, and its mark behind it.
func handed(ctx context.Context, as func(context.Context) (*Client, error), path string, ask any, w io.Writer) (m redoubt.BundleMark, err error) {
	c, err := as(ctx)
	if err != nil {
		return m, err
	}
	var v markView
	res, err := c.send(ctx, "POST", path, ask)
	if err != nil {
		return m, err
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusNoContent {
		return m, redoubt.NotModified
	}
	if _, err = io.Copy(w, res.Body); err == nil {
		err = json.Unmarshal([]byte(res.Trailer.Get("Redoubt-Raise")), &v)
	}
	n, err1 := hex.DecodeString(v.Numbering)
	id, err2 := hex.DecodeString(v.ID)
	if err = errors.Join(err, err1, err2); err != nil || len(n) != len(m.Numbering) || len(id) != len(m.ID) {
		return m, &redoubt.Error{Op: "POST " + path, Kind: redoubt.Unavailable, Err: errors.Join(err, errors.New("the bundle was cut off"))}
	}
	copy(m.Numbering[:], n)
	copy(m.ID[:], id)
	m.Serial, m.Created = v.Serial, v.Created
	return m, nil
}

// TakeRaise brings a raised bundle.
func (g Guard) TakeRaise(ctx context.Context, _ redoubt.Credential, r io.Reader) (out redoubt.BundleImport, err error) {
	const path = "/v1/guard/raise/take"
	c, err := g.As(ctx)
	if err != nil {
		return out, err
	}
	res, err := c.request(ctx, "POST", path, "application/octet-stream", r)
	if err != nil {
		return out, err
	}
	defer res.Body.Close()
	return out, json.NewDecoder(io.LimitReader(res.Body, maxErrorBytes)).Decode(&out)
}
