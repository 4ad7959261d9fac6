//! The pieces that schedules are made of, and the known recipes.

use super::declare::{constructor, entry, schedules};
use super::given::{Defaults, Given, Key};
use super::value::{NON_NEGATIVE, POSITIVE, RISING, Value, WHOLE, check};
use crate::error::{Error, Result};
use crate::text::SpecText;
use serde::{Deserialize, Serialize};
use std::{f64::consts::PI, fmt, sync::Once};

/// A value for every update: one piece, or several, one after another.
///
/// Each piece and each known recipe has a constructor, whose page says the formula, and a name in [text](crate::schedule).
/// All of them are in the table [`all`]. Only valid schedules exist: numbers are finite and not negative,
/// lengths are at least 1. No value is negative or infinite, at any update; growth stops at [`f64::MAX`].
///
/// ```
/// use optim::Schedule;
///
/// let schedule = Schedule::linear(0.0, 0.1, 100)?.then(100, Schedule::cosine(0.1, 0.0, 900)?);
/// assert_eq!(schedule.at(0), 0.0); // t = 0 is the first update
/// assert_eq!(schedule.at(50), 0.05);
/// assert_eq!(schedule.at(100), 0.1);
/// assert_eq!(
///     schedule.to_string(),
///     "linear:lr=0,end_lr=0.1,steps=100 until 100 then cosine:lr=0.1,min_lr=0,steps=900"
/// );
/// # Ok::<(), optim::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Schedule {
    /// Each piece with the update at which it starts: 0 for the first, then rising. Never empty.
    pub(super) pieces: Vec<(u64, Piece)>,
}

/// A schedule that can be written by name; see [`all`].
#[derive(Clone, Debug)]
pub struct Entry {
    /// The name, as in the text and as the constructor of [`Schedule`].
    pub name: &'static str,
    /// What it is, in one line.
    pub doc: &'static str,
    /// Its value at update t = 0, 1, .., in terms of the keys.
    pub formula: &'static str,
    /// The keys, in the order in which they are printed.
    pub keys: &'static [Key],
    pub(super) read: fn(&Given, &Defaults) -> Result<Schedule>,
}

schedules! {
    pieces {
        /// The same value at every update.
        constant = "lr" {
            lr: f64 where NON_NEGATIVE, "the optimizer's lr" => |run| run.lr;
        }
        Constant at |_t| *lr;

        /// A line from `lr` to `end_lr`, where it stays.
        linear = "lr + (end_lr - lr) min(t, steps) / steps" {
            lr: f64 where NON_NEGATIVE, "the optimizer's lr" => |run| run.lr;
            end_lr: f64 where NON_NEGATIVE, "0" => |_| Some(0.0);
            steps: u64 where POSITIVE, "the run's length" => |run| run.steps;
        }
        Linear at |t| blend(*lr, *end_lr, 1.0 - share(t, *steps));

        /// Half a cosine from `lr` to `min_lr`, where it stays.
        cosine = "min_lr + (lr - min_lr) (1 + cos(pi min(t, steps) / steps)) / 2" {
            lr: f64 where NON_NEGATIVE, "the optimizer's lr" => |run| run.lr;
            min_lr: f64 where NON_NEGATIVE, "0" => |_| Some(0.0);
            steps: u64 where POSITIVE, "the run's length" => |run| run.steps;
        }
        Cosine at |t| blend(*lr, *min_lr, cosine(share(t, *steps)));

        /// A linear warmup to `lr` at its last update, then half a cosine to `min_lr` at update `steps - 1`, where it stays. One update without a warmup is at `min_lr`, which is warned of once.
        warmup_cosine = "s = t + 1; s < warmup: lr s / warmup; else min_lr + (lr - min_lr) (1 + cos(pi p)) / 2, p = (s - warmup) / (steps - warmup) up to 1" {
            lr: f64 where NON_NEGATIVE, "the optimizer's lr" => |run| run.lr;
            warmup: u64 where WHOLE, "10 % of steps, at least 1" => |run| run.steps.map(|n| percent(n, 10));
            min_lr: f64 where NON_NEGATIVE, "0" => |_| Some(0.0);
            steps: u64 where POSITIVE, "the run's length" => |run| run.steps;
        }
        [require warmup <= steps, warmup: "at most steps={steps}"]
        WarmupCosine at |t| {
            let s = t.saturating_add(1);
            if s <= *warmup {
                *lr * share(s, *warmup)
            } else {
                // A warmup as long as the whole leaves only updates after the end: the minimum.
                blend(*lr, *min_lr, cosine(share(s - warmup, steps - warmup)))
            }
        };

        /// Multiplied by `gamma` once every `size` updates.
        step = "lr gamma^floor(t / size)" {
            lr: f64 where NON_NEGATIVE, "the optimizer's lr" => |run| run.lr;
            gamma: f64 where NON_NEGATIVE, "0.1" => |_| Some(0.1);
            size: u64 where POSITIVE, "a third of steps, rounded up" => |run| run.steps.map(third);
        }
        Step at |t| power(*lr, *gamma, t / size);

        /// Multiplied by `gamma` at each milestone.
        multi_step = "lr gamma^(number of milestones <= t)" {
            lr: f64 where NON_NEGATIVE, "the optimizer's lr" => |run| run.lr;
            gamma: f64 where NON_NEGATIVE, "0.1" => |_| Some(0.1);
            milestones: Vec<u64> where RISING, "50 % and 75 % of steps" => |run| run.steps.map(|n| {
                let half = percent(n, 50);
                vec![half, percent(n, 75).max(half.saturating_add(1))]
            });
        }
        MultiStep at |t| power(*lr, *gamma, milestones.partition_point(|milestone| *milestone <= t) as u64);

        /// Multiplied by `gamma` at every update.
        exponential = "lr gamma^t" {
            lr: f64 where NON_NEGATIVE, "the optimizer's lr" => |run| run.lr;
            gamma: f64 where NON_NEGATIVE, "0.01^(1 / steps), so that 1 % of lr is left after steps" =>
                |run| run.steps.map(|n| 0.01f64.powf(1.0 / n as f64));
        }
        Exponential at |t| power(*lr, *gamma, t);

        /// A power of what is left of `steps`, from `lr` to `end_lr`, where it stays.
        polynomial = "end_lr + (lr - end_lr) (1 - min(t, steps) / steps)^power" {
            lr: f64 where NON_NEGATIVE, "the optimizer's lr" => |run| run.lr;
            end_lr: f64 where NON_NEGATIVE, "0" => |_| Some(0.0);
            power: f64 where NON_NEGATIVE, "1" => |_| Some(1.0);
            steps: u64 where POSITIVE, "the run's length" => |run| run.steps;
        }
        Polynomial at |t| blend(*lr, *end_lr, (1.0 - share(t, *steps)).powf(*power));

        /// A linear warmup to `lr` at its last update, then falling with the square root of the update.
        inverse_sqrt = "s = t + 1; s < warmup: lr s / warmup; else lr sqrt(warmup / s)" {
            lr: f64 where NON_NEGATIVE, "the optimizer's lr" => |run| run.lr;
            warmup: u64 where POSITIVE, "10 % of steps, at least 1" => |run| run.steps.map(|n| percent(n, 10));
        }
        InverseSqrt at |t| {
            let s = t.saturating_add(1);
            *lr * if s < *warmup { share(s, *warmup) } else { (*warmup as f64 / s as f64).sqrt() }
        };
    }

    recipes {
        /// Warmup, stable, decay: a linear warmup, `lr`, and over the last `decay` updates a line that reaches 0 at update `steps`.
        wsd = "t < warmup: lr (t + 1) / warmup; t < steps - decay: lr; else lr (1 - min(t - (steps - decay), decay) / decay)" {
            lr: f64 where NON_NEGATIVE, "the optimizer's lr" => |run| run.lr;
            warmup: u64 where WHOLE, "10 % of steps, at least 1" => |run| run.steps.map(|n| percent(n, 10));
            decay: u64 where WHOLE, "10 % of steps" => |run| run.steps.map(|n| n / 10);
            steps: u64 where POSITIVE, "the run's length" => |run| run.steps;
        }
        [require warmup <= steps, warmup: "at most steps={steps}"]
        [require decay <= steps - warmup, decay: "at most steps={steps} less warmup={warmup}"]
        {
            // The peak is the warmup's last update. A piece of no length is dropped by `then`.
            let rise = warmup.saturating_sub(1);
            let fall = match decay {
                0 => Piece::Constant { lr: 0.0 },
                steps => Piece::Linear { lr, end_lr: 0.0, steps },
            };
            Schedule::from(Piece::Linear { lr: lr / warmup.max(1) as f64, end_lr: lr, steps: rise.max(1) })
                .then(rise, Piece::Constant { lr }.into())
                .then(steps - decay, fall.into())
        }

        /// One cycle (Smith & Topin 2017, arXiv:1708.07120): half a cosine up from `lr / 25`, half a cosine down to `lr / 250000` at update `steps - 1`.
        one_cycle = "t < warmup - 1: from lr / 25 to lr, p = t / (warmup - 1); else from lr to lr / 250000, p = (t + 1 - warmup) / (steps - warmup); from a to b: b + (a - b) (1 + cos(pi p)) / 2" {
            lr: f64 where NON_NEGATIVE, "the optimizer's lr" => |run| run.lr;
            warmup: u64 where POSITIVE, "30 % of steps, at least 1" => |run| run.steps.map(|n| percent(n, 30));
            steps: u64 where POSITIVE, "the run's length" => |run| run.steps;
        }
        [require warmup <= steps, warmup: "at most steps={steps}"]
        {
            let rise = warmup - 1;
            Schedule::from(Piece::Cosine { lr: lr / 25.0, min_lr: lr, steps: rise.max(1) })
                .then(rise, Piece::Cosine { lr, min_lr: lr / 25.0 / 1e4, steps: (steps - warmup).max(1) }.into())
        }

        /// Warm restarts (Loshchilov & Hutter 2017, arXiv:1608.03983): half a cosine again and again, each `mult` times as long, until `steps` are covered.
        cosine_restarts = "cosine:steps=period until period then cosine:steps=period*mult until period+period*mult then .." {
            lr: f64 where NON_NEGATIVE, "the optimizer's lr" => |run| run.lr;
            min_lr: f64 where NON_NEGATIVE, "0" => |_| Some(0.0);
            period: u64 where POSITIVE, "a third of steps, rounded up" => |run| run.steps.map(third);
            mult: u64 where POSITIVE, "1" => |_| Some(1);
            steps: u64 where POSITIVE, "the run's length" => |run| run.steps;
        }
        [require mult > 1 || steps.div_ceil(period) <= 1000, period: "at most 1000 periods in steps={steps}"]
        {
            // The limit is there because every cycle is a piece, in memory and in the text.
            let (mut whole, mut end, mut length) = (Schedule::cosine(lr, min_lr, period)?, period, period);
            while end < steps {
                length = length.saturating_mul(mult);
                whole = whole.then(end, Schedule::cosine(lr, min_lr, length)?);
                end = end.saturating_add(length);
            }
            whole
        }
    }
}

/// All schedules that can be written by name: the pieces, simplest first, then the recipes made of them.
///
/// ```
/// for entry in optim::schedule::all() {
///     println!("{}: {}\n    {}", entry.name, entry.doc, entry.formula);
///     for key in entry.keys {
///         println!("    {} = {} ({})", key.name, key.default, key.allowed);
///     }
/// }
/// ```
pub fn all() -> &'static [Entry] {
    ALL
}

impl Schedule {
    /// The value at update `t`; 0 is the first update.
    pub fn at(&self, t: u64) -> f64 {
        let (start, piece) = &self.pieces[self.pieces.partition_point(|(start, _)| *start <= t) - 1];
        piece.at(t - start)
    }

    /// The largest value of `lr` or `end_lr` in its pieces: the value at its peak.
    pub(crate) fn peak(&self) -> f64 {
        let values = |piece: &Piece| {
            let text = SpecText::of(&piece.to_string());
            ["lr", "end_lr"].map(|key| text.get(key).and_then(|value| value.parse().ok()).unwrap_or(0.0))
        };
        self.pieces.iter().flat_map(|(_, piece)| values(piece)).fold(0.0, f64::max)
    }

    /// This schedule for t < `until`, then `next`, which counts its own updates from 0 there.
    ///
    /// `until` counts from the start of this schedule, so calls in a chain name rising updates. What this
    /// schedule would do from `until` on is dropped, and all of it if `until` is 0.
    #[must_use]
    pub fn then(mut self, until: u64, next: Schedule) -> Schedule {
        self.pieces.truncate(self.pieces.partition_point(|(start, _)| *start < until));
        // A start beyond u64::MAX is never reached.
        let next = next.pieces.into_iter().map_while(|(start, piece)| Some((start.checked_add(until)?, piece)));
        self.pieces.extend(next);
        self
    }

    /// Warns, once in a process, of a schedule whose one update is not at the value that it seems to be for.
    pub(crate) fn warn_of_one_update(&self) {
        static ONCE: Once = Once::new();
        for (_, piece) in &self.pieces {
            if let Piece::WarmupCosine { warmup: 0, steps: 1, lr, min_lr } = piece {
                ONCE.call_once(|| {
                    tracing::warn!(
                        lr,
                        min_lr,
                        "warmup_cosine with steps=1 and warmup=0: its one update is at min_lr, not at lr"
                    );
                });
            }
        }
    }
}

impl From<Piece> for Schedule {
    fn from(piece: Piece) -> Schedule {
        Schedule { pieces: vec![(0, piece)] }
    }
}

/// t / n, and 1 from there on (also if n is 0).
fn share(t: u64, n: u64) -> f64 {
    if t >= n { 1.0 } else { t as f64 / n as f64 }
}

/// `start` at weight 1 and `end` at weight 0, both exact.
fn blend(start: f64, end: f64, weight: f64) -> f64 {
    if weight >= 1.0 { start } else { end + (start - end) * weight }
}

/// Half a cosine: 1 at 0, 0 at 1.
fn cosine(share: f64) -> f64 {
    0.5 * (1.0 + (PI * share).cos())
}

/// lr gamma^n, at most the largest finite number.
fn power(lr: f64, gamma: f64, n: u64) -> f64 {
    (lr * gamma.powf(n as f64).min(f64::MAX)).min(f64::MAX)
}

/// This many percent of n, rounded down, at least 1.
fn percent(n: u64, percent: u8) -> u64 {
    ((u128::from(n) * u128::from(percent) / 100) as u64).max(1)
}

/// A third of n, rounded up, so that three of them cover n; at least 1.
fn third(n: u64) -> u64 {
    n.div_ceil(3).max(1)
}
