//! What sets the allocator and candle for speed.

/// The system's allocator gives the large blocks of activations back at once, and to get them anew costs a page fault per 4 KiB.
/// the settings of `SPEED` says how this one is set.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What sets the allocator and candle for speed: variables that they read when they start, so that they must be there before the
/// process is. `.cargo/config.toml` has both, with reasons, for what cargo builds and runs here.
const SPEED: [(&str, &str); 2] = [
    ("_RJEM_MALLOC_CONF", "thp:always,oversize_threshold:0,dirty_decay_ms:-1,muzzy_decay_ms:-1"),
    ("CANDLE_BARRIER_POOL_SPIN_LIMIT", "50"),
];

/// Begins this program anew with the settings of `SPEED` where it lacks any of that, as the same process.
#[cfg(unix)]
pub fn set_for_speed() {
    use std::os::unix::process::CommandExt;

    let lacking: Vec<_> = SPEED.into_iter().filter(|(name, _)| std::env::var_os(name).is_none()).collect();
    let (Ok(program), false) = (std::env::current_exe(), lacking.is_empty()) else { return };
    let mut args = std::env::args_os();
    let mut command = std::process::Command::new(program);
    if let Some(name) = args.next() {
        command.arg0(name);
    }
    // It returns only where it fails, as when the file was replaced; then all is slower, and the same.
    let _ = command.args(args).envs(lacking).exec();
}

/// Elsewhere no process can begin anew.
#[cfg(not(unix))]
pub fn set_for_speed() {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// `cargo test` and `cargo bench` have the settings from there.
    #[test]
    fn what_cargo_runs_is_set_for_speed_too() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cargo/config.toml");
        let config: toml::Table = std::fs::read_to_string(path).unwrap().parse().unwrap();
        for (name, (own, value)) in
            ["JEMALLOC_SYS_WITH_MALLOC_CONF", "CANDLE_BARRIER_POOL_SPIN_LIMIT"].into_iter().zip(SPEED)
        {
            assert_eq!(config["env"][name].as_str(), Some(value), "{own}");
        }
    }
}
