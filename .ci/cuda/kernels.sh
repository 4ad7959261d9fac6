#!/bin/bash
# Every kernel through nvcc, to PTX and to machine code: prints the registers of the f32 kernels and the most of each file;
# a spill is an error. `.ci/cuda/kernels.sh DIR`, the folder of env.sh.
set -euo pipefail
cd "$(dirname "$0")/../.."
. .ci/cuda/env.sh "$1"
out="$(mktemp -d)"
trap 'rm -rf "$out"' EXIT
check() { # name, options of nvcc
  local name="$1"
  shift
  nvcc -std=c++17 -O3 -arch="sm_$CUDA_COMPUTE_CAP" -Ikernels -Werror all-warnings \
    -ptx -o "$out/$name.ptx" "$@" >"$out/$name.ptx.log" 2>&1 || { cat "$out/$name.ptx.log"; return 1; }
  ptxas -arch="sm_$CUDA_COMPUTE_CAP" -v -warn-spills -o "$out/$name.cubin" "$out/$name.ptx" >"$out/$name.cubin.log" 2>&1 ||
    { cat "$out/$name.cubin.log"; return 1; }
  awk -v name="$name" '
    /Function properties for/ { kernel = $NF }
    /spill stores/ { if ($0 !~ / 0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads/) { print name, kernel, $0; bad = 1 } }
    /Used [0-9]+ registers/ {
      match($0, /Used [0-9]+/); used = substr($0, RSTART + 5, RLENGTH - 5) + 0; count++
      if (used > most) { most = used; widest = kernel }
      if (kernel ~ /^(update|measure|squares|add)_f32_f32$/ || (name ~ /^ops-/ && kernel ~ /_f32$/)) line = line sprintf("  %s %d", kernel, used)
    }
    END { printf "%-26s %2d kernels, at most %3d registers (%s);%s\n", name, count, most, widest, line; exit bad || count == 0 }
  ' "$out/$name.cubin.log"
}
# The optimizer's, whose bits are the CPU's: nothing is contracted or approximated.
exact() { # name, options of nvcc
  check "$@" -fmad=false
  if grep -qE 'fma\.rn\.f|(sqrt|div|rcp|rsqrt)\.(approx|full)' "$out/$1.ptx"; then echo "$1: inexact operations"; return 1; fi
}

# As many at a time as there are processors. What a job prints stays together.
jobs=()
start() { # name, then the call
  local name="$1"
  shift
  while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do sleep 0.05; done
  { "$@" >"$out/$name.said" 2>&1 || echo "$name" >>"$out/failed"; } &
  jobs+=("$name")
}
start norm exact norm kernels/norm.cu
for header in kernels/rules/*.h; do
  rule="$(basename "$header" .h)"
  start "$rule" exact "$rule" "-DRULE=$rule" "-DRULE_HEADER=\"rules/$rule.h\"" kernels/elementwise.cu
done
for source in kernels/ops/*.cu; do
  name="ops-$(basename "$source" .cu)"
  start "$name" check "$name" "$source"
done
wait
for name in "${jobs[@]}"; do cat "$out/$name.said"; done
if [ -s "$out/failed" ]; then echo "failed: $(tr '\n' ' ' <"$out/failed")"; exit 1; fi
