package audit

import (
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"strings"

	"redoubt"
)

// OCSFVersion is the schema that AppendOCSF writes: API Activity, class 6003, with the
// security_control profile. docs/spec/audit.md maps each field.
const OCSFVersion = "1.3.0"

type ocsfEvent struct {
	ActivityID    int            `json:"activity_id"`
	ActivityName  string         `json:"activity_name"`
	CategoryUID   int            `json:"category_uid"`
	ClassUID      int            `json:"class_uid"`
	TypeUID       int            `json:"type_uid"`
	Time          int64          `json:"time"` // milliseconds
	SeverityID    int            `json:"severity_id"`
	StatusID      int            `json:"status_id"`
	StatusCode    string         `json:"status_code,omitempty"`
	StatusDetail  string         `json:"status_detail,omitempty"`
	ActionID      int            `json:"action_id"`
	DispositionID int            `json:"disposition_id"`
	Count         uint32         `json:"count"`
	Actor         ocsfActor      `json:"actor"`
	API           ocsfAPI        `json:"api"`
	SrcEndpoint   ocsfEndpoint   `json:"src_endpoint"`
	Policy        *ocsfPolicy    `json:"policy,omitempty"`
	Resources     []ocsfResource `json:"resources,omitempty"`
	Metadata      ocsfMetadata   `json:"metadata"`
	Unmapped      *ocsfUnmapped  `json:"unmapped,omitempty"`
}

type ocsfActor struct {
	User struct {
		Name          string `json:"name"`
		CredentialUID string `json:"credential_uid,omitempty"`
	} `json:"user"`
}

type ocsfAPI struct {
	Operation string `json:"operation"`
	Service   struct {
		Name string `json:"name"`
	} `json:"service"`
	Request *struct {
		UID string `json:"uid"`
	} `json:"request,omitempty"`
}

type ocsfEndpoint struct {
	IP   string `json:"ip,omitempty"`
	Port uint16 `json:"port,omitempty"`
	Name string `json:"name,omitempty"`
}

type ocsfPolicy struct {
	Name string `json:"name"`
}

type ocsfResource struct {
	UID     string   `json:"uid,omitempty"`
	Type    string   `json:"type"`
	Version string   `json:"version,omitempty"`
	Labels  []string `json:"labels,omitempty"`
}

type ocsfMetadata struct {
	Version  string   `json:"version"`
	Profiles []string `json:"profiles"`
	Sequence *uint64  `json:"sequence,omitempty"`
	Product  struct {
		Name       string `json:"name"`
		VendorName string `json:"vendor_name"`
	} `json:"product"`
}

type ocsfUnmapped struct {
	WorkingLabel string `json:"working_label,omitempty"`
	Bytes        int64  `json:"bytes,omitempty"`
}

// AppendOCSF appends f as one JSON object without a newline. node names the enclave.
func AppendOCSF(dst []byte, node string, f Found) ([]byte, error) {
	e := &f.Entry
	v := ocsfEvent{CategoryUID: 6, ClassUID: 6003, Time: e.Time.UnixMilli(), StatusCode: e.Kind, StatusDetail: e.Detail, Count: e.Count}
	v.ActivityID, v.ActivityName = activity(e.Action)
	v.TypeUID = v.ClassUID*100 + v.ActivityID
	v.SeverityID, v.ActionID, v.DispositionID = 1, 1, 1 // informational, allowed, allowed
	if !e.Allow {
		v.SeverityID, v.ActionID, v.DispositionID = 3, 2, 2 // medium, denied, blocked
	}
	if v.StatusID = 2; succeeded(e) {
		v.StatusID = 1
	}
	v.Actor.User.Name, v.Actor.User.CredentialUID = e.Subject, e.Credential
	v.API.Operation, v.API.Service.Name = e.Action, node
	if e.Request != "" {
		v.API.Request = &struct {
			UID string `json:"uid"`
		}{e.Request}
	}
	v.SrcEndpoint = endpoint(e.Source, node)
	if e.Rule != "" {
		v.Policy = &ocsfPolicy{e.Rule}
	}
	none := [16]byte{}
	if e.Bucket != none {
		v.Resources = append(v.Resources, ocsfResource{UID: hex.EncodeToString(e.Bucket[:]), Type: "bucket"})
	}
	if e.Name != none || e.Label != "" || len(e.Version) > 0 {
		r := ocsfResource{Type: "object", Version: hex.EncodeToString(e.Version)}
		if e.Name != none {
			r.UID = hex.EncodeToString(e.Name[:])
		}
		if e.Label != "" {
			r.Labels = []string{e.Label}
		}
		v.Resources = append(v.Resources, r)
	}
	v.Metadata.Version, v.Metadata.Profiles = OCSFVersion, []string{"security_control"}
	v.Metadata.Product.Name, v.Metadata.Product.VendorName = "Redoubt", "Redoubt"
	if f.Numbered {
		v.Metadata.Sequence = &f.Number
	}
	if e.Working != "" || e.Bytes > 0 {
		v.Unmapped = &ocsfUnmapped{e.Working, e.Bytes}
	}
	out, err := json.Marshal(v)
	if err != nil {
		return dst, &redoubt.Error{Op: "audit.OCSF", Err: err}
	}
	return append(dst, out...), nil
}

// succeeded reports whether what was allowed also came off.
func succeeded(e *Entry) bool { return e.Allow && (e.Kind == "" || e.Kind == "ok") }

// activity is the OCSF activity of an action, by how redoubt.Action names begin.
func activity(action string) (int, string) {
	for _, a := range []struct {
		id       int
		name     string
		prefixes []string
	}{
		{1, "Create", []string{"Create", "Mint", "Propose", "Copy", "MultipartUpload"}},
		{4, "Delete", []string{"Delete", "Abort", "CryptoErase", "Lifecycle", "Revoke"}},
		{2, "Read", []string{"Get", "Head", "List", "Search", "Verify", "Read", "KeyStatus", "Backup", "Check"}},
		{3, "Update", []string{"Put", "Approve", "Grant", "Rotate", "SystemRecord", "Raise", "Release"}},
	} {
		for _, p := range a.prefixes {
			if strings.HasPrefix(action, p) {
				return a.id, a.name
			}
		}
	}
	return 99, "Other"
}

// endpoint is where source is: an address with or without port, or a name.
func endpoint(source, node string) ocsfEndpoint {
	if ap, err := netip.ParseAddrPort(source); err == nil {
		return ocsfEndpoint{IP: ap.Addr().String(), Port: ap.Port()}
	}
	if a, err := netip.ParseAddr(source); err == nil {
		return ocsfEndpoint{IP: a.String()}
	}
	if source == "" {
		source = node // its own doing
	}
	return ocsfEndpoint{Name: source}
}
