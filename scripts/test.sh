#!/usr/bin/env bash
# Everything that is checked: format, lint, tests. Arguments go to pytest: bash scripts/test.sh tests/model -k stream
set -euo pipefail

# Chromium is installed while pip installs the Python packages. Tests of the demo page and of the documentation site
# are skipped if their packages or Chromium are missing.
chromium=
if ! command -v chromium > /dev/null && [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
    echo "Installing Chromium (once) …"
    { apt-get -qq update && apt-get -qq install --yes --no-install-recommends chromium fonts-dejavu-core; } \
        > /dev/null 2>&1 &
    chromium=$!
fi
source "$(dirname "$0")/setup_env.sh"
install_extra demo || echo "Gradio could not be installed: the tests of the demo page will be skipped" >&2
install_extra docs || echo "mkdocs could not be installed: the test of the documentation site will be skipped" >&2
[ -z "$chromium" ] || wait "$chromium" ||
    echo "Chromium could not be installed: the tests of the demo page will be skipped" >&2

ruff format --check .
ruff check .
# One thread for each of several processes: small tensors gain nothing from threads that wait for each other.
processes="$(env -u OMP_NUM_THREADS nproc 2>/dev/null || echo 2)"  # nproc itself obeys OMP_NUM_THREADS
export OMP_NUM_THREADS=1
# Files stay whole, so that their fixtures are made once, and those with slow tests come first (tests/conftest.py).
exec python -m pytest -n "$processes" --dist loadfile --no-loadscope-reorder "$@"
