package carry

import (
	"crypto/tls"

	"redoubt"
)

// The protocols' names within TLS: a handshake made for one cannot be used for the other.
const (
	alpnDatagrams = "redoubt-carry/1"
	alpnStreams   = "redoubt-carry-tcp/1"
)

// strict is the caller's configuration with what this protocol leaves no choice about: TLS 1.3, a key exchange that
// withstands a quantum computer, our protocol, no resumption (Tickets are for that: TLS's would be three times as long).
func strict(config Config, c *tls.Config, alpn string) *tls.Config {
	c = c.Clone()
	if c.Time == nil {
		c.Time = config.Now
	}
	c.MinVersion, c.MaxVersion = tls.VersionTLS13, tls.VersionTLS13
	c.CurvePreferences = []tls.CurveID{tls.X25519MLKEM768}
	c.NextProtos = []string{alpn}
	c.SessionTicketsDisabled, c.ClientSessionCache = true, nil
	return c
}

// serverTLS refuses a configuration that would let in a peer who is not verified.
func serverTLS(config Config, alpn string) (*tls.Config, error) {
	c := config.Server
	own := c.VerifyConnection != nil || c.VerifyPeerCertificate != nil
	if c.ClientAuth != tls.RequireAndVerifyClientCert && (c.ClientAuth != tls.RequireAnyClientCert || !own) || c.GetConfigForClient != nil {
		return nil, &redoubt.Error{Op: "carry", Kind: redoubt.Invalid, Rule: "peers are verified", Hint: "require and verify client certificates"}
	}
	return strict(config, c, alpn), nil
}

// clientTLS refuses a configuration that would believe any server, or cannot prove who we are.
func clientTLS(config Config, c *tls.Config, alpn string) (*tls.Config, error) {
	if c == nil || c.InsecureSkipVerify && c.VerifyConnection == nil && c.VerifyPeerCertificate == nil {
		return nil, &redoubt.Error{Op: "carry", Kind: redoubt.Invalid, Rule: "peers are verified", Hint: "verify the server's certificate"}
	}
	if len(c.Certificates) == 0 && c.GetClientCertificate == nil {
		return nil, &redoubt.Error{Op: "carry", Kind: redoubt.Invalid, Hint: "a certificate of our own is needed"}
	}
	return strict(config, c, alpn), nil
}
