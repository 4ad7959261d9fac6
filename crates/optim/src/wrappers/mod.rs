//! What can be put around the direction of any rule.

mod sam;
mod trust_ratio;

pub use sam::{Sam, Sharpness};
pub use trust_ratio::TrustRatio;
