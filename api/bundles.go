package api

import (
	"encoding/json"
	"mime"
	"net/http"
	"sync"
	"time"

	"redoubt"
)

// BundleTrailer follows a bundle's last byte: what is told of it, as JSON.
const BundleTrailer = "Redoubt-Bundle"

const octets = "application/octet-stream"

func (s *server) exportBundle(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	var in struct {
		Peer    redoubt.NodeName `json:"peer"`
		Seconds int64            `json:"seconds"`
		Receipt bool             `json:"receipt"`
		Anew    bool             `json:"anew"`
	}
	if err := read(w, r, &in); err != nil {
		return err
	}
	const most = int64(1<<63-1) / int64(time.Second)
	if in.Peer == "" || in.Seconds < 0 || in.Seconds > most || in.Receipt && in.Anew {
		return &redoubt.Error{Op: "api", Kind: redoubt.Invalid, Hint: "a bundle names its peer; a receipt is never made anew"}
	}
	out := &body{w: w, typ: octets}
	w.Header().Set("Trailer", BundleTrailer)
	said, err := s.Bundles.ExportBundle(r.Context(), who, redoubt.ExportBundle{Peer: in.Peer, Life: time.Duration(in.Seconds) * time.Second, Receipt: in.Receipt, Anew: in.Anew}, out)
	if err != nil {
		w.Header().Del("Trailer")
		return out.end(err)
	}
	said.Counts = orEmpty(said.Counts)
	told, err := json.Marshal(said)
	w.Header().Set(BundleTrailer, string(told))
	return out.end(err)
}

func (s *server) importBundle(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	if typ, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || typ != octets {
		return &redoubt.Error{Op: "api", Kind: redoubt.Invalid, Hint: "send Content-Type: " + octets}
	}
	out := newLines(w)
	var mu sync.Mutex
	var last time.Time
	report, err := s.Bundles.ImportBundle(r.Context(), who, r.Body, func(done, total int64) {
		mu.Lock()
		defer mu.Unlock()
		if now := time.Now(); now.Sub(last) >= progressEvery {
			last = now
			_ = out.write("progress", progress{done, total})
		}
	})
	report.Counts = orEmpty(report.Counts)
	return out.end("report", report, err)
}
