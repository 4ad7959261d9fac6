//! Schedules: hyperparameters that change from update to update.

mod pieces;

pub use pieces::*;
