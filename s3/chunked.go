package s3

import (
	"bufio"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io"
	"strings"
	"sync"
)

// chunkReader decodes aws-chunked content ("Transferring payload in multiple chunks", S3 API reference) and checks
// every chunk's signature. Data is handed on before its chunk's signature has been seen; io.EOF
// comes only when all were right, and a service commits nothing without that.
type chunkReader struct {
	br           *bufio.Reader
	sig          *signature
	signed       bool
	trailer      string // the one trailer announced; "" for none
	trailerValue string

	size   int64 // of the whole content
	total  int64 // promised by the chunk headers so far
	left   int64 // of the current chunk
	open   bool  // inside a chunk, whose end is still to be checked
	short  bool  // a chunk smaller than minSignedChunk came: it must be the last
	hash   hash.Hash
	mac    hash.Hash
	prev   [64]byte // hex of the signature before
	given  [64]byte
	scope  []byte
	err    error
	pooled bool
}

var chunkBuffers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, 64<<10) }}

func newChunkReader(body io.Reader, sig *signature, size int64) *chunkReader {
	r := &chunkReader{br: chunkBuffers.Get().(*bufio.Reader), sig: sig, size: size, pooled: true, signed: sig.content != hashUnsignedTrailer}
	r.br.Reset(body)
	if r.signed {
		r.hash, r.mac = sha256.New(), hmac.New(sha256.New, sig.key[:])
		hex.Encode(r.prev[:], sig.given[:])
		r.scope = sig.appendScope(nil)
	}
	return r
}

func (r *chunkReader) Read(b []byte) (int, error) {
	for r.err == nil && r.left == 0 {
		r.err = r.nextChunk()
	}
	if r.err != nil {
		r.recycle()
		return 0, r.err
	}
	n, err := r.br.Read(b[:min(int64(len(b)), r.left)])
	r.left -= int64(n)
	if r.signed {
		r.hash.Write(b[:n])
	}
	if err == io.EOF {
		err = errIncompleteBody
	}
	r.err = err
	return n, err
}

// recycle gives the buffer back once nothing more will be read.
func (r *chunkReader) recycle() {
	if r.pooled {
		r.pooled = false
		r.br.Reset(nil)
		chunkBuffers.Put(r.br)
		r.br = nil
	}
}

// nextChunk closes the chunk that was read and opens the one that follows; io.EOF after the last.
func (r *chunkReader) nextChunk() error {
	if r.open {
		if err := r.endChunk(); err != nil {
			return err
		}
	}
	n, err := r.readHeader()
	if err != nil {
		return err
	}
	if n == 0 {
		return r.end()
	}
	if r.total += n; r.total > r.size || r.total < 0 {
		return errIncompleteBody.say("The chunks hold more than x-amz-decoded-content-length.")
	}
	if r.signed {
		if r.short {
			return errInvalidChunk
		}
		r.short = n < minSignedChunk
		r.hash.Reset()
	}
	r.left, r.open = n, true
	return nil
}

// endChunk reads the line end behind the data and checks the signature.
func (r *chunkReader) endChunk() error {
	r.open = false
	var crlf [2]byte
	if _, err := io.ReadFull(r.br, crlf[:]); err != nil {
		return bodyError(err)
	}
	if crlf != [2]byte{'\r', '\n'} {
		return errIncompleteBody.say("A chunk is longer than its header says.")
	}
	return r.checkChunk()
}

// checkChunk compares the signature of the chunk whose data r.hash has seen.
func (r *chunkReader) checkChunk() error {
	if !r.signed {
		return nil
	}
	var sum [sha256.Size]byte
	r.hash.Sum(sum[:0])
	return r.checkSignature("AWS4-HMAC-SHA256-PAYLOAD", hashEmpty+"\n", sum)
}

// checkSignature compares one link of the chain of signatures, in constant time.
func (r *chunkReader) checkSignature(kind, middle string, sum [sha256.Size]byte) error {
	buf := pathPool.Get().(*[]byte)
	defer pathPool.Put(buf)
	b := append((*buf)[:0], kind...)
	b = append(append(b, '\n'), r.sig.date...)
	b = append(append(b, '\n'), r.scope...)
	b = append(append(b, '\n'), r.prev[:]...)
	b = append(append(b, '\n'), middle...)
	b = hex.AppendEncode(b, sum[:])
	*buf = b
	r.mac.Reset()
	r.mac.Write(b)
	var mac [sha256.Size]byte
	r.mac.Sum(mac[:0])
	var want [64]byte
	hex.Encode(want[:], mac[:])
	if !hmac.Equal(want[:], r.given[:]) {
		return errSignature
	}
	r.prev = want
	return nil
}

// readHeader reads "SIZE;chunk-signature=SIGNATURE", or "SIZE" where chunks are not signed.
func (r *chunkReader) readHeader() (int64, error) {
	line, err := r.readLine(maxChunkHeader)
	if err != nil {
		return 0, err
	}
	size, rest, extended := cut(line, ';')
	if size == "" || len(size) > 15 {
		return 0, errIncompleteBody.say("A chunk header is malformed.")
	}
	var n int64
	for i := 0; i < len(size); i++ {
		d := fromHex(size[i])
		if d < 0 {
			return 0, errIncompleteBody.say("A chunk header is malformed.")
		}
		n = n<<4 | int64(d)
	}
	if !r.signed {
		if extended {
			return 0, errIncompleteBody.say("A chunk header is malformed.")
		}
		return n, nil
	}
	given, ok := strings.CutPrefix(rest, "chunk-signature=")
	if !ok || len(given) != len(r.given) {
		return 0, errSignature
	}
	copy(r.given[:], given)
	return n, nil
}

// readLine reads up to a line end of at most limit bytes.
func (r *chunkReader) readLine(limit int) (string, error) {
	line, err := r.br.ReadSlice('\n')
	if len(line) > limit {
		return "", errIncompleteBody.say("A chunk header is too long.")
	}
	if err != nil {
		return "", bodyError(err)
	}
	line = line[:len(line)-1]
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	return string(line), nil
}

// end checks the last chunk's signature, the length, the trailers, and that nothing follows.
func (r *chunkReader) end() error {
	if r.total != r.size {
		return errIncompleteBody
	}
	if r.signed {
		r.hash.Reset()
		if err := r.checkChunk(); err != nil {
			return err
		}
	}
	return r.readTrailers()
}

// readTrailers reads what is left of the body: "NAME:VALUE" lines and, where chunks are signed, the signature over
// them. Empty lines are skipped: clients differ in where they put them.
func (r *chunkReader) readTrailers() error {
	rest, err := io.ReadAll(io.LimitReader(r.br, maxTrailerBytes+1))
	if err != nil {
		return bodyError(err)
	}
	if len(rest) > maxTrailerBytes {
		return errMalformedTrailer
	}
	var signature string
	lines, seen := 0, false
	for text := string(rest); text != ""; {
		var line string
		line, text, _ = cut(text, '\n')
		if line = strings.TrimSuffix(line, "\r"); line == "" {
			continue
		}
		if lines++; lines > maxTrailers {
			return errMalformedTrailer
		}
		name, value, ok := cut(line, ':')
		name, value = strings.ToLower(name), strings.Trim(value, " \t")
		switch {
		case ok && name == "x-amz-trailer-signature" && r.signed && signature == "" && len(value) == len(r.given):
			signature = value
		case ok && name == r.trailer && name != "" && !seen:
			r.trailerValue, seen = value, true
		default:
			return errMalformedTrailer
		}
	}
	if r.trailer == "" {
		if lines > 0 {
			return errMalformedTrailer
		}
		return io.EOF
	}
	if !seen || !sumOfTrailer(r.trailer).plausible(r.trailerValue) {
		return errMalformedTrailer
	}
	if r.signed {
		copy(r.given[:], signature)
		if signature == "" {
			return errMalformedTrailer
		}
		if err := r.checkSignature("AWS4-HMAC-SHA256-TRAILER", "", sha256.Sum256([]byte(r.trailer+":"+r.trailerValue+"\n"))); err != nil {
			return err
		}
	}
	return io.EOF
}
