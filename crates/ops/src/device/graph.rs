//! How what the kernels have made gets into candle's graph.

use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, InplaceOp1, Layout, Result, Shape, Storage, Tensor,
};
use std::sync::{Mutex, PoisonError};

/// `y`, made of `arguments` (one to three), with its gradient: `backward(arguments, y, dy)` gives the gradient by each argument
/// that has one. Its tensors are contiguous and outside the graph.
pub(super) fn differentiable<F>(name: &'static str, arguments: &[&Tensor], y: Tensor, backward: F) -> Result<Tensor>
where
    F: Fn(&[Tensor], &Tensor, &Tensor) -> Result<Vec<Option<Tensor>>> + Send + Sync + 'static,
{
    if !arguments.iter().any(|argument| argument.track_op()) {
        return Ok(y);
    }
    // Of a tensor's own, since it is taken out of it.
    let y = if y.layout().start_offset() == 0 { y.contiguous()? } else { y.copy()? };
    let shape = y.shape().clone();
    let taken = Take(Mutex::new(None));
    y.inplace_op1(&taken)?;
    let made = Made { name, y: taken.0, shape, backward };
    match arguments {
        [x] => x.apply_op1(made),
        [x, y] => x.apply_op2(y, made),
        [x, y, z] => x.apply_op3(y, z, made),
        _ => unreachable!("an operation of candle has one to three arguments"),
    }
}

/// Takes the storage out of a tensor.
struct Take(Mutex<Option<Storage>>);

impl Take {
    fn put(&self, storage: Storage) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(storage);
    }
}

impl InplaceOp1 for Take {
    fn name(&self) -> &'static str {
        "take"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _: &Layout) -> Result<()> {
        self.put(Storage::Cpu(std::mem::replace(storage, CpuStorage::U8(Vec::new()))));
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, storage: &mut CudaStorage, _: &Layout) -> Result<()> {
        self.put(Storage::Cuda(super::cuda::take(storage)?));
        Ok(())
    }
}

/// An operation whose output is there before it runs.
struct Made<F> {
    name: &'static str,
    y: Mutex<Option<Storage>>,
    shape: Shape,
    backward: F,
}

impl<F: Fn(&[Tensor], &Tensor, &Tensor) -> Result<Vec<Option<Tensor>>>> Made<F> {
    fn storage(&self) -> Option<Storage> {
        self.y.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn cpu(&self) -> Result<(CpuStorage, Shape)> {
        match self.storage() {
            Some(Storage::Cpu(storage)) => Ok((storage, self.shape.clone())),
            _ => crate::host::fail!("{}: the output is not on the CPU", self.name),
        }
    }

    fn cuda(&self) -> Result<(CudaStorage, Shape)> {
        match self.storage() {
            Some(Storage::Cuda(storage)) => Ok((storage, self.shape.clone())),
            _ => crate::host::fail!("{}: the output is not on a GPU", self.name),
        }
    }

    fn gradients<const N: usize>(
        &self,
        arguments: [&Tensor; N],
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<[Option<Tensor>; N]> {
        let detached = |tensor: &Tensor| tensor.detach().contiguous();
        let inputs = arguments.iter().map(|argument| detached(argument)).collect::<Result<Vec<_>>>()?;
        let gradients = (self.backward)(&inputs, &detached(y)?, &detached(dy)?)?;
        let mut gradients = gradients.into_iter();
        Ok(arguments.map(|argument| gradients.next().flatten().filter(|_| argument.track_op())))
    }
}

impl<F: Fn(&[Tensor], &Tensor, &Tensor) -> Result<Vec<Option<Tensor>>>> CustomOp1 for Made<F> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.cpu()
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.cuda()
    }

    fn bwd(&self, a: &Tensor, y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let [a] = self.gradients([a], y, dy)?;
        Ok(a)
    }
}

impl<F: Fn(&[Tensor], &Tensor, &Tensor) -> Result<Vec<Option<Tensor>>>> CustomOp2 for Made<F> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.cpu()
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.cuda()
    }

    fn bwd(&self, a: &Tensor, b: &Tensor, y: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [a, b] = self.gradients([a, b], y, dy)?;
        Ok((a, b))
    }
}

impl<F: Fn(&[Tensor], &Tensor, &Tensor) -> Result<Vec<Option<Tensor>>>> CustomOp3 for Made<F> {
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
        self.cpu()
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.cuda()
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [a, b, c] = self.gradients([a, b, c], y, dy)?;
        Ok((a, b, c))
    }
}
