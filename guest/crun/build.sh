#!/bin/sh
# Builds a static crun from Debian's source package: build.sh WORK-DIR OUTPUT
# Debian's own crun is linked dynamically and starts a container in twice the time.
set -eu
work=$1 output=$2

mkdir -p "$work/lists/partial"
cd "$work"

# A private view of apt that knows the source packages of the repositories this machine uses.
apt-get indextargets --format '$(ORIGIN) $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Identifier: Packages' |
  awk '$1 == "Debian" { print "deb-src", $2, $3, $4 }' | sort -u >sources.list
[ -s sources.list ] || { echo "apt knows no Debian repository: run apt-get update first" >&2; exit 1; }
apt() {
  apt-get -qq -o APT::Sandbox::User=root -o Dir::Etc::sourcelist="$work/sources.list" \
    -o Dir::Etc::sourceparts=- -o Dir::State::lists="$work/lists" "$@"
}
apt update
apt source --download-only crun
dpkg-source --extract crun_*.dsc src >extract.log 2>&1

cd src
# The release tarball leaves this file to git.
echo '#define GIT_VERSION "debian"' >.tarball-git-version.h
# libgcrypt (a cache of compiled filters) is not wanted, and libyajl's static name differs.
ac_cv_search_gcry_check_version=no ac_cv_search_yajl_tree_get=-lyajl_s YAJL_LIBS=-lyajl_s \
  ./configure --quiet --disable-systemd --disable-criu --disable-dl --disable-dependency-tracking \
  CFLAGS='-O2 -pipe' >../configure.log 2>&1
make -s git-version.h .version generate-signals.c generate-mount_flags.c >../make.log 2>&1
make -s -C libocispec libocispec.la >>../make.log 2>&1
make -s LDFLAGS=-all-static YAJL_LIBS=-lyajl_s crun >>../make.log 2>&1 || { tail -20 ../make.log >&2; exit 1; }
strip crun -o crun.stripped
mv crun.stripped "$output"
