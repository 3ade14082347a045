#!/usr/bin/env bash
# Every drill in its full form: 10,000 ids, three times each, on a separate stack.
#
#   bash infra/drills.sh                       some hours; writes benchmarks/results/B10.json
#   bash infra/drills.sh -k taskmanager        one of them; takes any option of pytest
#   bash infra/drills.sh -k pool               the drills of the model pool: no stack, 20 minutes
#
# The short form of each is part of infra/test.sh.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
home=${SAGE_HOME:-$repo/.sage}
cd "$repo"

bash infra/setup.sh --quiet
# shellcheck source=infra/setup/bytecode.sh
. infra/setup/bytecode.sh
exec "$home/venv/flink/bin/python" -m pytest tests/drills -m drill -q \
  --drill-ids 10000 --drill-repeats 3 --drill-rate "${SAGE_DRILL_RATE:-250}" \
  --drill-results benchmarks/results "$@"
