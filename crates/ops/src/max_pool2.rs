//! Maxima of windows of 2x2.

use crate::host::{Float, Reading, fail, is_ours, slice, with_float};
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, WithDType, backend::BackendStorage};
use rayon::prelude::*;

/// The maximum over windows of 2x2 with stride 2 of images `x` (n, c, h, w); an odd last row or column is left out. The whole
/// gradient goes to the first maximum of a window in reading order; NaN counts as the largest, and the last of several gets
/// the gradient: as PyTorch's `max_pool2d`. (The gradient of candle's is a quarter of the right one where the maximum is
/// unique.)
///
/// # Errors
/// When `x` is not (n, c, h, w) with h and w of at least 2.
pub fn max_pool2(x: &Tensor) -> Result<Tensor> {
    match *x.dims() {
        [_, _, height, width] if height >= 2 && width >= 2 => {}
        _ => fail!("max_pool2: x {:?} must be (n, c, h, w) with h and w of at least 2", x.shape()),
    }
    if is_ours(x) { x.contiguous()?.apply_op1(MaxPool2) } else { composed(x) }
}

/// The same by candle's operations, for other devices and dtypes.
fn composed(x: &Tensor) -> Result<Tensor> {
    let (n, c, h, w) = x.dims4()?;
    let halves = |x: &Tensor, dim: usize| -> Result<Tensor> {
        x.narrow(dim, 0, 1)?.squeeze(dim)?.maximum(&x.narrow(dim, 1, 1)?.squeeze(dim)?)
    };
    let x = if h % 2 == 0 { x.clone() } else { x.narrow(2, 0, h - 1)?.contiguous()? };
    let x = halves(&x.reshape((n, c, h / 2, 2, w))?, 3)?;
    let x = if w % 2 == 0 { x } else { x.narrow(3, 0, w - 1)?.contiguous()? };
    halves(&x.reshape((n, c, h / 2, w / 2, 2))?, 4)
}

struct MaxPool2;

/// Height and width of a plane, and the output's shape.
fn sizes(x: &Shape) -> Result<(usize, usize, Shape)> {
    let (n, c, height, width) = x.dims4()?;
    Ok((height, width, Shape::from((n, c, height / 2, width / 2))))
}

/// Calls `f` with each window of a plane: the output's index, and the elements' in reading order.
fn for_each_window(height: usize, width: usize, mut f: impl FnMut(usize, [usize; 4])) {
    for row in 0..height / 2 {
        for column in 0..width / 2 {
            let first = 2 * row * width + 2 * column;
            f(row * (width / 2) + column, [first, first + 1, first + width, first + width + 1]);
        }
    }
}

/// The element of the window that is its maximum.
fn argmax<T: Float>(plane: &[T], window: [usize; 4]) -> usize {
    let [mut best, rest @ ..] = window;
    for index in rest {
        let value = plane[index];
        // Only NaN differs from itself.
        #[expect(clippy::eq_op, reason = "is_nan for any number type")]
        if value > plane[best] || value != value {
            best = index;
        }
    }
    best
}

impl CustomOp1 for MaxPool2 {
    fn name(&self) -> &'static str {
        "max_pool2"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (height, width, shape) = sizes(layout.shape())?;
        with_float!(self.name(), x.dtype(), T => {
            let x = slice::<T>(x, layout)?;
            let mut y = vec![0.0; shape.elem_count()];
            let planes = y.par_chunks_mut((height / 2) * (width / 2)).zip(x.par_chunks(height * width));
            planes.for_each(|(y, x)| for_each_window(height, width, |out, window| y[out] = x[argmax(x, window)]));
            Ok((T::to_cpu_storage_owned(y), shape))
        })
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let (height, width, _) = sizes(x.shape())?;
        let dy = dy.contiguous()?;
        with_float!(self.name(), dy.dtype(), T => {
            let (x_read, dy_read) = (Reading::new(x), Reading::new(&dy));
            let (xs, dys) = (x_read.slice::<T>()?, dy_read.slice::<T>()?);
            let mut dx = vec![0.0; xs.len()];
            let planes = dx.par_chunks_mut(height * width).zip(xs.par_chunks(height * width));
            planes.zip(dys.par_chunks((height / 2) * (width / 2))).for_each(|((dx, x), dy)| {
                for_each_window(height, width, |out, window| dx[argmax(x, window)] = dy[out]);
            });
            Tensor::from_vec(dx, x.shape(), x.device()).map(Some)
        })
    }
}
