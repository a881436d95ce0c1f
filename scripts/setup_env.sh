# Sourced by the other scripts: a virtual environment of the project's own in .venv, made once, renewed when
# requirements.txt changes. PYTHON chooses the interpreter.

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"

PYTHON="${PYTHON:-python3}"
if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "error: expected Python 3.11 or newer, got $("$PYTHON" --version 2>&1) as $PYTHON. Set PYTHON=/path/to/python3" >&2
    exit 1
fi

# pip install ARGUMENTS…, with one line per file of at least 1 MB: seconds so far, file, size.
# Python compiles a module when it first imports it (--no-compile): most modules of the packages are never imported.
pip_install() {
    local begun=$SECONDS total=0 action file size unit
    .venv/bin/pip install --disable-pip-version-check --no-compile --progress-bar off "$@" | {
        while read -r action file size unit; do
            if [ "$action $file" = "Installing collected" ]; then
                [ "$total" = 0 ] || printf '%5d s  installing the packages (%d MB of files) …\n' $((SECONDS - begun)) "$total"
                continue
            fi
            [ "$action" = Using ] && read -r file size unit <<< "$size $unit"  # "Using cached FILE (SIZE UNIT)"
            [ "$unit" = "MB)" ] || continue
            size="${size#(}"
            total=$((total + ${size%.*}))
            printf '%5d s  %s  %s MB\n' $((SECONDS - begun)) "${file##*/}" "$size"
        done
    }
}

wanted="$(cat requirements.txt pyproject.toml | cksum) $("$PYTHON" --version)"
if [ "$(cat .venv/installed 2>/dev/null)" != "$wanted" ]; then
    echo "Installing into .venv, once. PyTorch with CUDA is the largest part, several GB."
    [ -x .venv/bin/python ] || "$PYTHON" -m venv .venv
    pip_install -r requirements.txt
    pip_install --no-deps --editable .
    echo "$wanted" > .venv/installed
fi
export PATH="$root/.venv/bin:$PATH"

install_extra() {  # NAME: install requirements_NAME.txt unless installed
    local stamp
    stamp="$(cksum < "requirements_$1.txt") $wanted"
    if [ "$(cat ".venv/installed-$1" 2>/dev/null)" != "$stamp" ]; then
        pip_install -r "requirements_$1.txt" || return
        echo "$stamp" > ".venv/installed-$1"
    fi
}
