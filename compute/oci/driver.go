package oci

import (
	"time"

	"redoubt"
	"redoubt/compute/oci/layers"
	"redoubt/sandbox"
)

// Options say what a driver may use. The zero value of a number is the default beside it; there is no "unlimited".
type Options struct {
	Policy     *redoubt.ImagePolicy // which images may run; nil: all that a job can read
	Runc       string               // the program that runs them on the machine's own kernel; "": gVisor does
	ImageBytes int64                // that one image may have unpacked; 8 GiB, or a quarter of the machine's memory
	CacheBytes int64                // of unpacked images that are kept in memory while nothing uses them; 2 GiB, or an eighth of the machine's memory
	Warm       int                  // sandboxes that are kept while nothing runs in them, about 70 MiB each; 4
	WarmFor    time.Duration        // how long each is kept; one minute
}

func (o *Options) defaults(memory int64) {
	def := func(v *int64, d int64) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&o.ImageBytes, min(8<<30, memory/4))
	def(&o.CacheBytes, min(2<<30, memory/8))
	if o.Warm <= 0 {
		o.Warm = 4
	}
	if o.WarmFor <= 0 {
		o.WarmFor = time.Minute
	}
}

// unpackWorker is the name of the process that unpacks images (package layers). It is walled in (package sandbox): what it reads is the tenant's, and
// a fault in a decompressor finds nothing.
const unpackWorker = "oci-unpack"

// Workers are the walled-in processes that our binary must be able to become: main gives them to sandbox.Enter.
func Workers() map[string]sandbox.Worker {
	return map[string]sandbox.Worker{unpackWorker: layers.Unpack}
}

func unavailable(hint string, err error) error {
	return &redoubt.Error{Op: "oci.New", Kind: redoubt.Unavailable, Hint: hint, Err: err}
}
