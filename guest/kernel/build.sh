#!/bin/sh
# Builds the guest kernel: build.sh SOURCE-TARBALL CONFIG WORK-DIR OUTPUT
# The output is an ELF image with a PVH entry: QEMU's microvm starts it without unpacking anything.
set -eu
tarball=$1 config=$2 work=$3 output=$4

mkdir -p "$work"
# A tenth of the tree is ever compiled, but Kconfig wants to see all of it: leave out only the
# sources of what a microVM cannot have.
set -f
leave_out=
for architecture in alpha arc csky hexagon ia64 loongarch m68k microblaze mips nios2 openrisc parisc \
  powerpc riscv s390 sh sparc um xtensa; do
  leave_out="$leave_out --exclude=*/arch/$architecture/*.[chS]"
done
for drivers in clk comedi gpu hwmon iio infiniband media mfd mtd net/ethernet net/wireless pinctrl \
  regulator soc staging usb video; do
  leave_out="$leave_out --exclude=*/drivers/$drivers/*.[chS]"
done
# shellcheck disable=SC2086
tar -xJf "$tarball" -C "$work" --strip-components=1 $leave_out --exclude=*/sound/*.[chS] \
  --exclude=*.dts --exclude=*.dtsi --exclude=*.rst --exclude=*/Documentation/*.yaml \
  --exclude=*/tools/testing/* --exclude=*/tools/perf/*
set +f

cd "$work"
# objtool goes over every object for what this kernel does not have (ORC, retpolines, patched jump labels).
sed -i '/select HAVE_OBJTOOL[[:space:]]*if X86_64/d' arch/x86/Kconfig
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

# With no flags but the kernel's own: leaving passes of -O2 out (-fno-gcse and the like) saves a sixth of the time and
# makes a kernel that stops at boot, since calls of paravirt operations come out shorter than what is patched in there.
# One more than there are processors: a file being read or written leaves one to another.
make -s -j"$(($(nproc) + 1))" vmlinux
strip --strip-all vmlinux -o vmlinux.stripped
mv vmlinux.stripped "$output"
