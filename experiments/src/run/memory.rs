//! How much memory the process takes, may take, and will take at least.

use super::split::rows_and_columns;
use crate::problem::models::spec::Least;
use candle_core::DType;
use optim::{AnyRule, Rule};
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

/// The memory, in bytes, that a training step takes in any case: parameters with their gradients, and what the layers keep of
/// `batch_size` examples, as numbers of type `dtype`, for the gradients. Most steps take two or three times as much.
pub fn least(model: &Least, batch_size: usize, dtype: DType) -> u64 {
    let parameters = model.parameters.saturating_mul(2 * DType::F32.size_in_bytes() as u64);
    let kept = model.kept.saturating_mul(dtype.size_in_bytes() as u64).saturating_mul(batch_size as u64);
    parameters.saturating_add(kept)
}

/// The memory, in bytes, of what an optimizer by `rule` keeps of a model with these parameters, once it has made a step: the state of
/// each element, what is kept of matrices, and `averages` copies of all.
pub fn of_optimizer(rule: &AnyRule, tensors: &[(String, Vec<usize>)], averages: u64) -> u64 {
    let of = |(name, dims): &(String, Vec<usize>)| {
        let count = |dims: &[usize]| dims.iter().map(|side| *side as u64).product::<u64>();
        let (slots, further) = match rows_and_columns(rule, name, dims).zip(rule.matrix()) {
            Some(((rows, columns), matrix)) => {
                let state = matrix.state(rows, columns);
                (matrix.kernel().slots.len(), state.iter().map(|(_, dims)| count(dims)).sum())
            }
            None => (rule.kernel().slots.len(), 0),
        };
        count(dims) * (slots as u64 + averages) + further
    };
    tensors.iter().map(of).sum::<u64>() * DType::F32.size_in_bytes() as u64
}

/// The memory of the machine, or of the control group that the process is in, in bytes; none where the system does not tell it.
pub fn limit() -> Option<u64> {
    let system =
        System::new_with_specifics(RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram()));
    let total = system.cgroup_limits().map_or(system.total_memory(), |limits| limits.total_memory);
    (total > 0).then_some(total)
}

/// The most memory that the process held at any time until now (its resident set), in bytes; none where the system does not
/// tell it.
pub fn peak() -> Option<u64> {
    peak_kib().map(|kib| kib * 1024)
}

/// Not by `getrusage`, whose figure a program takes over from the one that started it.
#[cfg(target_os = "linux")]
fn peak_kib() -> Option<u64> {
    high_water_mark(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// Of `/proc/<pid>/status`.
#[cfg(target_os = "linux")]
fn high_water_mark(status: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(all(unix, not(target_os = "linux")))]
fn peak_kib() -> Option<u64> {
    use nix::sys::resource::{UsageWho, getrusage};

    let peak = u64::try_from(getrusage(UsageWho::RUSAGE_SELF).ok()?.max_rss()).ok()?;
    Some(if cfg!(target_vendor = "apple") { peak / 1024 } else { peak })
}

#[cfg(not(unix))]
fn peak_kib() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn the_peak_stays_when_the_memory_is_gone() {
        let before = peak().unwrap();
        // Pages that are written; all bytes are taken anew from the system.
        let size = before as usize + (64 << 20);
        let block = vec![1u8; size];
        let with = peak().unwrap();
        assert!(with > size as u64, "{with} is not above {size}");
        assert!(with < 8 * size as u64, "{with} for a block of {size}");
        drop(std::hint::black_box(block));
        assert!(peak().unwrap() >= with);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_peak_is_not_what_is_held_now() {
        let status = "VmPeak:\t  900000 kB\nVmLck:\t       0 kB\nVmHWM:\t  123456 kB\nVmRSS:\t    4096 kB\n";
        assert_eq!(high_water_mark(status), Some(123_456));
        assert_eq!(high_water_mark("VmRSS:\t    4096 kB\n"), None);
    }
}
