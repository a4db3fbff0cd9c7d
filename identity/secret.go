package identity

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strings"

	"redoubt"
)

// Access key IDs look like those of AWS: 20 of A-Z and 0-9. 18 characters of 5 random bits are 90 bits.
const (
	idPrefix   = "RD"
	idBytes    = 20
	idAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"

	tokenPrefix     = "rdt_"
	secretKeyBytes  = 40 // of base64, as AWS has them: 30 bytes of the HMAC
	maxScopeElement = 64 // bytes of date, region or service
)

// dayKey is the signing key of one credential for the scope that it was last used in.
type dayKey struct {
	scope redoubt.Scope
	key   [sha256.Size]byte
}

// SigningKey gives the SigV4 signing key of a credential for a scope (AWS "Signature Version 4 signing
// process": HMAC over date, region, service and "aws4_request"). Unauthenticated: no such credential, or it
// was revoked; Expired: past its time. The key of the last scope is kept with the credential, so what is kept is bounded by
// the credentials; for what does not exist the same work is done as for a first use.
func (r *Registry) SigningKey(accessKeyID string, s redoubt.Scope) ([sha256.Size]byte, redoubt.Credential, error) {
	if len(accessKeyID) > idBytes || len(s.Date) > maxScopeElement || len(s.Region) > maxScopeElement || len(s.Service) > maxScopeElement {
		return [sha256.Size]byte{}, redoubt.Credential{}, errUnknownCredential
	}
	c, ok := r.credential(accessKeyID)
	if !ok {
		r.signingKey(accessKeyID, s)
		return [sha256.Size]byte{}, redoubt.Credential{}, errUnknownCredential
	}
	if err := r.live(c); err != nil {
		return [sha256.Size]byte{}, redoubt.Credential{}, err
	}
	d := c.day.Load()
	if d == nil || d.scope != s {
		d = &dayKey{scope: redoubt.Scope{Date: strings.Clone(s.Date), Region: strings.Clone(s.Region), Service: strings.Clone(s.Service)},
			key: r.signingKey(c.ID, s)}
		c.day.Store(d)
	}
	return d.key, c.Credential, nil
}

func (r *Registry) signingKey(id string, s redoubt.Scope) [sha256.Size]byte {
	key := []byte("AWS4" + r.secretKey(id))
	for _, part := range [4]string{s.Date, s.Region, s.Service, "aws4_request"} {
		m := hmac.New(sha256.New, key)
		m.Write([]byte(part))
		key = m.Sum(nil)
	}
	return [sha256.Size]byte(key)
}

// Bearer verifies a token that Mint gave. Unauthenticated: not one of ours, or revoked; Expired: past its time.
func (r *Registry) Bearer(token string) (redoubt.Credential, error) {
	rest, ok := strings.CutPrefix(token, tokenPrefix)
	if !ok || len(rest) <= idBytes || len(token) > 128 {
		return redoubt.Credential{}, errToken
	}
	id := rest[:idBytes]
	if !hmac.Equal([]byte(token), []byte(r.token(id))) {
		return redoubt.Credential{}, errToken
	}
	c, ok := r.credential(id)
	if !ok {
		return redoubt.Credential{}, errUnknownCredential
	}
	if err := r.live(c); err != nil {
		return redoubt.Credential{}, err
	}
	return c.Credential, nil
}

var errToken = &redoubt.Error{Op: "identity.Bearer", Kind: redoubt.Unauthenticated, Err: errors.New("not a token of this node")}

// secretKey derives the secret access key of a credential: nothing secret is stored.
func (r *Registry) secretKey(id string) string {
	sum := r.mac("secret access key", id)
	return base64.StdEncoding.EncodeToString(sum[:])[:secretKeyBytes]
}

// token derives the bearer token of a credential.
func (r *Registry) token(id string) string {
	sum := r.mac("bearer token", id)
	return tokenPrefix + id + "_" + base64.RawURLEncoding.EncodeToString(sum[:])
}

// mac is HMAC-SHA256 under the node's secret, kept apart by purpose and node.
func (r *Registry) mac(purpose, id string) [sha256.Size]byte {
	m := hmac.New(sha256.New, r.o.Secret)
	m.Write([]byte("redoubt identity v1\n" + string(r.o.Node) + "\n" + purpose + "\n" + id))
	return [sha256.Size]byte(m.Sum(nil))
}

func validID(id string) bool {
	return len(id) == idBytes && strings.HasPrefix(id, idPrefix) && strings.Trim(id[len(idPrefix):], idAlphabet) == ""
}
