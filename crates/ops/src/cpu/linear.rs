//! A matrix product with a transposed matrix, as in a layer, and what often stands before and after it.

use crate::{
    cpu::gelu,
    cpu::layer_norm,
    cpu::product::{Matrix, Product},
    cpu::tensor::{Reading, copy, fail, gradient, is_fused, tensor, vec_written, written},
    device,
    graph::{differentiable, plain},
};
use candle_core::{
    CpuStorage, CudaStorage, CustomOp2, Layout, MetalStorage, Result, Shape, Tensor, backend::BackendStorage,
};
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// `x weight^T`: x (n, inputs) by weight (outputs, inputs) to (n, outputs), on any device.
///
/// The differences from `x.matmul(&weight.t()?)`: the weight's gradient `grad^T x` lies in memory as the weight does, while
/// candle makes its transpose and walks across it to add it up; and candle 0.11 on Linux reads /proc/cpuinfo for every matrix product
/// on the CPU, unless `RAYON_NUM_THREADS` is set, which takes as long as a small one.
///
/// # Errors
/// When the shapes or dtypes do not fit each other.
pub fn linear(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    fused_linear(x, weight, Before::Nothing, None)
}

/// What happens to the rows before the product of [`fused_linear`].
#[derive(Clone, Copy, Debug)]
pub enum Before<'a> {
    /// They are taken as they are.
    Nothing,
    /// [`layer_norm`](crate::layer_norm()).
    LayerNorm {
        /// Its weight, (inputs).
        weight: &'a Tensor,
        /// Its eps.
        eps: f64,
    },
    /// [`gelu`](crate::gelu()).
    Gelu,
}

/// `residual + before(x) weight^T`: x (n, inputs) by weight (outputs, inputs) to (n, outputs), as the residual is; the sublayers of
/// a transformer are made of these. On any device.
///
/// In f32 on the CPU it is one pass: `before(x)` is made again for the gradient, not kept, and neither it nor the
/// product has a gradient of its own in memory. A layer norm with a residual is two operations. Elsewhere it is made of the single
/// operations.
///
/// # Errors
/// When the shapes or dtypes do not fit each other.
pub fn fused_linear(x: &Tensor, weight: &Tensor, before: Before, residual: Option<&Tensor>) -> Result<Tensor> {
    check(x, weight, before, residual)?;
    match before {
        _ if device::runs(x) || !is_fused(x) || x.elem_count() == 0 || weight.elem_count() == 0 => {
            composed(x, weight, before, residual)
        }
        Before::LayerNorm { weight: norm, eps } => {
            let op = Fused { before: Pass::LayerNorm { eps: eps as f32 } };
            let y = op.apply(x, weight, Some(norm))?;
            residual.map_or(Ok(y.clone()), |residual| residual + &y)
        }
        Before::Nothing | Before::Gelu => {
            let op = Fused { before: if matches!(before, Before::Gelu) { Pass::Gelu } else { Pass::Nothing } };
            op.apply(x, weight, residual)
        }
    }
}

fn check(x: &Tensor, weight: &Tensor, before: Before, residual: Option<&Tensor>) -> Result<()> {
    let fits = matches!((x.dims(), weight.dims()), (&[_, inputs], &[_, width]) if inputs == width);
    if !fits || x.dtype() != weight.dtype() {
        let [x, weight] = [x, weight].map(|t| format!("{:?} of {:?}", t.shape(), t.dtype()));
        fail!("linear: x {x} and weight {weight} must be (n, inputs) and (outputs, inputs) of one dtype");
    }
    if let Before::LayerNorm { weight, .. } = before {
        layer_norm::check_rows("linear", x, weight)?;
    }
    if let Some(residual) = residual {
        let out = [x.dims()[0], weight.dims()[0]];
        if residual.dims() != out || residual.dtype() != x.dtype() {
            let (found, dtype) = (residual.shape(), residual.dtype());
            fail!("linear: residual {found:?} of {dtype:?} must be {out:?} of {:?}, as what it is added to", x.dtype());
        }
    }
    Ok(())
}

fn composed(x: &Tensor, weight: &Tensor, before: Before, residual: Option<&Tensor>) -> Result<Tensor> {
    let x = match before {
        Before::Nothing => x.clone(),
        Before::LayerNorm { weight, eps } => layer_norm::layer_norm(x, weight, eps)?,
        Before::Gelu => gelu::gelu(x)?,
    };
    let y = match device::runs(&x) && device::runs(weight) {
        true => device::linear(&x, weight)?,
        false => x.contiguous()?.apply_op2(&weight.contiguous()?, Linear)?,
    };
    residual.map_or(Ok(y.clone()), |residual| residual + &y)
}

/// The product alone, by candle.
struct Linear;

impl Linear {
    fn forward<S: BackendStorage>(&self, x: &S, lx: &Layout, weight: &S, lw: &Layout) -> Result<(S, Shape)> {
        let ((n, inputs), (outputs, _)) = (lx.shape().dims2()?, lw.shape().dims2()?);
        let y = x.matmul(weight, (1, n, outputs, inputs), lx, &lw.transpose(0, 1)?)?;
        Ok((y, (n, outputs).into()))
    }
}

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        self.forward(s1, l1, s2, l2)
    }

    fn cuda_fwd(&self, s1: &CudaStorage, l1: &Layout, s2: &CudaStorage, l2: &Layout) -> Result<(CudaStorage, Shape)> {
        self.forward(s1, l1, s2, l2)
    }

    fn metal_fwd(
        &self,
        s1: &MetalStorage,
        l1: &Layout,
        s2: &MetalStorage,
        l2: &Layout,
    ) -> Result<(MetalStorage, Shape)> {
        self.forward(s1, l1, s2, l2)
    }

    fn bwd(&self, x: &Tensor, weight: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad_x = x.track_op().then(|| grad.matmul(&weight.detach()));
        let grad_weight = weight.track_op().then(|| grad.t()?.matmul(&x.detach()));
        Ok((grad_x.transpose()?, grad_weight.transpose()?))
    }
}

/// Rows of `x` that a task takes, at least: enough that it pays to bring the weight into the order that the product wants.
const ROWS: usize = 128;
/// Rows of the weight's gradient that a task takes, at least.
const OUTPUTS: usize = 64;
/// Tasks of a product, where they take more than the least: each brings all of a factor into order, so that many cost time and few
/// leave threads without work. The bits depend on it, and on no number of threads.
const TASKS: usize = 16;

fn rows_of_task(n: usize) -> usize {
    ROWS.max(n.div_ceil(TASKS))
}

/// [`Before`], without its tensors.
#[derive(Clone, Copy)]
enum Pass {
    Nothing,
    LayerNorm { eps: f32 },
    Gelu,
}

/// In f32 on the CPU.
struct Fused {
    before: Pass,
}

/// The gradients by the arguments.
struct Gradients {
    x: Option<Vec<f32>>,
    weight: Vec<f32>,
    norm: Vec<f32>,
}

impl Fused {
    fn forward(&self, n: usize, x: &[f32], weight: &[f32], third: &[f32]) -> Vec<f32> {
        let (inputs, outputs) = (x.len() / n, weight.len() / (x.len() / n));
        let rows = rows_of_task(n);
        let write = |y: &mut [MaybeUninit<f32>]| {
            let chunks = y.par_chunks_mut(rows * outputs).zip(x.par_chunks(rows * inputs)).enumerate();
            chunks.for_each_init(Vec::new, |buffer, (chunk, (y, x))| {
                let product = Product { rows: x.len() / inputs, columns: outputs, inner: inputs };
                buffer.resize(x.len(), MaybeUninit::uninit());
                let x = match self.before {
                    Pass::Nothing => x,
                    Pass::LayerNorm { eps } => {
                        layer_norm::forward(x, third, eps, buffer);
                        // SAFETY: all were just written.
                        unsafe { written(buffer) }
                    }
                    Pass::Gelu => {
                        gelu::forward(x, buffer);
                        // SAFETY: all were just written.
                        unsafe { written(buffer) }
                    }
                };
                let (x, weight) = (Matrix::rows(x, inputs), Matrix::rows(weight, inputs).transposed());
                if !third.is_empty() && !matches!(self.before, Pass::LayerNorm { .. }) {
                    copy(&third[chunk * rows * outputs..][..y.len()], y);
                    // SAFETY: all were just copied.
                    product.add(unsafe { written(y) }, x, weight);
                } else {
                    product.write(y, x, weight);
                }
            });
        };
        // SAFETY: each chunk's product has as many rows and columns as the chunk.
        unsafe { vec_written(n * outputs, write) }
    }

    /// `wanted`: whether the gradient by x is.
    fn backward(&self, n: usize, x: &[f32], weight: &[f32], norm: &[f32], grad: &[f32], wanted: bool) -> Gradients {
        let (inputs, outputs) = (x.len() / n, grad.len() / n);
        let rows = rows_of_task(n);
        let mut parts = Vec::new();
        // What stood before the product, made again on the way, since the weight's gradient needs it.
        let mut again = Vec::with_capacity(if matches!(self.before, Pass::Nothing) { 0 } else { x.len() });
        let write = |grad_x: &mut [MaybeUninit<f32>]| {
            let places = again.spare_capacity_mut();
            let chunks = grad_x.par_chunks_mut(rows * inputs).zip(grad.par_chunks(rows * outputs));
            let through = |grad_x: &mut [MaybeUninit<f32>], grad: &[f32]| {
                let product = Product { rows: grad.len() / outputs, columns: inputs, inner: outputs };
                product.write(grad_x, Matrix::rows(grad, outputs), Matrix::rows(weight, inputs));
            };
            match self.before {
                Pass::Nothing => chunks.for_each(|(grad_x, grad)| through(grad_x, grad)),
                Pass::Gelu | Pass::LayerNorm { .. } => {
                    let chunks =
                        chunks.zip(x.par_chunks(rows * inputs)).zip(places[..x.len()].par_chunks_mut(rows * inputs));
                    let chunks = chunks.map(|(((grad_x, grad), x), again)| {
                        through(grad_x, grad);
                        // SAFETY: the product has written all.
                        let grad_x = unsafe { written(grad_x) };
                        let mut grad_norm = vec![0f32; norm.len()];
                        match self.before {
                            Pass::LayerNorm { eps } => {
                                layer_norm::again_and_backward(x, norm, eps, again, grad_x, &mut grad_norm);
                            }
                            _ => gelu::again_and_backward(x, again, grad_x),
                        }
                        grad_norm
                    });
                    parts = chunks.collect::<Vec<_>>();
                }
            }
        };
        let plain = matches!(self.before, Pass::Nothing);
        // SAFETY: each chunk's product has as many rows and columns as the chunk.
        let grad_x = (wanted || !plain).then(|| unsafe { vec_written(x.len(), write) });
        if !plain {
            // SAFETY: layer norm's and gelu's loops have written each chunk of them.
            unsafe { again.set_len(x.len()) };
        }
        let z = if plain { x } else { &again };
        let tasks = outputs.div_ceil(OUTPUTS.max(outputs.div_ceil(TASKS)));
        let per_task = outputs.div_ceil(tasks);
        let write = |grad_weight: &mut [MaybeUninit<f32>]| {
            grad_weight.par_chunks_mut(per_task * inputs).enumerate().for_each(|(task, grad_weight)| {
                let product = Product { rows: grad_weight.len() / inputs, columns: inputs, inner: n };
                let grad = Matrix::rows(&grad[task * per_task..], outputs).transposed();
                product.write(grad_weight, grad, Matrix::rows(z, inputs));
            });
        };
        // SAFETY: each chunk's product has as many rows and columns as the chunk.
        let grad_weight = unsafe { vec_written(weight.len(), write) };
        let grad_norm = (0..norm.len()).map(|i| parts.iter().map(|part: &Vec<f32>| part[i]).sum::<f32>()).collect();
        Gradients { x: grad_x.filter(|_| wanted), weight: grad_weight, norm: grad_norm }
    }

    /// `third`: the layer norm's weight if there is one, and the residual else.
    fn apply(self, x: &Tensor, weight: &Tensor, third: Option<&Tensor>) -> Result<Tensor> {
        let inputs: Vec<&Tensor> = [x, weight].into_iter().chain(third).collect();
        let wanted: Vec<bool> = inputs.iter().map(|input| input.track_op()).collect();
        let is_norm = matches!(self.before, Pass::LayerNorm { .. });
        let [x, weight] = plain([x, weight])?;
        let third = third.map(|third| plain([third])).transpose()?.map(|[third]| third);
        let (n, outputs) = (x.dim(0)?, weight.dim(0)?);
        let y = {
            let [x_read, weight_read] = [&x, &weight].map(Reading::new);
            let third_read = third.as_ref().map(Reading::new);
            let third = third_read.as_ref().map_or(Ok(&[][..]), Reading::slice)?;
            tensor(self.forward(n, x_read.slice()?, weight_read.slice()?, third), (n, outputs))?
        };
        let norm = third.filter(|_| is_norm);
        differentiable("linear", &inputs, y, move |dy| {
            let [x_read, weight_read, dy_read] = [&x, &weight, dy].map(Reading::new);
            let norm_read = norm.as_ref().map(Reading::new);
            let norms = norm_read.as_ref().map_or(Ok(&[][..]), Reading::slice)?;
            let gradients = self.backward(n, x_read.slice()?, weight_read.slice()?, norms, dy_read.slice()?, wanted[0]);
            let by_third = match &norm {
                Some(norm) => gradient(wanted[2].then_some(gradients.norm), norm)?,
                // The residual's gradient is the sum's.
                None => Some(dy.clone()),
            };
            Ok(vec![gradient(gradients.x, &x)?, gradient(wanted[1].then_some(gradients.weight), &weight)?, by_third])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{check, wave};
    use candle_core::DType;

    /// 130 rows make two tasks, and so do 65 outputs.
    const N: usize = 130;

    #[test]
    fn values_and_gradients() {
        check([&wave(&[N, 3], 1.0, 0.0), &wave(&[65, 3], 1.0, 1.0)], |[x, weight]| linear(x, weight));
        let (x, weight) = (wave(&[2, 3], 1.0, 0.0), wave(&[4, 3], 1.0, 1.0));
        let (y, expected) = (linear(&x, &weight).unwrap(), x.matmul(&weight.t().unwrap()).unwrap());
        assert_eq!(y.to_vec2::<f64>().unwrap(), expected.to_vec2::<f64>().unwrap());
        assert!(linear(&x, &wave(&[4, 2], 1.0, 1.0)).is_err());
    }

    #[test]
    fn values_and_gradients_of_what_is_fused() {
        let (x, weight, residual) = (wave(&[N, 5], 2.0, 0.0), wave(&[3, 5], 1.0, 1.0), wave(&[N, 3], 1.0, 0.5));
        let norm = (wave(&[5], 0.5, 2.0) + 1.0).unwrap();
        check([&x, &weight, &residual], |[x, weight, residual]| {
            fused_linear(x, weight, Before::Nothing, Some(residual))
        });
        check([&x, &weight], |[x, weight]| fused_linear(x, weight, Before::Gelu, None));
        check([&x, &weight, &residual], |[x, weight, residual]| fused_linear(x, weight, Before::Gelu, Some(residual)));
        check([&x, &weight, &norm], |[x, weight, norm]| {
            fused_linear(x, weight, Before::LayerNorm { weight: norm, eps: 1e-3 }, None)
        });
        check([&x, &weight, &norm, &residual], |[x, weight, norm, residual]| {
            fused_linear(x, weight, Before::LayerNorm { weight: norm, eps: 1e-3 }, Some(residual))
        });
    }

    /// Which rows are one task is no matter.
    #[test]
    fn empty_and_single_rows() {
        for (n, inputs, outputs) in [(0, 3, 2), (1, 3, 2), (2, 0, 2), (2, 3, 0)] {
            let zeros = |shape| Tensor::zeros(shape, DType::F32, &candle_core::Device::Cpu).unwrap();
            let y = fused_linear(&zeros((n, inputs)), &zeros((outputs, inputs)), Before::Gelu, None).unwrap();
            assert_eq!(y.dims(), [n, outputs]);
        }
    }
}
