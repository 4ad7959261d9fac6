//! What a run is told: options, TOML, names. Plain data, which knows no other room.

pub mod augmentation;
pub mod choice;
pub mod device;
pub mod group;
pub mod names;
pub mod one_or_more;
pub mod operations;
pub mod options;
pub mod precision;
pub mod study;
pub mod targets;
