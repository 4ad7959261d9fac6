#!/bin/bash
# Builds gpu_check for CUDA, where there is no GPU and no toolkit, and compresses it to gpu_check.gz in the present folder.
set -euo pipefail
here="$PWD"
cd "$(dirname "$0")/.."
target="${CARGO_TARGET_DIR:-$PWD/target}/cuda"
cargo fetch
. .ci/cuda/env.sh "$target/env"
CARGO_TARGET_DIR="$target" cargo build --release -p gpu_check --features cuda
gzip -9 -c "$target/release/gpu_check" >"$here/gpu_check.gz"
[ benches -ef "$here" ] || cp benches/gpu_check.py "$here/"
ls -l "$here/gpu_check.gz"
