//! How the ops fail.

/// Returns an error of one line (candle's `bail!` appends a backtrace).
macro_rules! fail {
    ($($message:tt)*) => {
        return Err(candle_core::Error::Msg(format!($($message)*)))
    };
}
pub(crate) use fail;
