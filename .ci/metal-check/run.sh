#!/bin/bash
# Type-checks the feature `metal` on Linux: see Cargo.toml beside this file.
set -euo pipefail
cd "$(dirname "$0")"
version=0.3.2
source_of() { ls -d "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/"objc2-metal-$version" 2>/dev/null | head -1; }
if [ -z "$(source_of)" ]; then
  scratch="$(mktemp -d)"
  (cd "$scratch" && cargo init -q --lib --name fetch && cargo add -q "objc2-metal@=$version" && cargo fetch -q)
  rm -rf "$scratch"
fi
patched=../../target/objc2-metal
rm -rf "$patched" && mkdir -p ../../target && cp -r "$(source_of)" "$patched"
sed -i -E 's/^#\[(link\(name = "Metal", kind = "framework"\))\]/#[cfg_attr(target_vendor = "apple", \1)]/' \
  "$patched/src/generated/mod.rs"
# The same versions as the workspace, so that what is built there serves here.
cp ../../Cargo.lock .
CARGO_TARGET_DIR=../../target cargo check --release
