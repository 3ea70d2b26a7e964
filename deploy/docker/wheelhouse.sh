#!/usr/bin/env bash
# Collects the wheels that the image is built from into build/wheelhouse, at the versions of
# requirements.txt, so that building the image needs no network.
#
#   wheelhouse.sh [PYTHON]      a Python of the image's version (3.11), with pip
#
# Options for pip (an index of CPU builds of torch, say) go into the usual PIP_... variables.
set -euo pipefail

cd "$(dirname "$0")/../.."
python=${1:-python3}
folder=build/wheelhouse
stamp=$folder/.made-from
wanted=$(sha256sum deploy/docker/requirements.txt | cut -d' ' -f1)

if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
  rm -rf "$folder"
  mkdir -p "$folder"
  "$python" -m pip wheel --quiet --no-deps -r deploy/docker/requirements.txt -w "$folder"
  echo "$wanted" >"$stamp"
fi
