//! Compositions of candle's operations for the windows of 2x2 and the shortcuts of these models, by reshaping. (Those of
//! [`ops::reference`] are for windows of any size, whose gradient they give to the first maximum.)

use candle_core::{Result, Tensor};

/// The gradient of candle's own max pooling is a quarter of the right one.
pub(super) fn max_pool2(x: &Tensor) -> Result<Tensor> {
    let (n, c, height, width) = x.dims4()?;
    let (height, width) = (height / 2, width / 2);
    let windows = x.narrow(2, 0, 2 * height)?.narrow(3, 0, 2 * width)?.contiguous()?;
    let windows = windows.reshape((n, c, height, 2, width, 2))?;
    let larger = |x: &Tensor, dim: usize| -> Result<Tensor> {
        x.narrow(dim, 0, 1)?.squeeze(dim)?.maximum(&x.narrow(dim, 1, 1)?.squeeze(dim)?)
    };
    larger(&larger(&windows, 5)?, 3)
}

pub(super) fn shortcut(x: &Tensor, stride: usize, channels: usize) -> Result<Tensor> {
    // Elements 0, stride, 2 stride, .. along `dim`.
    let every = |x: &Tensor, dim: usize| -> Result<Tensor> {
        let len = x.dim(dim)?;
        let x = x.pad_with_zeros(dim, 0, len.next_multiple_of(stride) - len)?;
        let mut sizes = x.dims().to_vec();
        sizes.splice(dim..=dim, [len.div_ceil(stride), stride]);
        x.reshape(sizes)?.narrow(dim + 1, 0, 1)?.squeeze(dim + 1)
    };
    let new = channels - x.dim(1)?;
    every(&every(x, 2)?, 3)?.pad_with_zeros(1, new / 2, new - new / 2)
}
