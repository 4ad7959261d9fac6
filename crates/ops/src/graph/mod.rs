//! How operations get into candle's graph, and how gradients go from one to the next.
//!
//! candle keeps the gradient of each tensor in a store: it fills one with zeros, adds there what each operation gives, and hands the
//! sum to the operation that made the tensor. Those are passes over the memory that no gradient needs, on the CPU by one thread.
//! Here candle's graph says no more than the order. Each value has a token in it, a single number without meaning, and the
//! gradient of the value waits in a slot:
//!
//! ```text
//! candle's graph:  weight --> token of a -----> token of b --> ..   its zeros and sums are of one number
//! values:          weight --> a --------------> b ----------> ..
//! gradients:       weight <-- (slot of a) <---- (slot of b) <- ..   handed on, and added where several come
//! ```
//!
//! An operation finds the token of what another has made by the tensor's id, and takes anything else (variables, what candle has
//! made) into candle's graph by itself. What it makes is a tensor of candle's as well, whose gradient goes into the slot: an
//! operation of candle's may read it. The gradients by variables candle adds up, or [`backward`] puts into the store as they are.
//! A backward pass that ends in an error may leave gradients in slots; its graph is of no more use.

mod slot;
mod storage;
mod table;
#[cfg(test)]
mod tests;
mod token;

use self::{
    slot::{COLLECTED, Slot, VariableGradients, lock},
    storage::{Output, TakeStorage},
    table::{Entry, Link, TOKENS, Token},
    token::{Join, Operation, apply},
};
use crate::{
    cpu::tensor::sum,
    shape::{
        error::fail,
        gradients::{Backward, BackwardByOutput},
    },
};
use candle_core::{Result, Tensor, backprop::GradStore};
use std::sync::{Arc, OnceLock};

/// The gradients of `loss` by the variables that it depends on: `loss.backward()`, without its pass over the memory of each
/// variable's gradient. What an operation of this crate gives by a variable is put into the store as it is, and added to what candle or
/// other operations give. Gradients may share memory with each other.
///
/// # Errors
/// When an operation fails, or has no gradient.
pub fn backward(loss: &Tensor) -> Result<GradStore> {
    /// Puts back what was collected before, also if candle panics.
    struct Collecting(Option<VariableGradients>);
    impl Drop for Collecting {
        fn drop(&mut self) {
            COLLECTED.set(self.0.take());
        }
    }
    let variables = loss.sorted_nodes().into_iter().filter(|node| node.is_variable());
    let before = Collecting(COLLECTED.replace(Some(variables.map(|variable| (variable.id(), None)).collect())));
    let mut store = loss.backward()?;
    let collected = COLLECTED.take().unwrap_or_default();
    drop(before);
    for (id, gradient) in collected {
        let Some(gradient) = gradient else { continue };
        let gradient = match store.get_id(id) {
            Some(other) => sum(other, &gradient)?,
            None => gradient,
        };
        store.insert_id(id, gradient.contiguous()?);
    }
    Ok(store)
}

/// `tensors` outside the graph, and contiguous.
pub(crate) fn detached_contiguous<const N: usize>(tensors: [&Tensor; N]) -> Result<[Tensor; N]> {
    let plain = tensors.iter().map(|tensor| tensor.detach().contiguous()).collect::<Result<Vec<_>>>()?;
    Ok(plain.try_into().expect("as many as there were"))
}

/// `y`, made of `inputs`, with its gradient: `backward(dy)` gives the gradient by each input, in order, at least those of inputs in
/// the graph. What it needs it has to keep, [`detached_contiguous`]; `dy` is.
pub(crate) fn differentiable<F>(name: &'static str, inputs: &[&Tensor], y: Tensor, backward: F) -> Result<Tensor>
where
    F: Backward,
{
    let tracked = inputs.iter().enumerate().filter(|(_, input)| input.track_op());
    let mut links: Vec<Link> = tracked.map(|(index, input)| Link::new(index, input)).collect();
    if links.is_empty() {
        return Ok(y);
    }
    // An operation of candle has three arguments at most.
    if links.len() > 3 {
        links = links.into_iter().map(Link::by_token).collect::<Result<_>>()?;
    }
    let (mut arguments, mut by_slot, mut by_candle) = (Vec::new(), Vec::new(), Vec::new());
    for Link { index, argument, slot } in links {
        by_candle.push(slot.is_none().then_some(index));
        by_slot.extend(slot.map(|slot| (index, slot)));
        arguments.push(argument);
    }
    while arguments.len() > 3 {
        let joined = apply(&arguments.split_off(arguments.len() - 3), Join { name })?;
        arguments.push(joined);
        by_candle = vec![None; arguments.len()];
    }
    let slot = Slot::default();
    let token = apply(&arguments, Operation { name, slot: slot.clone(), by_candle, by_slot, backward })?;

    // `y` must own its storage: it is moved out below.
    let y = if y.layout().start_offset() == 0 { y.contiguous()? } else { y.copy()? };
    let (shape, id, taken) = (y.shape().clone(), Arc::new(OnceLock::new()), TakeStorage::default());
    y.inplace_op1(&taken)?;
    let value = Output { name, y: taken.0, shape, slot: slot.clone(), _entry: Entry(id.clone()) };
    let y = token.apply_op1(value)?;
    lock(&TOKENS).insert(y.id(), Token { tensor: token, slot });
    let _ = id.set(y.id());
    Ok(y)
}

/// [`differentiable`] with `backward(y, dy)`.
pub(crate) fn differentiable_by_output<F>(
    name: &'static str,
    inputs: &[&Tensor],
    y: Tensor,
    backward: F,
) -> Result<Tensor>
where
    F: BackwardByOutput,
{
    let output = Arc::new(OnceLock::<Tensor>::new());
    let kept = output.clone();
    let y = differentiable(name, inputs, y, move |dy| match kept.get() {
        Some(y) => backward(y, dy),
        None => fail!("{name}: the output is not there yet"),
    })?;
    let _ = output.set(y.detach());
    Ok(y)
}
