#!/usr/bin/env bash
# What every commit passes, in under a minute: formatting, lint, types, layers, unmarked tests.
# One line each; the first that fails shows its output and ends the check.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
home=${SAGE_HOME:-$repo/.sage}
bin=$home/venv/flink/bin
cd "$repo"

bash infra/setup.sh --quiet
# shellcheck source=infra/setup/say.sh
. infra/setup/say.sh

# check NAME NEXT COMMAND...
check() {
  local name=$1 next=$2 log=$home/logs/check/$1.log
  shift 2
  timed "$name" "$log" "$@"
  [ "$timed_status" = 0 ] || { cat "$log"; die "check stopped at $name. Next: $next"; }
}

check format "run \`$bin/ruff format .\`" "$bin/ruff" format --check .
check lint "mend what is named; \`$bin/ruff check --fix .\` does part of it" "$bin/ruff" check .
check types 'mend the named lines' "$bin/mypy"
check layers 'move the import down, or pass the value in from above' "$bin/lint-imports"
check tests 'mend the first failure' "$bin/python" -m pytest -q -n 2 --dist worksteal
tail -1 "$home/logs/check/tests.log"
