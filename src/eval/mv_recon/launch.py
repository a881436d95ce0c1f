"""Reconstruction of rooms (docs/evaluation.md): predict and score. `run.sh` calls this."""

from streamvggt.evaluation.jobs import run_main
from streamvggt.evaluation.mv_recon import main

if __name__ == "__main__":
    raise SystemExit(run_main(main))
