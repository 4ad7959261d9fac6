#!/bin/bash
# Runs gpu_check, built with the feature `cuda`, on a driver whose device is the host (driver.cpp): everything between the
# optimizer and the launches of the CUDA backend, on a machine without a GPU. `.ci/cuda/host/run.sh DIR [OPTIONS of gpu_check]`,
# the folder of gpu_check.sh's environment and build: `target/cuda` below the project.
set -euo pipefail
cd "$(dirname "$0")/../../.."
dir="$(cd "$1" && pwd)"
shift
stubs="$dir/env/stubs" out="$dir/host"
rm -rf "$out" && mkdir -p "$out/lib" "$out/kernels"
# What driver.cpp does not define stays the stub that fails.
for library in cuda:1 cublas:13 curand:10; do
  name="${library%:*}"
  gcc -c -w -O1 -fPIC -Dint='__attribute__((weak)) int' -o "$out/$name.o" "$stubs/$name.c"
done
g++ -std=c++17 -O2 -Wall -Wextra -Werror -shared -fPIC -Wl,-soname,libcuda.so.1 -o "$out/lib/libcuda.so.1" \
  .ci/cuda/host/driver.cpp "$out/cuda.o" "$out/cublas.o" "$out/curand.o" -ldl
# The driver has all functions that it defines; the others' libraries lead to it.
for library in cublas:13 curand:10; do
  ln -s libcuda.so.1 "$out/lib/lib${library%:*}.so.${library#*:}"
done
ptx="$(dirname "$(ls -td "$dir"/release/build/optim-*/out/ptx.rs | head -1)")"
build() { # name, options
  local name="$1"
  shift
  g++ -std=c++17 -O1 -ffp-contract=off -shared -fPIC -Wno-attributes -Wno-unknown-pragmas -I crates/optim/tests/shim -I kernels \
    "$@" -o "$out/kernels/$name.so"
}
{ echo '#include "norm.cu"'; echo '#include "run.h"'; } >"$out/norm.cpp"
build norm "$out/norm.cpp"
for header in kernels/rules/*.h; do
  rule="$(basename "$header" .h)"
  printf '#define RULE %s\n#define RULE_HEADER "rules/%s.h"\n#include "elementwise.cu"\n#include "run.h"\n' "$rule" "$rule" >"$out/$rule.cpp"
  build "$rule" "$out/$rule.cpp"
done
DESCENT_PTX="$ptx" DESCENT_KERNELS="$out/kernels" LD_LIBRARY_PATH="$out/lib:$stubs:$dir/env/py/nvidia/cu13/lib" \
  "$dir/release/examples/gpu_check" --device cuda "$@"
