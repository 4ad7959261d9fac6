//! Statistics over seeds, tuning trials, workloads and curves: functions of numbers, and of a generator where chance is drawn.

mod bootstrap;
mod curve;
mod descriptive;
mod estimate;
#[cfg(test)]
mod fixture;
mod profile;
mod significance;

pub use bootstrap::{BestOf, bootstrap_mean, expected_best};
pub use curve::{first_reached, mean_over_curve};
pub use descriptive::{mean, median, standard_deviation};
pub use estimate::Estimate;
pub use profile::{Profile, performance_profiles};
pub use significance::{PairedTest, holm, holm_tests, paired_t, share_interval};
