#!/usr/bin/env bash
# Makes a virtual environment of a lock, once: scripts/make_env.sh FOLDER LOCK [PROJECT]
# Everything is installed as the lock says, hashes compared; PROJECT (-e .) comes on top without looking for more.
# A half-made one is made again; a finished one, whose lock has not changed, is left alone.
set -euo pipefail

folder=$1 lock=$2
shift 2

find_python() {
  for candidate in "${PYTHON:-}" python3.11 python3 python; do
    if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  echo "error: Python 3.11 is needed; install it or name it: make PYTHON=/path/to/python3.11" >&2
  exit 2
}

stamp=$(cat "$lock" pyproject.toml | cksum)
if [ "$(cat "$folder/.ready" 2>/dev/null)" = "$stamp" ]; then
  exit 0
fi
python=$(find_python)
echo "making $folder with $("$python" --version), about 2 minutes and $(grep -q '^nvidia-' "$lock" && echo 9 || echo 3) GB"
if ! "$python" -m venv --clear "$folder"; then
  echo "error: $python cannot make virtual environments; on Debian and Ubuntu install python3-venv" >&2
  exit 2
fi
"$folder/bin/pip" install --quiet uv==0.13.9
# A CPU build of torch: where pip is configured with one, from PyTorch's own index elsewhere. The plain Linux
# build of PyPI brings several GB of CUDA packages, which only the lock for GPUs holds.
torch=$(grep -oE '^torch==[^ ]+' "$lock")
if ! grep -q '^nvidia-' "$lock" && ! "$folder/bin/pip" install --quiet --no-index --no-deps "$torch" 2>/dev/null; then
  case $(uname -s) in
    Linux) "$folder/bin/pip" install --quiet --no-deps --index-url https://download.pytorch.org/whl/cpu "$torch" ;;
    *) "$folder/bin/pip" install --quiet "$torch" ;;
  esac
fi
# Compiled here, once: where Python is told to write no bytecode, every process would compile some thousand modules anew.
"$folder/bin/uv" pip install --quiet --compile-bytecode --python "$folder/bin/python" --no-deps --requirement "$lock"
if [ $# -gt 0 ]; then
  "$folder/bin/uv" pip install --quiet --python "$folder/bin/python" --no-deps "$@"
fi
echo "$stamp" >"$folder/.ready"
