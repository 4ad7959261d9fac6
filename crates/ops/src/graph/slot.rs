//! Where gradients wait on their way.

use crate::cpu::tensor::sum;
use candle_core::{Result, Tensor, TensorId};
use std::{
    cell::RefCell,
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The gradient of a value, on its way from the operations that read the value to the one that made it.
#[derive(Clone, Default)]
pub(super) struct Slot(Arc<Mutex<Option<Tensor>>>);

impl Slot {
    pub(super) fn put(&self, gradient: Tensor) -> Result<()> {
        let before = self.take();
        *lock(&self.0) = Some(added(before, gradient)?);
        Ok(())
    }

    pub(super) fn take(&self) -> Option<Tensor> {
        lock(&self.0).take()
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The sum. Not within a lock: while it waits for other threads, Rayon may run another task's backward pass on this thread.
fn added(before: Option<Tensor>, gradient: Tensor) -> Result<Tensor> {
    match before {
        Some(before) => sum(&before, &gradient),
        None => Ok(gradient),
    }
}

pub(super) type VariableGradients = HashMap<TensorId, Option<Tensor>>;

thread_local! {
    /// The gradients by the variables of a pass of [`crate::backward`]. Rayon may run another task's backward pass on this thread
    /// meanwhile.
    pub(super) static COLLECTED: RefCell<Option<VariableGradients>> = const { RefCell::new(None) };
}

/// Takes a gradient by a tensor of candle's graph for the store of [`crate::backward`], if the tensor is a variable of its pass; else it
/// is left for candle to add.
pub(super) fn take_for_store(gradient: Option<Tensor>, by: &Tensor) -> Result<Option<Tensor>> {
    fn of_pass<'a>(collected: &'a mut Option<VariableGradients>, by: &Tensor) -> Option<&'a mut Option<Tensor>> {
        collected.as_mut().and_then(|collected| collected.get_mut(&by.id()))
    }
    let Some(gradient) = gradient else { return Ok(None) };
    // What was there before, if it is a variable of the pass.
    let before = COLLECTED.with_borrow_mut(|collected| of_pass(collected, by).map(Option::take));
    let Some(before) = before else { return Ok(Some(gradient)) };
    let gradient = added(before, gradient)?;
    COLLECTED.with_borrow_mut(|collected| of_pass(collected, by).map(|place| place.replace(gradient)));
    Ok(None)
}
