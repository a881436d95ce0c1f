#!/usr/bin/env bash
# Video depth on Sintel, Bonn and KITTI: predict, then score from the files. Run it again and it goes on.
#
#   bash eval/video_depth/run.sh                                  from src/, published defaults
#   ALIGN="scale scale&shift metric" DATASETS=bonn bash eval/video_depth/run.sh
#   MODEL_NAME=VGGT PROCESSES=4 bash eval/video_depth/run.sh      on four GPUs; more flags go to launch.py
source "$(dirname "$0")/../settings.sh" video_depth streamvggt "sintel bonn kitti"

predict "$@"
read -ra align <<< "${ALIGN:-scale}"
score eval/video_depth/eval_depth.py --align "${align[@]}"
exit $status
