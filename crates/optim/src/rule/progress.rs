//! Where a parameter stands when its scalars are computed.

/// Where a parameter stands, as its rule sees it in an update.
#[derive(Debug)]
pub struct Progress<'a> {
    /// The number of the parameter's update, from 1.
    pub t: u64,
    /// Whether a slot of its state starts in this update, as in the first, and where a hyperparameter that needs it is switched on
    /// later.
    pub starts: bool,
    /// Numbers that the rule keeps from update to update, as [`Rule::numbers`](crate::Rule::numbers) declares them. What the rule
    /// writes here is kept if the step succeeds, and saved with the state.
    pub numbers: &'a mut [f64],
}

impl Progress<'_> {
    /// [`starts`](Self::starts) as a scalar of a formula: 1 or 0.
    pub fn starts_flag(&self) -> f64 {
        f64::from(u8::from(self.starts))
    }
}
