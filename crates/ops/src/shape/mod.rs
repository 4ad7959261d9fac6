//! Plain data and checks that all sides of an op share.

pub(crate) mod conv2d;
pub(crate) mod pool2d;
pub(crate) mod windows;
