package redoubt

import (
	"context"
	"io"
	"time"
)

// PartnerName is what a gateway is called between estates, where two may have a node of one name: ESTATE--NODE.
func PartnerName(estate string, node NodeName) NodeName {
	return NodeName(estate + "--" + string(node))
}

// MetaOriginatorLabel is the metadata of a partner's version that has the label which the partner gave it, in canonical text
// (label.MarshalText). No client can set it.
const MetaOriginatorLabel = "redoubt-originator-label"

// The states of an agreement with another estate.
const (
	AgreementInForce = "in force"
	AgreementNotYet  = "not yet"
	AgreementExpired = "expired"
	AgreementEnded   = "ended" // by one of this estate's officers, for good
)

// AgreementStatus is an agreement with another estate as this node, which is its gateway, sees it. Numbers and refusals are of activity at
// every label that the agreement covers, so they are told to who dominates the node's ceiling alone.
type AgreementStatus struct {
	Name      string        `json:"name"`
	Serial    int64         `json:"serial"`
	Digest    string        `json:"digest"`
	Partner   string        `json:"partner"` // its estate
	Gateway   NodeName      `json:"gateway"`
	State     string        `json:"state"`
	NotBefore time.Time     `json:"not_before"`
	Expires   time.Time     `json:"expires"`
	EndedBy   SubjectName   `json:"ended_by,omitempty"`
	EndedAt   time.Time     `json:"ended_at,omitzero"`
	Reason    string        `json:"reason,omitempty"`
	Gives     string        `json:"gives,omitempty"` // banner: the bound of what goes to the partner; "": nothing does
	Takes     string        `json:"takes,omitempty"` // likewise of what comes, in the partner's marking
	People    []SubjectName `json:"people,omitempty"`

	GivenSerial uint64         `json:"given_serial,omitempty"` // of the last bundle that was made for the partner
	TakenSerial uint64         `json:"taken_serial,omitempty"`
	TakenAt     time.Time      `json:"taken_at,omitzero"` // when that was made
	Refused     map[string]int `json:"refused,omitempty"` // of what came, for good, by rule
	Blocked     string         `json:"blocked,omitempty"` // why nothing is taken now
	Unread      int            `json:"unread,omitempty"`  // versions that the partner was not given, for they did not read, or are larger than a bundle
	Numbers     bool           `json:"numbers,omitempty"` // the six above are told
}

// MaxAgreementReason bounds the reason of an end.
const MaxAgreementReason = 1024

// PartnerService is what people do about a node's agreements with other estates.
type PartnerService interface {
	// Agreements lists those that the node is the gateway of. A partner's person is told of her own estate's alone.
	Agreements(ctx context.Context, who Credential) ([]AgreementStatus, error)
	// EndAgreement ends one, by an officer alone, at once and for good: nothing flows either way once it returns, and the partner's people
	// are nobody here. What ended comes back under a higher serial, signed anew by both. NotFound: none of that name.
	EndAgreement(ctx context.Context, who Credential, name, reason string) error
}

// PartnerSource gives a partner's gateway what is for it. Which partner that is the credential says.
type PartnerSource interface {
	// HandPartner writes the next bundle, sealed to the partner's gateway, once there is something that it does not have. have is the last that
	// it took; the zero mark: none. It waits; NotModified: nothing came until ctx ended. Expired, Denied: the agreement is not in force.
	HandPartner(ctx context.Context, partner Credential, have BundleMark, w io.Writer) (BundleMark, error)
}
