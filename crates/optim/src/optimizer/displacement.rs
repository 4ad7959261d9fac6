//! Where parameters were moved from, and to, for a while: by SAM's first step, or to be evaluated.

use crate::backend::tensors::{copy, where_same};
use candle_core::{Result, Tensor, Var};

/// The values of moved parameters before and after the move. Both are kept, to see what was written by someone else meanwhile.
#[derive(Debug)]
pub(crate) struct Displacement(Vec<Moved>);

#[derive(Debug)]
struct Moved {
    var: Var,
    before: Tensor,
    after: Tensor,
}

impl Displacement {
    /// Copies the parameters, which are still to be moved.
    pub fn before(vars: Vec<Var>) -> Result<Self> {
        let unmoved = |var: Var| {
            let before = copy(&var)?;
            Ok(Moved { var, after: before.clone(), before })
        };
        Ok(Self(vars.into_iter().map(unmoved).collect::<Result<_>>()?))
    }

    /// Copies the parameters, which have been moved.
    pub fn moved(&mut self) -> Result<()> {
        self.0.iter_mut().try_for_each(|moved| {
            moved.after = copy(&moved.var)?;
            Ok(())
        })
    }

    /// Moves the parameters. Where it fails, none has moved.
    pub fn to(values: Vec<(Var, Tensor)>) -> Result<Self> {
        let mut moves = Self::before(values.iter().map(|(var, _)| var.clone()).collect())?;
        for (moved, (var, after)) in moves.0.iter_mut().zip(values) {
            if let Err(error) = var.set(&after) {
                moves.undo()?;
                return Err(error);
            }
            moved.after = after;
        }
        Ok(moves)
    }

    /// Takes the move back, whatever the parameters are now.
    pub fn undo(&self) -> Result<()> {
        self.0.iter().try_for_each(|moved| moved.var.set(&moved.before))
    }

    /// What the parameters are to be: the values before the move, but for elements that were written since then.
    pub fn restored(&self) -> Result<Restored> {
        let restored =
            |Moved { var, before, after }: &Moved| Ok((var.clone(), where_same(var.as_tensor(), after, before)?));
        Ok(Restored(self.0.iter().map(restored).collect::<Result<_>>()?))
    }
}

/// Values to be written into parameters.
pub(crate) struct Restored(Vec<(Var, Tensor)>);

impl Restored {
    pub fn write(self) -> Result<()> {
        self.0.into_iter().try_for_each(|(var, values)| var.set(&values))
    }
}
