#!/usr/bin/env bash
# Runs the tests on faked GPUs in their own environment: tests/gpu_path/run.sh PYTEST_ARGUMENT...
set -euo pipefail
cd "$(dirname "$0")/../.."
environment=$PWD/.venv-gpu-path
export LD_LIBRARY_PATH=$environment/stubs PYTHONPATH=$environment/shims:$PWD
# All that the tests leave, Ray's folders with their short names included, goes with this one.
TMPDIR=$(mktemp -d /tmp/gpXXXX)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
"$environment/bin/python" -m pytest --confcutdir=tests/gpu_path --basetemp="$TMPDIR/t" "$@"
