package redoubt

import (
	"context"
	"time"
)

// Person is a subject as the estate declares one and as officers sign one. Markings are text.
type Person struct {
	Name      SubjectName `json:"name"`
	Clearance string      `json:"clearance"`
	Nation    string      `json:"nation"`
	Roles     []Role      `json:"roles"`
	Expires   time.Time   `json:"expires"`    // of the clearance
	PublicKey string      `json:"public_key"` // Ed25519, base64: what the subject signs with
	Workload  bool        `json:"workload,omitempty"`
	Revoked   bool        `json:"revoked,omitempty"` // for good: a revoked name is never used again
}

// Scope is what a SigV4 signing key is bound to.
type Scope struct{ Date, Region, Service string } // Date is YYYYMMDD

// Authenticator turns what a request proves into a Credential. Signing secrets stay
// inside: a front end is handed only the key of one day and scope.
type Authenticator interface {
	// SigningKey gives the SigV4 signing key for an access key. Unauthenticated: no such
	// key; Expired: past its time; both are the same to a revoked one.
	SigningKey(ctx context.Context, accessKeyID string, s Scope) (key [32]byte, who Credential, err error)
	// Bearer verifies a bearer token.
	Bearer(ctx context.Context, token string) (Credential, error)
	// Refused records that a request from remote failed authentication, and why; such records are rate-limited and aggregated.
	Refused(ctx context.Context, remote, reason string)
}

// MintRequest is what a subject signs with its own key to be given a credential.
type MintRequest struct {
	Subject   SubjectName `json:"subject"`
	Node      NodeName    `json:"node"`
	Label     string      `json:"label"`     // the working label asked for; "": the highest that subject and node share
	Seconds   int64       `json:"seconds"`   // how long; 0: DefaultCredentialLife
	Issued    time.Time   `json:"issued"`    // within MintSkew of the node's clock
	Nonce     string      `json:"nonce"`     // 16 random bytes, base64url; used once
	Signature string      `json:"signature"` // Ed25519 over MintMessage, base64
}

// Limits on credentials.
const (
	DefaultCredentialLife = 12 * time.Hour
	MaxCredentialLife     = 7 * 24 * time.Hour
	MintSkew              = 5 * time.Minute
)

// Minted is a fresh credential with its secrets. It is shown once.
type Minted struct {
	AccessKeyID     string    `json:"access_key_id"`
	SecretAccessKey string    `json:"secret_access_key"`
	Token           string    `json:"token"`
	Label           string    `json:"label"` // banner of the working label
	Expires         time.Time `json:"expires"`
	Region          string    `json:"region"`
}

// CredentialRecord describes a credential without its secrets.
type CredentialRecord struct {
	ID      string      `json:"id"`
	Subject SubjectName `json:"subject"`
	Label   string      `json:"label"`
	Issued  time.Time   `json:"issued"`
	Expires time.Time   `json:"expires"`
	Revoked bool        `json:"revoked,omitempty"`
}

// CredentialService mints and revokes.
type CredentialService interface {
	// MintCredential needs no credential: the subject's signature is the proof.
	MintCredential(ctx context.Context, req MintRequest) (Minted, error)
	// RevokeCredential bites before it returns. A subject may revoke its own that its working label dominates, an officer
	// anybody's. Below the node's ceiling an officer is not told whether there was one: NotFound is told at the ceiling alone.
	RevokeCredential(ctx context.Context, who Credential, id string) error
	// Credentials lists one's own; an officer sees those whose label the officer's working label dominates.
	Credentials(ctx context.Context, who Credential) ([]CredentialRecord, error)
}

// ChangeKind says what a Change does.
type ChangeKind string

// What needs two officers.
const (
	ChangePerson      ChangeKind = "person"       // add a person, or change clearance, nation, roles, expiry or key
	ChangeEraseLabel  ChangeKind = "erase-label"  // crypto-erase everything under one label
	ChangeEraseBucket ChangeKind = "erase-bucket" // crypto-erase a bucket
)

// Change is something that takes effect when two different security officers have signed
// it with their own keys. Who granted a role cannot approve together with the one
// that it was granted to.
type Change struct {
	ID         string      `json:"id"` // hex SHA-256 over ChangeMessage
	Kind       ChangeKind  `json:"kind"`
	Node       NodeName    `json:"node,omitempty"` // for erasures: where; a person is signed for the whole estate
	Person     *Person     `json:"person,omitempty"`
	Label      string      `json:"label,omitempty"`
	Bucket     BucketName  `json:"bucket,omitempty"`
	Reason     string      `json:"reason"`
	Made       time.Time   `json:"made"`
	Expires    time.Time   `json:"expires"` // an unapproved change dies
	Signatures []Signature `json:"signatures"`
	State      string      `json:"state,omitempty"` // "pending", "in effect", "dead"; said by the node, not signed
}

// Signature is an officer's over ChangeMessage or an estate's digest.
type Signature struct {
	Signer SubjectName `json:"signer"`
	Sig    string      `json:"sig"` // Ed25519, base64
}

// PeopleService is people and what officers decide about them. Revoking takes one
// officer and effect at once: only widening needs two. All of it is on record at the node's ceiling, and takes a
// working label that dominates it; but for revoking, which any label does, and below the ceiling it answers alike
// whether there was anything to revoke or not.
type PeopleService interface {
	People(ctx context.Context, who Credential) ([]Person, error)
	// ProposeChange stores a change that carries the proposer's signature; with a second valid one it takes effect.
	ProposeChange(ctx context.Context, who Credential, c Change) (Change, error)
	ApproveChange(ctx context.Context, who Credential, id string, sig Signature) (Change, error)
	Changes(ctx context.Context, who Credential) ([]Change, error)
	RevokePerson(ctx context.Context, who Credential, name SubjectName, reason string) error
}

// GrantService is need to know, which one officer gives and takes: a grant never lets anybody past a label. Grants are on
// record at the node's ceiling: see PeopleService for who may do what.
type GrantService interface {
	// Grant gives need to know, or with Deny takes it. The ID is made by the node.
	Grant(ctx context.Context, who Credential, g Grant) (Grant, error)
	RevokeGrant(ctx context.Context, who Credential, id string) error
	// Grants lists those that stand, by ID; a bucket's policy document gives others.
	Grants(ctx context.Context, who Credential) ([]Grant, error)
}
