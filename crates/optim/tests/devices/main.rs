//! The checks of a device, on each that is there: the CPU always, CUDA and Metal in a build with that feature. The tests
//! within the crate run them on the kernels that are emulated on the CPU.

mod checks;

use candle_core::Device;
use checks::{CHECKS, Target};

fn check(device: Device) {
    for (name, check) in CHECKS {
        let target = Target { is_metal: device.is_metal(), device: device.clone(), run: &|f| f() };
        match check(&target) {
            Ok(line) => println!("{:?}: {name}: {line}", device.location()),
            Err(error) => panic!("{:?}: {name}: {error}", device.location()),
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
        Err(error) => println!("NOT RUN, no CUDA device: {error}"),
    }
}

#[cfg(feature = "metal")]
#[test]
fn metal() {
    match Device::new_metal(0) {
        Ok(device) => check(device),
        Err(error) => println!("NOT RUN, no Metal device: {error}"),
    }
}
