#!/bin/sh
# Makes a Debian root file system for the tests, OUT/root.tar: debian-root.sh WORK OUT. Called by `scripts/setup test`,
# since it fetches packages, and tests do not.
# With PostgreSQL, Node.js, nginx and ping installed, and the packages that a test installs inside already fetched.
set -eu
work=$1 out=$2
[ "$(id -u)" = 0 ] || { echo "making a Debian root file system needs root" >&2; exit 1; }
# What debootstrap mounts goes when this ends, however it ends.
[ -n "${OWN_MOUNTS:-}" ] || OWN_MOUNTS=yes exec unshare --mount sh "$0" "$@"
root=$work/root
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | head -n 1)
debootstrap --variant=minbase --include=iputils-ping,libcap2-bin,postgresql-15,nodejs,nginx bookworm "$root" "$mirror"
rm -f "$root"/var/cache/apt/archives/*.deb
rm -rf "$root/debootstrap"
# Installed in a container, where there is no network: a package with maintainer scripts.
chroot "$root" sh -c 'cd /var/cache/apt/archives && apt-get download cron cron-daemon-common sensible-utils'
rm -rf "$root"/usr/share/doc/* "$root"/usr/share/locale/* "$root"/usr/share/man/*
tar --create --xattrs --xattrs-include='*' --numeric-owner --one-file-system --exclude='./proc/*' --exclude='./sys/*' \
  --exclude='./dev/*' --file="$out/root.tar" -C "$root" .
