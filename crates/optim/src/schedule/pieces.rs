//! Schedules: hyperparameters that change from update to update.
//!
//! A [`Schedule`] is data with a pure function of the update, [`Schedule::at`]. It has no state, so it needs no
//! checkpoint; it prints, parses, compares and (de)serializes as its text. The keys are named for the learning
//! rate, the usual target, but any hyperparameter can follow a schedule: read `lr` as "the value at its peak".
//!
//! # Text
//!
//! ```text
//! schedule = piece { " until " update " then " piece }
//! piece    = name [ ":" key "=" value { "," key "=" value } ]
//! value    = number | whole number | whole number { "/" whole number }
//! ```
//!
//! `A until 100 then B` is A for t < 100, then B, which counts its own updates from 0 there: B at t - 100. Every
//! `until` counts from the start of the whole: `A until 10 then B until 30 then C` changes at updates 10 and 30,
//! and equals `a.then(10, b).then(30, c)`, which also equals `a.then(10, b.then(20, c))`.
//!
//! ```
//! use optim::schedule::{Defaults, Schedule};
//!
//! // The optimizer knows its learning rate and the run its length, so a short text will do.
//! let run = Defaults { lr: Some(1e-3), steps: Some(2000) };
//! let schedule = Schedule::parse("warmup_cosine:min_lr=1e-5", &run)?;
//! assert_eq!(schedule.at(199), 1e-3);
//! assert_eq!(schedule.to_string(), "warmup_cosine:lr=0.001,warmup=200,min_lr=1e-5,steps=2000");
//!
//! // Printed text is complete: it parses without defaults, to an equal schedule.
//! assert_eq!(schedule.to_string().parse::<Schedule>()?, schedule);
//! # Ok::<(), optim::Error>(())
//! ```
//!
//! # Defaults
//!
//! A key that the text lacks has the default that [`all`] and the constructor's page name. "`steps`" in a default
//! is the piece's own key if the text gives it, else the length of the piece: from its start to its `until`, or,
//! for the last piece, to the end of the run (1 if the run ends before).

use crate::error::{Error, Result};
use crate::text::{PairError, SpecText, same_name, suggestion};
use serde::{Deserialize, Serialize};
use std::{f64::consts::PI, fmt, str::FromStr, sync::Once};

/// A value for every update: one piece, or several, one after another.
///
/// Each piece and each known recipe has a constructor, whose page says the formula, and a name in [text](self).
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
    pieces: Vec<(u64, Piece)>,
}

/// What stands in for keys that a text lacks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Defaults {
    /// The optimizer's own learning rate.
    pub lr: Option<f64>,
    /// The length of the run, in updates.
    pub steps: Option<u64>,
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
    read: fn(&Given, &Defaults) -> Result<Schedule>,
}

/// A key of a schedule.
#[derive(Clone, Debug)]
pub struct Key {
    /// The name.
    pub name: &'static str,
    /// The value if the text lacks the key, in words.
    pub default: &'static str,
    /// The values it can have, in words.
    pub allowed: &'static str,
}

/// The set of values that a key can have.
struct Allowed<T: 'static> {
    text: &'static str,
    holds: fn(&T) -> bool,
}

const NON_NEGATIVE: Allowed<f64> =
    Allowed { text: "a finite number, 0 or more", holds: |x| *x >= 0.0 && x.is_finite() };
const WHOLE: Allowed<u64> = Allowed { text: "a whole number from 0 to 2^64 - 1", holds: |_| true };
const POSITIVE: Allowed<u64> = Allowed { text: "a whole number from 1 to 2^64 - 1", holds: |n| *n > 0 };
const RISING: Allowed<Vec<u64>> = Allowed {
    text: "rising whole numbers, joined by /",
    holds: |list| !list.is_empty() && list.is_sorted_by(|a, b| a < b),
};

/// The constructor of a piece or recipe: checks every key, then the conditions between keys.
macro_rules! constructor {
    (
        $doc:literal, $name:ident, $formula:literal,
        { $($key:ident: $type:ty where $allowed:ident, $default:literal;)+ }
        $([require $condition:expr, $limited:ident: $limit:literal])*
        => $body:expr
    ) => {
        #[doc = $doc]
        ///
        /// ```text
        #[doc = $formula]
        /// ```
        ///
        /// Keys in the text, and their defaults there:
        $(#[doc = concat!("- `", stringify!($key), "`: ", $default)])+
        ///
        /// # Errors
        /// [`Error::ScheduleOutOfRange`] if a value is negative, not finite, or not allowed for its key.
        pub fn $name($($key: $type),+) -> Result<Schedule> {
            $(check(stringify!($name), stringify!($key), &$key, &$allowed)?;)+
            $(if !$condition {
                return Err(Error::ScheduleOutOfRange {
                    schedule: stringify!($name),
                    key: stringify!($limited),
                    value: $limited.print(),
                    allowed: format!($limit),
                });
            })*
            Ok($body)
        }
    };
}

/// The one declaration of all schedules. The constructors, their documentation, parsing, printing and the table
/// [`all`] derive from it. In `at`, the keys are references, and t counts from the start of the piece.
macro_rules! schedules {
    (
        pieces {$(
            #[doc = $doc:literal]
            $name:ident = $formula:literal {
                $($key:ident: $type:ty where $allowed:ident, $text:literal => $default:expr;)+
            }
            $([require $condition:expr, $limited:ident: $limit:literal])*
            $piece:ident at |$t:ident| $at:expr;
        )+}
        recipes {$(
            #[doc = $rdoc:literal]
            $rname:ident = $rformula:literal {
                $($rkey:ident: $rtype:ty where $rallowed:ident, $rtext:literal => $rdefault:expr;)+
            }
            $([require $rcondition:expr, $rlimited:ident: $rlimit:literal])*
            $recipe:block
        )+}
    ) => {
        #[derive(Clone, Debug, PartialEq)]
        enum Piece {
            $($piece { $($key: $type),+ },)+
        }

        impl Piece {
            fn at(&self, t: u64) -> f64 {
                match self {
                    $(Piece::$piece { $($key),+ } => { let $t = t; $at })+
                }
            }
        }

        impl fmt::Display for Piece {
            fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
                let (name, keys) = match self {
                    $(Piece::$piece { $($key),+ } => (
                        stringify!($name),
                        [$(format!("{}={}", stringify!($key), $key.print())),+].join(","),
                    ),)+
                };
                write!(f, "{name}:{keys}")
            }
        }

        /// The pieces and the known recipes.
        impl Schedule {
            $(constructor! {
                $doc, $name, $formula,
                { $($key: $type where $allowed, $text;)+ }
                $([require $condition, $limited: $limit])*
                => Schedule::from(Piece::$piece { $($key),+ })
            })+
            $(constructor! {
                $rdoc, $rname, $rformula,
                { $($rkey: $rtype where $rallowed, $rtext;)+ }
                $([require $rcondition, $rlimited: $rlimit])*
                => $recipe
            })+
        }

        const ALL: &[Entry] = &[
            $(entry! { $doc, $name, $formula, { $($key: $type where $allowed, $text => $default;)+ } },)+
            $(entry! { $rdoc, $rname, $rformula, { $($rkey: $rtype where $rallowed, $rtext => $rdefault;)+ } },)+
        ];
    };
}

/// The row of [`ALL`] for a piece or recipe.
macro_rules! entry {
    (
        $doc:literal, $name:ident, $formula:literal,
        { $($key:ident: $type:ty where $allowed:ident, $text:literal => $default:expr;)+ }
    ) => {
        Entry {
            name: stringify!($name),
            doc: $doc.trim_ascii(),
            formula: $formula,
            keys: &[$(Key { name: stringify!($key), default: $text, allowed: $allowed.text }),+],
            read: |given, run| {
                $(
                    let default: fn(&Defaults) -> Option<$type> = $default;
                    let $key = given.value(stringify!($key), &$allowed, $text, default(run))?;
                )+
                Schedule::$name($($key),+)
            },
        }
    };
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

    /// Reads a [text](self); keys that it lacks come from `defaults`.
    ///
    /// # Errors
    /// An unknown name or key (the message suggests a near one), a key that is missing while nothing gives its
    /// default, a value that is not a number or out of range, or text of another form.
    pub fn parse(text: &str, defaults: &Defaults) -> Result<Schedule> {
        let syntax = |expected| Error::ScheduleSyntax { text: text.trim().to_owned(), expected };
        let mut words = text.split_whitespace().peekable();
        let mut whole: Option<Schedule> = None;
        let mut start = 0;
        loop {
            let mut piece = Vec::new();
            while let Some(word) = words.next_if(|word| !matches!(*word, "until" | "then")) {
                piece.push(word);
            }
            let until = match words.next() {
                None => None,
                Some("until") => {
                    let until = words.next().ok_or_else(|| syntax("a number must follow `until`"))?;
                    if words.next() != Some("then") {
                        return Err(syntax("`then` and a schedule must follow `until` and its number"));
                    }
                    Some(read_until(until, start)?)
                }
                Some(_) => return Err(syntax("`until` and a number must come before `then`")),
            };
            let length = until.map(|until| until - start).or(defaults.steps.map(|all| all.saturating_sub(start)));
            // A piece that starts after the run's end is never reached: any length will do.
            let length = if start == 0 { length } else { length.map(|length| length.max(1)) };
            let piece = read_piece(&piece.join(" "), Defaults { steps: length, ..*defaults })?;
            let joined = match whole {
                None => piece,
                Some(whole) => whole.then(start, piece),
            };
            match until {
                None => return Ok(joined),
                Some(until) => (whole, start) = (Some(joined), until),
            }
        }
    }
}

impl From<Piece> for Schedule {
    fn from(piece: Piece) -> Schedule {
        if let Piece::WarmupCosine { warmup: 0, steps: 1, lr, min_lr } = &piece {
            static ONCE: Once = Once::new();
            ONCE.call_once(|| {
                tracing::warn!(
                    lr,
                    min_lr,
                    "warmup_cosine with steps=1 and warmup=0: its one update is at min_lr, not at lr"
                );
            });
        }
        Schedule { pieces: vec![(0, piece)] }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for (start, piece) in &self.pieces {
            if *start > 0 {
                write!(f, " until {start} then ")?;
            }
            write!(f, "{piece}")?;
        }
        Ok(())
    }
}

/// [`Schedule::parse`] without defaults from an optimizer or a run.
impl FromStr for Schedule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Schedule> {
        Schedule::parse(text, &Defaults::default())
    }
}

impl TryFrom<String> for Schedule {
    type Error = Error;

    fn try_from(text: String) -> Result<Schedule> {
        text.parse()
    }
}

impl From<Schedule> for String {
    fn from(schedule: Schedule) -> String {
        schedule.to_string()
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

/// A value of a key, from text and to text.
trait Value: Sized {
    fn read(text: &str) -> Option<Self>;

    /// Reads back to the same value.
    fn print(&self) -> String;
}

impl Value for f64 {
    fn read(text: &str) -> Option<f64> {
        text.parse().ok()
    }

    fn print(&self) -> String {
        // Debug is the shortest text that reads back, with an exponent where Display writes hundreds of zeros.
        let text = format!("{self:?}");
        text.strip_suffix(".0").unwrap_or(&text).to_owned()
    }
}

impl Value for u64 {
    fn read(text: &str) -> Option<u64> {
        text.parse().ok()
    }

    fn print(&self) -> String {
        self.to_string()
    }
}

impl Value for Vec<u64> {
    fn read(text: &str) -> Option<Vec<u64>> {
        text.split('/').map(|part| u64::read(part.trim())).collect()
    }

    fn print(&self) -> String {
        self.iter().map(u64::print).collect::<Vec<_>>().join("/")
    }
}

fn check<T: Value>(schedule: &'static str, key: &'static str, value: &T, allowed: &Allowed<T>) -> Result<()> {
    if (allowed.holds)(value) {
        return Ok(());
    }
    Err(Error::ScheduleOutOfRange { schedule, key, value: value.print(), allowed: allowed.text.to_owned() })
}

fn read<T: Value>(schedule: &'static str, key: &'static str, text: &str, allowed: &Allowed<T>) -> Result<T> {
    T::read(text).ok_or_else(|| Error::UnreadableScheduleValue {
        schedule,
        key,
        value: text.to_owned(),
        allowed: allowed.text.to_owned(),
    })
}

/// The update after `until`, which must lie after the update at which the piece starts.
fn read_until(text: &str, start: u64) -> Result<u64> {
    let until = read("join", "until", text, &POSITIVE)?;
    if until > start {
        return Ok(until);
    }
    Err(Error::ScheduleOutOfRange {
        schedule: "join",
        key: "until",
        value: until.print(),
        allowed: format!("more than {start}, where the piece starts"),
    })
}

fn read_piece(text: &str, mut run: Defaults) -> Result<Schedule> {
    let text = SpecText::of(text);
    let name = text.name.as_str();
    let entry = ALL.iter().find(|entry| same_name(entry.name, name)).ok_or_else(|| {
        let names: Vec<_> = ALL.iter().map(|entry| entry.name).collect();
        Error::UnknownSchedule { name: name.to_owned(), suggestion: suggestion(name, &names), known: names.join(", ") }
    })?;
    let given = Given::new(entry, &text)?;
    if let Some(steps) = given.text("steps") {
        run.steps = Some(read(entry.name, "steps", steps, &POSITIVE)?);
    }
    (entry.read)(&given, &run)
}

/// The keys of a piece as its text gives them: all known, none twice.
struct Given<'a> {
    schedule: &'static str,
    pairs: Vec<(&'static str, &'a str)>,
}

impl<'a> Given<'a> {
    fn new(entry: &Entry, text: &'a SpecText) -> Result<Given<'a>> {
        let pairs = text.pairs().map_err(|error| match error {
            PairError::NotAPair { part } => {
                Error::ScheduleSyntax { text: part, expected: "must have the form key=value" }
            }
            PairError::Twice { part, .. } => Error::ScheduleSyntax { text: part, expected: "this key is given twice" },
        })?;
        let known = |(key, value): (&str, &'a str)| {
            let known = entry.keys.iter().find(|known| same_name(known.name, key)).ok_or_else(|| {
                let names: Vec<_> = entry.keys.iter().map(|key| key.name).collect();
                Error::UnknownScheduleKey {
                    schedule: entry.name,
                    key: key.to_owned(),
                    suggestion: suggestion(key, &names),
                    known: names.join(", "),
                }
            })?;
            Ok((known.name, value))
        };
        Ok(Given { schedule: entry.name, pairs: pairs.into_iter().map(known).collect::<Result<_>>()? })
    }

    fn text(&self, key: &str) -> Option<&'a str> {
        self.pairs.iter().find(|(name, _)| *name == key).map(|(_, text)| *text)
    }

    fn value<T: Value>(
        &self,
        key: &'static str,
        allowed: &Allowed<T>,
        default: &'static str,
        value: Option<T>,
    ) -> Result<T> {
        match self.text(key) {
            Some(text) => read(self.schedule, key, text, allowed),
            None => value.ok_or(Error::MissingScheduleKey { schedule: self.schedule, key, default }),
        }
    }
}
