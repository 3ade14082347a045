#!/usr/bin/env bash
# What every commit passes, in under a minute: formatting, lint, layers, types, unmarked tests.
# One line each; the first that fails shows its output and ends the check.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
home=${SAGE_HOME:-$repo/.sage}
bin=$home/venv/flink/bin
logs=$home/logs/check
cd "$repo"

bash infra/setup.sh --quiet
# shellcheck source=infra/setup/say.sh
. infra/setup/say.sh
# shellcheck source=infra/setup/bytecode.sh
. infra/setup/bytecode.sh

# check NAME NEXT COMMAND...
check() {
  local name=$1 next=$2
  shift 2
  timed "$name" "$logs/$name.log" "$@"
  [ "$timed_status" = 0 ] || failed "$name" "$next"
}
failed() { cat "$logs/$1.log"; die "check stopped at $1. Next: $2"; }

check format "run \`$bin/ruff format .\`" "$bin/ruff" format --check .
check lint "fix what is listed; \`$bin/ruff check --fix .\` does part of it" "$bin/ruff" check .
check layers 'move the import down, or pass the value in from above' "$bin/lint-imports"

# mypy is one process, and the tests wait for a quarter of their time: so four processes on two cores.
"$bin/mypy" >"$logs/types.log" 2>&1 &
types=$!
trap 'kill "$types" 2>/dev/null || true' EXIT
check tests 'fix the first failure' "$bin/python" -m pytest -q -n 3 --dist worksteal --durations=40
wait "$types" || failed types 'fix the lines listed above'
say_line types 'passed in parallel with the tests'
tail -1 "$logs/tests.log"
