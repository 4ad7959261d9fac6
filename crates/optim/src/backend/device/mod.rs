//! What the GPUs share: the state of parameters there, the tables of a launch, and which kernels a step takes.

pub(crate) mod dispatch;
pub(crate) mod launch;
pub(crate) mod plan;
pub(crate) mod state;
pub(crate) mod tables;
