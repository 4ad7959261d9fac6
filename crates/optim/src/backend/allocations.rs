//! Tests let the making of a tensor fail, as on a device that has no memory left.

use candle_core::{Result, bail};
use std::cell::Cell;

thread_local!(static MADE: Cell<usize> = const { Cell::new(0) });
thread_local!(static FAILS: Cell<Option<usize>> = const { Cell::new(None) });

/// A tensor is about to be made.
pub fn count() -> Result<()> {
    let made = MADE.replace(MADE.get() + 1);
    if FAILS.get() == Some(made) { bail!("out of memory") } else { Ok(()) }
}

/// How many tensors `f` makes.
pub fn of(f: impl FnOnce()) -> usize {
    MADE.set(0);
    f();
    MADE.get()
}

/// Calls `f`, in which making tensor number `at` fails.
pub fn fail_at<T>(at: usize, f: impl FnOnce() -> T) -> T {
    MADE.set(0);
    FAILS.set(Some(at));
    let result = f();
    FAILS.set(None);
    result
}
