//! What the sides of an op return beside its value.

use candle_core::{Result, Tensor};

/// The gradients by the inputs of an op, in order; of inputs outside the graph there may be none.
pub(crate) type InputGradients = Result<Vec<Option<Tensor>>>;

/// Makes the gradients by the inputs of the contiguous gradient by the output.
pub(crate) trait Backward: Fn(&Tensor) -> InputGradients + Send + Sync + 'static {}

impl<F: Fn(&Tensor) -> InputGradients + Send + Sync + 'static> Backward for F {}

/// Makes the gradients by the inputs of the output and the contiguous gradient by it.
pub(crate) trait BackwardByOutput: Fn(&Tensor, &Tensor) -> InputGradients + Send + Sync + 'static {}

impl<F: Fn(&Tensor, &Tensor) -> InputGradients + Send + Sync + 'static> BackwardByOutput for F {}

/// Makes the gradients by the inputs of the contiguous gradient by the output, and of the output if there is one.
pub(crate) trait BackwardByOptionalOutput:
    Fn(Option<&Tensor>, &Tensor) -> InputGradients + Send + Sync + 'static
{
}

impl<F: Fn(Option<&Tensor>, &Tensor) -> InputGradients + Send + Sync + 'static> BackwardByOptionalOutput for F {}
