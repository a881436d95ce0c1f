"""Camera trajectories (docs/evaluation.md): predict and score. `run.sh` calls this."""

from streamvggt.evaluation.trajectory import main
from streamvggt.evaluation.work import run_program

if __name__ == "__main__":
    raise SystemExit(run_program(main))
