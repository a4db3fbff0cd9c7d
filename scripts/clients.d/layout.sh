# shellcheck shell=bash
# Makes the folder "image": an image in OCI layout with the tag v1, of one small layer and one above 5 MiB. Sourced; MANIFEST is its digest in hex.
mkdir -p image/blobs/sha256 root/etc root/data
echo 'redoubt' >root/etc/name
cp "$FILES/twenty" root/data/twenty

blob() { # blob FILE moves it where its digest says, and prints that
  local sum
  sum=$(sha256sum "$1" | cut -d' ' -f1)
  mv "$1" "image/blobs/sha256/$sum"
  echo "$sum"
}
size() { stat -c %s "image/blobs/sha256/$1"; }
diffs=() layers=()
for part in etc data; do
  tar -C root --sort=name --owner=0 --group=0 --mtime=@0 -cf layer.tar "$part"
  diffs+=("\"sha256:$(sha256sum layer.tar | cut -d' ' -f1)\"")
  gzip -1n layer.tar
  sum=$(blob layer.tar.gz)
  layers+=("{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar+gzip\",\"digest\":\"sha256:$sum\",\"size\":$(size "$sum")}")
done
list() { (IFS=,; echo "$*"); }
printf '{"os":"linux","architecture":"amd64","config":{"Cmd":["/bin/true"]},"rootfs":{"type":"layers","diff_ids":[%s]}}' "$(list "${diffs[@]}")" >config
sum=$(blob config)
printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%s","size":%s},"layers":[%s]}' \
  "$sum" "$(size "$sum")" "$(list "${layers[@]}")" >manifest
MANIFEST=$(blob manifest)
printf '{"imageLayoutVersion":"1.0.0"}' >image/oci-layout
printf '{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%s","size":%s,"annotations":{"org.opencontainers.image.ref.name":"v1"}}]}' \
  "$MANIFEST" "$(size "$MANIFEST")" >image/index.json
rm -rf root
export MANIFEST
