package s3

import (
	"net/http"
	"strings"
	"time"

	"redoubt"
)

// getLifecycle is GET /BUCKET?lifecycle.
func (s *handler) getLifecycle(c *call) error {
	b, err := s.buckets.HeadBucket(c.ctx, c.who, c.bucket)
	if err != nil {
		return err
	}
	if len(b.Lifecycle) == 0 {
		return errNoLifecycle
	}
	x := newXML()
	defer x.release()
	x.root("LifecycleConfiguration")
	for i := range b.Lifecycle {
		writeLifecycleRule(x, &b.Lifecycle[i])
	}
	x.close("LifecycleConfiguration")
	c.respondXML(http.StatusOK, x)
	return nil
}

// putLifecycle is PUT /BUCKET?lifecycle.
func (s *handler) putLifecycle(c *call) error {
	if v := c.header("X-Amz-Transition-Default-Minimum-Object-Size"); v != "" {
		return notImplemented("x-amz-transition-default-minimum-object-size")
	}
	doc, err := c.readDocument("LifecycleConfiguration", "BucketLifecycleConfiguration")
	if err != nil {
		return err
	}
	rules, err := parseLifecycle(doc)
	if err != nil {
		return err
	}
	return s.change(c, func(b *redoubt.BucketSettings) error { b.Lifecycle = rules; return nil }, http.StatusOK)
}

// deleteLifecycle is DELETE /BUCKET?lifecycle.
func (s *handler) deleteLifecycle(c *call) error {
	return s.change(c, func(b *redoubt.BucketSettings) error { b.Lifecycle = nil; return nil }, http.StatusNoContent)
}

func parseLifecycle(doc *element) (rules []redoubt.LifecycleRule, err error) {
	ids := map[string]bool{}
	err = doc.each(func(kid *element) error {
		if kid.name != "Rule" {
			return malformed(kid.name)
		}
		if len(rules) == maxLifecycleRules {
			return errMalformedXML.say("The lifecycle configuration has more than 1000 rules.")
		}
		r, err := parseLifecycleRule(kid)
		if err == nil && r.ID != "" && ids[r.ID] {
			err = errInvalidArgument.say("Rule ID must be unique. Found same ID for more than one rule")
		}
		ids[r.ID] = true
		rules = append(rules, r)
		return err
	})
	if err == nil && len(rules) == 0 {
		err = errMalformedXML
	}
	return rules, err
}

func parseLifecycleRule(e *element) (r redoubt.LifecycleRule, err error) {
	var status string
	filtered, prefixed := false, false
	err = e.fields(map[string]func(*element) error{
		"ID":     into(&r.ID),
		"Status": into(&status),
		"Prefix": func(k *element) error { prefixed = true; return into(&r.Prefix)(k) },
		"Filter": func(k *element) error { filtered = true; return parseLifecycleFilter(k, &r) },
		"Expiration": func(k *element) error {
			return k.fields(map[string]func(*element) error{
				"Days": intoInt(&r.Days, 1, maxSettingDays), "Date": intoMidnight(&r.Date), "ExpiredObjectDeleteMarker": intoBool(&r.ExpiredMarkers),
			})
		},
		"NoncurrentVersionExpiration": func(k *element) error {
			return k.fields(map[string]func(*element) error{
				"NoncurrentDays": intoInt(&r.NoncurrentDays, 1, maxSettingDays), "NewerNoncurrentVersions": intoInt(&r.NewerNoncurrent, 1, 100),
			})
		},
		"AbortIncompleteMultipartUpload": func(k *element) error {
			return k.fields(map[string]func(*element) error{"DaysAfterInitiation": intoInt(&r.AbortUploadDays, 1, maxSettingDays)})
		},
		"Transition":                  func(*element) error { return notImplemented("Transition in a lifecycle rule") },
		"NoncurrentVersionTransition": func(*element) error { return notImplemented("NoncurrentVersionTransition in a lifecycle rule") },
	})
	if err != nil {
		return r, err
	}
	return r, checkLifecycleRule(&r, status, filtered && prefixed)
}

func checkLifecycleRule(r *redoubt.LifecycleRule, status string, twice bool) error {
	r.Disabled = status == "Disabled"
	expiries := 0
	for _, set := range [...]bool{r.Days > 0, !r.Date.IsZero(), r.ExpiredMarkers} {
		if set {
			expiries++
		}
	}
	switch {
	case twice || status != "Enabled" && status != "Disabled" || expiries > 1:
		return malformed("Rule")
	case len(r.ID) > 255:
		return errInvalidArgument.say("ID length should not exceed allowed limit of 255")
	case r.NewerNoncurrent > 0 && r.NoncurrentDays == 0:
		return malformed("NoncurrentVersionExpiration")
	case expiries == 0 && r.NoncurrentDays == 0 && r.AbortUploadDays == 0:
		return errInvalidRequest.say("At least one action needs to be specified in a rule.")
	case len(r.Tags) > 0 && (r.AbortUploadDays > 0 || r.ExpiredMarkers):
		return errInvalidRequest.say("AbortIncompleteMultipartUpload and ExpiredObjectDeleteMarker cannot be specified with Tags.")
	case r.MaxBytes > 0 && r.MinBytes >= r.MaxBytes:
		return errInvalidRequest.say("ObjectSizeGreaterThan must be less than ObjectSizeLessThan.")
	}
	return checkTags(r.Tags, redoubt.MaxTags)
}

// parseLifecycleFilter reads one condition, or several inside And.
func parseLifecycleFilter(e *element, r *redoubt.LifecycleRule) error {
	if len(e.kids) > 1 {
		return malformed("Filter")
	}
	return e.each(func(kid *element) error {
		if kid.name == "And" {
			return kid.each(func(k *element) error { return parseLifecycleCondition(k, r) })
		}
		return parseLifecycleCondition(kid, r)
	})
}

func parseLifecycleCondition(e *element, r *redoubt.LifecycleRule) error {
	var n int
	switch {
	case e.name == "Prefix" && r.Prefix == "":
		return into(&r.Prefix)(e)
	case e.name == "Tag":
		t, err := parseTag(e)
		r.Tags = append(r.Tags, t)
		return err
	case e.name == "ObjectSizeGreaterThan" && r.MinBytes == 0:
		if err := intoInt(&n, 0, redoubt.MaxObjectBytes)(e); err != nil {
			return err
		}
		r.MinBytes = int64(n) + 1 // greater than n is at least n+1
		return nil
	case e.name == "ObjectSizeLessThan" && r.MaxBytes == 0:
		if err := intoInt(&n, 1, redoubt.MaxObjectBytes)(e); err != nil {
			return err
		}
		r.MaxBytes = int64(n) - 1
		return nil
	}
	return malformed(e.name)
}

func intoMidnight(t *time.Time) func(*element) error {
	return func(e *element) error {
		v, err := time.Parse(time.RFC3339, strings.TrimSpace(e.text))
		if err != nil {
			if v, err = time.Parse(time.DateOnly, strings.TrimSpace(e.text)); err != nil {
				return malformed(e.name)
			}
		}
		if v = v.UTC(); !v.Equal(v.Truncate(24 * time.Hour)) {
			return errInvalidArgument.say("'Date' must be at midnight GMT")
		}
		*t = v
		return nil
	}
}

func writeLifecycleRule(x *xmlWriter, r *redoubt.LifecycleRule) {
	x.open("Rule")
	x.some("ID", r.ID)
	writeLifecycleFilter(x, r)
	status := "Enabled"
	if r.Disabled {
		status = "Disabled"
	}
	x.text("Status", status)
	if r.Days > 0 || !r.Date.IsZero() || r.ExpiredMarkers {
		x.open("Expiration")
		if r.Days > 0 {
			x.int("Days", int64(r.Days))
		}
		if !r.Date.IsZero() {
			x.time("Date", r.Date)
		}
		if r.ExpiredMarkers {
			x.bool("ExpiredObjectDeleteMarker", true)
		}
		x.close("Expiration")
	}
	if r.NoncurrentDays > 0 {
		x.open("NoncurrentVersionExpiration")
		x.int("NoncurrentDays", int64(r.NoncurrentDays))
		if r.NewerNoncurrent > 0 {
			x.int("NewerNoncurrentVersions", int64(r.NewerNoncurrent))
		}
		x.close("NoncurrentVersionExpiration")
	}
	if r.AbortUploadDays > 0 {
		x.open("AbortIncompleteMultipartUpload")
		x.int("DaysAfterInitiation", int64(r.AbortUploadDays))
		x.close("AbortIncompleteMultipartUpload")
	}
	x.close("Rule")
}

func writeLifecycleFilter(x *xmlWriter, r *redoubt.LifecycleRule) {
	conditions := len(r.Tags)
	for _, set := range [...]bool{r.Prefix != "", r.MinBytes > 0, r.MaxBytes > 0} {
		if set {
			conditions++
		}
	}
	x.open("Filter")
	if conditions > 1 {
		x.open("And")
	}
	if r.Prefix != "" || conditions == 0 {
		x.text("Prefix", r.Prefix)
	}
	for _, t := range r.Tags {
		x.open("Tag")
		x.text("Key", t.Key)
		x.text("Value", t.Value)
		x.close("Tag")
	}
	if r.MinBytes > 0 {
		x.int("ObjectSizeGreaterThan", r.MinBytes-1)
	}
	if r.MaxBytes > 0 {
		x.int("ObjectSizeLessThan", r.MaxBytes+1)
	}
	if conditions > 1 {
		x.close("And")
	}
	x.close("Filter")
}
