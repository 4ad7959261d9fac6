//! What a run is told: options, TOML, names. Plain data.

pub mod device;
pub mod names;
pub mod options;
pub mod precision;
