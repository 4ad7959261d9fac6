//! From options to records: plans, tunes, trains.

pub mod checkpoint;
pub mod console;
pub mod experiment;
pub mod list;
pub mod memory;
pub mod optimizer;
pub mod probe;
pub mod train;
pub mod tune;
pub mod write_queue;
