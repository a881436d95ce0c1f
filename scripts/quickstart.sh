#!/usr/bin/env bash
# From nothing to a reconstruction: environment, then a clip to cameras, depth and a point cloud.
#   bash scripts/quickstart.sh [CLIP or folder of photos] [more options of `streamvggt reconstruct`]
set -euo pipefail
given="${1:-}"
[ -n "$given" ] && shift && [ -e "$given" ] && given="$(cd "$(dirname "$given")" && pwd)/$(basename "$given")"
source "$(dirname "$0")/setup_env.sh"

clip="${given:-assets/clip.mp4}"
out="results/quickstart"
number=1
while [ -e "$out/run.json" ]; do number=$((number + 1)); out="results/quickstart-$number"; done
streamvggt reconstruct "$clip" --out "$out" "$@"
echo
echo "Open $out/scene.glb in a 3D viewer (in a browser: https://gltf-viewer.donmccurdy.com), $out/preview.mp4 in a player."
echo "Your own video: bash scripts/quickstart.sh my_video.mp4 --weights lch01/StreamVGGT (downloads 5 GB once)"
echo "Watch it grow in the browser: .venv/bin/streamvggt view my_video.mp4 --weights lch01/StreamVGGT"
