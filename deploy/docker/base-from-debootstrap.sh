#!/usr/bin/env bash
# Makes the image that the Dockerfile starts from out of Debian packages, for sites that cannot pull
# images. Needs root, debootstrap and a Debian mirror.
#
#   base-from-debootstrap.sh [TAG] [TARBALL]
#
# TAG defaults to the one that the Dockerfile names. TARBALL is made if it is not there, and imported
# as it is if it is: keep it to save the time.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
tag=${1:-$(sed -n 's/^ARG BASE=//p' "$here/Dockerfile" | head -1)}
tarball=${2:-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [ -z "$tarball" ]; then
  tarball=$work/base.tar
fi
if [ ! -s "$tarball" ]; then
  root=$work/root
  debootstrap --variant=minbase --include=python3,python3-venv,iproute2,ca-certificates \
    bookworm "$root" >"$work/log" 2>&1 || { tail -20 "$work/log" >&2; exit 1; }
  # nothing that differs from one making to the next, or that nobody needs in a container
  rm -rf "$root"/var/cache/* "$root"/var/lib/apt/lists/* "$root"/var/log/* "$root"/tmp/* \
    "$root"/usr/share/{doc,man,info,locale,lintian} "$root"/dev/* "$root"/etc/machine-id \
    "$root"/etc/{hostname,resolv.conf}
  find "$root" -name __pycache__ -prune -exec rm -rf {} +
  ln -s /usr/bin/python3 "$root/usr/local/bin/python"
  tar --sort=name --mtime=@0 --numeric-owner -C "$root" -cf "$tarball.part" .
  mv "$tarball.part" "$tarball"
fi
docker import --change 'CMD ["python"]' "$tarball" "$tag"
