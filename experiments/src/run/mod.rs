//! From options to records: plans, tunes, trains.
//!
//! [`experiment`] has the phases. It goes by options that [`resolve`] checked, for groups that [`plan`] made of them, and has
//! [`jobs`] run their trials, each of which is a [`train::Training`]. A [`watcher`] is told of them, and writes the pages.

pub mod checkpoint;
pub mod console;
pub mod environment;
pub mod evaluate;
pub mod experiment;
pub mod halving;
pub mod jobs;
pub mod list;
pub mod live;
pub mod memory;
pub mod optimizer;
pub mod plan;
pub mod probe;
pub mod resolve;
pub mod search;
pub mod space;
pub mod split;
pub mod summarise;
pub mod train;
pub mod trial;
pub mod tune;
pub mod watcher;
pub mod workload;
pub mod write_queue;
