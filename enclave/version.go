package enclave

import (
	"encoding/hex"
	"strconv"
	"strings"
	"time"

	"redoubt"
)

// version is what a record looks like from outside.
func (e *Enclave) version(name redoubt.ObjectName, set *labelSet, r *record) redoubt.Version {
	v := redoubt.Version{Name: name, ID: e.ids.versionID(r.id), Label: set.label, Marker: r.marker, SizeBytes: r.size,
		Modified: time.Unix(0, r.id.time()).UTC(), Author: redoubt.SubjectName(r.author), Maker: redoubt.NodeName(r.maker),
		Attributes: shown(r.attrs), Checksums: r.sums, Tags: r.tags, Retention: r.retention, Hold: r.hold}
	if !r.marker {
		v.ETag = e.etag(r)
	}
	v.PartSizes = r.partSizes()
	return v
}

// listed is the same with only what a listing shows.
func (e *Enclave) listed(name redoubt.ObjectName, set *labelSet, r *record) redoubt.Version {
	v := redoubt.Version{Name: name, ID: e.ids.versionID(r.id), Label: set.label, Marker: r.marker, SizeBytes: r.size,
		Modified: time.Unix(0, r.id.time()).UTC(), Author: redoubt.SubjectName(r.author)}
	if !r.marker {
		v.ETag = e.etag(r)
	}
	return v
}

// etag is the content's MD5 where somebody asked for it, and otherwise a tag that cannot be taken for one.
func (e *Enclave) etag(r *record) string {
	switch {
	case r.md5 == nil:
		return e.ids.tag(r.id)
	case r.md5Parts > 0:
		return hex.EncodeToString(r.md5) + "-" + strconv.Itoa(r.md5Parts)
	}
	return hex.EncodeToString(r.md5)
}

// setMD5 takes the hex MD5, or S3's composite "hex-N", that is to be the ETag; "" is none.
func (r *record) setMD5(text string) error {
	if text == "" {
		return nil
	}
	digest, parts, composite := strings.Cut(text, "-")
	b, err := hex.DecodeString(digest)
	if err != nil || len(b) != 16 {
		return &redoubt.Error{Op: "write", Kind: redoubt.Internal, Rule: "the MD5 is not 16 bytes"}
	}
	r.md5 = b
	if composite {
		if r.md5Parts, err = strconv.Atoi(parts); err != nil || r.md5Parts < 1 || r.md5Parts > redoubt.MaxParts {
			return &redoubt.Error{Op: "write", Kind: redoubt.Internal, Rule: "the number of parts"}
		}
	}
	return nil
}

// retention gives the retention that a new version gets: the one asked for, or the bucket's default.
// Without object lock neither retention nor hold is taken: nobody could lift it again.
func (b *bucket) retention(op string, asked redoubt.Retention, hold bool, now time.Time) (redoubt.Retention, error) {
	lock, given := b.Lock, asked.Mode != "" || !asked.Until.IsZero()
	if (given || hold) && !lock.Enabled {
		return redoubt.Retention{}, &redoubt.Error{Op: op, Kind: redoubt.Invalid, Rule: "the bucket has no object lock configuration"}
	}
	if given {
		return asked, validRetention(op, asked, now)
	}
	if !lock.Enabled || lock.Mode == "" {
		return redoubt.Retention{}, nil
	}
	return redoubt.Retention{Mode: lock.Mode, Until: now.AddDate(lock.Years, 0, lock.Days).UTC().Truncate(time.Second)}, nil
}

func validRetention(op string, r redoubt.Retention, now time.Time) error {
	if r.Mode != "GOVERNANCE" && r.Mode != "COMPLIANCE" || !r.Until.After(now) {
		return &redoubt.Error{Op: op, Kind: redoubt.Invalid, Rule: "retention is GOVERNANCE or COMPLIANCE until a time to come"}
	}
	return nil
}

// locked says whether retention or a legal hold forbids removing the version now. That who bypasses GOVERNANCE
// retention has the right to is for the monitor to decide.
func (r *record) locked(now time.Time, bypass bool) bool {
	return r.hold || r.kept(now) && !(bypass && r.governed(now))
}

// kept says whether the version is under retention now.
func (r *record) kept(now time.Time) bool {
	return r.retention.Mode != "" && r.retention.Until.After(now)
}

// governed says whether it is under GOVERNANCE retention, the one that may be bypassed.
func (r *record) governed(now time.Time) bool { return r.kept(now) && r.retention.Mode == "GOVERNANCE" }

// weaker says whether next keeps less than the retention that the version has.
func (r *record) weaker(next redoubt.Retention) bool {
	return next.Until.Before(r.retention.Until) || next.Mode == "GOVERNANCE" && r.retention.Mode == "COMPLIANCE"
}

// change applies an alteration, as far as retention allows it: COMPLIANCE is only ever lengthened, and
// GOVERNANCE shortened only by who bypasses it.
func (r *record) change(op string, b *bucket, in redoubt.AlterObject, now time.Time) error {
	if (in.Retention != nil || in.Hold != nil) && !b.Lock.Enabled {
		return &redoubt.Error{Op: op, Kind: redoubt.Invalid, Rule: "the bucket has no object lock configuration"}
	}
	if in.Tags != nil {
		r.tags = *in.Tags
	}
	if in.Hold != nil {
		r.hold = *in.Hold
	}
	if in.Retention == nil {
		return nil
	}
	next := *in.Retention
	if next != (redoubt.Retention{}) {
		if err := validRetention(op, next, now); err != nil {
			return err
		}
	}
	if r.kept(now) && r.weaker(next) && !(in.BypassGovernance && r.governed(now)) {
		return &redoubt.Error{Op: op, Kind: redoubt.Locked}
	}
	r.retention = next
	return nil
}
