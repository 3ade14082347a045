#!/usr/bin/env bash
# usage: native_jar.sh: prints the path of the native jar of these sources, built first if need be.
#
# The same maker and the same place as in `infra/setup.sh`: a checkout after setup has the jar already.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache=${SAGE_CACHE:-${XDG_CACHE_HOME:-${HOME:?is not set; set it to a folder that you may write}/.cache}/sage}

# shellcheck source=infra/setup/say.sh
. "$repo/infra/setup/say.sh"
# shellcheck disable=SC2034 # steps.sh names the mock engine's folder by it; it is not built here
mock_hash=none
native_hash=$(hash_tree "$repo/connectors/native" pom.xml src/main)
# shellcheck source=infra/setup/steps.sh
. "$repo/infra/setup/steps.sh"

has_native_jar && { printf '%s\n' "$native_jar"; exit; }
command -v mvn >/dev/null || die 'The wheel carries the native operators, which Maven builds: apt-get install maven'
mkdir -p "$cache/locks"
work=$(mktemp -d "$cache/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
exec 9>"$cache/locks/native_jar"
flock 9
has_native_jar || make_native_jar >&2
printf '%s\n' "$native_jar"
