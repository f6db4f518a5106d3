#!/bin/sh
# Packs the guest's user land: build.sh AGENT CRUN SECCOMP-BPF WORK-DIR OUTPUT
# A plain cpio: unpacking a compressed one costs more, under emulation, than reading a larger one.
# The agent is /init; it moves everything to a real root first, so that pivot_root works later.
set -eu
agent=$1 crun=$2 seccomp=$3 work=$4 output=$5

root="$work/root"
mkdir -p "$root/bin" "$root/sbin" "$root/etc" "$root/dev" "$root/proc" "$root/sys" "$root/run" "$root/tmp"
cp "$agent" "$root/sbin/agent"
cp "$crun" "$root/bin/crun"
cp /bin/busybox "$root/bin/busybox"
cp /usr/bin/tini-static "$root/bin/tini"
cp "$seccomp" "$root/etc/seccomp.bpf"
ln -s /sbin/agent "$root/init"
find "$root" -exec touch -h -d @0 {} +
(cd "$root" && find . | LC_ALL=C sort | cpio --quiet --create --format=newc --owner=+0:+0 --reproducible) >"$output"
