#!/usr/bin/env bash
# Installs the peers of the benchmarks: for the model pool's (B4, B5, B9) LiteLLM and vllm-router, for
# `memo` LangChain and CocoIndex, for B1 Quix Streams and Bytewax, each in an environment of its own with
# every version pinned; nginx from Debian.
#
#   bash infra/peers.sh            prints one line per peer; a second run takes about a second
#
# Optional: 600 MB in $SAGE_CACHE (default ~/.cache/sage). A peer that cannot be installed is reported,
# and is a row with its error in a benchmark's result; the others are installed. To renew the pins:
#   echo 'litellm[proxy]' | uv pip compile - --python-version 3.11 --no-header --no-annotate -o infra/venvs/litellm.txt
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${SAGE_CACHE:-${XDG_CACHE_HOME:-${HOME:?is not set; set it to a folder that you may write}/.cache}/sage}
home=${SAGE_HOME:-$repo/.sage}

# shellcheck source=infra/setup/say.sh
. "$repo/infra/setup/say.sh"
# shellcheck disable=SC2034 # steps.sh names the native jar and the mock engine after these; neither is built
native_hash=none mock_hash=none
# shellcheck source=infra/setup/steps.sh
. "$repo/infra/setup/steps.sh"
# shellcheck source=infra/setup/checks.sh
. "$repo/infra/setup/checks.sh"

python=''
check_python
check_flock
require_all_found
mkdir -p "$cache/locks" "$home/logs/setup"

hash_of_peer() { hash_of "$python" "$repo/infra/venvs/$1.txt"; }
has_peer() { has_venv "$cache/venv/peer-$1" "$(hash_of_peer "$1")"; }
# The project's own pins do not apply to a peer.
make_peer() {
  local folder=$cache/venv/peer-$1
  fill_pinned_venv "$folder" "$repo/infra/venvs/$1.txt"
  stamp_venv "$folder" "$(hash_of_peer "$1")"
}
has_litellm() { has_peer litellm; }
make_litellm() { make_peer litellm; }
has_router() { has_peer vllm-router; }
make_router() { make_peer vllm-router; }
has_indexers() { has_peer indexers; }
make_indexers() { make_peer indexers; }
has_quix() { has_peer quix-bytewax; }
make_quix() { make_peer quix-bytewax; }
has_nginx() { [ -x "$(PATH=$PATH:/usr/sbin command -v nginx)" ]; }
make_nginx() { debian nginx-light; }

# peer NAME LABEL: has_NAME, else make_NAME, one at a time on this machine; after a failure the next peer is installed.
peer() {
  local log=$home/logs/setup/peer-$1.log
  if "has_$1"; then
    say_line "$2" 'ready'
    return
  fi
  timed "$2" "$log" locked "$1"
  [ "$timed_status" = 0 ] || printf '  %s\n' "$(tail -1 "$log")" "The whole log: $log"
}
locked() { exec 9>"$cache/locks/peer-$1"; flock 9; if "has_$1"; then return; fi; "make_$1"; }

has_uv || make_uv
peer litellm 'LiteLLM'
peer router 'vllm-router'
peer nginx 'nginx'
peer indexers 'LangChain and CocoIndex'
peer quix 'Quix Streams and Bytewax'
