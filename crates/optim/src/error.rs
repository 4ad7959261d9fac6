//! What can go wrong, one enum for the crate. Every message names the thing, the value and what is allowed.

/// A result of this crate. Its error converts to and from candle's, so that `?` works in both directions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No rule has this name.
    #[error("unknown optimizer `{name}`:{suggestion} ({allowed})")]
    Rule {
        /// What was asked for.
        name: String,
        /// The nearest known name, as part of a sentence.
        suggestion: String,
        /// All names.
        allowed: String,
    },
    /// The rule has no such hyperparameter.
    #[error("{rule} has no hyperparameter `{key}`:{suggestion} ({allowed})")]
    Key {
        /// The rule.
        rule: String,
        /// What was asked for.
        key: String,
        /// The nearest known key, as part of a sentence.
        suggestion: String,
        /// All keys.
        allowed: String,
    },
    /// A hyperparameter was given twice.
    #[error("{rule}: `{key}` is given twice")]
    KeyTwice {
        /// The rule.
        rule: String,
        /// The key.
        key: String,
    },
    /// Not of the form key=value.
    #[error("{rule}: `{pair}` is not of the form key=value")]
    Pair {
        /// The rule.
        rule: String,
        /// What was found.
        pair: String,
    },
    /// A hyperparameter out of its range.
    #[error("{rule}: {key} = {value} is out of range: it must be {allowed}")]
    Value {
        /// The rule.
        rule: String,
        /// The hyperparameter.
        key: String,
        /// The value.
        value: String,
        /// What is allowed.
        allowed: String,
    },
    /// A parameter that cannot be optimized.
    #[error("parameter `{name}`: {problem}")]
    Parameter {
        /// Its name.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// Two parameters are one.
    #[error("parameters `{first}` and `{second}` share their storage: give a tied parameter once")]
    Tied {
        /// The first.
        first: String,
        /// The second.
        second: String,
    },
    /// Two parameters have one name.
    #[error("two parameters are named `{name}`: state is kept by name, so names must differ")]
    SameName {
        /// The name.
        name: String,
    },
    /// No parameter has a gradient.
    #[error("no gradient for any of the {count} parameters that are not frozen: does the loss depend on them?")]
    NoGradient {
        /// How many parameters there are.
        count: usize,
    },
    /// The state has no names to be kept by.
    #[error("this optimizer was made without names of parameters, so its state cannot be saved: make it with `named(&varmap, config)`")]
    Unnamed,
    /// A method was called at the wrong time.
    #[error("{0}")]
    Order(&'static str),
    /// A saved state that does not fit.
    #[error("saved state: {0}")]
    State(String),
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
    Candle(#[from] candle_core::Error),
}

impl From<Error> for candle_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Candle(error) => error,
            other => candle_core::Error::wrap(other),
        }
    }
}

/// ` did you mean ..?` with the known name nearest to `name`, or ` known are`.
pub(crate) fn suggestion(name: &str, known: &[&str]) -> String {
    let distance = |k: &&&str| strsim::damerau_levenshtein(name, k);
    match known.iter().min_by_key(distance) {
        Some(near) if distance(&near) <= 1 + near.len() / 4 => format!(" did you mean `{near}`?"),
        _ => " known are".to_string(),
    }
}
