#!/bin/bash
# Runs gpu_check, built with the feature `cuda`, on a driver whose device is the host (driver.cpp): everything between an
# optimizer or an op and the launches of its CUDA backend, on a machine without a GPU. `.ci/cuda/host/run.sh DIR [OPTIONS of gpu_check]`,
# the folder of gpu_check.sh's environment and build: `target/cuda` below the project. CXXFLAGS are the kernels':
# with `CXXFLAGS=-fsanitize=address`, reading outside of memory ends the program.
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
# The folders with the PTX that the program holds.
ptx="$(dirname "$(ls -td "$dir"/release/build/optim-*/out/ptx.rs | head -1)"):$(dirname "$(ls -td "$dir"/release/build/ops-*/out/modules.rs | head -1)")"
build() { # name, source, options
  local name="$1" source="$2"
  shift 2
  { printf "$source"; echo '#include "run.h"'; } >"$out/$name.cpp"
  g++ -std=c++17 -O1 -ffp-contract=off -shared -fPIC -Wno-attributes -Wno-unknown-pragmas ${CXXFLAGS:-} "$@" -I crates/optim/tests/shim \
    -I kernels -o "$out/kernels/$name.so" "$out/$name.cpp"
}
build norm '#include "norm.cu"\n'
for header in kernels/rules/*.h; do
  rule="$(basename "$header" .h)"
  build "$rule" "#define RULE $rule\n#define RULE_HEADER \"rules/$rule.h\"\n#include \"elementwise.cu\"\n"
done
for source in kernels/ops/*.cu; do
  name="$(basename "$source" .cu)"
  build "$name" "#include \"ops/$name.cu\"\n" -I crates/ops/tests/shim
done
preload=
case " ${CXXFLAGS:-} " in *" -fsanitize=address "*) preload="$(g++ -print-file-name=libasan.so)" ;; esac
ASAN_OPTIONS=detect_leaks=0 LD_PRELOAD="$preload" DESCENT_PTX="$ptx" DESCENT_KERNELS="$out/kernels" LD_LIBRARY_PATH="$out/lib:$stubs:$dir/env/py/nvidia/cu13/lib" \
  "$dir/release/gpu_check" --device cuda "$@"
