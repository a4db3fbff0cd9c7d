package client

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"net/url"
	"time"

	"redoubt"
)

// Node says what the node is.
func (c *Client) Node(ctx context.Context) (redoubt.NodeInfo, error) {
	var out redoubt.NodeInfo
	return out, c.call(ctx, "GET", "/v1/node", nil, &out)
}

// Ready is nil when the node serves.
func (c *Client) Ready(ctx context.Context) error {
	return c.call(ctx, "GET", "/health/ready", nil, nil)
}

// Mint asks node for a credential of subject at a label ("": the highest that they share) for a life (0:
// redoubt.DefaultCredentialLife). key, which is the subject's own, signs here and is not sent.
func (c *Client) Mint(ctx context.Context, key ed25519.PrivateKey, subject redoubt.SubjectName, node redoubt.NodeName, label string, life time.Duration) (redoubt.Minted, error) {
	return c.MintBy(ctx, func(message []byte) ([]byte, error) { return ed25519.Sign(key, message), nil }, subject, node, label, life)
}

// MintBy is Mint with a key that is not at hand: sign signs with it.
func (c *Client) MintBy(ctx context.Context, sign func(message []byte) ([]byte, error), subject redoubt.SubjectName, node redoubt.NodeName, label string, life time.Duration) (redoubt.Minted, error) {
	var nonce [16]byte
	_, _ = rand.Read(nonce[:]) // never fails
	req := redoubt.MintRequest{
		Subject: subject, Node: node, Label: label, Seconds: int64(life / time.Second),
		Issued: time.Now().UTC(), Nonce: base64.RawURLEncoding.EncodeToString(nonce[:]),
	}
	sig, err := sign(redoubt.MintMessage(req))
	if err != nil {
		return redoubt.Minted{}, err
	}
	req.Signature = base64.StdEncoding.EncodeToString(sig)
	var out redoubt.Minted
	return out, c.With("").call(ctx, "POST", "/v1/credentials", req, &out)
}

// Credentials lists one's own, for an officer also others'.
func (c *Client) Credentials(ctx context.Context) ([]redoubt.CredentialRecord, error) {
	var out struct {
		Credentials []redoubt.CredentialRecord `json:"credentials"`
	}
	err := c.call(ctx, "GET", "/v1/credentials", nil, &out)
	return out.Credentials, err
}

// RevokeCredential ends a credential before it returns.
func (c *Client) RevokeCredential(ctx context.Context, id string) error {
	return c.call(ctx, "DELETE", "/v1/credentials/"+url.PathEscape(id), nil, nil)
}

// People lists everybody, for officers.
func (c *Client) People(ctx context.Context) ([]redoubt.Person, error) {
	var out struct {
		People []redoubt.Person `json:"people"`
	}
	err := c.call(ctx, "GET", "/v1/people", nil, &out)
	return out.People, err
}

// RevokePerson ends a person for good.
func (c *Client) RevokePerson(ctx context.Context, name redoubt.SubjectName, reason string) error {
	return c.call(ctx, "POST", "/v1/people/"+url.PathEscape(string(name))+"/revoke", map[string]string{"reason": reason}, nil)
}

// Changes lists the changes that officers proposed.
func (c *Client) Changes(ctx context.Context) ([]redoubt.Change, error) {
	var out struct {
		Changes []redoubt.Change `json:"changes"`
	}
	err := c.call(ctx, "GET", "/v1/changes", nil, &out)
	return out.Changes, err
}

// SignChange is an officer's signature over a change. Who signs reads first what she signs: the change as
// Changes gave it.
func SignChange(change redoubt.Change, signer redoubt.SubjectName, key ed25519.PrivateKey) redoubt.Signature {
	return redoubt.Signature{Signer: signer, Sig: base64.StdEncoding.EncodeToString(ed25519.Sign(key, redoubt.ChangeMessage(change)))}
}

// ProposeChange sends a change that carries its proposer's signature.
func (c *Client) ProposeChange(ctx context.Context, change redoubt.Change) (redoubt.Change, error) {
	var out redoubt.Change
	return out, c.call(ctx, "POST", "/v1/changes", change, &out)
}

// ApproveChange sends another officer's signature.
func (c *Client) ApproveChange(ctx context.Context, id string, sig redoubt.Signature) (redoubt.Change, error) {
	var out redoubt.Change
	return out, c.call(ctx, "POST", "/v1/changes/"+url.PathEscape(id)+"/approve", sig, &out)
}

// Grants lists the grants that stand, for officers.
func (c *Client) Grants(ctx context.Context) ([]redoubt.Grant, error) {
	var out struct {
		Grants []redoubt.Grant `json:"grants"`
	}
	err := c.call(ctx, "GET", "/v1/grants", nil, &out)
	return out.Grants, err
}

// Grant gives or denies need to know; the node makes the ID.
func (c *Client) Grant(ctx context.Context, g redoubt.Grant) (redoubt.Grant, error) {
	var out redoubt.Grant
	return out, c.call(ctx, "POST", "/v1/grants", g, &out)
}

// RevokeGrant ends a grant.
func (c *Client) RevokeGrant(ctx context.Context, id string) error {
	return c.call(ctx, "DELETE", "/v1/grants/"+url.PathEscape(id), nil, nil)
}
