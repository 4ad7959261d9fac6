//! The sections of the page, each with its figures and tables.

pub mod comparisons;
pub mod course;
pub mod curves;
pub mod differences;
pub mod factors;
pub mod inside;
pub mod profiles;
pub mod reproduce;
pub mod results;
pub mod schedules;
pub mod search_cost;
pub mod settings;
pub mod target;
pub mod trials;
pub mod tuning;
pub mod warmup;
pub mod winner;
