package api

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"time"

	"redoubt"
)

// Headers of what comes beside content, as JSON.
const (
	// RaiseTrailer follows a raised bundle's last byte: its mark.
	RaiseTrailer = "Redoubt-Raise"
	// ReleaseHeader comes before a release's content: ReleaseWork or ReleasePackage from a node, ReleaseVerdict or ReleasePackage to one.
	ReleaseHeader = "Redoubt-Release"
)

const (
	// guardWait is how long a guard's question is held open when there is nothing to answer: below what proxies and clients give up after.
	guardWait = 20 * time.Second
	// maxReleaseHeader bounds what stands in ReleaseHeader: 64 findings at 500 bytes, or a statement with 8 KiB of metadata.
	maxReleaseHeader = 48 << 10
)

// guardRoutes are those of a node that guards join to others.
func (s *server) guardRoutes(mux *http.ServeMux) {
	if s.Releases == nil {
		return
	}
	for pattern, handle := range map[string]handler{
		"GET /v1/releases":               s.listReleases,
		"POST /v1/releases":              s.requestRelease,
		"GET /v1/releases/{id}":          s.showRelease,
		"GET /v1/releases/{id}/content":  s.rebuilt,
		"POST /v1/releases/{id}/approve": s.approveRelease,
		"POST /v1/releases/{id}/consent": s.consentRelease,
		"POST /v1/releases/{id}/deny":    s.denyRelease,
		"GET /v1/raises":                 s.listRaises,
		"POST /v1/raises/{peer}/anew":    s.raiseAnew,

		"GET /v1/guard/releases":                s.pendingReleases,
		"GET /v1/guard/releases/{id}/source":    s.fetchRelease,
		"POST /v1/guard/releases/{id}/verdict":  s.submitRelease,
		"GET /v1/guard/releases/{id}/approved":  s.fetchApproved,
		"POST /v1/guard/releases/{id}/finished": s.finishRelease,
		"POST /v1/guard/accept":                 s.acceptRelease,
		"POST /v1/guard/taken":                  s.releaseTaken,
		"POST /v1/guard/raise/hand":             s.handRaise,
		"POST /v1/guard/raise/again":            s.handAgain,
		"POST /v1/guard/raise/take":             s.takeRaise,
	} {
		mux.HandleFunc(pattern, s.as(handle))
	}
}

func (s *server) listReleases(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	q := redoubt.ListReleases{State: redoubt.ReleaseState(r.URL.Query().Get("state")), After: redoubt.ReleaseID(r.URL.Query().Get("after"))}
	if n := r.URL.Query().Get("max"); n != "" {
		var err error
		if q.Max, err = strconv.Atoi(n); err != nil || q.Max < 1 || q.Max > redoubt.MaxReleasesListed {
			return &redoubt.Error{Op: "api", Kind: redoubt.Invalid, Hint: "max is 1 to " + strconv.Itoa(redoubt.MaxReleasesListed)}
		}
	}
	all, err := s.Releases.Releases(r.Context(), who, q)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, map[string]any{"releases": orEmpty(all)})
}

func (s *server) requestRelease(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	var in struct {
		Bucket  redoubt.BucketName `json:"bucket"`
		Key     string             `json:"key"`
		Version redoubt.VersionID  `json:"version"`
		To      redoubt.NodeName   `json:"to"`
		Label   string             `json:"label"`
		As      string             `json:"as"`
		Keep    []string           `json:"keep"`
		Reason  string             `json:"reason"`
		Seconds int64              `json:"seconds"`
		After   time.Time          `json:"after"`
	}
	if err := read(w, r, &in); err != nil {
		return err
	}
	if in.Seconds < 0 || in.Seconds > int64(redoubt.MaxReleaseLife/time.Second) {
		return &redoubt.Error{Op: "api", Kind: redoubt.Invalid, Hint: "a release lives 7 days at most"}
	}
	out, err := s.Releases.RequestRelease(r.Context(), who, redoubt.RequestRelease{Name: redoubt.ObjectName{Bucket: in.Bucket, Key: in.Key}, Version: in.Version, To: in.To, Label: in.Label,
		Key: in.As, Keep: in.Keep, Reason: in.Reason, Life: time.Duration(in.Seconds) * time.Second, After: in.After})
	if err != nil {
		return err
	}
	return answer(w, http.StatusCreated, out)
}

func releaseID(r *http.Request) redoubt.ReleaseID { return redoubt.ReleaseID(r.PathValue("id")) }

func (s *server) showRelease(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	out, err := s.Releases.Release(r.Context(), who, releaseID(r))
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, out)
}

func (s *server) rebuilt(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	o, err := s.Releases.OpenRebuilt(r.Context(), who, releaseID(r))
	if err != nil {
		return err
	}
	return stream(w, o)
}

// stream writes an object's content, and closes it.
func stream(w http.ResponseWriter, o redoubt.Object) error {
	defer o.Close()
	out := &body{w: w, typ: octets}
	_, err := io.Copy(out, o.Reader(0, -1))
	return out.end(err)
}

func (s *server) approveRelease(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	return signRelease(w, r, who, s.Releases.ApproveRelease)
}

func (s *server) consentRelease(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	return signRelease(w, r, who, s.Releases.ConsentRelease)
}

// signRelease takes somebody's signature to where it belongs.
func signRelease(w http.ResponseWriter, r *http.Request, who redoubt.Credential, give func(context.Context, redoubt.Credential, redoubt.ReleaseID, string) (redoubt.Release, error)) error {
	var in struct {
		Signature string `json:"signature"`
	}
	if err := read(w, r, &in); err != nil {
		return err
	}
	out, err := give(r.Context(), who, releaseID(r), in.Signature)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, out)
}

func (s *server) denyRelease(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	var in struct {
		Reason string `json:"reason"`
	}
	if err := read(w, r, &in); err != nil {
		return err
	}
	out, err := s.Releases.DenyRelease(r.Context(), who, releaseID(r), in.Reason)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, out)
}

func (s *server) listRaises(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	all, err := s.Raises.Raises(r.Context(), who)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, map[string]any{"raises": orEmpty(all)})
}

func (s *server) raiseAnew(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	return done(w, s.Raises.RaiseAnew(r.Context(), who, redoubt.NodeName(r.PathValue("peer"))))
}

// held bounds a question that is held open until there is something to answer, or the node stops. waits ends that bound, and not ctx.
func (s *server) held(r *http.Request) (ctx context.Context, cancel context.CancelFunc, waits func()) {
	ctx, cancel = context.WithCancel(r.Context())
	timer, stops := time.AfterFunc(guardWait, cancel), func() bool { return true }
	if s.Stopping != nil {
		stops = context.AfterFunc(s.Stopping, cancel)
	}
	return ctx, cancel, func() {
		timer.Stop()
		stops()
	}
}

// begun ends the waiting with the first byte: a bundle may take longer than that to be written.
type begun struct {
	*body
	waits func()
}

func (b *begun) Write(p []byte) (int, error) {
	b.waits()
	return b.body.Write(p)
}

// hand reads a request into in, which has what is had at have, and answers the next bundle, once there is one, and its mark behind it.
func (s *server) hand(w http.ResponseWriter, r *http.Request, in any, have *markView, next func(ctx context.Context, have redoubt.BundleMark, to io.Writer) (redoubt.BundleMark, error)) error {
	if err := read(w, r, in); err != nil {
		return err
	}
	last, err := have.mark()
	if err != nil {
		return err
	}
	ctx, cancel, waits := s.held(r)
	defer cancel()
	defer waits()
	out := &body{w: w, typ: octets}
	w.Header().Set("Trailer", RaiseTrailer)
	mark, err := next(ctx, last, &begun{out, waits})
	if err != nil {
		w.Header().Del("Trailer")
		if redoubt.KindOf(err) == redoubt.NotModified && !out.began {
			w.WriteHeader(http.StatusNoContent)
			return nil
		}
		return out.end(err)
	}
	told, err := json.Marshal(viewMark(mark))
	w.Header().Set(RaiseTrailer, string(told))
	return out.end(err)
}

func (s *server) pendingReleases(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	ctx, cancel, waits := s.held(r)
	defer cancel()
	defer waits()
	ids, err := s.ReleaseSource.PendingReleases(ctx, who, redoubt.ReleaseState(r.URL.Query().Get("state")))
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, map[string]any{"releases": orEmpty(ids)})
}

// withHeader answers content, if there is any, with what is told of it.
func withHeader(w http.ResponseWriter, told any, o redoubt.Object) error {
	b, err := json.Marshal(told)
	if err == nil && len(b) > maxReleaseHeader {
		err = redoubt.TooLarge
	}
	if err != nil && o != nil {
		err = errors.Join(err, o.Close())
	}
	if err != nil {
		return err
	}
	w.Header().Set(ReleaseHeader, asciiJSON(b))
	if o == nil {
		w.Header().Set("Content-Type", octets)
		w.WriteHeader(http.StatusOK)
		return nil
	}
	return stream(w, o)
}

// asciiJSON has no byte that a header may not: what is not ASCII is escaped.
func asciiJSON(b []byte) string {
	out := make([]byte, 0, len(b))
	for _, r := range string(b) {
		switch {
		case r < 0x80:
			out = append(out, byte(r))
		case r < 0x10000:
			out = append(out, `\u`...)
			out = append(out, hex4(uint16(r))...)
		default:
			r -= 0x10000
			out = append(append(out, `\u`...), hex4(uint16(0xd800+r>>10))...)
			out = append(append(out, `\u`...), hex4(uint16(0xdc00+r&0x3ff))...)
		}
	}
	return string(out)
}

func hex4(v uint16) string { return hex.EncodeToString([]byte{byte(v >> 8), byte(v)}) }

// fromHeader reads what is told of the content that comes, strictly.
func fromHeader(r *http.Request, v any) error {
	if typ, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || typ != octets {
		return &redoubt.Error{Op: "api", Kind: redoubt.Invalid, Hint: "send Content-Type: " + octets}
	}
	told := r.Header.Values(ReleaseHeader)
	if len(told) != 1 || len(told[0]) > maxReleaseHeader {
		return &redoubt.Error{Op: "api", Kind: redoubt.Invalid, Hint: "send " + ReleaseHeader + " once"}
	}
	return decode([]byte(told[0]), v)
}

func (s *server) fetchRelease(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	work, o, err := s.ReleaseSource.FetchRelease(r.Context(), who, releaseID(r))
	if err != nil {
		return err
	}
	return withHeader(w, work, o)
}

func (s *server) submitRelease(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	var v redoubt.ReleaseVerdict
	if err := fromHeader(r, &v); err != nil {
		return err
	}
	return done(w, s.ReleaseSource.SubmitRelease(r.Context(), who, releaseID(r), v, r.Body))
}

func (s *server) fetchApproved(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	p, o, err := s.ReleaseSource.FetchApproved(r.Context(), who, releaseID(r))
	if err != nil {
		return err
	}
	return withHeader(w, p, o)
}

func (s *server) finishRelease(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	var in struct {
		Receipt *redoubt.ReleaseReceipt `json:"receipt"`
		Refused string                  `json:"refused"`
	}
	if err := read(w, r, &in); err != nil {
		return err
	}
	return done(w, s.ReleaseSource.FinishRelease(r.Context(), who, releaseID(r), in.Receipt, in.Refused))
}

func (s *server) acceptRelease(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	var p redoubt.ReleasePackage
	if err := fromHeader(r, &p); err != nil {
		return err
	}
	out, err := s.ReleaseTarget.AcceptRelease(r.Context(), who, p, r.Body)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, out)
}

func (s *server) releaseTaken(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	var p redoubt.ReleasePublic
	if err := read(w, r, &p); err != nil {
		return err
	}
	out, taken, err := s.ReleaseTarget.ReleaseTaken(r.Context(), who, p)
	if err != nil {
		return err
	}
	if !taken {
		return answer(w, http.StatusOK, map[string]any{"taken": false})
	}
	return answer(w, http.StatusOK, map[string]any{"taken": true, "receipt": out})
}

// markView is a bundle's mark as it travels.
type markView struct {
	Numbering string    `json:"numbering,omitempty"` // hex
	Serial    uint64    `json:"serial"`
	ID        string    `json:"id,omitempty"` // hex
	Created   time.Time `json:"created,omitzero"`
}

func (v markView) mark() (m redoubt.BundleMark, err error) {
	m.Serial, m.Created = v.Serial, v.Created
	if v.Serial == 0 {
		return redoubt.BundleMark{}, nil
	}
	n, err1 := hex.DecodeString(v.Numbering)
	id, err2 := hex.DecodeString(v.ID)
	if err1 != nil || err2 != nil || copy(m.Numbering[:], n) != len(m.Numbering) || copy(m.ID[:], id) != len(m.ID) || len(n) != len(m.Numbering) || len(id) != len(m.ID) {
		return m, &redoubt.Error{Op: "api", Kind: redoubt.Invalid, Hint: "a mark has a numbering of 16 bytes and an ID of 32, in hex"}
	}
	return m, nil
}

func viewMark(m redoubt.BundleMark) markView {
	return markView{hex.EncodeToString(m.Numbering[:]), m.Serial, hex.EncodeToString(m.ID[:]), m.Created}
}

func (s *server) handRaise(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	var in struct {
		Peer redoubt.NodeName `json:"peer"`
		Have markView         `json:"have"`
	}
	return s.hand(w, r, &in, &in.Have, func(ctx context.Context, have redoubt.BundleMark, to io.Writer) (redoubt.BundleMark, error) {
		return s.RaiseSource.HandRaise(ctx, who, in.Peer, have, to)
	})
}

// handAgain answers as handRaise does, at once.
func (s *server) handAgain(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	var in struct {
		Peer   redoubt.NodeName `json:"peer"`
		Have   markView         `json:"have"`
		Serial uint64           `json:"serial"`
	}
	return s.hand(w, r, &in, &in.Have, func(ctx context.Context, have redoubt.BundleMark, to io.Writer) (redoubt.BundleMark, error) {
		return s.RaiseSource.HandAgain(ctx, who, in.Peer, have, in.Serial, to)
	})
}

func (s *server) takeRaise(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	if typ, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || typ != octets {
		return &redoubt.Error{Op: "api", Kind: redoubt.Invalid, Hint: "send Content-Type: " + octets}
	}
	out, err := s.RaiseTarget.TakeRaise(r.Context(), who, r.Body)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, map[string]any{"serial": out.Serial, "missing": out.Missing}) // what is in it is not the guard's to know
}
