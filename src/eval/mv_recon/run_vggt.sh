#!/usr/bin/env bash
# As run.sh, of VGGT.
MODEL_NAME=VGGT exec bash "$(dirname "$0")/run.sh" "$@"
