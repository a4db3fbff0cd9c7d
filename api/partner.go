package api

import (
	"context"
	"io"
	"net/http"

	"redoubt"
)

// partnerRoutes are those of a node that is the gateway of agreements with other estates.
func (s *server) partnerRoutes(mux *http.ServeMux) {
	if s.Partners == nil {
		return
	}
	for pattern, handle := range map[string]handler{
		"GET /v1/agreements":             s.listAgreements,
		"POST /v1/agreements/{name}/end": s.endAgreement,
		"POST /v1/partner/hand":          s.handPartner,
	} {
		mux.HandleFunc(pattern, s.as(handle))
	}
}

func (s *server) listAgreements(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	all, err := s.Partners.Agreements(r.Context(), who)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, map[string]any{"agreements": orEmpty(all)})
}

func (s *server) endAgreement(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	var in struct {
		Reason string `json:"reason"`
	}
	if err := read(w, r, &in); err != nil {
		return err
	}
	return done(w, s.Partners.EndAgreement(r.Context(), who, r.PathValue("name"), in.Reason))
}

// handPartner writes the next bundle for the partner's gateway that asks, and its mark behind it.
func (s *server) handPartner(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	var in struct {
		Have markView `json:"have"`
	}
	return s.hand(w, r, &in, &in.Have, func(ctx context.Context, have redoubt.BundleMark, to io.Writer) (redoubt.BundleMark, error) {
		return s.PartnerSource.HandPartner(ctx, who, have, to)
	})
}
