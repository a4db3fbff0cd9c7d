package s3

import (
	"net/http"
	"time"

	"redoubt"
)

// getRetention is GET /BUCKET/KEY?retention.
func (s *handler) getRetention(c *call) error {
	v, err := s.objects.HeadObject(c.ctx, c.who, c.look(redoubt.ActionGetLock))
	if err != nil {
		return err
	}
	if v.Retention.Mode == "" {
		return errNoObjectLock
	}
	c.set(answerLabel, v.Label.Banner())
	x := newXML()
	defer x.release()
	x.root("Retention")
	x.text("Mode", v.Retention.Mode)
	x.time("RetainUntilDate", v.Retention.Until)
	x.close("Retention")
	c.respondXML(http.StatusOK, x)
	return nil
}

// putRetention is PUT /BUCKET/KEY?retention. An empty document lifts it, where that is allowed.
func (s *handler) putRetention(c *call) error {
	doc, err := c.readDocument("Retention")
	if err != nil {
		return err
	}
	var mode, until string
	if err := doc.fields(map[string]func(*element) error{"Mode": into(&mode), "RetainUntilDate": into(&until)}); err != nil {
		return err
	}
	var r redoubt.Retention
	if mode != "" || until != "" {
		if mode != "GOVERNANCE" && mode != "COMPLIANCE" {
			return malformed("Mode")
		}
		if _, err := time.Parse(time.RFC3339, until); err != nil {
			return malformed("RetainUntilDate")
		}
		if r, err = c.retention(mode, until); err != nil {
			return err
		}
	}
	in := c.alter()
	in.Retention, in.BypassGovernance = &r, c.bypassGovernance()
	return s.alterLock(c, in)
}

// getLegalHold is GET /BUCKET/KEY?legal-hold.
func (s *handler) getLegalHold(c *call) error {
	v, err := s.objects.HeadObject(c.ctx, c.who, c.look(redoubt.ActionGetLock))
	if err != nil {
		return err
	}
	status := "OFF"
	if v.Hold {
		status = "ON"
	}
	c.set(answerLabel, v.Label.Banner())
	x := newXML()
	defer x.release()
	x.root("LegalHold")
	x.text("Status", status)
	x.close("LegalHold")
	c.respondXML(http.StatusOK, x)
	return nil
}

// putLegalHold is PUT /BUCKET/KEY?legal-hold.
func (s *handler) putLegalHold(c *call) error {
	doc, err := c.readDocument("LegalHold")
	if err != nil {
		return err
	}
	status := ""
	if err := doc.fields(map[string]func(*element) error{"Status": into(&status)}); err != nil {
		return err
	}
	if status != "ON" && status != "OFF" {
		return malformed("Status")
	}
	hold := status == "ON"
	in := c.alter()
	in.Hold = &hold
	return s.alterLock(c, in)
}

func (s *handler) alterLock(c *call, in redoubt.AlterObject) error {
	v, err := s.objects.AlterObject(c.ctx, c.who, in)
	if err != nil {
		return err
	}
	c.set("X-Amz-Version-Id", string(v.ID))
	return c.done(http.StatusOK)
}

// getLockConfig is GET /BUCKET?object-lock.
func (s *handler) getLockConfig(c *call) error {
	b, err := s.buckets.HeadBucket(c.ctx, c.who, c.bucket)
	if err != nil {
		return err
	}
	if !b.Lock.Enabled {
		return errNoLockConfig
	}
	x := newXML()
	defer x.release()
	x.root("ObjectLockConfiguration")
	x.text("ObjectLockEnabled", "Enabled")
	if b.Lock.Mode != "" {
		x.open("Rule")
		x.open("DefaultRetention")
		x.text("Mode", b.Lock.Mode)
		if b.Lock.Years > 0 {
			x.int("Years", int64(b.Lock.Years))
		} else {
			x.int("Days", int64(b.Lock.Days))
		}
		x.close("DefaultRetention")
		x.close("Rule")
	}
	x.close("ObjectLockConfiguration")
	c.respondXML(http.StatusOK, x)
	return nil
}

// putLockConfig is PUT /BUCKET?object-lock. Once enabled it stays enabled.
func (s *handler) putLockConfig(c *call) error {
	doc, err := c.readDocument("ObjectLockConfiguration")
	if err != nil {
		return err
	}
	lock, err := parseLockConfig(doc)
	if err != nil {
		return err
	}
	return s.change(c, func(b *redoubt.BucketSettings) error { b.Lock = lock; return nil }, http.StatusOK)
}

func parseLockConfig(doc *element) (lock redoubt.LockSettings, err error) {
	enabled := ""
	err = doc.fields(map[string]func(*element) error{
		"ObjectLockEnabled": into(&enabled),
		"Rule": func(rule *element) error {
			return rule.fields(map[string]func(*element) error{"DefaultRetention": func(d *element) error {
				if err := d.fields(map[string]func(*element) error{
					"Mode":  into(&lock.Mode),
					"Days":  intoInt(&lock.Days, 1, maxSettingDays),
					"Years": intoInt(&lock.Years, 1, maxSettingDays/366),
				}); err != nil {
					return err
				}
				if lock.Mode != "GOVERNANCE" && lock.Mode != "COMPLIANCE" || (lock.Days == 0) == (lock.Years == 0) {
					return malformed("DefaultRetention")
				}
				return nil
			}})
		},
	})
	if err == nil && enabled != "Enabled" {
		err = malformed("ObjectLockEnabled")
	}
	lock.Enabled = true
	return lock, err
}
