#!/usr/bin/env bash
# Build the documentation site into site/. Arguments go to `mkdocs build`. To preview it: .venv/bin/mkdocs serve
set -euo pipefail
source "$(dirname "$0")/setup_env.sh"
install_extra docs
exec mkdocs build --strict "$@"
