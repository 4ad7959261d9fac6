//! Every op against naive loops, finite differences and PyTorch, and what all ops have in common.

mod by_hand;
mod cases;
mod errors;
mod naive;
mod properties;
mod torch;
