#!/bin/sh
# Makes a Debian root file system for the tests: debian-root.sh OUTPUT.tar
# With PostgreSQL, Node.js, nginx and ping installed, and the packages that a test installs inside already fetched.
set -eu
output=$1
[ "$(id -u)" = 0 ] || { echo "making a Debian root file system needs root" >&2; exit 1; }
work=$(mktemp -d "$output.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
root=$work/root
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | head -n 1)
debootstrap --variant=minbase --include=iputils-ping,libcap2-bin,postgresql-15,nodejs,nginx bookworm "$root" "$mirror" >"$work/log" 2>&1 || {
  tail -n 20 "$work/log" >&2
  exit 1
}
rm -f "$root"/var/cache/apt/archives/*.deb "$root"/debootstrap -r
# Installed in a container, where there is no network: a package with maintainer scripts.
(cd "$root/var/cache/apt/archives" && chroot "$root" sh -c 'cd /var/cache/apt/archives && apt-get download cron cron-daemon-common sensible-utils' >>"$work/log" 2>&1) || {
  tail -n 20 "$work/log" >&2
  exit 1
}
rm -rf "$root"/usr/share/doc/* "$root"/usr/share/locale/* "$root"/usr/share/man/*
tar --create --xattrs --xattrs-include='*' --numeric-owner --one-file-system --exclude='./proc/*' --exclude='./sys/*' \
  --exclude='./dev/*' --file="$work/root.tar" -C "$root" .
# The rename is what makes it exist.
mv "$work/root.tar" "$output"
