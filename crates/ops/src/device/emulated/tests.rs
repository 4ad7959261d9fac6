//! The checks of devices, on the kernels.

use super::with;
use candle_core::{DType, Device};

#[path = "../../../tests/devices/checks.rs"]
mod checks;

fn target() -> checks::Target<'static> {
    checks::Target { device: Device::Cpu, has_kernels: true, run: &|f| with(f) }
}

fn table(dtype: DType) {
    for (op, outcome) in checks::table(&target(), &[dtype]) {
        outcome.unwrap_or_else(|error| panic!("{op}: {error}"));
    }
}

#[test]
fn f64() {
    table(DType::F64);
}

#[test]
fn f32() {
    table(DType::F32);
}

#[test]
fn bf16() {
    table(DType::BF16);
}

#[test]
fn f16() {
    table(DType::F16);
}

#[test]
fn beside_the_table() {
    for (name, check) in checks::CHECKS {
        check(&target()).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}
