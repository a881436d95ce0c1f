# Sourced by the run.sh of each evaluation: source settings.sh PROTOCOL MODEL_NAME DATASETS, the last two as published.
# The environment may override:
#
#   WEIGHTS      file, folder or Hugging Face name      default: ../ckpt/checkpoints.pth; of VGGT: ../ckpt/model.pt
#   MODEL_NAME   StreamVGGT or VGGT
#   DATASETS     names of test sets
#   SEQUENCES    only these sequences                   default: all
#   DATA_ROOT    folder of all test sets                default: ../data/eval
#   OUTPUT       folder of a result                     default: ../eval_results/PROTOCOL/{data}_{model_name}
#   DEVICE       cuda, mps or cpu                       default: the best there is
#   PROCESSES    that share the sequences, a GPU each   default: 1
#   PORT         of the processes' meeting              default: any free one
set -uo pipefail
protocol=$1
model_name=${MODEL_NAME:-$2}
read -ra datasets <<< "${DATASETS:-$3}"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"

which=(--eval_dataset "${datasets[@]}" --model_name "$model_name" --data_root "${DATA_ROOT:-../data/eval}")
which+=(--output_dir "${OUTPUT:-../eval_results/$protocol/{data\}_{model_name\}}")
[ -z "${SEQUENCES:-}" ] || { read -ra sequences <<< "$SEQUENCES"; which+=(--seq_list "${sequences[@]}"); }
status=0

# launch PROGRAM ARGUMENTS…: in one process, or in several that share the work.
launch() {
    if [ "${PROCESSES:-1}" -gt 1 ]; then
        accelerate launch --num_processes "$PROCESSES" --num_machines 1 --multi_gpu --mixed_precision no \
            --dynamo_backend no --main_process_port "${PORT:-0}" "$@"
    else
        python "$@"
    fi || status=1
}

# predict FLAGS…: then `score` does what has been predicted now, never an earlier result that a refused run left there.
predict() {
    ready=$(mktemp)
    launch "eval/$protocol/launch.py" "${which[@]}" --status-file "$ready" \
        ${WEIGHTS:+--weights "$WEIGHTS"} ${DEVICE:+--device "$DEVICE"} "$@"
    read -ra datasets < "$ready" || true
    rm -f "$ready"
}

# score PROGRAM FLAGS…
score() {
    [ ${#datasets[@]} -gt 0 ] || return 0
    python "$@" "${which[@]}" --eval_dataset "${datasets[@]}" || status=1
}
