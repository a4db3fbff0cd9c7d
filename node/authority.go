package node

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"redoubt"
	"redoubt/keys"
)

// Times of certificates.
const (
	authorityLife = 10 * 365 * 24 * time.Hour // clients hold its certificate: changing it means telling them all
	leafLife      = 30 * 24 * time.Hour       // short: there is no revocation list
	leafRenew     = 10 * 24 * time.Hour       // before its end
	clockSkew     = 10 * time.Minute          // of clients behind
)

// VirtualHostDomain is the domain under which every node answers for a bucket by host name,
// BUCKET.s3.localhost: names under localhost resolve to loopback without any DNS (RFC 6761).
const VirtualHostDomain = "s3.localhost"

// authority is a node's own certificate authority. Its key never leaves the node: one
// node's capture does not let anybody pose as another. Leaf keys are never written down.
type authority struct {
	cert  *x509.Certificate
	key   *ecdsa.PrivateKey
	hosts []string
	clock func() time.Time

	mu   sync.Mutex // guards leaf
	leaf *tls.Certificate
}

const purposeAuthority = "authority"

// openAuthority opens the authority in dir, or makes it: its key sealed under the node's keyring,
// its certificate in clear at ca.pem.
func openAuthority(dir string, ring *keys.Keyring, hosts []string, clock func() time.Time) (*authority, error) {
	const op = "node.openAuthority"
	path := filepath.Join(dir, "authority")
	der, err := ring.OpenFile(path, purposeAuthority)
	if errors.Is(err, redoubt.NotFound) {
		der, err = newAuthority(clock())
		if err == nil {
			err = ring.SealFile(path, purposeAuthority, der)
		}
	}
	if err != nil {
		return nil, err
	}
	defer clear(der)
	certDER, keyDER, ok := splitAuthority(der)
	if !ok {
		return nil, &redoubt.Error{Op: op, Object: path, Kind: redoubt.Corrupt}
	}
	cert, err := x509.ParseCertificate(slices.Clone(certDER)) // it keeps the bytes, and der is cleared
	if err != nil {
		return nil, &redoubt.Error{Op: op, Object: path, Kind: redoubt.Corrupt, Err: err}
	}
	key, err := x509.ParseECPrivateKey(keyDER)
	if err != nil {
		return nil, &redoubt.Error{Op: op, Object: path, Kind: redoubt.Corrupt}
	}
	// Written at every start, so that a bundle that somebody changed does not last.
	bundle := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
	if err := writeFile(filepath.Join(dir, "ca.pem"), bundle); err != nil {
		return nil, &redoubt.Error{Op: op, Object: dir, Err: err}
	}
	a := &authority{cert: cert, key: key, hosts: hosts, clock: clock}
	_, err = a.certificate(nil) // fails here and not at the first connection
	return a, err
}

// newAuthority makes a P-384 authority: the length of the certificate, the certificate, the key.
func newAuthority(now time.Time) ([]byte, error) {
	const op = "node.newAuthority"
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return nil, &redoubt.Error{Op: op, Err: err}
	}
	template, err := certificateFor("Redoubt node authority", now, authorityLife)
	if err != nil {
		return nil, err
	}
	template.IsCA, template.BasicConstraintsValid, template.MaxPathLenZero = true, true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, &redoubt.Error{Op: op, Err: err}
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, &redoubt.Error{Op: op, Err: err}
	}
	defer clear(der)
	return slices.Concat([]byte{byte(len(cert) >> 8), byte(len(cert))}, cert, der), nil
}

func splitAuthority(b []byte) (cert, key []byte, ok bool) {
	if len(b) < 2 {
		return nil, nil, false
	}
	n := int(b[0])<<8 | int(b[1])
	if len(b) < 2+n {
		return nil, nil, false
	}
	return b[2 : 2+n], b[2+n:], true
}

func certificateFor(name string, now time.Time, life time.Duration) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, &redoubt.Error{Op: "node.certificateFor", Err: err}
	}
	return &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-clockSkew).UTC(), NotAfter: now.Add(life).UTC()}, nil
}

// certificate is the node's own certificate, made anew before it ends. The key is P-256:
// every client takes it, and a handshake with it costs a tenth of one with P-384.
func (a *authority) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.clock()
	if a.leaf != nil && now.Before(a.leaf.Leaf.NotAfter.Add(-leafRenew)) {
		return a.leaf, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, &redoubt.Error{Op: "node.certificate", Err: err}
	}
	template, err := certificateFor("Redoubt node", now, leafLife)
	if err != nil {
		return nil, err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, h := range slices.Concat([]string{"localhost", "127.0.0.1", "::1", VirtualHostDomain, "*." + VirtualHostDomain}, a.hosts) {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, &redoubt.Error{Op: "node.certificate", Err: err}
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, &redoubt.Error{Op: "node.certificate", Err: err}
	}
	a.leaf = &tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: key, Leaf: leaf}
	return a.leaf, nil
}

// config is TLS 1.3 alone. Curves are the standard library's: X25519MLKEM768 first.
func (a *authority) config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: a.certificate, NextProtos: []string{"http/1.1"}}
}
