#!/bin/sh
# Builds the guest kernel: build.sh SOURCE-TARBALL CONFIG WORK-DIR OUTPUT
# The output is an ELF image with a PVH entry: QEMU's microvm starts it without unpacking anything.
set -eu
tarball=$1 config=$2 work=$3 output=$4

mkdir -p "$work"
# A tenth of the tree is ever compiled, but Kconfig wants to see all of it: leave out only the
# sources of what a microVM cannot have.
tar -xJf "$tarball" -C "$work" --strip-components=1 \
  --exclude='*/drivers/gpu/*.[chS]' --exclude='*/drivers/media/*.[chS]' \
  --exclude='*/drivers/net/wireless/*.[chS]' --exclude='*/drivers/net/ethernet/*.[chS]' \
  --exclude='*/drivers/infiniband/*.[chS]' --exclude='*/drivers/staging/*.[chS]' \
  --exclude='*/sound/*.[chS]' --exclude='*/Documentation/*.rst' --exclude='*/Documentation/*.yaml' \
  --exclude='*/tools/testing/*' --exclude='*/tools/perf/*'

cd "$work"
make -s tinyconfig >config.log
scripts/kconfig/merge_config.sh -m .config "$config" >>config.log 2>&1
make -s olddefconfig >>config.log 2>&1

# olddefconfig drops an option whose dependencies are not met, silently.
missing=$(grep -E '^CONFIG_[A-Z0-9_]+=' "$config" | grep -vxFf .config || true)
unwanted=$(sed -n 's/^# \(CONFIG_[A-Z0-9_]*\) is not set$/\1=/p' "$config" | while read -r option; do
  grep "^$option" .config || true
done)
if [ -n "$missing$unwanted" ]; then
  echo "the built kernel configuration differs from $config:" >&2
  [ -z "$missing" ] || echo "$missing" | sed 's/^/  dropped: /' >&2
  [ -z "$unwanted" ] || echo "$unwanted" | sed 's/^/  still set: /' >&2
  exit 1
fi

# One more than there are processors: a file being read or written leaves one to another.
make -s -j"$(($(nproc) + 1))" vmlinux
strip --strip-all vmlinux -o vmlinux.stripped
mv vmlinux.stripped "$output"
