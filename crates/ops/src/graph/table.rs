//! The tokens of the values that are alive, and how operations find them.

use super::{
    slot::{Slot, lock},
    token::Leaf,
};
use candle_core::{Result, Tensor, TensorId};
use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, OnceLock},
};

/// What stands for a value in candle's graph.
#[derive(Clone)]
pub(super) struct Token {
    pub(super) tensor: Tensor,
    pub(super) slot: Slot,
}

/// The token of each value that is alive.
pub(super) static TOKENS: LazyLock<Mutex<HashMap<TensorId, Token>>> = LazyLock::new(Mutex::default);

/// Takes a value's token out of the table when the value is no more.
pub(super) struct Entry(pub(super) Arc<OnceLock<TensorId>>);

impl Drop for Entry {
    fn drop(&mut self) {
        let token = self.0.get().and_then(|id| lock(&TOKENS).remove(id));
        // With it may go the last of other values, which want the table too.
        drop(token);
    }
}

/// How an operation is linked to an input.
pub(super) struct Link {
    /// Which input of the operation it is.
    pub(super) index: usize,
    /// What candle's graph has: the input's token, or the input.
    pub(super) argument: Tensor,
    /// Where the gradient goes, if it is not candle that adds it up.
    pub(super) slot: Option<Slot>,
}

impl Link {
    pub(super) fn new(index: usize, input: &Tensor) -> Self {
        let token = lock(&TOKENS).get(&input.id()).cloned();
        match token {
            Some(Token { tensor, slot }) => Self { index, argument: tensor, slot: Some(slot) },
            None => Self { index, argument: input.clone(), slot: None },
        }
    }

    pub(super) fn by_token(self) -> Result<Self> {
        if self.slot.is_some() {
            return Ok(self);
        }
        let slot = Slot::default();
        Ok(Self { argument: self.argument.apply_op1(Leaf(slot.clone()))?, slot: Some(slot), ..self })
    }
}
