//! What makes tokens in candle's graph, and in the backward pass gradients.

use super::slot::{Slot, take_for_store};
use crate::shape::{error::fail, gradients::Backward};
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, DType, Layout, Result, Shape, Tensor,
    backend::{BackendDevice, BackendStorage},
};

/// Applies what makes a token of one to three arguments.
pub(super) fn apply<T: CustomOp1 + CustomOp2 + CustomOp3 + Send + Sync + 'static>(
    arguments: &[Tensor],
    op: T,
) -> Result<Tensor> {
    match arguments {
        [a] => a.apply_op1(op),
        [a, b] => a.apply_op2(b, op),
        [a, b, c] => a.apply_op3(b, c, op),
        _ => unreachable!("there are one to three arguments"),
    }
}

fn cpu_token() -> Result<(CpuStorage, Shape)> {
    Ok((CpuStorage::F32(vec![0.0]), Shape::from(())))
}

fn cuda_token(argument: &CudaStorage) -> Result<(CudaStorage, Shape)> {
    let shape = Shape::from(());
    Ok((argument.device().zeros_impl(&shape, DType::F32)?, shape))
}

/// Implements candle's operations of one to three arguments for what makes a token.
macro_rules! makes_token {
    ([$($bounds:tt)*] $type:ty) => {
        impl<$($bounds)*> CustomOp1 for $type {
            fn name(&self) -> &'static str {
                self.name
            }
            fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
                cpu_token()
            }
            fn cuda_fwd(&self, a: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
                cuda_token(a)
            }
            fn bwd(&self, a: &Tensor, _: &Tensor, _: &Tensor) -> Result<Option<Tensor>> {
                let [a] = self.gradients([a])?;
                Ok(a)
            }
        }

        impl<$($bounds)*> CustomOp2 for $type {
            fn name(&self) -> &'static str {
                self.name
            }
            fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
                cpu_token()
            }
            fn cuda_fwd(&self, a: &CudaStorage, _: &Layout, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
                cuda_token(a)
            }
            fn bwd(&self, a: &Tensor, b: &Tensor, _: &Tensor, _: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
                let [a, b] = self.gradients([a, b])?;
                Ok((a, b))
            }
        }

        impl<$($bounds)*> CustomOp3 for $type {
            fn name(&self) -> &'static str {
                self.name
            }
            fn cpu_fwd(
                &self,
                _: &CpuStorage,
                _: &Layout,
                _: &CpuStorage,
                _: &Layout,
                _: &CpuStorage,
                _: &Layout,
            ) -> Result<(CpuStorage, Shape)> {
                cpu_token()
            }
            fn cuda_fwd(
                &self,
                a: &CudaStorage,
                _: &Layout,
                _: &CudaStorage,
                _: &Layout,
                _: &CudaStorage,
                _: &Layout,
            ) -> Result<(CudaStorage, Shape)> {
                cuda_token(a)
            }
            fn bwd(
                &self,
                a: &Tensor,
                b: &Tensor,
                c: &Tensor,
                _: &Tensor,
                _: &Tensor,
            ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
                let [a, b, c] = self.gradients([a, b, c])?;
                Ok((a, b, c))
            }
        }
    };
}

/// Makes the token of an operation's output, and in the backward pass the gradients by its inputs.
pub(super) struct Operation<F> {
    pub(super) name: &'static str,
    /// Where the gradient by the output waits.
    pub(super) slot: Slot,
    /// For each argument which input it is; none where it is a token.
    pub(super) by_candle: Vec<Option<usize>>,
    /// The inputs whose gradient candle does not add up.
    pub(super) by_slot: Vec<(usize, Slot)>,
    pub(super) backward: F,
}

impl<F: Backward> Operation<F> {
    fn gradients<const N: usize>(&self, arguments: [&Tensor; N]) -> Result<[Option<Tensor>; N]> {
        let Some(dy) = self.slot.take() else { fail!("{}: the output has no gradient", self.name) };
        let mut gradients = (self.backward)(&dy.contiguous()?)?;
        // What several operations give is added up in place of them.
        drop(dy);
        let mut take = |index: usize| gradients.get_mut(index).and_then(Option::take);
        for (index, slot) in &self.by_slot {
            if let Some(gradient) = take(*index) {
                slot.put(gradient)?;
            }
        }
        let mut by_candle = [const { None }; N];
        for ((gradient, argument), index) in by_candle.iter_mut().zip(arguments).zip(&self.by_candle) {
            *gradient = match index {
                Some(index) => take_for_store(take(*index), argument)?,
                None => Some(argument.detach()),
            };
        }
        Ok(by_candle)
    }
}

makes_token!([F: Backward] Operation<F>);

/// Makes one token of several, all of which come before it.
pub(super) struct Join {
    pub(super) name: &'static str,
}

impl Join {
    fn gradients<const N: usize>(&self, arguments: [&Tensor; N]) -> Result<[Option<Tensor>; N]> {
        Ok(arguments.map(|argument| Some(argument.detach())))
    }
}

makes_token!([] Join);

/// Makes a token of a tensor that has none, and gives its gradient to candle.
pub(super) struct Leaf(pub(super) Slot);

impl CustomOp1 for Leaf {
    fn name(&self) -> &'static str {
        "leaf"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        cpu_token()
    }

    fn cuda_fwd(&self, argument: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        cuda_token(argument)
    }

    fn bwd(&self, argument: &Tensor, _: &Tensor, _: &Tensor) -> Result<Option<Tensor>> {
        take_for_store(self.0.take(), argument)
    }
}
