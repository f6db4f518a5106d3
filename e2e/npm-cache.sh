#!/bin/sh
# Makes an npm cache, OUT/cache, from which the packed packages can be installed offline: npm-cache.sh WORK OUT. Called by
# `scripts/setup test`, since it fetches packages, and tests do not. What `npm ci` leaves in the user's cache is not
# enough: from a lock file it has no need of what the registry says about versions.
set -eu
work=$1 out=$2
for manifest in package.json packages/*/package.json; do
  mkdir -p "$work/$(dirname "$manifest")"
  cp "$manifest" "$work/$manifest"
done
cp .npmrc "$work"
cd "$work"
npm pkg delete devDependencies
npm install --cache "$out/cache" --no-audit --no-fund --logs-max=0 --loglevel=error
