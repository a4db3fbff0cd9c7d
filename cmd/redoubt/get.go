package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"redoubt"
	"redoubt/client"
)

func (a *app) getCommand() *cobra.Command {
	var w who
	var version string
	var recursive bool
	c := &cobra.Command{Use: "get s3://BUCKET/KEY [FILE|DIR|-] --as SUBJECT@NODE", Short: "Fetch the current version of an object, or one by its ID",
		Long: `Fetches what the subject sees under the key: the newest version that its label dominates. A file appears whole or
not at all. - is stdout. With --recursive every object under the prefix goes into a folder.`,
		Example: `  redoubt get s3://reports/walden.pdf --as gbr-liaison@secret
  redoubt get s3://reports/gettysburg.txt - --as u-analyst@unclass | head
  redoubt get s3://imagery/ maps --recursive --as ts-analyst@topsecret`,
		Args: between(1, 2), RunE: a.withPlace(&w, func(c *cobra.Command, p place, args []string) error {
			if a.json && len(args) == 2 && args[1] == "-" {
				return usage(c, "--json and content cannot both go to stdout")
			}
			return w.oneOrAll(c, p, version, recursive)
		}, func(ctx context.Context, s *session, p place, args []string) error {
			target := ""
			if len(args) == 2 {
				target = args[1]
			}
			if recursive {
				return a.getAll(ctx, s, p, target)
			}
			doc, err := a.getOne(ctx, s, p, redoubt.VersionID(version), target)
			if err == nil && a.json {
				err = a.print(doc)
			}
			return err
		})}
	w.objectFlags(c)
	c.Flags().StringVar(&version, "version", "", "`ID` of a version")
	c.Flags().BoolVarP(&recursive, "recursive", "r", false, "get everything under the prefix")
	return a.jsonFlag(c)
}

// oneOrAll is what get and rm may be asked for: one key, or with recursive all under a prefix, which takes longer.
func (w *who) oneOrAll(c *cobra.Command, p place, version string, recursive bool) error {
	if recursive && version != "" || !recursive && p.key == "" {
		return usage(c, "name one key, or a prefix with --recursive")
	}
	if recursive {
		w.life = bulkLife
	}
	return nil
}

// getOne fetches one object to a file, into a folder, or to stdout.
func (a *app) getOne(ctx context.Context, s *session, p place, id redoubt.VersionID, target string) (objectJSON, error) {
	object, body, err := s.objects.Get(ctx, p.name(), id)
	if err != nil {
		return objectJSON{}, interrupted(ctx, err)
	}
	defer body.Close()
	show := a.progress(p.String(), object.SizeBytes)
	defer show.end()
	in := &counting{r: body, p: show}
	if target == "-" {
		_, err := io.Copy(a.out, in)
		return objectDoc(object), interrupted(ctx, err)
	}
	if st, err := os.Stat(target); target == "" || err == nil && st.IsDir() {
		base := path.Base(p.key)
		if base == ".." || base == "." || base == "/" {
			return objectJSON{}, &usageError{message: "the key has no name for a file", hint: "name a file to write to"}
		}
		target = filepath.Join(target, base)
	}
	if err := writeWhole(target, in); err != nil {
		return objectJSON{}, interrupted(ctx, err)
	}
	doc := objectDoc(object)
	doc.File = target
	if !a.json {
		a.say("%s  %s  %s  to %s", shown(p.String()), bytesText(in.n), object.Label, shown(target))
	}
	return doc, nil
}

// writeWhole makes what r gives the content of a file, when all of it has come. A device or a pipe gets it as it comes: another file in its
// place would be one that everybody else takes for the device.
func writeWhole(file string, r io.Reader) error {
	if st, err := os.Stat(file); err == nil && !st.Mode().IsRegular() && !st.IsDir() {
		return writeInto(file, r)
	}
	tmp, err := os.CreateTemp(filepath.Dir(file), ".redoubt-*")
	if err != nil {
		return &redoubt.Error{Object: file, Err: err, Hint: "name a file in a folder that exists"}
	}
	_, err = io.Copy(tmp, r)
	err = errors.Join(err, tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), file)
	}
	if err != nil {
		os.Remove(tmp.Name())
	}
	return err
}

func writeInto(file string, r io.Reader) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return &redoubt.Error{Object: file, Err: err, Hint: "name a file that may be written"}
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

// folder gives each key under a prefix a file of its own. Whoever may write beside a key chooses others, so none may stand for its file.
type folder struct {
	prefix string
	taken  map[string]bool // files
}

// file is where a key's content goes, or why it has no place: a key has one only if it is a path as it is, and the first that comes keeps it.
func (f *folder) file(key string) (rel, why string) {
	rel = strings.TrimPrefix(key, f.prefix)
	if f.prefix != "" && !strings.HasSuffix(f.prefix, "/") {
		rel = strings.TrimPrefix(rel, "/")
	}
	if rel == "" {
		rel = path.Base(key)
	}
	if !filepath.IsLocal(filepath.FromSlash(rel)) || path.Clean(rel) != rel || rel == "." || strings.HasSuffix(key, "/") {
		return "", "its key is no path"
	}
	for dir := rel; dir != "."; dir = path.Dir(dir) {
		if f.taken[dir] {
			return "", "another key has its file"
		}
	}
	f.taken[rel] = true
	return rel, ""
}

func (a *app) getAll(ctx context.Context, s *session, p place, target string) error {
	if target == "" || target == "-" {
		return &usageError{message: "--recursive wants a folder to write to", hint: "redoubt get s3://BUCKET/PREFIX DIR --recursive"}
	}
	done, left := []objectJSON{}, 0
	into := folder{prefix: p.key, taken: map[string]bool{}}
	err := s.objects.List(ctx, p.bucket, p.key, "", func(o client.Object) error {
		if strings.HasSuffix(o.Name.Key, "/") && o.SizeBytes == 0 {
			return nil // a folder, as S3 clients mark one
		}
		rel, why := into.file(o.Name.Key)
		at := shown(place{p.bucket, o.Name.Key}.String()) // whoever wrote it chose it
		if why != "" {
			a.say("%s is left out: %s", at, why)
			left++
			return nil
		}
		file := filepath.Join(target, filepath.FromSlash(rel))
		if st, err := os.Stat(file); err == nil && st.IsDir() {
			a.say("%s is left out: %s is a folder", at, shown(file))
			left++
			return nil
		}
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return fmt.Errorf("make a folder: %w", err)
		}
		doc, err := a.getOne(ctx, s, place{p.bucket, o.Name.Key}, "", file)
		done = append(done, doc)
		return err
	}, nil)
	if err == nil && a.json {
		err = a.print(map[string]any{"objects": done})
	}
	if err == nil && left > 0 {
		err = &redoubt.Error{Object: p.String(), Kind: redoubt.Conflict, Err: fmt.Errorf("%d of %d keys were left out", left, left+len(done)), Hint: "get each by itself: redoubt get s3://BUCKET/KEY FILE"}
	}
	return interrupted(ctx, err)
}
