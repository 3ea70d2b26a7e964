#!/usr/bin/env bash
# Version 2 of Docker Compose, which Debian 12 does not have, from Debian 13: as a plug-in of the
# docker command, in a folder that DOCKER_CONFIG may name. Nothing is installed; needs a Debian mirror.
#
#   plugin-from-debian.sh FOLDER
set -euo pipefail

folder=$(realpath -m "$1")
plugin=$folder/cli-plugins/docker-compose
if [ -x "$plugin" ]; then
  exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
mkdir -p "$work"/{lists,cache/archives}/partial "$folder/cli-plugins"

# from wherever this machine's packages come
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | head -1)
echo "deb $mirror trixie main" >"$work/sources.list"
apt=(apt-get -qq -o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=/dev/null)
apt+=(-o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache")
"${apt[@]}" update
cd "$work"
"${apt[@]}" download docker-compose/trixie
dpkg -x docker-compose_*.deb "$work/root"
install "$work/root/usr/libexec/docker/cli-plugins/docker-compose" "$plugin"
DOCKER_CONFIG=$folder docker compose version
