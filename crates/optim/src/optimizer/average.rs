//! Averages of the weights as settings: an exponential or plain one beside them, and Lookahead's slow weights.

use crate::backend::device::tables::Tables;
use crate::error::{Error, Result};

/// An average of the parameters, kept beside them in f32 (f64 for f64 parameters).
///
/// `theta` is a parameter after a step, that of a 16-bit parameter with a master copy the parameter itself. `lerp(a, b, w)` is
/// `a + w (b - a)`. Parameters that a step leaves out, frozen or without a gradient, take part with the value they have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Average {
    /// The exponential moving average `e = lerp(e, theta, 1 - decay)` after each step. It starts at the parameters as they are
    /// before the first step that is made with it.
    Ema {
        /// The share of the average that stays, in `[0, 1)`; 0.999 is usual.
        decay: f64,
        /// How the decay rises to that.
        warmup: EmaWarmup,
    },
    /// Stochastic weight averaging (Izmailov et al. 2018, arXiv:1803.05407): the plain mean of the parameters after step number
    /// `start`, and after each `every` steps from there. Before that the average is the parameters themselves.
    Swa {
        /// The first step, counted from 1, whose result is averaged.
        start: u64,
        /// Steps from one to the next, at least 1.
        every: u64,
    },
}

/// How the decay of [`Average::Ema`] rises to its value. `n` counts the average's updates from 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum EmaWarmup {
    /// It does not.
    None,
    /// `min(decay, 1 - (1 + (n - 1) / gamma)^(-2/3))`, as in timm: the first update takes `theta` alone.
    Power {
        /// How many updates the rise takes, above 0; 1 in timm.
        gamma: f64,
    },
    /// `min(decay, (1 + n) / (10 + n))`, as in TensorFlow and torch-ema.
    Ratio,
}

/// Lookahead (Zhang et al. 2019, arXiv:1907.08610) around any rule: after every `every` steps `slow = lerp(slow, theta, alpha)`,
/// and `theta = slow`. The slow weights start at the parameters as they are before the first step that is made with it.
///
/// It moves the parameters that have a gradient in that step. Where a parameter has a master copy, `theta` is that, in both.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lookahead {
    /// Steps between two moves of the slow weights (the paper's `k`), counted from the optimizer's first; at least 1.
    ///
    /// Default: 6.
    pub every: u64,
    /// How far the slow weights move to the fast ones, in `(0, 1]`.
    ///
    /// Default: 0.5.
    pub alpha: f64,
}

impl Default for Lookahead {
    fn default() -> Self {
        Self { every: 6, alpha: 0.5 }
    }
}

/// An error unless the number is allowed.
fn check(rule: &str, key: &str, value: f64, is_allowed: bool, allowed: &str) -> Result<()> {
    let (rule, key, allowed) = (rule.to_string(), key.to_string(), allowed.to_string());
    if is_allowed { Ok(()) } else { Err(Error::OutOfRange { rule, key, value: value.to_string(), allowed }) }
}

const COUNT: &str = "a whole number >= 1";

/// The kinds of averages, by their names in a saved state.
pub(super) const KINDS: [&str; 2] = ["ema", "swa"];

impl Average {
    /// What it is called in a saved state.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Average::Ema { .. } => KINDS[0],
            Average::Swa { .. } => KINDS[1],
        }
    }

    pub(super) fn check(self) -> Result<Self> {
        match self {
            Average::Ema { decay, warmup } => {
                check("ema", "decay", decay, (0.0..1.0).contains(&decay), "a number in [0, 1)")?;
                if let EmaWarmup::Power { gamma } = warmup {
                    check("ema", "gamma", gamma, gamma > 0.0 && gamma.is_finite(), "a number > 0")?;
                }
            }
            Average::Swa { every, .. } => check("swa", "every", every as f64, every > 0, COUNT)?,
        }
        Ok(self)
    }

    /// Whether it takes the parameters after this step, counted from 1.
    pub(super) fn takes(self, step: u64) -> bool {
        match self {
            Average::Ema { .. } => true,
            Average::Swa { start, every } => step.checked_sub(start).is_some_and(|since| since.is_multiple_of(every)),
        }
    }

    /// The weight of the parameters in the average's update number `n`, counted from 1.
    pub(super) fn weight(self, n: u64) -> f64 {
        match self {
            Average::Ema { decay, warmup } => {
                let n = n as f64;
                1.0 - match warmup {
                    EmaWarmup::None => decay,
                    EmaWarmup::Power { gamma } => decay.min(1.0 - (1.0 + (n - 1.0) / gamma).powf(-2.0 / 3.0)),
                    EmaWarmup::Ratio => decay.min((1.0 + n) / (10.0 + n)),
                }
            }
            Average::Swa { .. } => 1.0 / n as f64,
        }
    }
}

impl Lookahead {
    pub(super) fn check(self) -> Result<Self> {
        check("lookahead", "every", self.every as f64, self.every > 0, COUNT)?;
        check("lookahead", "alpha", self.alpha, self.alpha > 0.0 && self.alpha <= 1.0, "a number in (0, 1]")?;
        Ok(self)
    }
}

/// The settings of the averages, and what is counted for them. The averages themselves are each parameter's.
#[derive(Debug, Default)]
pub(crate) struct Averages {
    pub average: Option<Average>,
    pub lookahead: Option<Lookahead>,
    /// What kind of average the parameters have; none where they have none.
    pub kind: Option<&'static str>,
    /// How often the average took the parameters.
    pub count: u64,
    /// One for each move of a step: they differ in what they write.
    pub tables: [Tables; 4],
}
