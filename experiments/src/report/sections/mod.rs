//! The parts of the page.

pub mod curves;
pub mod results;
pub mod schedules;
pub mod target;
pub mod trials;
pub mod tuning;
pub mod warmup;
