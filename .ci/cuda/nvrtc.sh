#!/bin/bash
# Every kernel through NVRTC, by the code that compiles a rule of another crate on a GPU: `.ci/cuda/nvrtc.sh DIR`. NVRTC comes from a
# Python wheel, into DIR (220 MB). It needs no GPU.
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p "$1" && dir="$(cd "$1" && pwd)"
if [ ! -e "$dir/done-nvrtc" ]; then
  python3 -m venv "$dir/venv-nvrtc"
  "$dir/venv-nvrtc/bin/pip" install -q --no-cache-dir --no-deps --no-compile --only-binary=:all: --target "$dir/nvrtc" nvidia-cuda-nvrtc==13.0.88
  touch "$dir/done-nvrtc"
fi
DESCENT_NVRTC="$dir/nvrtc/nvidia/cu13/lib" cargo test --release --workspace --lib nvrtc
