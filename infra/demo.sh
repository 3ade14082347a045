#!/usr/bin/env bash
# The main job on real servers: ingest through Flink, search, ask, count. Options: --help.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
home="${SAGE_HOME:-$here/.sage}"
bash "$here/infra/setup.sh"
# shellcheck source=infra/setup/bytecode.sh
. "$here/infra/setup/bytecode.sh"
exec "$home/venv/flink/bin/python" -m sage_jobs.demo "$@"
