//! Sums over the elements of tensors, which a formula sees in a second pass.

/// The most sums that a formula may ask for.
pub const MAX_SUMS: usize = 3;
/// The most factors that it may make of them.
pub const MAX_FACTORS: usize = 4;

/// Over which elements a sum goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those of one tensor, each tensor for itself.
    Tensor,
    /// Those of all tensors that have a gradient and this formula. The factors stay from update to update, and are saved with the
    /// optimizer's state.
    All,
}

/// What of a number is added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Summand {
    /// The number.
    Value,
    /// Its square.
    Square,
}

/// The sums of a formula. A first pass adds up what [`measured`](super::elementwise::Elementwise::measured) gives. Then
/// [`factors`](super::elementwise::Elementwise::factors) makes factors of the sums. They are the formula's last scalars in the second
/// pass, the update. Sums are taken in f64, in a fixed order; on Metal, which has no f64, in two floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sums {
    /// Over which elements.
    pub scope: Scope,
    /// A summand per sum.
    pub of: &'static [Summand],
    /// How many of the last scalars are factors.
    pub factors: usize,
}

impl Sums {
    /// No sums, and a single pass.
    pub const NONE: Self = Self { scope: Scope::Tensor, of: &[], factors: 0 };

    pub(crate) const fn is_none(&self) -> bool {
        self.of.is_empty()
    }

    /// Whether sum number `k` is of squares.
    pub(crate) const fn is_square(&self, k: usize) -> bool {
        matches!(self.of[k], Summand::Square)
    }
}
