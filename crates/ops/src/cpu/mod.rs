//! The ops on the CPU.

pub(crate) mod attention;
pub(crate) mod avg_pool2d;
pub(crate) mod batch_norm;
pub(crate) mod channel;
pub(crate) mod conv2d;
pub(crate) mod conv2d_batch_norm;
pub(crate) mod conv2d_bias;
pub(crate) mod cross_entropy;
pub(crate) mod dropout;
pub(crate) mod embedding;
pub(crate) mod gelu;
pub(crate) mod layer_norm;
pub(crate) mod linear;
pub(crate) mod max_pool2d;
pub(crate) mod product;
pub(crate) mod relu;
pub(crate) mod rms_norm;
pub(crate) mod scale_shift;
pub(crate) mod shortcut;
pub(crate) mod tensor;
pub(crate) mod transpose;
pub(crate) mod vector;
