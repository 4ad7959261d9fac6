#!/bin/bash
# Checks tests/own_rule as the crate of its own that it is. Its source is run by `cargo test --workspace`; here are its manifest, its
# features of the dependencies, and that it needs nothing else. A check translates nothing to machine code.
set -euo pipefail
cd "$(dirname "$0")/../tests/own_rule"
# The same versions as the workspace.
cp ../../Cargo.lock .
CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-../../target}" cargo check --release --all-targets
