#!/bin/sh
# Assembles the embedded default image, busybox, from Debian's busybox-static: build.sh WORK-DIR OUTPUT-DIR
# Leaves busybox.squashfs (the layer, uncompressed), busybox.tar (the same as a tar) and busybox.json (the OCI image
# configuration).
set -eu
work=$1 output=$2
here=$(cd "$(dirname "$0")" && pwd)

root="$work/root"
mkdir -p "$root/bin" "$root/etc" "$root/home" "$root/root" "$root/tmp" "$root/var/spool/mail" \
  "$root/var/www" "$root/usr" "$root/dev" "$root/proc" "$root/sys"
cp /bin/busybox "$root/bin/busybox"
for applet in $(/bin/busybox --list); do
  [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
done
ln -s bin "$root/sbin"
ln -s ../bin "$root/usr/bin"
ln -s ../bin "$root/usr/sbin"
cp "$here/passwd" "$here/group" "$root/etc/"
# Every container gets files of its own there: where the image has none, each start writes them to the container's disk.
for file in hostname hosts resolv.conf; do : >"$root/etc/$file"; done
chmod 1777 "$root/tmp"
chmod 700 "$root/root"

# The diff id is the digest of the layer's tar, so the tar has to come out the same every time.
tar --create --format=posix --pax-option=delete=atime,delete=ctime --sort=name --mtime=@0 \
  --owner=0 --group=0 --numeric-owner --file="$work/layer.tar" -C "$root" .
sqfstar -quiet -no-progress -noI -noD -noF -noX -all-time 0 -mkfs-time 0 \
  -root-mode 0755 -root-uid 0 -root-gid 0 "$output/busybox.squashfs" <"$work/layer.tar" >/dev/null
# What save and push give out.
cp "$work/layer.tar" "$output/busybox.tar"
diff_id=$(sha256sum "$work/layer.tar" | cut -d' ' -f1)
version=$(dpkg-query -W -f='${Version}' busybox-static)

case $(uname -m) in
  x86_64) architecture=amd64 ;;
  aarch64) architecture=arm64 ;;
  *) echo "no default image for $(uname -m)" >&2; exit 1 ;;
esac
cat >"$output/busybox.json" <<JSON
{
  "architecture": "$architecture",
  "os": "linux",
  "created": "1970-01-01T00:00:00Z",
  "config": {
    "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
    "Cmd": ["sh"],
    "Labels": { "org.opencontainers.image.version": "$version" }
  },
  "rootfs": { "type": "layers", "diff_ids": ["sha256:$diff_id"] },
  "history": [{ "created": "1970-01-01T00:00:00Z", "created_by": "busybox-static $version" }]
}
JSON
