//! What can go wrong, one enum for the crate. Every message names the thing, the value and what is allowed.

/// A result of this crate. Its error converts to and from candle's, so that `?` works in both directions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No rule has this name.
    #[error("unknown optimizer `{name}`:{suggestion} ({known})")]
    UnknownRule {
        /// What was asked for.
        name: String,
        /// The nearest known name, as part of a sentence.
        suggestion: String,
        /// All names.
        known: String,
    },
    /// A rule cannot be found by its name.
    #[error("cannot register the rule `{name}`: {problem}")]
    CannotRegister {
        /// Its name.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// No recipe has this name.
    #[error("unknown recipe `{name}`:{suggestion} ({known})")]
    UnknownRecipe {
        /// What was asked for.
        name: String,
        /// The nearest known name, as part of a sentence.
        suggestion: String,
        /// All names.
        known: String,
    },
    /// The rule has no such hyperparameter.
    #[error("{rule} has no hyperparameter `{key}`:{suggestion} ({known})")]
    UnknownKey {
        /// The rule.
        rule: String,
        /// What was asked for.
        key: String,
        /// The nearest known key, as part of a sentence.
        suggestion: String,
        /// All keys.
        known: String,
    },
    /// A hyperparameter was given twice.
    #[error("{rule}: `{key}` is given twice")]
    RepeatedKey {
        /// The rule.
        rule: String,
        /// The key.
        key: String,
    },
    /// Not of the form key=value.
    #[error("{rule}: `{pair}` is not of the form key=value")]
    NotAPair {
        /// The rule.
        rule: String,
        /// What was found.
        pair: String,
    },
    /// A hyperparameter out of its range.
    #[error("{rule}: {key} = {value} is out of range: it must be {allowed}")]
    OutOfRange {
        /// The rule.
        rule: String,
        /// The hyperparameter.
        key: String,
        /// The value.
        value: String,
        /// What is allowed.
        allowed: String,
    },
    /// SAM around SAM.
    #[error("sam cannot go around itself: base must be one of {allowed}")]
    NestedSam {
        /// What it can go around.
        allowed: String,
    },
    /// No schedule has this name.
    #[error("unknown schedule `{name}`:{suggestion} ({known})")]
    UnknownSchedule {
        /// The name that was given.
        name: String,
        /// The nearest known name, as part of a sentence.
        suggestion: String,
        /// All known names.
        known: String,
    },

    /// The schedule has no key of this name.
    #[error("schedule {schedule} has no key `{key}`:{suggestion} ({known})")]
    UnknownScheduleKey {
        /// The schedule's name.
        schedule: &'static str,
        /// The key that was given.
        key: String,
        /// The nearest known key, as part of a sentence.
        suggestion: String,
        /// All keys of this schedule.
        known: String,
    },

    /// A key is absent and nothing gives its default.
    #[error("schedule {schedule}: {key} is missing; its default, {default}, is not known here: write {key}=..")]
    MissingScheduleKey {
        /// The schedule's name.
        schedule: &'static str,
        /// The absent key.
        key: &'static str,
        /// Where its default would come from.
        default: &'static str,
    },

    /// A value is not a number (or a whole number, or a list of them).
    #[error("schedule {schedule}: {key}={value:?} cannot be read; allowed: {allowed}")]
    UnreadableScheduleValue {
        /// The schedule's name, or `until` of a joined schedule.
        schedule: &'static str,
        /// The key.
        key: &'static str,
        /// The value that was given.
        value: String,
        /// What is allowed.
        allowed: String,
    },

    /// A value is outside of the range of its key.
    #[error("schedule {schedule}: {key}={value} is out of range; allowed: {allowed}")]
    ScheduleOutOfRange {
        /// The schedule's name, or `until` of a joined schedule.
        schedule: &'static str,
        /// The key.
        key: &'static str,
        /// The value that was given.
        value: String,
        /// What is allowed.
        allowed: String,
    },

    /// The text is not a valid schedule.
    #[error("schedule {text:?}: {expected}")]
    ScheduleSyntax {
        /// The part of the text that cannot be read.
        text: String,
        /// What is wrong with it.
        expected: &'static str,
    },
    /// A parameter that cannot be optimized.
    #[error("parameter `{name}`: {problem}")]
    UnsuitableParameter {
        /// Its name.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// Two parameters are one.
    #[error("parameters `{first}` and `{second}` share their storage: give a tied parameter once")]
    TiedParameters {
        /// The first.
        first: String,
        /// The second.
        second: String,
    },
    /// Two parameters have one name.
    #[error("two parameters are named `{name}`: state is kept by name, so names must differ")]
    RepeatedName {
        /// The name.
        name: String,
    },
    /// There is nothing to optimize.
    #[error(
        "the optimizer has no parameters: a `VarMap` has them once the model is built; or add them by `push` before the first step"
    )]
    NoParameters,
    /// No parameter has a gradient.
    #[error("no gradient for any of the {count} parameters that are not frozen: does the loss depend on them?")]
    NoGradient {
        /// How many parameters there are.
        count: usize,
    },
    /// The state has no names to be kept by.
    #[error(
        "this optimizer was made without names of parameters, so its state cannot be saved: make it with `named(&varmap, config)`"
    )]
    Unnamed,
    /// A method was called at the wrong time.
    #[error("{0}")]
    WrongState(&'static str),
    /// A saved state that does not fit.
    #[error("saved state: {0}")]
    StateMismatch(String),
    /// A file.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// From candle.
    #[error(transparent)]
    Candle(candle_core::Error),
}

impl Error {
    /// The error of this crate that a method of candle's [`Optimizer`](candle_nn::Optimizer) returned as candle's.
    ///
    /// ```
    /// use candle_nn::{Optimizer, VarMap};
    /// let error = optim::AdamW::new(VarMap::new().all_vars(), Default::default()).unwrap_err();
    /// assert!(matches!(optim::Error::of(&error), Some(optim::Error::NoParameters)));
    /// ```
    pub fn of(error: &candle_core::Error) -> Option<&Self> {
        use candle_core::Error::{Context, Io, WithBacktrace, WithPath};
        match error {
            Io(error) => error.get_ref()?.downcast_ref(),
            Context { inner, .. } | WithPath { inner, .. } | WithBacktrace { inner, .. } => Self::of(inner),
            _ => None,
        }
    }
}

impl From<Error> for candle_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Candle(error) => error,
            // Of candle's variants this is one that lets the error be downcast again, and shows it as it is.
            other => candle_core::Error::Io(std::io::Error::other(other)),
        }
    }
}

impl From<candle_core::Error> for Error {
    /// An error of this crate that went through candle is itself again.
    fn from(error: candle_core::Error) -> Self {
        match error {
            candle_core::Error::Io(error) => match error.downcast::<Self>() {
                Ok(own) => own,
                Err(error) => Error::Candle(candle_core::Error::Io(error)),
            },
            candle_core::Error::WithBacktrace { inner, .. } if Self::of(&inner).is_some() => (*inner).into(),
            other => Error::Candle(other),
        }
    }
}
