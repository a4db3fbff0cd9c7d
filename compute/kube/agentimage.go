package kube

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"redoubt/compute/image"
)

// maxBinary bounds the binary that an agent's image is made of.
const maxBinary = ownBytes - ownMemory

// WriteAgentImage writes an image with nothing in it but a binary of ours, built for linux and arch, as the archive of an OCI image layout: what
// `skopeo copy oci-archive:FILE docker://…` pushes. digest is that of its manifest. The same binary gives the same bytes.
func WriteAgentImage(w io.Writer, binary io.Reader, arch string) (digest string, err error) {
	program, err := io.ReadAll(io.LimitReader(binary, maxBinary+1))
	if err != nil {
		return "", err
	}
	if len(program) > maxBinary {
		return "", fmt.Errorf("a binary of more than %d bytes", maxBinary)
	}
	layer, err := tarOf(map[string][]byte{imagePath[1:]: program}, imagePath[1:])
	if err != nil {
		return "", err
	}
	var packed bytes.Buffer
	z, err := gzip.NewWriterLevel(&packed, gzip.BestSpeed)
	if err != nil {
		return "", err
	}
	if _, err := z.Write(layer); err != nil {
		return "", err
	}
	if err := z.Close(); err != nil {
		return "", err
	}
	blobs := map[string][]byte{}
	add := func(typ string, b []byte) map[string]any {
		d := image.DigestOf(b)
		blobs["blobs/sha256/"+d.Hex()] = b
		return map[string]any{"mediaType": typ, "digest": d.String(), "size": len(b)}
	}
	encode := func(v any) []byte {
		b, err := json.Marshal(v)
		if err != nil {
			panic("kube: plain maps do not encode: " + err.Error())
		}
		return b
	}
	config := add(image.TypeConfig, encode(map[string]any{"os": "linux", "architecture": arch,
		"config": map[string]any{"Entrypoint": []string{imagePath}}, "rootfs": map[string]any{"type": "layers", "diff_ids": []string{image.DigestOf(layer).String()}}}))
	manifest := add(image.TypeManifest, encode(map[string]any{"schemaVersion": 2, "mediaType": image.TypeManifest, "config": config,
		"layers": []any{add("application/vnd.oci.image.layer.v1.tar+gzip", packed.Bytes())}}))
	digest = manifest["digest"].(string)
	manifest["platform"] = map[string]any{"os": "linux", "architecture": arch}
	blobs["oci-layout"] = []byte(`{"imageLayoutVersion":"1.0.0"}`)
	blobs["index.json"] = encode(map[string]any{"schemaVersion": 2, "mediaType": image.TypeIndex, "manifests": []any{manifest}})
	archive, err := tarOf(blobs, slices.Sorted(maps.Keys(blobs))...)
	if err != nil {
		return "", err
	}
	_, err = w.Write(archive)
	return digest, err
}

// tarOf is an archive of files, in the order of names.
func tarOf(files map[string][]byte, names ...string) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range names {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o555, Size: int64(len(files[name])), ModTime: time.Unix(0, 0), Format: tar.FormatPAX}); err != nil {
			return nil, err
		}
		if _, err := w.Write(files[name]); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return b.Bytes(), err
}
