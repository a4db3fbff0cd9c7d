package s3

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"redoubt"
)

// apiError is an answer that this front end itself decides on: protocol, signature, form.
type apiError struct {
	code    string
	status  int
	message string
	extra   []string // element names and texts, in turn
}

func (e *apiError) Error() string { return "s3: " + e.code + ": " + e.message }

// Unwrap says to the services what kind of failure stopped a body that they were reading.
func (e *apiError) Unwrap() error {
	switch {
	case e.code == "BadDigest" || e.code == "XAmzContentSHA256Mismatch":
		return redoubt.BadDigest
	case e.status == http.StatusForbidden:
		return redoubt.Unauthenticated
	default:
		return redoubt.Invalid
	}
}

// say gives e with another message.
func (e *apiError) say(message string) *apiError {
	c := *e
	c.message = message
	return &c
}

// with gives e with one more element in the answer.
func (e *apiError) with(name, text string) *apiError {
	c := *e
	c.extra = append(c.extra[:len(c.extra):len(c.extra)], name, text)
	return &c
}

// The answers that have no Kind, from the S3 API reference, "Error responses".
var (
	errAccessDenied       = &apiError{code: "AccessDenied", status: 403, message: "Access Denied."}
	errBadAuth            = &apiError{code: "AuthorizationHeaderMalformed", status: 400, message: "The authorization header that you provided is not valid."}
	errBadAuthQuery       = &apiError{code: "AuthorizationQueryParametersError", status: 400, message: "The query parameters of the signature are not valid."}
	errBadDigest          = &apiError{code: "BadDigest", status: 400, message: "The digest that you specified did not match what we received."}
	errContentSHA256      = &apiError{code: "XAmzContentSHA256Mismatch", status: 400, message: "The provided 'x-amz-content-sha256' header does not match what was computed."}
	errEntityTooLarge     = &apiError{code: "EntityTooLarge", status: 400, message: "Your proposed upload exceeds the maximum allowed size."}
	errEntityTooSmall     = &apiError{code: "EntityTooSmall", status: 400, message: "Your proposed upload is smaller than the minimum allowed size."}
	errExpiredForm        = &apiError{code: "AccessDenied", status: 403, message: "Invalid according to Policy: Policy expired."}
	errHeaderTooLarge     = &apiError{code: "RequestHeaderSectionTooLarge", status: 400, message: "Your request header section exceeds the maximum allowed size."}
	errIncompleteBody     = &apiError{code: "IncompleteBody", status: 400, message: "You did not provide the number of bytes specified by the Content-Length HTTP header."}
	errInvalidArgument    = &apiError{code: "InvalidArgument", status: 400, message: "Invalid argument."}
	errInvalidBucketName  = &apiError{code: "InvalidBucketName", status: 400, message: "The specified bucket is not valid."}
	errInvalidChunk       = &apiError{code: "InvalidChunkSizeError", status: 400, message: "Only the last chunk is allowed to have a size less than 8192 bytes."}
	errInvalidDigest      = &apiError{code: "InvalidDigest", status: 400, message: "The Content-MD5 or checksum value that you specified is not valid."}
	errInvalidKey         = &apiError{code: "InvalidAccessKeyId", status: 403, message: "The access key ID that you provided does not exist in our records."}
	errInvalidPart        = &apiError{code: "InvalidPart", status: 400, message: "One or more of the specified parts could not be found, or did not match what was uploaded."}
	errInvalidPartNumber  = &apiError{code: "InvalidPartNumber", status: 416, message: "The requested partnumber is not satisfiable."}
	errInvalidPartOrder   = &apiError{code: "InvalidPartOrder", status: 400, message: "The list of parts was not in ascending order."}
	errInvalidRange       = &apiError{code: "InvalidRange", status: 416, message: "The requested range is not satisfiable."}
	errInvalidRequest     = &apiError{code: "InvalidRequest", status: 400, message: "Invalid request."}
	errInvalidTag         = &apiError{code: "InvalidTag", status: 400, message: "The tag provided was not valid."}
	errInvalidToken       = &apiError{code: "InvalidToken", status: 400, message: "Session tokens are not used here."}
	errInvalidURI         = &apiError{code: "InvalidURI", status: 400, message: "Couldn't parse the specified URI."}
	errKeyTooLong         = &apiError{code: "KeyTooLongError", status: 400, message: "Your key is too long."}
	errMalformedPolicy    = &apiError{code: "MalformedPolicy", status: 400, message: "The policy is not valid."}
	errMalformedPOST      = &apiError{code: "MalformedPOSTRequest", status: 400, message: "The body of your POST request is not well-formed multipart/form-data."}
	errMalformedTrailer   = &apiError{code: "MalformedTrailerError", status: 400, message: "The request contained trailing data that was not well-formed."}
	errMalformedXML       = &apiError{code: "MalformedXML", status: 400, message: "The XML that you provided was not well-formed or did not validate against our published schema."}
	errMetadataTooLarge   = &apiError{code: "MetadataTooLarge", status: 400, message: "Your metadata headers exceed the maximum allowed metadata size."}
	errMethodNotAllowed   = &apiError{code: "MethodNotAllowed", status: 405, message: "The specified method is not allowed against this resource."}
	errMissingHash        = &apiError{code: "InvalidRequest", status: 400, message: "Missing required header for this request: Content-MD5 OR x-amz-checksum-*"}
	errMissingLength      = &apiError{code: "MissingContentLength", status: 411, message: "You must provide the Content-Length HTTP header."}
	errNoAuth             = &apiError{code: "AccessDenied", status: 403, message: "Access Denied."}
	errNoBucketPolicy     = &apiError{code: "NoSuchBucketPolicy", status: 404, message: "The bucket policy does not exist."}
	errNoCORS             = &apiError{code: "NoSuchCORSConfiguration", status: 404, message: "The CORS configuration does not exist."}
	errNoLifecycle        = &apiError{code: "NoSuchLifecycleConfiguration", status: 404, message: "The lifecycle configuration does not exist."}
	errNoLockConfig       = &apiError{code: "ObjectLockConfigurationNotFoundError", status: 404, message: "Object Lock configuration does not exist for this bucket."}
	errNoObjectLock       = &apiError{code: "NoSuchObjectLockConfiguration", status: 404, message: "The specified object does not have an ObjectLock configuration."}
	errNoOwnership        = &apiError{code: "OwnershipControlsNotFoundError", status: 404, message: "The bucket ownership controls were not found."}
	errNoPublicBlock      = &apiError{code: "NoSuchPublicAccessBlockConfiguration", status: 404, message: "The public access block configuration was not found."}
	errNoReplication      = &apiError{code: "ReplicationConfigurationNotFoundError", status: 404, message: "The replication configuration was not found."}
	errNoTagSet           = &apiError{code: "NoSuchTagSet", status: 404, message: "The TagSet does not exist."}
	errNotSigned          = &apiError{code: "AccessDenied", status: 403, message: "There were headers present in the request which were not signed."}
	errNoWebsite          = &apiError{code: "NoSuchWebsiteConfiguration", status: 404, message: "The specified bucket does not have a website configuration."}
	errPreflight          = &apiError{code: "AccessForbidden", status: 403, message: "CORSResponse: This CORS request is not allowed."}
	errRequestTimeout     = &apiError{code: "RequestTimeout", status: 400, message: "Your socket connection to the server was not read from or written to within the timeout period."}
	errSignature          = &apiError{code: "SignatureDoesNotMatch", status: 403, message: "The request signature that we calculated does not match the signature you provided. Check your key and signing method."}
	errTimeSkewed         = &apiError{code: "RequestTimeTooSkewed", status: 403, message: "The difference between the request time and the server's time is too large."}
	errUnexpectedContent  = &apiError{code: "UnexpectedContent", status: 400, message: "This request does not support content."}
	errUnsignedInClear    = &apiError{code: "AccessDenied", status: 403, message: "Access Denied: content that no signature covers is taken over TLS only."}
	errVersioningIsFixed  = &apiError{code: "InvalidBucketState", status: 409, message: "Versioning is always enabled here and cannot be suspended."}
	errConditionalRequest = &apiError{code: "ConditionalRequestConflict", status: 409, message: "The conditional request cannot succeed due to a conflicting operation against this resource."}
)

// notImplemented says by name what is not offered.
func notImplemented(name string) *apiError {
	return &apiError{code: "NotImplemented", status: 501, message: name + " is not implemented."}
}

// invalid is an InvalidArgument that names the argument; the value is the client's own.
func invalid(name, value, why string) *apiError {
	return errInvalidArgument.say(why).with("ArgumentName", name).with("ArgumentValue", value)
}

// malformed is a MalformedXML that names the element.
func malformed(element string) *apiError {
	return errMalformedXML.with("Element", element)
}

// form says what sort of thing a request names, which alone decides what its NotFound is called.
type form uint8

const (
	formService form = iota
	formBucket
	formKey
	formVersion
	formUpload
)

var notFound = [...]*apiError{
	formService: {code: "NoSuchBucket", status: 404, message: "The specified bucket does not exist."},
	formBucket:  {code: "NoSuchBucket", status: 404, message: "The specified bucket does not exist."},
	formKey:     {code: "NoSuchKey", status: 404, message: "The specified key does not exist."},
	formVersion: {code: "NoSuchVersion", status: 404, message: "The specified version does not exist."},
	formUpload:  {code: "NoSuchUpload", status: 404, message: "The specified multipart upload does not exist. The upload ID might not be valid, or the multipart upload might have been aborted or completed."},
}

// kindAnswer is the one table from what a service says to what a client is told.
// Every redoubt.Kind stands in it; NotFound is replaced by the form of the request.
var kindAnswer = map[redoubt.Kind]*apiError{
	redoubt.Internal:         {code: "InternalError", status: 500, message: "We encountered an internal error. Please try again."},
	redoubt.NotFound:         notFound[formKey],
	redoubt.Denied:           errAccessDenied,
	redoubt.Unauthenticated:  errInvalidKey,
	redoubt.Expired:          {code: "ExpiredToken", status: 400, message: "The provided credential has expired."},
	redoubt.Invalid:          {code: "InvalidArgument", status: 400, message: "Invalid argument."},
	redoubt.TooLarge:         errEntityTooLarge,
	redoubt.Exists:           {code: "BucketAlreadyOwnedByYou", status: 409, message: "The bucket that you tried to create already exists."},
	redoubt.Conflict:         {code: "OperationAborted", status: 409, message: "A conflicting conditional operation is currently in progress against this resource. Try again."},
	redoubt.PreconditionFail: {code: "PreconditionFailed", status: 412, message: "At least one of the preconditions that you specified did not hold."},
	redoubt.NotModified:      {code: "NotModified", status: 304, message: "Not Modified."},
	redoubt.RangeInvalid:     errInvalidRange,
	redoubt.NotEmpty:         {code: "BucketNotEmpty", status: 409, message: "The bucket that you tried to delete is not empty."},
	redoubt.Locked:           {code: "AccessDenied", status: 403, message: "Access Denied because object protected by object lock."},
	redoubt.QuotaExceeded:    {code: "QuotaExceeded", status: 403, message: "The quota of this label is exceeded."},
	redoubt.DiskFull:         {code: "InsufficientCapacity", status: 507, message: "The reserve of the disk is reached; nothing was written."},
	redoubt.Erased:           {code: "ObjectErased", status: 410, message: "The key of this content was destroyed; it is gone for good."},
	redoubt.Corrupt:          {code: "InternalError", status: 500, message: "The stored content failed authentication."},
	redoubt.Unavailable:      {code: "ServiceUnavailable", status: 503, message: "Service is unable to handle request."},
	redoubt.NotImplemented:   {code: "NotImplemented", status: 501, message: "What you asked for is not implemented."},
	redoubt.BadDigest:        errBadDigest,
	redoubt.MethodNotAllowed: errMethodNotAllowed,
	redoubt.NoBucket:         notFound[formBucket],
}

// answerFor turns any error into what the client is told. f is the form of the request.
func answerFor(err error, f form) *apiError {
	var own *apiError
	if errors.As(err, &own) {
		return own
	}
	var e *redoubt.Error
	kind := redoubt.KindOf(err)
	answer := kindAnswer[kind]
	if answer == nil {
		answer = kindAnswer[redoubt.Internal]
	}
	switch kind {
	case redoubt.Internal, redoubt.Corrupt, redoubt.NoBucket:
		return answer // a fault of ours has nothing to say but that; nor has a bucket that may not be known of
	case redoubt.NotFound: // one text: a Rule or a Hint would tell
		if errors.Is(err, redoubt.ErrNoCurrent) {
			f = formKey // it is neither the bucket of a write nor its upload that is missing
		}
		return notFound[f]
	}
	if !errors.As(err, &e) || e.Rule == "" && e.Hint == "" {
		return answer
	}
	return answer.say(explain(answer.message, e.Rule, e.Hint))
}

// explain adds the rule that refused and what to do next, both made for the eyes of the subject.
func explain(message, rule, hint string) string {
	if rule != "" {
		message = strings.TrimSuffix(message, ".") + ": " + rule
	}
	if hint != "" {
		message += " (hint: " + hint + ")"
	}
	return message
}

// fail is the one way out for errors. Once an answer is under way the only honest sign is a broken connection.
func (s *handler) fail(c *call, err error) {
	if c.started {
		panic(http.ErrAbortHandler)
	}
	answer := answerFor(err, c.form)
	if answer.status >= 500 && answer.status != http.StatusNotImplemented {
		s.log.LogAttrs(c.ctx, slog.LevelError, "s3 request failed", slog.String("op", c.opName()), slog.String("request", c.requestID),
			slog.String("code", answer.code), slog.String("cause", fmt.Sprintf("%T", errors.Unwrap(err))))
	}
	var e *redoubt.Error
	if errors.As(err, &e) && e.Marker != "" && answer.status == http.StatusNotFound {
		c.set("X-Amz-Delete-Marker", "true")
		c.set("X-Amz-Version-Id", string(e.Marker))
	}
	c.failed(answer)
}

// failed writes the answer. 304 and HEAD have no body.
func (c *call) failed(e *apiError) {
	if e.status == http.StatusServiceUnavailable {
		c.set("Retry-After", "1")
	}
	if e.status == http.StatusMethodNotAllowed && c.marker {
		c.set("X-Amz-Delete-Marker", "true")
		c.set("Allow", "DELETE")
	}
	if e.status == http.StatusNotModified || c.r.Method == http.MethodHead {
		c.begin(e.status)
		return
	}
	x := newXML()
	defer x.release()
	x.open("Error")
	x.text("Code", e.code)
	x.text("Message", e.message)
	for i := 0; i+1 < len(e.extra); i += 2 {
		x.text(e.extra[i], e.extra[i+1])
	}
	x.text("Resource", c.resource())
	x.text("RequestId", c.requestID)
	x.text("HostId", c.hostID)
	x.close("Error")
	c.respondXML(e.status, x)
}
