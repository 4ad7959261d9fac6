//! Plain data and checks that all sides of an op share.

pub(crate) mod batch_norm;
pub(crate) mod channels;
pub(crate) mod conv2d;
pub(crate) mod dropout;
pub(crate) mod error;
pub(crate) mod gradients;
pub(crate) mod heads;
pub(crate) mod pool2d;
pub(crate) mod rows;
pub(crate) mod windows;
