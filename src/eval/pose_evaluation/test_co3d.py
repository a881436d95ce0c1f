"""Relative camera poses on CO3Dv2 (docs/evaluation.md).

python eval/pose_evaluation/test_co3d.py --co3d_dir ../data/co3d_v2 --co3d_anno_dir ../data/co3d_v2_annotations --seed 0
"""

from streamvggt.evaluation.co3d import main
from streamvggt.evaluation.jobs import run_main

if __name__ == "__main__":
    raise SystemExit(run_main(main))
