// Package image is how container images lie in an enclave, and how they are read from it. An image lives in an ordinary bucket, and each of
// its blobs, its manifests and its tags is a version of its own, with the label of who pushed it; docs/spec/registry.md has the keys.
//
// What is read is hostile, whoever wrote it: a key under which an image lies is a key like any other, and S3 writes there too. So nothing is
// believed for the name that it lies under: every manifest, configuration and layer is held to its digest and its size, and every document to
// the limits of this package.
//
//	ref, err := image.ParseReference("tools/ffmpeg:7.1")
//	found, err := image.Open(ctx, run, ref, image.Linux(runtime.GOARCH)) // run: a redoubt.JobRun
//	for i := range found.Layers {
//		tar, err := found.LayerTar(ctx, i)
//		...                 // read to io.EOF: until then nothing is proved
//	}
package image
