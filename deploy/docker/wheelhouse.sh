#!/usr/bin/env bash
# Collects the wheels that the images are built from into build/wheelhouse and build/wheelhouse-mpi,
# at the versions of requirements.txt and requirements-mpi.txt, so that building needs no network.
#
#   wheelhouse.sh [PYTHON] [SUFFIX]
#
# PYTHON is one of the image's version (3.11), with pip. SUFFIX "-mpi" collects the second alone.
# Options for pip (an index of CPU builds of torch, say) go into the usual PIP_... variables.
set -euo pipefail

cd "$(dirname "$0")/../.."
python=${1:-python3}

collect() {
  local requirements=deploy/docker/$1 folder=build/$2
  local stamp=$folder/.made-from wanted
  wanted=$(sha256sum "$requirements" | cut -d' ' -f1)
  if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    rm -rf "$folder"
    mkdir -p "$folder"
    "$python" -m pip wheel --quiet --no-deps -r "$requirements" -w "$folder"
    echo "$wanted" >"$stamp"
  fi
}

suffixes=("" -mpi)
if [ $# -gt 1 ]; then
  suffixes=("$2")
fi
for suffix in "${suffixes[@]}"; do
  collect "requirements$suffix.txt" "wheelhouse$suffix"
done
