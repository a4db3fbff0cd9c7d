package node

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"

	"redoubt"
	"redoubt/estate"
	"redoubt/keys"
)

// Card is what others are to know an enclave by: nothing in it is secret, and every node writes its own at each start. An estate pins what
// its guards and the enclaves at their ends believe; an exercise takes the cards of its own state.
type Card struct {
	Node      redoubt.NodeName `json:"node"`
	Key       string           `json:"key"`       // Ed25519, base64: what it signs its bundles and receipts with
	Recipient string           `json:"recipient"` // what bundles for it are sealed to
	CA        string           `json:"ca"`        // its authority's certificate, PEM
	API       string           `json:"api_url"`
}

const cardFile = "card.json"

// Pin is the card as an estate pins it.
func (c Card) Pin() (estate.Pin, error) {
	der, err := c.authority()
	sum := sha256.Sum256(der)
	return estate.Pin{Key: c.Key, Recipient: c.Recipient, CA: hex.EncodeToString(sum[:])}, err
}

func (c Card) authority() ([]byte, error) {
	block, rest := pem.Decode([]byte(c.CA))
	if block == nil || len(rest) > 0 || block.Type != "CERTIFICATE" {
		return nil, &redoubt.Error{Op: "node.Card", Object: string(c.Node), Kind: redoubt.Corrupt, Err: errors.New("not one certificate in PEM")}
	}
	_, err := x509.ParseCertificate(block.Bytes)
	return block.Bytes, err
}

func (c Card) roots() (*x509.CertPool, error) {
	der, err := c.authority()
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return pool, nil
}

// writeCard writes a node's own card.
func (n *Node) writeCard(key ed25519.PublicKey, id *keys.Identity) error {
	ca, err := os.ReadFile(filepath.Join(n.dir, "ca.pem"))
	if err != nil {
		return err
	}
	return writeJSON(filepath.Join(n.dir, cardFile), Card{Node: n.name, Key: base64.StdEncoding.EncodeToString(key), Recipient: id.Recipient().String(), CA: string(ca), API: n.runtime.APIURL})
}

// Card reads the card of a node of this state.
func (s State) Card(name redoubt.NodeName) (c Card, err error) {
	return c, readJSON(filepath.Join(s.NodeDir(name), cardFile), &c)
}

// ReadCard reads a card that was carried here.
func ReadCard(path string) (c Card, err error) {
	return c, readJSON(path, &c)
}

// introducedDir holds the cards that were carried to a guard from other machines.
const introducedDir = "cards"

// Introduce keeps a card that was carried to a guard, for it to reach that enclave by.
func (s State) Introduce(guard redoubt.NodeName, c Card) error {
	dir := filepath.Join(s.NodeDir(guard), introducedDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return &redoubt.Error{Op: "node.Introduce", Object: dir, Err: cause(err)}
	}
	if _, err := c.roots(); err != nil {
		return err
	}
	return writeJSON(filepath.Join(dir, string(c.Node)+".json"), c)
}

// cardFor is how a guard reaches an enclave: by a card that was carried to it, or the one of the same state. Where the estate pins the
// enclave, nothing else is believed.
func cardFor(s State, guard estate.Node, enclave redoubt.NodeName, exercise bool) (Card, error) {
	c, err := ReadCard(filepath.Join(s.NodeDir(guard.Name), introducedDir, string(enclave)+".json"))
	if errors.Is(err, redoubt.NotFound) {
		if c, err = s.Card(enclave); err == nil {
			if r, rerr := s.Runtime(enclave); rerr == nil && r.APIURL != "" {
				c.API = r.APIURL
			}
		}
	}
	if err != nil {
		if errors.Is(err, redoubt.NotFound) {
			err = &redoubt.Error{Op: "node.Card", Object: string(enclave), Kind: redoubt.NotFound, Err: errors.New("the guard does not know where the enclave is"),
				Hint: "on that enclave's machine: redoubt node card " + string(enclave) + " > card.json; here: redoubt guard introduce " + string(guard.Name) + " card.json"}
		}
		return c, err
	}
	return c, pinned(guard, enclave, c, exercise)
}

// pinned holds a card against what the estate pins.
func pinned(guard estate.Node, enclave redoubt.NodeName, c Card, exercise bool) error {
	want, ok := guard.Guard.Pins[string(enclave)]
	if !ok {
		if exercise {
			return nil
		}
		return &redoubt.Error{Op: "node.Card", Object: string(enclave), Kind: redoubt.Denied, Err: errors.New("the estate pins no key of it"), Hint: "redoubt node card prints what to pin"}
	}
	if got, err := c.Pin(); err != nil || got != want {
		return &redoubt.Error{Op: "node.Card", Object: string(enclave), Kind: redoubt.Denied, Err: errors.Join(err, errors.New("it is not what the estate pins")), Hint: "its keys are others than when the estate was signed: redoubt node card prints them"}
	}
	return nil
}
