#!/usr/bin/env bash
# Makes a virtual environment once: scripts/make_env.sh FOLDER CONSTRAINTS REQUIREMENT...
# A half-made one is made again; a finished one, whose constraints have not changed, is left alone.
set -euo pipefail

folder=$1 constraints=$2
shift 2

find_python() {
  for candidate in "${PYTHON:-}" python3.11 python3.12 python3 python; do
    if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  echo "error: Python 3.11 or 3.12 is needed; install one or name it: make PYTHON=/path/to/python3.11" >&2
  exit 2
}

stamp=$(cat "$constraints" pyproject.toml | cksum)
if [ "$(cat "$folder/.ready" 2>/dev/null)" = "$stamp" ]; then
  exit 0
fi
python=$(find_python)
echo "making $folder with $("$python" --version), about 2 minutes and 2 GB"
if ! "$python" -m venv --clear "$folder"; then
  echo "error: $python cannot make virtual environments; on Debian and Ubuntu install python3-venv" >&2
  exit 2
fi
"$folder/bin/pip" install --quiet uv==0.13.9
# A CPU build of torch: where pip is configured with one, from PyTorch's own index elsewhere. The plain Linux
# build of PyPI brings several GB of CUDA packages.
torch=$(grep '^torch==' "$constraints")
if ! "$folder/bin/pip" install --quiet --no-index --no-deps "$torch" 2>/dev/null; then
  case $(uname -s) in
    Linux) "$folder/bin/pip" install --quiet --no-deps --index-url https://download.pytorch.org/whl/cpu "$torch" ;;
    *) "$folder/bin/pip" install --quiet "$torch" ;;
  esac
fi
"$folder/bin/uv" pip install --quiet --python "$folder/bin/python" --constraint "$constraints" "$@"
echo "$stamp" >"$folder/.ready"
