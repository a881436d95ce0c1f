# Sourced by the other scripts: a virtual environment of the project's own in .venv, made once, renewed when
# requirements.txt changes. PYTHON chooses the interpreter.

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"

PYTHON="${PYTHON:-python3}"
if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
    echo "error: Python 3.10 or newer is needed; $PYTHON is $("$PYTHON" --version 2>&1). Set PYTHON=/path/to/python3" >&2
    exit 1
fi

wanted="$(cat requirements.txt pyproject.toml | cksum) $("$PYTHON" --version)"
if [ "$(cat .venv/installed 2>/dev/null)" != "$wanted" ]; then
    echo "Installing into .venv (once; some minutes) …"
    [ -x .venv/bin/python ] || "$PYTHON" -m venv .venv
    .venv/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
    .venv/bin/pip install --quiet --disable-pip-version-check --no-deps --editable .
    echo "$wanted" > .venv/installed
fi
export PATH="$root/.venv/bin:$PATH"

install_extra() {  # NAME: install requirements_NAME.txt unless installed
    local stamp
    stamp="$(cksum < "requirements_$1.txt") $wanted"
    if [ "$(cat ".venv/installed-$1" 2>/dev/null)" != "$stamp" ]; then
        .venv/bin/pip install --quiet --disable-pip-version-check -r "requirements_$1.txt" || return
        echo "$stamp" > ".venv/installed-$1"
    fi
}
