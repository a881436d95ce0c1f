#!/usr/bin/env bash
# Monocular depth on Sintel, Bonn, KITTI and NYU-v2: predict, then score from the files. Run it again and it goes on.
#
#   bash eval/monodepth/run.sh                                    from src/, published defaults
#   WEIGHTS=lch01/StreamVGGT DATASETS="nyu kitti" bash eval/monodepth/run.sh
#   MODEL_NAME=VGGT PROCESSES=4 bash eval/monodepth/run.sh        on four GPUs; more flags go to launch.py
source "$(dirname "$0")/../settings.sh" monodepth StreamVGGT "sintel bonn kitti nyu"

predict "$@"
score eval/monodepth/eval_metrics.py
exit $status
