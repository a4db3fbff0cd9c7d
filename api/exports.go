package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"redoubt"
)

// ExportHeader comes before the content of a version that leaves the estate, as JSON: redoubt.Exported.
const ExportHeader = "Redoubt-Export"

// maxExportHeader bounds it: a label that names every nation has 12 KiB.
const maxExportHeader = 64 << 10

// exportVersion lets a version leave as a file, which its caller makes.
func (s *server) exportVersion(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	var in struct {
		Bucket  redoubt.BucketName `json:"bucket"`
		Key     string             `json:"key"`
		Version redoubt.VersionID  `json:"version"`
		Nation  string             `json:"nation"`
		Reason  string             `json:"reason"`
		KAS     string             `json:"kas"`
	}
	if err := read(w, r, &in); err != nil {
		return err
	}
	told, o, err := s.Exports.ExportVersion(r.Context(), who, redoubt.ExportVersion{Name: redoubt.ObjectName{Bucket: in.Bucket, Key: in.Key}, Version: in.Version, Nation: in.Nation, Reason: in.Reason, KAS: in.KAS})
	if err != nil {
		return err
	}
	told.Categories, told.ReleasableTo = orEmpty(told.Categories), orEmpty(told.ReleasableTo)
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // it holds XML
	if err = e.Encode(told); err == nil && b.Len() > maxExportHeader {
		err = redoubt.TooLarge
	}
	if err != nil {
		return errors.Join(err, o.Close())
	}
	w.Header().Set(ExportHeader, asciiJSON(bytes.TrimSuffix(b.Bytes(), []byte("\n"))))
	return stream(w, o)
}

// consentExport gives an originator what she is to sign, or takes what she signed.
func (s *server) consentExport(w http.ResponseWriter, r *http.Request, who redoubt.Credential) error {
	var in struct {
		Bucket    redoubt.BucketName `json:"bucket"`
		Key       string             `json:"key"`
		Version   redoubt.VersionID  `json:"version"`
		Nation    string             `json:"nation"`
		KAS       string             `json:"kas"`
		SHA256    string             `json:"sha256"`
		Expires   time.Time          `json:"expires"`
		Signature string             `json:"signature"`
	}
	if err := read(w, r, &in); err != nil {
		return err
	}
	out, err := s.Exports.ConsentExport(r.Context(), who, redoubt.ConsentExport{Name: redoubt.ObjectName{Bucket: in.Bucket, Key: in.Key}, Version: in.Version, Nation: in.Nation, KAS: in.KAS,
		SHA256: in.SHA256, Expires: in.Expires, Sig: in.Signature})
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, out)
}
