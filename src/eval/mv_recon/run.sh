#!/usr/bin/env bash
# Reconstruction on 7-Scenes and Neural RGB-D: predict, then score from the files. Run it again and it goes on.
#
#   bash eval/mv_recon/run.sh                                     from src/, published defaults
#   WEIGHTS=lch01/StreamVGGT DATASETS=NRGBD bash eval/mv_recon/run.sh --use_proj
#   PROCESSES=4 bash eval/mv_recon/run_vggt.sh                    on four GPUs; more flags go to launch.py
OUTPUT="${OUTPUT:-../eval_results/mv_recon/{model_name\}_{ckpt_name\}}"
source "$(dirname "$0")/../settings.sh" mv_recon StreamVGGT "7scenes NRGBD"

launch eval/mv_recon/launch.py "${which[@]}" ${WEIGHTS:+--weights "$WEIGHTS"} ${DEVICE:+--device "$DEVICE"} "$@"
exit $status
