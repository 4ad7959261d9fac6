//! Numbers of channels.

use super::error::fail;
use candle_core::{DType, Result, Shape, Tensor};

/// That `images` are images, and `parameters` have a number of their dtype for each channel.
pub(crate) fn check_channels<const N: usize>(
    op: &str,
    (images, dtype): (&Shape, DType),
    parameters: [(&str, &Tensor); N],
) -> Result<()> {
    let &[_, channels, _, _] = images.dims() else { fail!("{op}: x {images:?} must be (n, c, h, w)") };
    for (name, parameter) in parameters {
        if parameter.dims() != [channels] {
            fail!("{op}: {name} {:?} must be [{channels}], as {images:?} has channels", parameter.shape());
        }
        if parameter.dtype() != dtype {
            fail!("{op}: {name} is of {:?} and must be of {dtype:?}, as x", parameter.dtype());
        }
    }
    Ok(())
}
