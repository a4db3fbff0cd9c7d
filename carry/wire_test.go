package carry

import (
	"bufio"
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"math/big"
	"math/bits"
	"os"
	"strings"
	"testing"
	"time"

	"redoubt"
)

var update = flag.Bool("update", false, "write testdata/vectors.txt anew")

// plains are datagrams' plaintexts with one of each frame, by name.
func plains() map[string][]byte {
	number := appendUint48(nil, 0x010203040506)
	with := func(b ...byte) []byte { return append(bytes.Clone(number), b...) }
	content := []byte("content")
	return map[string][]byte{
		"empty": with(),
		"ack":   appendAck(with(), ack{largest: 1000, receivedAt: 123456, delay: 25, bits: []byte{0b1101_0111, 0, 1}}),
		"ping":  with(framePing), "probe": with(frameProbe), "close": with(frameClose), "padded": with(framePing, 0, 0, 0),
		"lane":      append(appendUint48(nil, 5<<laneShift|7), framePing),
		"window":    appendWindow(with(), window{redoubt.Immediate, 2 << 20}),
		"challenge": append(with(frameChallenge), "8 random"...),
		"response":  append(with(frameResponse), "8 random"...),
		"pieces": append(append(appendPieceHeader(append(appendPieceHeader(with(), redoubt.Flash, 70000, len(content)), content...),
			redoubt.Routine, 0, 1), 'x'), framePing),
	}
}

// shakes are the datagrams of a handshake.
func shakes() map[string][]byte {
	var c cookie
	copy(c[:], "cookie cookie cookie coo")
	return map[string][]byte{
		"open":     encodeOpen(0x01020304),
		"retry":    encodeRetry(retry{0x01020304, c}),
		"fragment": encodeFragment(fragment{from: 0x01020304, to: 0x05060708, cookie: c, have: [2]uint16{300, 5}, level: 1, offset: 1100, data: []byte("sealed")}),
		"unknown":  encodeUnknown(bytes.Repeat([]byte{0x40}, 40)),
		"resume":   shortShake().request,
		"resumed":  shortShake().answer,
	}
}

// shortShake is a short handshake with keys that are not random.
func shortShake() (x struct {
	request, answer []byte
	keys            resumedKeys
}) {
	key := func(b byte) *ecdh.PrivateKey {
		k, err := ecdh.P256().NewPrivateKey(bytes.Repeat([]byte{b}, 32))
		if err != nil {
			panic(err)
		}
		return k
	}
	secret, client, server := bytes.Repeat([]byte{7}, ticketSecretSize), key(1), key(2)
	m := resumeRequest{client: 0x01020304, share: [shareSize]byte(client.PublicKey().Bytes())}
	copy(m.ticket[:], "a ticket's ID 16")
	var err error
	if x.request, err = encodeResume(m, secret); err != nil {
		panic(err)
	}
	a := resumeAnswer{client: m.client, server: 0x05060708, share: [shareSize]byte(server.PublicKey().Bytes())}
	if x.keys, err = deriveResumed(server, m.share, secret, x.request, a.head()); err != nil {
		panic(err)
	}
	a.tag = [resumeTag]byte(confirmation(x.keys, a.head()))
	x.answer = encodeResumed(a)
	return x
}

// secrets are what comes of it, by name.
func secrets() map[string][]byte {
	k := shortShake().keys
	return map[string][]byte{"client": k.client, "server": k.server, "confirm": k.confirm, "next ID": k.nextID[:], "next secret": k.nextSecret}
}

func TestBothSidesOfAShortHandshakeKnowTheSame(t *testing.T) {
	x := shortShake()
	own, err := ecdh.P256().NewPrivateKey(bytes.Repeat([]byte{1}, 32))
	if err != nil {
		t.Fatal(err)
	}
	m, ok := decodeResumed(x.answer)
	secret := bytes.Repeat([]byte{7}, ticketSecretSize)
	if !ok || !provesTicket(x.request, secret) {
		t.Fatal("its own datagrams are not taken")
	}
	k, err := deriveResumed(own, m.share, secret, x.request, m.head())
	if err != nil || !bytes.Equal(k.client, x.keys.client) || !bytes.Equal(k.server, x.keys.server) || !bytes.Equal(k.nextSecret, x.keys.nextSecret) || k.nextID != x.keys.nextID {
		t.Errorf("the two sides differ: %v", err)
	}
	if bytes.Equal(k.client, k.server) || bytes.Contains(x.request, k.nextID[:]) || bytes.Equal(k.nextSecret, secret) {
		t.Error("secrets that must differ are the same")
	}
	if provesTicket(x.request, bytes.Repeat([]byte{8}, ticketSecretSize)) {
		t.Error("another secret proves the ticket")
	}
	other, err := deriveResumed(own, m.share, bytes.Repeat([]byte{8}, ticketSecretSize), x.request, m.head())
	if err != nil || bytes.Equal(other.client, k.client) {
		t.Errorf("the secret makes no difference: %v", err)
	}
	x.request[2] ^= 1
	if other, err = deriveResumed(own, m.share, secret, x.request, m.head()); err != nil || bytes.Equal(other.client, k.client) {
		t.Errorf("what was said makes no difference: %v", err)
	}
	for _, share := range [][shareSize]byte{{}, {4}} { // infinity, and no point of the curve
		if _, err := deriveResumed(own, share, secret, x.request, m.head()); err == nil {
			t.Errorf("the share %x was taken", share[:2])
		}
	}
}

// vectors reads testdata/vectors.txt: a kind, a name and hex a line.
func vectors(t *testing.T) map[string][]byte {
	t.Helper()
	f, err := os.Open("testdata/vectors.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all := map[string][]byte{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		name, value, ok := strings.Cut(lines.Text(), " = ")
		if !ok {
			continue
		}
		b, err := hex.DecodeString(value)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = b
	}
	return all
}

func TestTheFormatIsThatOfTheVectors(t *testing.T) {
	if *update {
		writeVectors(t)
	}
	golden := vectors(t)
	for name, b := range plains() {
		if want := golden["plain "+name]; !bytes.Equal(b, want) {
			t.Errorf("plain %s: got %x, want %x", name, b, want)
		}
		var c contents
		if err := c.decode(b); err != nil || c.number != 0x010203040506 && name != "lane" {
			t.Errorf("plain %s does not decode: %v", name, err)
		}
	}
	for name, b := range shakes() {
		if want := golden["handshake "+name]; !bytes.Equal(b, want) {
			t.Errorf("handshake %s: got %x, want %x", name, b, want)
		}
	}
	for name, b := range secrets() {
		if want := golden["resumed "+name]; !bytes.Equal(b, want) {
			t.Errorf("resumed %s: got %x, want %x", name, b, want)
		}
	}
	key, err := hkdf.Expand(sha512.New384, golden["secret"], "redoubt carry 1 key", 32)
	if err != nil || !bytes.Equal(key, golden["key of secret"]) {
		t.Errorf("key: got %x, %v", key, err)
	}
	next, err := nextSecret(golden["secret"])
	if err != nil || !bytes.Equal(next, golden["next secret"]) {
		t.Errorf("next secret: got %x, %v", next, err)
	}
	o, err := newOpener(bytes.Clone(golden["secret"]))
	if err != nil {
		t.Fatal(err)
	}
	for _, epoch := range []string{"sealed pieces", "sealed pieces of the next epoch"} {
		if plain, err := o.open(nil, golden[epoch]); err != nil || !bytes.Equal(plain, golden["plain pieces"]) {
			t.Errorf("%s: got %x, %v", epoch, plain, err)
		}
	}
}

func writeVectors(t *testing.T) {
	secret := []byte("a traffic secret of TLS 1.3 is 32 or 48 bytes.!!")
	var out strings.Builder
	line := func(name string, b []byte) { fmt.Fprintf(&out, "%s = %x\n", name, b) }
	for _, name := range []string{"empty", "ack", "ping", "probe", "close", "padded", "lane", "window", "challenge", "response", "pieces"} {
		line("plain "+name, plains()[name])
	}
	for _, name := range []string{"open", "retry", "fragment", "unknown", "resume", "resumed"} {
		line("handshake "+name, shakes()[name])
	}
	for _, name := range []string{"client", "server", "confirm", "next ID", "next secret"} {
		line("resumed "+name, secrets()[name])
	}
	key, _ := hkdf.Expand(sha512.New384, secret, "redoubt carry 1 key", 32)
	next, _ := nextSecret(secret)
	line("secret", secret)
	line("key of secret", key)
	line("next secret", next)
	s, err := newSealer(bytes.Clone(secret), 0x05060708)
	if err != nil {
		t.Fatal(err)
	}
	line("sealed pieces", s.seal(nil, plains()["pieces"]))
	s.limit = 1
	if err := s.rekey(0); err != nil {
		t.Fatal(err)
	}
	line("sealed pieces of the next epoch", s.seal(nil, plains()["pieces"]))
	if err := os.WriteFile("testdata/vectors.txt", []byte(out.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestWhatEveryFrameHolds(t *testing.T) {
	var c contents
	read := func(name string) *contents {
		t.Helper()
		if err := c.decode(plains()[name]); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return &c
	}
	if a := read("ack").ack; a.largest != 1000 || a.receivedAt != 123456 || a.delay != 25 || bits.OnesCount8(a.bits[0])+bits.OnesCount8(a.bits[2]) != 7 || c.eliciting() {
		t.Errorf("ack: got %+v", a)
	}
	if !read("ping").ping || !c.eliciting() {
		t.Error("a ping elicits")
	}
	if !read("probe").probe || !c.eliciting() {
		t.Error("a probe elicits")
	}
	if !read("close").closed || c.eliciting() {
		t.Error("a close does not elicit")
	}
	if c := read("lane"); c.lane != 5 || c.number != 7 || read("ping").lane != 0 {
		t.Errorf("lane: got %d, number %d", c.lane, c.number)
	}
	if w := read("window").windows; len(w) != 1 || w[0] != (window{redoubt.Immediate, 2 << 20}) {
		t.Errorf("window: got %+v", w)
	}
	if p := read("pieces").pieces; len(p) != 2 || p[0].precedence != redoubt.Flash || p[0].offset != 70000 || string(p[0].data) != "content" || !c.ping {
		t.Errorf("pieces: got %+v", p)
	}
}

func TestStrictDecodingRefuses(t *testing.T) {
	number := appendUint48(nil, 7)
	with := func(b ...byte) []byte { return append(bytes.Clone(number), b...) }
	good := ack{largest: 9, bits: []byte{1}}
	long := ack{largest: 5000, bits: bytes.Repeat([]byte{1}, ackBits/8+1)}
	many := with()
	for range maxOfAKind + 1 {
		many = appendWindow(many, window{redoubt.Routine, 1})
	}
	for name, b := range map[string][]byte{
		"nothing":                          {},
		"half a number":                    number[:5],
		"a frame of no kind":               with(0x08),
		"a precedence that is none":        with(framePiece+4, 0, 0, 0, 0, 0, 0, 0, 1, 'x'),
		"something after the padding":      with(framePad, 0, 1),
		"two acks":                         appendAck(appendAck(with(), good), good),
		"an ack without its newest":        appendAck(with(), ack{largest: 9, bits: []byte{2}}),
		"an ack with a needless byte":      appendAck(with(), ack{largest: 99, bits: []byte{1, 0}}),
		"an ack of numbers below zero":     appendAck(with(), ack{largest: 2, bits: []byte{0b1001}}),
		"an ack of nothing":                appendAck(with(), ack{largest: 2}),
		"an ack past the last of a lane":   appendAck(with(), ack{largest: maxLaneNumber + 1, bits: []byte{1}}),
		"an ack of too much":               appendAck(with(), long),
		"a cut ack":                        appendAck(with(), good)[:12],
		"an empty piece":                   appendPieceHeader(with(), redoubt.Routine, 0, 0),
		"a piece longer than its datagram": append(appendPieceHeader(with(), redoubt.Routine, 0, 9), "eight by"...),
		"a piece beyond all streams":       append(appendPieceHeader(with(), redoubt.Routine, maxNumber, 1), 'x'),
		"a window of no precedence":        with(frameWindow, 4, 0, 0, 0, 0, 0, 1),
		"a cut window":                     with(frameWindow, 0, 0, 0),
		"a cut challenge":                  append(with(frameChallenge), "7 bytes"...),
		"too many windows":                 many,
	} {
		var c contents
		if err := c.decode(b); !errors.Is(err, errFormat) {
			t.Errorf("%s: got %v, want a refusal", name, err)
		}
	}
	var c contents
	if err := c.decode(many[:len(many)-8]); err != nil {
		t.Errorf("%d windows: %v", maxOfAKind, err)
	}
	most := ack{largest: 5000, bits: bytes.Repeat([]byte{1}, ackBits/8)}
	if err := c.decode(appendAck(with(), most)); err != nil {
		t.Errorf("the longest ack: %v", err)
	}
	for name, b := range shakes() {
		for _, bad := range [][]byte{b[:len(b)-1], append(bytes.Clone(b), 0), append([]byte{b[0], wireVersion + 1}, b[2:]...)} {
			_, openOK := decodeOpen(bad)
			_, retryOK := decodeRetry(bad)
			f, fragmentOK := decodeFragment(bad)
			_, resumeOK := decodeResume(bad)
			_, resumedOK := decodeResumed(bad)
			if openOK || retryOK || resumeOK || resumedOK || fragmentOK && (name != "fragment" || bad[1] != wireVersion || len(f.data) == len("sealed")) {
				t.Errorf("%s, damaged to %d bytes of version %d, was taken", name, len(bad), bad[1])
			}
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, b := range plains() {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var c contents
		if c.decode(b) != nil {
			return
		}
		for _, p := range c.pieces {
			if len(p.data) == 0 || !p.precedence.Valid() || p.offset+uint64(len(p.data)) > maxNumber {
				t.Errorf("piece %+v", p)
			}
		}
		if c.hasAck && (c.ack.bits[0]&1 == 0 || len(c.ack.bits) > ackBits/8) {
			t.Errorf("ack %+v", c.ack)
		}
		// What was taken may be acted on without harm.
		fl := flight{reorder: leastReorder}
		for range 20 {
			fl.add(sent{at: time.Unix(1, 0), size: 100, eliciting: true})
		}
		if c.hasAck {
			if _, err := fl.ack(c.ack, time.Unix(2, 0)); err == nil && c.ack.largest >= 20 {
				t.Error("an ack of what was never sent was taken")
			}
			fl.overtaken(time.Unix(2, 0), func(*sent) {})
			if fl.bytes < 0 || fl.waiting < 0 || fl.bytes != 100*fl.waiting {
				t.Errorf("%d bytes of %d datagrams", fl.bytes, fl.waiting)
			}
		}
		var in inbox
		for i := range in {
			in[i].init()
		}
		for _, p := range c.pieces {
			if _, err := in[p.precedence].put(p.offset, p.data); err != nil {
				return
			}
		}
	})
}

func FuzzHandshakeDatagrams(f *testing.F) {
	for _, b := range shakes() {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if client, ok := decodeOpen(b); ok && !bytes.Equal(encodeOpen(client), b) {
			t.Error("two encodings of an opening")
		}
		if m, ok := decodeRetry(b); ok && !bytes.Equal(encodeRetry(m), b) {
			t.Error("two encodings of a retry")
		}
		if m, ok := decodeFragment(b); ok && !bytes.Equal(encodeFragment(m), b) {
			t.Error("two encodings of a fragment")
		}
		if m, ok := decodeResumed(b); ok && !bytes.Equal(encodeResumed(m), b) {
			t.Error("two encodings of a short handshake's answer")
		}
		if m, ok := decodeResume(b); ok {
			secret := make([]byte, ticketSecretSize)
			again, err := encodeResume(m, secret)
			if err != nil || bytes.Equal(again, b) != provesTicket(b, secret) {
				t.Errorf("a request that is made again differs, or a tag is right that is another: %v", err)
			}
		}
	})
}

// TestATicketIsNotUsableOutsideTheTimeOfItsCertificate is of peers whose certificates nothing else verifies.
func TestATicketIsNotUsableOutsideTheTimeOfItsCertificate(t *testing.T) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, InsecureSkipVerify: true}
	peer, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	x := ticket{peer: peer, full: now.Add(-2 * time.Hour)}
	x.own, _ = ownDigest(config)
	for at, want := range map[time.Duration]bool{-90 * time.Minute: false, -30 * time.Minute: true, 0: true, 59 * time.Minute: true, 61 * time.Minute: false} {
		for _, client := range []bool{false, true} {
			if err := x.usable(config, client, now.Add(at)); (err == nil) != want {
				t.Errorf("%v from now: %v", at, err)
			}
		}
	}
}

func FuzzTickets(f *testing.F) {
	then := func() time.Time { return time.Unix(0, 0) } // nothing is too old
	none, err := NewTickets(nil, then)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(none.Kept())
	f.Add(append(none.Kept()[:1], 0, 1, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		if all, err := NewTickets(b, then); err == nil && len(b) > 0 && !bytes.Equal(all.Kept(), b) {
			t.Error("two encodings of tickets")
		}
	})
}

func TestWhatWasSealedUnderTheKeyBeforeStillOpens(t *testing.T) {
	secret := bytes.Repeat([]byte{7}, 48)
	s, err := newSealer(bytes.Clone(secret), 9)
	if err != nil {
		t.Fatal(err)
	}
	o, err := newOpener(bytes.Clone(secret))
	if err != nil {
		t.Fatal(err)
	}
	plain := plains()["ping"]
	s.limit = 2
	var sealed [][]byte
	for range 6 { // two of each epoch
		if err := s.rekey(s.epoch); err != nil {
			t.Fatal(err)
		}
		sealed = append(sealed, s.seal(nil, plain))
	}
	if s.epoch != 2 {
		t.Fatalf("six datagrams at two a key: epoch %d", s.epoch)
	}
	for _, i := range []int{0, 2, 1, 3, 4, 2, 5} {
		if got, err := o.open(nil, sealed[i]); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("datagram %d: %x, %v", i, got, err)
		}
	}
	if _, err := o.open(nil, sealed[0]); err == nil {
		t.Error("a key two epochs back still opens")
	}
}

func TestAKeyIsNotLeftBeforeThePeerIsKnownToHaveIt(t *testing.T) {
	s, err := newSealer(bytes.Repeat([]byte{7}, 48), 9)
	if err != nil {
		t.Fatal(err)
	}
	s.limit, s.epoch = 1, 4
	s.seal(nil, plains()["ping"])
	if err := s.rekey(3); err != nil || s.epoch != 4 {
		t.Errorf("it was left when nothing of it was acknowledged: %v", err)
	}
	if err := s.rekey(4); err != nil || s.epoch != 5 {
		t.Errorf("it was not left when it was known: epoch %d, %v", s.epoch, err)
	}
}

func TestParametersOfAnotherConnectionAreRefused(t *testing.T) {
	said := func(version byte, own, other connID) []byte {
		s := shake{local: own, remote: other}
		b := s.parameters()
		b[0] = version
		return b
	}
	client, server := &shake{client: true, local: 1, remote: 2}, &shake{local: 2, remote: 1}
	if err := client.checkParameters(said(1, 2, 1)); err != nil {
		t.Errorf("the server's: %v", err)
	}
	if err := server.checkParameters(said(1, 1, 0)); err != nil {
		t.Errorf("the client's: %v", err)
	}
	for _, b := range [][]byte{said(2, 2, 1), said(1, 3, 1), said(1, 2, 3), said(1, 2, 1)[:8], nil} {
		if client.checkParameters(b) == nil {
			t.Errorf("the client took %x", b)
		}
	}
	for _, b := range [][]byte{said(2, 1, 0), said(1, 3, 0), nil} {
		if server.checkParameters(b) == nil {
			t.Errorf("the server took %x", b)
		}
	}
}

func TestAHandshakeIsLimitedInLength(t *testing.T) {
	s := &shake{}
	if err := s.take(fragment{from: 1, offset: maxHandshake - 1, data: []byte{1}}, nil); err != nil {
		t.Errorf("the last byte: %v", err)
	}
	if err := s.take(fragment{from: 1, offset: maxHandshake - 1, data: []byte{1, 2}}, nil); !errors.Is(err, errTooLong) {
		t.Errorf("one too many: got %v", err)
	}
}
