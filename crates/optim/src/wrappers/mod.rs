//! What can be put around the direction of any rule.

pub(crate) mod sam;
pub(crate) mod with_options;
