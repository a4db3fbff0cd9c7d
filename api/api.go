// Package api is the node's own HTTP interface: everything that is not S3. It speaks JSON over HTTPS and does
// nothing but read strictly, authenticate, ask the root's services, and write down what they answered. Every decision
// is theirs. docs/spec/api.md describes it for who writes a client.
//
// A request goes: random ID → bearer → strict body → service → answer, or one error through the table in
// errors.go. Only minting and the health checks come without a bearer.
package api

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base32"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"redoubt"
	"redoubt/label"
)

// Options are the services that the interface asks, and what it needs beside them. All but those said to be
// optional are needed.
type Options struct {
	Auth        redoubt.Authenticator
	Credentials redoubt.CredentialService
	People      redoubt.PeopleService
	Grants      redoubt.GrantService
	Audit       redoubt.AuditService
	Archives    redoubt.AuditArchiver
	Keys        redoubt.KeyService
	Maintenance redoubt.MaintenanceService
	Devices     redoubt.DeviceService
	Links       redoubt.LinkService
	Conflicts   redoubt.ConflictService
	Bundles     redoubt.BundleService
	Finds       redoubt.FindService
	Spills      redoubt.SpillService
	Exports     redoubt.ExportService
	Jobs        redoubt.JobService // nil: of a node that runs none
	Schedules   redoubt.ScheduleService
	Services    redoubt.ServiceService
	Host        redoubt.ServiceHost

	// Of a node that guards join to others; nil: of one that none does.
	Releases      redoubt.ReleaseService
	ReleaseSource redoubt.ReleaseSource
	ReleaseTarget redoubt.ReleaseTarget
	RaiseSource   redoubt.RaiseSource
	RaiseTarget   redoubt.RaiseTarget
	Raises        redoubt.RaiseService

	// Of a node that is the gateway of agreements with other estates; nil: of one that is not.
	Partners      redoubt.PartnerService
	PartnerSource redoubt.PartnerSource

	Stopping context.Context // ends when the node stops, and with it what guards have asked and not been answered; nil: never

	// Ceiling is the node's. Metrics of the whole node show to who dominates it alone, for they count what
	// is done at every label (RULES 3.4).
	Ceiling  label.Label
	NodeWide []prometheus.Collector // optional: shown as Ceiling says

	// Trusts is whom the node believes and dials now; told to who brings OwnerToken alone. Optional.
	Trusts func() []redoubt.Trusted

	// OwnerToken is a bearer that opens GET /v1/node and nothing else (ADR 9); "": none does.
	OwnerToken string

	Ready func() error // optional: why the node does not serve yet; nil when it does
	Log   *slog.Logger // optional
	Rand  io.Reader    // optional: of request IDs; nil is crypto/rand
}

// maxMints bounds how many requests to mint are looked at at once: each costs a signature's verification, and
// anybody may send one.
const maxMints = 16

// RequestHeader carries the random ID of every request, which "redoubt why" explains.
const RequestHeader = "Redoubt-Request"

type server struct {
	Options
	mints chan struct{}
}

// New gives the handler of one node. It may be used by many at once, and starts nothing.
func New(o Options) http.Handler {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	s := &server{Options: o, mints: make(chan struct{}, maxMints)}
	mux := http.NewServeMux()
	s.routes(mux)
	return s.mark(mux)
}

// routes is the whole interface. A method that a path does not have is as unknown as a path that is not there.
func (s *server) routes(mux *http.ServeMux) {
	mux.HandleFunc("GET /health/live", s.live)
	mux.HandleFunc("GET /health/ready", s.ready)
	mux.HandleFunc("POST /v1/credentials", s.mint)
	mux.HandleFunc("GET /v1/node", s.node)
	mux.HandleFunc("POST /v1/devices/enrol", s.enrol)
	mux.HandleFunc("POST /v1/devices/renew", s.renewDevice)

	for pattern, handle := range map[string]handler{
		"GET /v1/credentials":            s.listCredentials,
		"DELETE /v1/credentials/{id}":    s.revokeCredential,
		"GET /v1/people":                 s.listPeople,
		"POST /v1/people/{name}/revoke":  s.revokePerson,
		"GET /v1/changes":                s.listChanges,
		"POST /v1/changes":               s.propose,
		"POST /v1/changes/{id}/approve":  s.approve,
		"GET /v1/grants":                 s.listGrants,
		"POST /v1/grants":                s.grant,
		"DELETE /v1/grants/{id}":         s.revokeGrant,
		"POST /v1/audit/search":          s.searchAudit,
		"POST /v1/audit/verify":          s.verifyAudit,
		"POST /v1/audit/export":          s.exportAudit,
		"POST /v1/audit/archive":         s.archiveAudit,
		"POST /v1/audit/archive/confirm": s.confirmArchive,
		"POST /v1/audit/archive/search":  s.searchArchive,
		"GET /v1/why/{request}":          s.why,
		"GET /v1/keys":                   s.listKeys,
		"POST /v1/keys/rotate":           s.rotateKey,
		"POST /v1/erase":                 s.erase,
		"POST /v1/check":                 s.check,
		"POST /v1/backup":                s.backup,
		"POST /v1/compact":               s.compact,
		"GET /v1/usage":                  s.usage,
		"GET /v1/devices":                s.listDevices,
		"POST /v1/devices/{name}/invite": s.invite,
		"POST /v1/devices/{name}/end":    s.endDevice,
		"GET /v1/conflicts":              s.listConflicts,
		"POST /v1/conflicts/resolve":     s.resolveConflict,
		"GET /v1/links":                  s.listLinks,
		"POST /v1/links/{peer}/cut":      s.cutLink,
		"POST /v1/links/{peer}/silence":  s.silenceLink,
		"POST /v1/bundles/export":        s.exportBundle,
		"POST /v1/bundles/import":        s.importBundle,
		"POST /v1/find":                  s.find,
		"POST /v1/exports":               s.exportVersion,
		"POST /v1/exports/consent":       s.consentExport,
		"POST /v1/regrade":               s.regrade,
		"POST /v1/spills":                s.reportSpill,
		"GET /v1/spills":                 s.listSpills,
		"GET /v1/spills/erased":          s.listErased,
		"GET /v1/spills/{id}":            s.showSpill,
		"GET /metrics":                   s.metrics,
	} {
		mux.HandleFunc(pattern, s.as(handle))
	}
	s.guardRoutes(mux)
	s.jobRoutes(mux)
	s.partnerRoutes(mux)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { s.fail(w, r, redoubt.NotFound) })
}

// handler answers for a credential. An error that it returns has not been answered yet.
type handler func(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error

// mark gives the request its ID and the answer its common headers.
func (s *server) mark(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		var id [15]byte
		if _, err := io.ReadFull(s.Rand, id[:]); err != nil {
			s.fail(w, r, err)
			return
		}
		name := base32.StdEncoding.EncodeToString(id[:])
		h.Set(RequestHeader, name)
		next.ServeHTTP(w, r.WithContext(redoubt.WithRequest(r.Context(), name)))
	})
}

// as authenticates by the bearer token, before anything of the request is read.
func (s *server) as(handle handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		who, err := s.bearer(r)
		if err == nil {
			err = handle(w, r, who)
		}
		if err != nil {
			s.fail(w, r, err)
		}
	}
}

func (s *server) bearer(r *http.Request) (redoubt.Credential, error) {
	token := bearerToken(r)
	if token == "" {
		s.Auth.Refused(r.Context(), r.RemoteAddr, "no bearer token")
		return redoubt.Credential{}, &redoubt.Error{Op: "api", Kind: redoubt.Unauthenticated,
			Hint: "send Authorization: Bearer with the REDOUBT_TOKEN that redoubt env prints"}
	}
	who, err := s.Auth.Bearer(r.Context(), token)
	if err != nil {
		s.Auth.Refused(r.Context(), r.RemoteAddr, redoubt.KindOf(err).Error())
		return redoubt.Credential{}, err
	}
	return who, nil
}

// bearerToken is "" when there is none, or more than one.
func bearerToken(r *http.Request) (token string) {
	if given := r.Header.Values("Authorization"); len(given) == 1 {
		token, _ = strings.CutPrefix(given[0], "Bearer ")
	}
	return token
}

// answer writes one JSON document.
func answer(w http.ResponseWriter, status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // whoever is gone need not be told
	return nil
}

// done answers what has nothing to tell.
func done(w http.ResponseWriter, err error) error {
	if err == nil {
		w.WriteHeader(http.StatusNoContent)
	}
	return err
}

// live and ready say nothing but ok: they are asked by who has no credential.
func (s *server) live(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") }

func (s *server) ready(w http.ResponseWriter, r *http.Request) {
	if s.Ready != nil {
		if err := s.Ready(); err != nil {
			s.Log.InfoContext(r.Context(), "not ready", "kind", redoubt.KindOf(err).Error())
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
	}
	_, _ = io.WriteString(w, "ok\n")
}

// node says what the node is, to every credential and to the owner of its state.
func (s *server) node(w http.ResponseWriter, r *http.Request) {
	describe := func(w http.ResponseWriter, r *http.Request, _ redoubt.Credential) error {
		return answer(w, http.StatusOK, s.Maintenance.NodeInfo(r.Context()))
	}
	if given := bearerToken(r); s.OwnerToken != "" && subtle.ConstantTimeCompare([]byte(given), []byte(s.OwnerToken)) == 1 {
		info := s.Maintenance.NodeInfo(r.Context())
		if s.Trusts != nil {
			info.Trusts = s.Trusts()
		}
		_ = answer(w, http.StatusOK, info) // it marshals
		return
	}
	s.as(describe)(w, r)
}

// acquire takes a place among n at most, or gives up with the request.
func acquire(ctx context.Context, places chan struct{}) error {
	select {
	case places <- struct{}{}:
		return nil
	case <-ctx.Done():
		return redoubt.Unavailable
	}
}
