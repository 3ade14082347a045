#!/usr/bin/env bash
# Every test: setup, check.sh, the Java tests, then all that needs the local stack.
# A stack of this checkout that is up already is used and left up; else it is started and stopped.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${SAGE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sage}
home=${SAGE_HOME:-$repo/.sage}
bin=$home/venv/flink/bin
logs=$home/logs/test
ours=no
cd "$repo"

bash infra/setup.sh
# shellcheck source=infra/setup/say.sh
. infra/setup/say.sh

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

# The Java tests depend on nothing but their own sources, so one pass a version is enough.
java_tests() {
  local version stamp
  version=$(hash_tree connectors/native pom.xml src)
  stamp=$cache/native/tests-passed-$version
  if [ -f "$stamp" ]; then
    say_line 'Java tests' 'passed before'
    return
  fi
  timed 'Java tests' "$logs/java.log" mvn -B -q -ntp -f connectors/native/pom.xml test
  [ "$timed_status" = 0 ] || { tail -60 "$logs/java.log"; die "Java tests failed; the whole log: $logs/java.log"; }
  touch "$stamp"
}

process_tests() {
  timed 'Gateways and engines' "$logs/processes.log" "$bin/python" -m pytest -q -n 2 \
    --dist worksteal -m 'processes and not (flink or service or browser or gpu or drill)'
  [ "$timed_status" = 0 ] || { cat "$logs/processes.log"; die "tests of gateways and engines failed; the whole log: $logs/processes.log"; }
}

go_tests() {
  timed 'Go tests' "$logs/go.log" go -C benchmarks/mock_engine test ./...
  [ "$timed_status" = 0 ] || { tail -60 "$logs/go.log"; die "Go tests failed; the whole log: $logs/go.log"; }
}

bash infra/check.sh
process_tests
java_tests
go_tests

if ! stack_is_up; then
  ours=yes
  "$bin/sage" up
fi

mkdir -p "$logs"
set +e
"$bin/python" -m pytest -m '(flink or service or browser) and not gpu and not drill' -rs --durations=5 2>&1 | tee "$logs/stack.log"
status=${PIPESTATUS[0]}
stop_stack
# The drills break a stack of their own; two stacks and their faults would not fit two cores.
"$bin/python" -m pytest tests/drills -m drill -rs --durations=5 2>&1 | tee "$logs/drills.log"
drills=${PIPESTATUS[0]}
set -e

printf '\nunmarked tests: %s\n' "$(tail -1 "$home/logs/check/tests.log")"
printf 'gateways and engines: %s\n' "$(tail -1 "$logs/processes.log")"
tail -1 "$logs/stack.log"
printf 'drills: %s\n' "$(tail -1 "$logs/drills.log")"
exit "$((status > drills ? status : drills))"
