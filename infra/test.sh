#!/usr/bin/env bash
# usage: infra/test.sh [--full]
# The tests: setup, check.sh, gateways and engines and slow tests, Java and Go, the local stack, the drills.
# --full adds those that take minutes each, marked `full`.
# A running stack of this checkout is used and keeps running; otherwise one is started and stopped.
set -euo pipefail

full=no
case "$*" in
  '') ;;
  --full) full=yes ;;
  -h | --help)
    sed -n '2,5s/^# //p' "$0"
    exit
    ;;
  *)
    echo "infra/test.sh: unknown argument $*; usage: infra/test.sh [--full]" >&2
    exit 2
    ;;
esac

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${SAGE_CACHE:-${XDG_CACHE_HOME:-${HOME:?is not set; set it to a folder that you may write}/.cache}/sage}
home=${SAGE_HOME:-$repo/.sage}
bin=$home/venv/flink/bin
logs=$home/logs/test
ours=no
cd "$repo"

bash infra/setup.sh
# shellcheck source=infra/setup/say.sh
. infra/setup/say.sh
# shellcheck source=infra/setup/bytecode.sh
. infra/setup/bytecode.sh
mkdir -p "$logs"

stop_stack() {
  trap '' INT TERM
  if [ "$ours" = yes ]; then
    ours=no
    timed 'sage down' "$logs/down.log" "$bin/sage" down
    [ "$timed_status" = 0 ] || cat "$logs/down.log" >&2
  fi
}
trap stop_stack EXIT
trap 'exit 130' INT TERM

stack_is_up() {
  "$bin/python" -c '
from sys import exit
from sage_flink.common.settings import sage_home
from sage_flink.platform.stack import status
exit(all(part.state == "stopped" for part in status(sage_home())))'
}

# The Java tests depend on their own sources only, so one pass per version is enough.
java_and_go_tests() {
  local stamp
  stamp=$cache/native/tests-passed-$(hash_tree connectors/native pom.xml src)
  go -C benchmarks/mock_engine test ./... || return
  [ ! -f "$stamp" ] || return 0
  mvn -B -q -ntp -f connectors/native/pom.xml test || return
  touch "$stamp"
}

short=' and not full'
[ "$full" = no ] || short=

# These tests measure seconds, so they run without anything else.
process_tests() {
  timed 'Gateways, engines, slow tests' "$logs/processes.log" "$bin/python" -m pytest -q -n 2 \
    --dist worksteal -m "(processes or slow) and not (flink or service or browser or gpu or drill)$short"
  [ "$timed_status" = 0 ] || { cat "$logs/processes.log"; die "tests of gateways and engines, or slow ones, failed; the whole log: $logs/processes.log"; }
}

# part NAME OPTION...: one run of pytest, printed and logged; a failure fails the whole script.
status=0
part() {
  local log=$logs/$1.log
  shift
  set +e
  "$bin/python" -m pytest -rsfE --durations=5 "$@" 2>&1 | tee "$log"
  [ "${PIPESTATUS[0]}" = 0 ] || status=1
  set -e
}

bash infra/check.sh
process_tests

java_and_go_tests >"$logs/java-and-go.log" 2>&1 &
side_process=$!
if ! stack_is_up; then
  ours=yes
  "$bin/sage" up
fi
wait "$side_process" || { tail -60 "$logs/java-and-go.log"; die "Java or Go tests failed; the whole log: $logs/java-and-go.log"; }
say_line 'Java and Go tests' 'passed'

# Tests that share the stack, in two workers; then those that break or measure it.
on_stack="(flink or service or browser) and not gpu and not drill$short"
part stack -n 2 --dist loadfile -m "$on_stack and not alone"
part alone -m "$on_stack and alone"
stop_stack
# The drills break a stack of their own; two stacks and their faults would not fit two cores.
part drills tests/drills -m "drill$short"

printf '\nunmarked tests: %s\n' "$(tail -1 "$home/logs/check/tests.log")"
printf 'gateways and engines: %s\n' "$(tail -1 "$logs/processes.log")"
tail -qn 1 "$logs/stack.log" "$logs/alone.log"
printf 'drills: %s\n' "$(tail -1 "$logs/drills.log")"
# What failed, once more at the end, where a log that was cut still has it; and what the servers said.
if [ "$status" != 0 ]; then
  grep -hE '^(E  |FAILED |ERROR )' "$logs"/{stack,alone,drills}.log | cut -c1-300 | tail -80 || true
  for server in kafka milvus influxdb jobmanager taskmanager gateway; do
    printf '%s:\n' "$server"
    grep -hE 'WARN|ERROR|OutOfMemory|[Ff]enc(ed|ing)' "$home/logs/$server.log" 2>/dev/null | cut -c1-220 | tail -12 || true
  done
fi
if [ "$full" = no ]; then
  "$bin/python" -m pytest --collect-only -q -m full >"$logs/full.log" || status=1
  printf 'left to infra/test.sh --full: %s\n' "$(tail -1 "$logs/full.log")"
fi
exit "$status"
