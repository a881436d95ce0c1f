#!/usr/bin/env bash
# Everything that is checked: format, lint, tests. Arguments go to pytest: bash scripts/test.sh tests/model -k stream
set -euo pipefail
source "$(dirname "$0")/environment.sh"

ruff format --check .
ruff check .
# One thread for each of several processes: small tensors gain nothing from threads that wait for each other.
export OMP_NUM_THREADS=1
exec python -m pytest -n "$(nproc 2>/dev/null || echo 2)" "$@"
