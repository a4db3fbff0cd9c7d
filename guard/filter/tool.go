package filter

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"time"

	"redoubt"
	"redoubt/guard"
	"redoubt/sandbox"
)

// tool is a program of this machine that is (a part of) a second filter.
type tool struct {
	base    string   // code base
	pkg     string   // Debian package
	path    string   // where Debian has it
	args    []string // as a filter
	version []string // args that have it tell its version
	also    []string // what else it reads
	env     []string
	memory  int64
	output  int64
	scratch int64 // bytes of a folder in memory, for those that read their input twice
}

// The programs. Paths are whole: nothing is looked for in a PATH that somebody could set.
var (
	uconv = tool{base: "ICU", pkg: "icu-devtools", path: "/usr/bin/uconv", version: []string{"--version"},
		args: []string{"-f", "utf-8", "-t", "utf-8", "--from-callback", "stop", "--to-callback", "stop", "-x", "::NFC; [[:Cc:][:Cf:][:Co:][:Cs:][:Cn:][:Zl:][:Zp:]-[\\u000A\\u0009]] > ;"}}
	jq       = tool{base: "jq", pkg: "jq", path: "/usr/bin/jq", version: []string{"--version"}, args: []string{"-c", "."}}
	xmllint  = tool{base: "libxml2", pkg: "libxml2-utils", path: "/usr/bin/xmllint", version: []string{"--version"}, args: []string{"--nonet", "--schema", schemaPath, "-"}}
	pngtopam = tool{base: "netpbm and libpng", pkg: "netpbm", path: "/usr/bin/pngtopam", version: []string{"--version"}, memory: 1 << 30, output: maxRawBytes}
	pnmtopng = tool{base: "netpbm and libpng", pkg: "netpbm", path: "/usr/bin/pnmtopng", version: []string{"--version"}, args: []string{"-compression", "3"}, memory: 1 << 30, scratch: maxRawBytes}
	djpeg    = tool{base: "libjpeg-turbo", pkg: "libjpeg-turbo-progs", path: "/usr/bin/djpeg", version: []string{"-version"}, args: []string{"-pnm"}, memory: 1 << 30, output: maxRawBytes}
	cjpeg    = tool{base: "libjpeg-turbo", pkg: "libjpeg-turbo-progs", path: "/usr/bin/cjpeg", version: []string{"-version"}, args: []string{"-quality", "85", "-optimize"}, memory: 1 << 30}
	poppler  = tool{base: "poppler", pkg: "poppler-utils fonts-dejavu-core", path: "/usr/bin/pdftoppm", version: []string{"-v"}, memory: 1 << 30,
		args: []string{"-png", "-r", strconv.Itoa(pageDPI), "-l", strconv.Itoa(MaxPages + 1), "-"},
		also: []string{"/etc/fonts", "/usr/share/fontconfig", "/usr/share/fonts", "/usr/share/poppler", "/var/cache/fontconfig"}}
	bsdtar = tool{base: "libarchive", pkg: "libarchive-tools", path: "/usr/bin/bsdtar", version: []string{"--version"},
		args: []string{"-c", "-f", "-", "--format", "zip", "--uid", "0", "--gid", "0", "--uname", "", "--gname", "", "@-"}, also: []string{"/usr/lib/locale/C.utf8"}, env: []string{"LC_ALL=C.UTF-8"}}
	python = tool{base: "CPython", pkg: "python3-minimal", path: "/usr/bin/python3", version: []string{"-I", "-S", "--version"}, args: []string{"-I", "-S", "-c", csvScript}, memory: 1 << 30,
		also: []string{"/usr/lib/python3.11", "/usr/lib/python3.12", "/usr/lib/python3.13", "/usr/lib/python3.14"}}
)

func (t tool) program() sandbox.Program {
	return sandbox.Program{Name: t.path, Path: t.path, Args: t.args, Env: t.env, ReadOnly: append(sandbox.Libraries(), t.also...), Scratch: t.scratch,
		Limits: sandbox.Limits{Memory: max(t.memory, 512<<20), CPU: 60 * time.Second, Wall: 60 * time.Second, Processes: 4, Output: max(t.output, redoubt.MaxReleaseBytes)}}
}

// there says whether the program is on this machine.
func (t tool) there() error {
	if info, err := os.Stat(t.path); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0 {
		return nil
	}
	return &redoubt.Error{Op: "filter", Object: t.path, Kind: redoubt.Unavailable, Err: errors.New("a filter is not installed"), Hint: "apt-get install " + t.pkg}
}

// says asks the program its version, behind the same walls: one line.
func (t tool) says(ctx context.Context) (string, error) {
	p := t.program()
	p.Args = t.version
	p.Limits.Output = 64 << 10
	r, err := sandbox.Start(p)
	if err != nil {
		return "", err
	}
	out, err := r.Run(ctx, nil)
	var x *sandbox.Exit
	if errors.As(err, &x) && x.Code >= 0 {
		err = nil // some end so when they are asked
	}
	if len(out) == 0 {
		out = []byte(r.Said())
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return clip(strings.ToValidUTF8(line, "?")), err
}

// others is a filter that programs of others run: a pipe of one or more, and a check of what came out.
type others struct {
	base  string
	pools []*pool
	input func(guard.Content) ([]byte, error)
	fit   func(sandbox.Program, guard.Content) sandbox.Program
	trim  func(out []byte) []byte
	// agree holds what came out against what went in; nil error: it may leave.
	agree func(ctx context.Context, in, out []byte) error
}

func (o others) Name() string { return o.base }

// Clean sends the content through the programs, one after another.
func (o others) Clean(ctx context.Context, in guard.Content) ([]byte, []redoubt.Finding, error) {
	out := in.Bytes
	if o.input != nil {
		var err error
		if out, err = o.input(in); err != nil {
			return nil, nil, denied(o.base, err)
		}
	}
	for _, p := range o.pools {
		var err error
		if o.fit != nil {
			out, err = sandbox.Run(ctx, o.fit(p.program, in), out)
		} else {
			out, err = p.run(ctx, out)
		}
		if err != nil {
			return nil, nil, denied(o.base, unread(p.program.Path, err))
		}
	}
	if o.trim != nil {
		out = o.trim(out)
	}
	if len(out) == 0 && len(in.Bytes) > 0 {
		return nil, nil, denied(o.base, errors.New("it wrote nothing"))
	}
	if err := o.agree(ctx, in.Bytes, out); err != nil {
		return nil, nil, denied(o.base, err)
	}
	return out, nil, nil
}

// same agrees where the program wrote what it read: text in the form that the first filter writes has one spelling.
func same(_ context.Context, in, out []byte) error {
	if !bytes.Equal(in, out) {
		return refuse("", "the two code bases do not agree on it")
	}
	return nil
}
