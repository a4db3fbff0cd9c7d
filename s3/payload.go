package s3

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"net"
	"strconv"

	"redoubt"
)

// payload is the content of a request on its way in: decoded, counted, and every digest
// that is wanted computed in one pass. Its error is kept, so that the answer
// does not depend on how a service wraps what stopped it.
type payload struct {
	src     io.Reader
	size    int64 // -1: not known before the end
	read    int64
	ended   bool
	err     error
	sum     summer
	want    wantedSum
	chunks  *chunkReader
	sha     hash.Hash // of the signed payload; nil when nothing asks
	wantSHA [sha256.Size]byte
	hashed  bool // all of it, to wantSHA
	md5     hash.Hash
	wantMD5 []byte
	c       *call
}

// openPayload prepares the content of a request for reading. Nothing is read yet.
func (c *call) openPayload(maxBytes int64, md5ETag bool) (*payload, error) {
	p := &payload{c: c}
	progress := &progressReader{r: c.r.Body, rc: c.rc, lim: c.s.limits}
	p.src = progress
	if err := p.openFraming(progress); err != nil {
		return nil, err
	}
	if p.size > maxBytes {
		return nil, errEntityTooLarge.with("MaxSizeAllowed", strconv.FormatInt(maxBytes, 10)).with("ProposedSize", strconv.FormatInt(p.size, 10))
	}
	if err := p.openChecksum(); err != nil {
		return nil, err
	}
	return p, p.openMD5(md5ETag)
}

// openFraming reads how the content comes: whole, or in aws-chunked frames.
func (p *payload) openFraming(body io.Reader) error {
	c, content := p.c, p.c.sig.content
	switch content {
	case hashStream, hashStreamTrailer, hashUnsignedTrailer:
		size, err := c.decodedLength()
		if err != nil {
			return err
		}
		p.size = size
		if content == hashUnsignedTrailer && !c.unsignedAllowed() {
			return errUnsignedInClear
		}
		p.chunks = newChunkReader(body, &c.sig, size)
		p.src = p.chunks
		return nil
	case hashUnsigned:
		if c.r.ContentLength != 0 && !c.unsignedAllowed() {
			return errUnsignedInClear
		}
	default:
		if len(content) != 64 {
			return c.unknownContent()
		}
		if _, err := hex.Decode(p.wantSHA[:], []byte(content)); err != nil {
			return c.unknownContent()
		}
		p.sha = sha256.New()
	}
	if c.r.ContentLength < 0 || c.r.ContentLength == 0 && c.r.ProtoMajor == 1 && c.r.Header["Content-Length"] == nil {
		return errMissingLength
	}
	p.size = c.r.ContentLength
	return nil
}

func (c *call) unknownContent() error {
	if len(c.sig.content) > 10 && c.sig.content[:10] == "STREAMING-" {
		return notImplemented("x-amz-content-sha256: " + c.sig.content)
	}
	return invalid("x-amz-content-sha256", c.sig.content,
		"x-amz-content-sha256 must be UNSIGNED-PAYLOAD, "+hashUnsignedTrailer+", "+hashStream+", "+hashStreamTrailer+" or a valid sha256 value.")
}

// unsignedAllowed holds where content may come that no signature covers.
func (c *call) unsignedAllowed() bool { return c.r.TLS != nil || c.s.unsignedInClear }

func (c *call) decodedLength() (int64, error) {
	v, err := c.single("X-Amz-Decoded-Content-Length")
	if err != nil {
		return 0, err
	}
	if v == "" {
		return 0, errMissingLength
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n < 0 || v[0] == '+' {
		return 0, invalid("x-amz-decoded-content-length", v, "The decoded length is not a number.")
	}
	return n, nil
}

// emptyCRC32 is what SDKs write into a presigned URL by default: the checksum of the body they are shown, which is none. They do not
// mean that nothing may be put there, and S3 takes it for no value. Any other checksum in the URL is held to.
const emptyCRC32 = "AAAAAA=="

// openChecksum decides which checksum is computed: the one that the client names, else CRC64NVME.
func (p *payload) openChecksum() error {
	var err error
	if p.want, err = readWantedSum(p.c.r.Header); err != nil {
		return err
	}
	if p.c.sig.presigned && p.want.algorithm == sumCRC32 && p.want.value == emptyCRC32 {
		p.want.value = ""
	}
	trailing := p.chunks != nil && p.c.sig.content != hashStream
	if p.want.trailer != trailing {
		return errInvalidRequest.say("x-amz-trailer and x-amz-content-sha256 do not agree about a trailer.")
	}
	if p.want.algorithm == sumNone {
		p.want.algorithm = sumCRC64NVME
	}
	if trailing {
		p.chunks.trailer = sumInfo[p.want.algorithm].trailer
	}
	if p.want.algorithm == sumSHA256 && p.sha != nil {
		p.sum = summer{algorithm: sumSHA256, h: nil} // the signed digest serves for both
		return nil
	}
	p.sum = newSummer(p.want.algorithm)
	return nil
}

func (p *payload) openMD5(always bool) error {
	v, err := p.c.single("Content-Md5")
	if err != nil {
		return err
	}
	if p.c.r.Header["Content-Md5"] != nil {
		p.wantMD5, err = base64.StdEncoding.Strict().DecodeString(v)
		if err != nil || len(p.wantMD5) != 16 {
			return errInvalidDigest
		}
	}
	if always || p.wantMD5 != nil {
		p.md5 = newMD5()
	}
	return nil
}

// Read gives content and io.EOF only once its length is what was promised.
func (p *payload) Read(b []byte) (int, error) {
	if p.err != nil {
		return 0, p.err
	}
	if p.ended {
		return 0, io.EOF
	}
	n, err := p.src.Read(b)
	p.digest(b[:n])
	if p.size >= 0 && p.read > p.size {
		p.err = errIncompleteBody.say("More bytes came than were announced.")
		return 0, p.err
	}
	if err == nil {
		return n, nil
	}
	if err == io.EOF && (p.size < 0 || p.read == p.size) {
		p.ended = true
		return n, io.EOF
	}
	p.err = bodyError(err)
	return n, p.err
}

func (p *payload) digest(b []byte) {
	if len(b) == 0 {
		return
	}
	p.read += int64(len(b))
	if p.sum.algorithm != sumSHA256 || p.sum.h != nil {
		p.sum.write(b)
	}
	if p.sha != nil {
		p.sha.Write(b)
	}
	if p.md5 != nil {
		p.md5.Write(b)
	}
}

// bodyError says what a broken body is to the client.
func bodyError(err error) error {
	var own *apiError
	var network net.Error
	switch {
	case errors.As(err, &own):
		return own
	case errors.As(err, &network) && network.Timeout():
		return errRequestTimeout
	case err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF):
		return errIncompleteBody
	}
	return errIncompleteBody.say("The request body could not be read.")
}

// finish verifies what came with the content. It is redoubt.PutObject's Finish: called before anything is committed.
func (p *payload) finish() (redoubt.Checksums, string, error) {
	if err := p.drain(); err != nil {
		return redoubt.Checksums{}, "", err
	}
	sums, md5Hex, err := p.compare()
	p.err = err
	return sums, md5Hex, err
}

// digest256 is redoubt.PutObject's Digest: what a signed payload was found to be.
func (p *payload) digest256() ([sha256.Size]byte, bool) { return p.wantSHA, p.hashed }

// drain makes sure that the end has been seen: the last chunk's signature and the trailers stand behind the last byte.
func (p *payload) drain() error {
	var one [1]byte
	for !p.ended && p.err == nil {
		p.Read(one[:])
		if p.err == nil && p.read < p.size {
			return errIncompleteBody // the service stopped early; it may not commit
		}
	}
	return p.err
}

func (p *payload) compare() (sums redoubt.Checksums, md5Hex string, err error) {
	value := ""
	if p.sha != nil {
		var sum [sha256.Size]byte
		p.sha.Sum(sum[:0])
		if !hmac.Equal(sum[:], p.wantSHA[:]) {
			return sums, "", errContentSHA256.with("ClientComputedContentSHA256", hex.EncodeToString(p.wantSHA[:])).
				with("S3ComputedContentSHA256", hex.EncodeToString(sum[:]))
		}
		p.hashed = true
		if p.sum.algorithm == sumSHA256 {
			value = base64.StdEncoding.EncodeToString(sum[:])
		}
	}
	if value == "" {
		value = p.sum.value()
	}
	want := p.want.value
	if p.want.trailer {
		want = p.chunks.trailerValue
	}
	if want != "" && want != value {
		return sums, "", errBadDigest.say("The " + sumInfo[p.sum.algorithm].name + " you specified did not match the calculated checksum.")
	}
	*p.sum.algorithm.of(&sums) = value
	if p.md5 != nil {
		var sum [16]byte
		p.md5.Sum(sum[:0])
		if p.wantMD5 != nil && !bytes.Equal(sum[:], p.wantMD5) {
			return sums, "", errBadDigest.say("The Content-MD5 you specified did not match what we received.")
		}
		md5Hex = hex.EncodeToString(sum[:])
	}
	return sums, md5Hex, nil
}

// blame prefers what stopped the content over how the service reports that it stopped.
func (p *payload) blame(err error) error {
	if err != nil && p.err != nil {
		return p.err
	}
	return err
}

// readSmall reads a whole, verified body of at most limit bytes: a document, not content.
// hashed says whether some digest came with it.
func (c *call) readSmall(limit int64) (body []byte, hashed bool, err error) {
	p, err := c.openPayload(limit, false)
	if err != nil {
		return nil, false, err
	}
	body = make([]byte, p.size)
	if _, err := io.ReadFull(p, body); err != nil {
		return nil, false, p.blame(err)
	}
	if _, _, err := p.finish(); err != nil {
		return nil, false, err
	}
	return body, p.sha != nil || p.wantMD5 != nil || p.want.value != "" || p.chunks != nil, nil
}
