//! How long calls on a device take.

use candle_core::{Device, Result};
use std::time::Instant;

/// Seconds of a call, one of several equal ones.
fn time(device: &Device, times: usize, call: &mut dyn FnMut() -> Result<()>) -> Result<f64> {
    device.synchronize()?;
    let start = Instant::now();
    (0..times).try_for_each(|_| call())?;
    device.synchronize()?;
    Ok(start.elapsed().as_secs_f64() / times as f64)
}

pub type Call<'a> = Box<dyn FnMut() -> Result<()> + 'a>;

/// The median seconds of each call, which take 11 turns, each so long that the wait at its end does not count: about 50 ms.
pub fn medians(device: &Device, mut calls: Vec<Call<'_>>) -> Result<Vec<f64>> {
    let mut counts = Vec::new();
    for call in &mut calls {
        time(device, 3, call)?;
        counts.push((0.05 / time(device, 1, call)?).clamp(1.0, 200.0) as usize);
    }
    let mut all = vec![Vec::new(); calls.len()];
    for _ in 0..11 {
        for ((call, count), times) in calls.iter_mut().zip(&counts).zip(&mut all) {
            times.push(time(device, *count, call)?);
        }
    }
    for times in &mut all {
        times.sort_by(f64::total_cmp);
    }
    Ok(all.iter().map(|times| times[5]).collect())
}
