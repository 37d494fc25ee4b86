#!/usr/bin/env bash
# Runs the tests on faked GPUs in their own environment: tests/gpu_path/run.sh [pytest's arguments]
set -euo pipefail
cd "$(dirname "$0")/../.."
environment=$PWD/.venv-gpu-path
export LD_LIBRARY_PATH=$environment/stubs PYTHONPATH=$environment/shims:$PWD
# Ray's sockets need a short path.
base=$(mktemp -d /tmp/gpuXXXX)
trap 'rm -rf "$base"' EXIT
"$environment/bin/python" -m pytest --confcutdir=tests/gpu_path --basetemp="$base/t" tests/gpu_path "$@"
