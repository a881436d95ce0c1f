#!/usr/bin/env bash
# Camera trajectories on Sintel, TUM-dynamics and ScanNet: predict, then score from the files. Run it again and it goes on.
#
#   bash eval/trajectory/run.sh                                   from src/, published defaults
#   WEIGHTS=lch01/StreamVGGT DATASETS=tum bash eval/trajectory/run.sh --camera_cache shared
#   MODEL_NAME=VGGT PROCESSES=4 bash eval/trajectory/run.sh       on four GPUs; more flags go to launch.py
source "$(dirname "$0")/../settings.sh" trajectory StreamVGGT "sintel tum scannet"

launch eval/trajectory/launch.py "${which[@]}" ${WEIGHTS:+--weights "$WEIGHTS"} ${DEVICE:+--device "$DEVICE"} "$@"
exit $status
