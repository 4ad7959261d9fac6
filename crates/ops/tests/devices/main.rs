//! The checks of a device, on each that is there: the CPU always, CUDA in a build with that feature. The tests within the crate
//! run them on the kernels that are emulated on the CPU.

mod checks;

use candle_core::Device;
use checks::{CHECKS, Target, table};

fn check(device: Device) {
    let location = device.location();
    let target = Target::new(device);
    let checks = CHECKS.iter().map(|(name, check)| ((*name).to_owned(), check(&target)));
    for (name, outcome) in table(&target, target.dtypes()).into_iter().chain(checks) {
        match outcome {
            Ok(line) => println!("{location:?}: {name}: {line}"),
            Err(error) => panic!("{location:?}: {name}: {error}"),
        }
    }
}

#[test]
fn cpu() {
    check(Device::Cpu);
}

#[cfg(feature = "cuda")]
#[test]
fn cuda() {
    match Device::new_cuda(0) {
        Ok(device) => check(device),
        Err(error) => println!("NOT RUN, no CUDA device: {}", error.to_string().lines().next().unwrap_or_default()),
    }
}
