#!/usr/bin/env bash
# Makes everything that sage runs on: environments, servers, models, the native jar.
#
#   bash infra/setup.sh            prints one line per step; a repeat takes about a second
#   bash infra/setup.sh --quiet    prints only what it has to make
#
# What can be shared is made once per user in $SAGE_CACHE (default ~/.cache/sage), the rest in
# $SAGE_HOME (default .sage of this checkout). See infra/README.md.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${SAGE_CACHE:-${XDG_CACHE_HOME:-${HOME:?is not set; set it to a folder that you may write}/.cache}/sage}
home=${SAGE_HOME:-$repo/.sage}
quiet=no
[ "${1:-}" = --quiet ] && quiet=yes

# A JVM in another locale has no name for an umlaut in a path, and Maven and Python read text by it.
export LC_ALL=C.UTF-8

# shellcheck source=infra/setup/say.sh
. "$repo/infra/setup/say.sh"

native_hash=$(hash_tree "$repo/connectors/native" pom.xml src/main)
mock_hash=$(hash_tree "$repo/benchmarks/mock_engine" go.mod cmd engine load)

# shellcheck source=infra/setup/steps.sh
. "$repo/infra/setup/steps.sh"
# shellcheck source=infra/setup/checks.sh
. "$repo/infra/setup/checks.sh"

check_path 'the folder of this checkout' "$repo"
check_path SAGE_HOME "$home"
check_path SAGE_CACHE "$cache"

python=''
find_python || true
pins=$repo/infra/constraints.txt
project_hash=$(hash_of "$python" "$repo" "$repo/pyproject.toml" "$pins" "${flink_args[*]}")
milvus_hash=$(hash_of "$python" "$repo/infra/venvs/milvus.txt" "$(pinned milvus)" "$(pinned setuptools)")
milvus_lite_hash=$(hash_of "$python" "$repo/infra/venvs/milvus-lite.txt")
engines_hash=$(hash_of "$python" "$repo/infra/venvs/engines.txt" "$pins")
milvus=$cache/venv/milvus-$milvus_hash
milvus_lite=$cache/venv/milvus-lite-$milvus_lite_hash
engines=$cache/venv/engines-$engines_hash
check_machine

mkdir -p "$cache/locks" "$home/venv" "$home/lib" "$home/logs/setup"
make_work_folder
trap 'rm -rf "$work"' EXIT
trap 'printf "\nStopped. Finished steps are kept; run the same command again to continue.\n" >&2; exit 130' INT TERM

steps_all=13
step_now=0

# locked LOCK TEST MAKE: two clones may need the same thing at the same time; the second finds it ready.
locked() { exec 9>"$1"; flock 9; if "$2"; then return; fi; "$3"; }

# step NAME LABEL EXPECT: has_NAME, else make_NAME with its log shown when it fails.
step() {
  step_now=$((step_now + 1))
  local label log=$home/logs/setup/$1.log
  label=$(printf '[%2d/%d] %s' "$step_now" "$steps_all" "$2")
  if "has_$1"; then
    [ "$quiet" = yes ] || say_line "$label" 'ready'
    return
  fi
  [ -z "$3" ] || label="$label ($3)"
  timed "$label" "$log" locked "$cache/locks/$1" "has_$1" "make_$1"
  [ "$timed_status" = 0 ] || {
    tail -25 "$log" >&2
    die "setup could not make: $2" "  The whole log: $log" "  Fix what it reports, then run the same command again: finished steps are kept."
  }
}

# wish NAME LABEL CONSEQUENCE: as step, but on a failure setup prints CONSEQUENCE and continues.
wish() {
  local log=$home/logs/setup/$1.log
  if "has_$1"; then
    step "$1" "$2" ''
  elif ! locked "$cache/locks/$1" "has_$1" "make_$1" >"$log" 2>&1; then
    step_now=$((step_now + 1))
    say_line "$(printf '[%2d/%d] %s' "$step_now" "$steps_all" "$2")" "not there: $3"
  else
    step "$1" "$2" ''
  fi
}

started=$(now_ms)
[ "$quiet" = yes ] || say_line "Python $python_version" "$python, $python_build"
step uv 'uv' ''
step flink_venv 'environment of the data plane' '1-2 minutes the first time'
step gateway_venv 'environment of the gateway' ''
step milvus 'Milvus server' ''
step engines 'environment of the engines' ''
step kafka 'Kafka jars' ''
step influxd 'InfluxDB server' '4-6 minutes the first time'
step chat_model 'chat model' '90 MB'
step embedding_model 'embedding model' ''
step native_jar 'native Flink operators' ''
step mock_engine 'mock engine of benchmarks and drills' ''
wish milvus_lite 'milvus-lite' 'the tests of full-text search need it'
wish redis 'Redis server' 'apt-get install redis-server; the tests of a shared ledger need it'

# Fixed names in $SAGE_HOME for the folders in the cache, so that the stack reads one folder only.
ln -sfn "$milvus" "$home/venv/milvus"
ln -sfn "$milvus_lite" "$home/venv/milvus-lite"
ln -sfn "$engines" "$home/venv/engines"
ln -sfn "$cache/kafka-$kafka_version" "$home/lib/kafka"
ln -sfn "$(influxd_path)" "$home/lib/influxd"
ln -sfn "$native_jar" "$home/lib/sage-native.jar"
ln -sfn "$mock_engine/mock-engine" "$home/lib/mock-engine"
ln -sfn "$mock_engine/load-generator" "$home/lib/load-generator"
ln -sfn "$mock_engine/replay" "$home/lib/replay"
[ "$quiet" = yes ] || say_line 'setup' "done in $(seconds_since "$started")"
