//! How much memory the process takes.

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
