package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"mime"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"redoubt"
	"redoubt/client"
)

// putOptions are what put sends beside the content.
type putOptions struct {
	who
	recursive         bool
	mark, contentType string
	precedence        string
}

// objectJSON is one version as every --json of an object shows it.
type objectJSON struct {
	Bucket      redoubt.BucketName `json:"bucket"`
	Key         string             `json:"key"`
	Version     redoubt.VersionID  `json:"version"`
	Label       string             `json:"label,omitempty"`
	SizeBytes   int64              `json:"size_bytes"`
	ETag        string             `json:"etag,omitempty"`
	Modified    string             `json:"modified,omitempty"`
	ContentType string             `json:"content_type,omitempty"`
	Latest      bool               `json:"latest,omitempty"`
	Marker      bool               `json:"delete_marker,omitempty"`
	File        string             `json:"file,omitempty"`
}

func objectDoc(o client.Object) objectJSON {
	d := objectJSON{Bucket: o.Name.Bucket, Key: o.Name.Key, Version: o.Version, Label: o.Label, SizeBytes: o.SizeBytes, ETag: o.ETag,
		ContentType: o.ContentType, Latest: o.Latest, Marker: o.Marker}
	if !o.Modified.IsZero() {
		d.Modified = o.Modified.UTC().Format("2006-01-02T15:04:05Z")
	}
	return d
}

func (a *app) putCommand() *cobra.Command {
	var o putOptions
	c := &cobra.Command{Use: "put FILE|- s3://BUCKET/KEY --as SUBJECT@NODE", Short: "Store a file as a new version of an object",
		Long: `Stores a file, or with --recursive a folder, and returns when it is durable. A key that ends in / gets the file's
name. --label is the working label of this call; --mark asks for a label of the version above it (which needs
the role write-up). A version is stored whole or not at all: Ctrl-C takes back what went up. More than 5 GiB, and more
than 64 MiB from a pipe, goes up in parts; nothing is spooled to a disk.`,
		Example: `  redoubt put report.pdf s3://reports/report.pdf --as s-analyst@secret
  redoubt put report.pdf s3://reports/ --as s-analyst@secret --label "SECRET//REL TO USA, GBR"
  date | redoubt put - s3://reports/now.txt --as u-analyst@unclass
  redoubt put maps s3://imagery/maps/ --recursive --as ts-analyst@topsecret`,
		Args: between(1, 2), RunE: func(cmd *cobra.Command, args []string) error {
			file, target := "-", args[len(args)-1]
			if len(args) == 2 {
				file = args[0]
			}
			p, err := parsePlace(target)
			if err != nil {
				return err
			}
			files, err := filesToPut(file, p, o.recursive)
			if err != nil {
				return err
			}
			if o.recursive {
				o.life = bulkLife
			}
			s, err := a.open(cmd.Context(), o.who)
			if err != nil {
				return interrupted(cmd.Context(), err)
			}
			defer s.close()
			return a.putAll(cmd.Context(), s, files, o)
		}}
	o.objectFlags(c)
	c.Flags().BoolVarP(&o.recursive, "recursive", "r", false, "put every file of a folder")
	c.Flags().StringVar(&o.mark, "mark", "", "`marking` of the version; default: the working label joined with the bucket's default")
	c.Flags().StringVar(&o.contentType, "type", "", "content `type`; default: by the file's name")
	c.Flags().StringVar(&o.precedence, "precedence", "", "`flash|immediate|priority|routine`")
	return a.jsonFlag(c)
}

// transfer is one file and the object it becomes, or the other way.
type transfer struct {
	file string // "-" is stdin or stdout
	at   place
}

func filesToPut(file string, p place, recursive bool) ([]transfer, error) {
	if file == "-" {
		if p.key == "" || strings.HasSuffix(p.key, "/") {
			return nil, &usageError{message: "what comes from stdin needs a whole key", hint: "s3://BUCKET/KEY"}
		}
		return []transfer{{file, p}}, nil
	}
	st, err := os.Stat(file)
	if err != nil {
		return nil, &redoubt.Error{Object: file, Kind: redoubt.NotFound, Err: errors.New("no such file"), Hint: "name a file, or - for stdin"}
	}
	if !st.IsDir() {
		if p.key == "" || strings.HasSuffix(p.key, "/") {
			p.key += filepath.Base(file)
		}
		return []transfer{{file, p}}, nil
	}
	if !recursive {
		return nil, &usageError{message: file + " is a folder", hint: "put every file in it with --recursive"}
	}
	if p.key != "" && !strings.HasSuffix(p.key, "/") {
		p.key += "/"
	}
	var all []transfer
	err = filepath.WalkDir(file, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(file, name)
		all = append(all, transfer{name, place{p.bucket, p.key + filepath.ToSlash(rel)}})
		return err
	})
	return all, err
}

func (a *app) putAll(ctx context.Context, s *session, files []transfer, o putOptions) error {
	done := []objectJSON{}
	for _, f := range files {
		out, err := a.putOne(ctx, s, f, o)
		if err != nil {
			return err
		}
		if !a.json {
			fmt.Fprintf(a.out, "%s  %s  %s  version %s\n", cell(f.at.String()), bytesText(out.SizeBytes), out.Label, out.Version)
		}
		d := objectDoc(out)
		d.File = f.file
		done = append(done, d)
	}
	switch {
	case !a.json:
		return nil
	case len(done) == 1 && !o.recursive:
		return a.print(done[0])
	}
	return a.print(map[string]any{"objects": done})
}

// putOne stores one file. The label in the answer is the node's own word.
func (a *app) putOne(ctx context.Context, s *session, f transfer, o putOptions) (client.Object, error) {
	up := client.Upload{Name: f.at.name(), Label: o.mark, Precedence: o.precedence, ContentType: o.contentType, SizeBytes: -1}
	in := a.in
	if f.file != "-" {
		file, err := os.Open(f.file)
		if err != nil {
			return client.Object{}, &redoubt.Error{Object: f.file, Err: errors.Unwrap(err)}
		}
		defer file.Close()
		st, err := file.Stat()
		if err != nil {
			return client.Object{}, err
		}
		if in = file; st.Mode().IsRegular() {
			up.Body, up.SizeBytes = file, st.Size()
		}
		if up.ContentType == "" {
			up.ContentType = mime.TypeByExtension(path.Ext(f.file))
		}
	}
	if up.SizeBytes < 0 {
		body := pipe(ctx, in)
		defer body.Close()
		up.Body = body
	}
	p := a.progress(f.at.String(), up.SizeBytes)
	defer p.end()
	up.Progress = p.at
	out, err := s.objects.Put(ctx, up)
	if err != nil {
		return out, interrupted(ctx, err)
	}
	if out.Label == "" {
		head, err := s.objects.Head(ctx, out.Name, out.Version)
		if err != nil {
			return out, err
		}
		out.Label = head.Label
	}
	return out, nil
}
