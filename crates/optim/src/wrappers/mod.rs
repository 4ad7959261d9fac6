//! What can be put around the direction of any rule.

pub(crate) mod sam;
