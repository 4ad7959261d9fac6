//! Optimizers for candle.

mod error;
pub mod schedule;

pub use error::{Error, Result};
pub use schedule::Schedule;
