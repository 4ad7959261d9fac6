use thiserror::Error;

/// What can go wrong. Every message is one line that names the thing, the value and what is allowed.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum Error {
    /// No schedule has this name.
    #[error("no schedule is named {name:?}{}; known: {known}", did_you_mean(.suggestion))]
    UnknownSchedule {
        /// The name that was given.
        name: String,
        /// The nearest known name, if one is near.
        suggestion: Option<&'static str>,
        /// All known names.
        known: String,
    },

    /// The schedule has no key of this name.
    #[error("schedule {schedule} has no key {key:?}{}; its keys: {known}", did_you_mean(.suggestion))]
    UnknownScheduleKey {
        /// The schedule's name.
        schedule: &'static str,
        /// The key that was given.
        key: String,
        /// The nearest known key, if one is near.
        suggestion: Option<&'static str>,
        /// All keys of this schedule.
        known: String,
    },

    /// A key is absent and nothing gives its default.
    #[error(
        "schedule {schedule}: {key} is missing; its default, {default}, is not known here: write {key}=.."
    )]
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
    NotANumber {
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

    /// The text has not the form of a schedule.
    #[error("schedule {text:?}: {expected}")]
    ScheduleSyntax {
        /// The part of the text that cannot be read.
        text: String,
        /// What is wrong with it.
        expected: &'static str,
    },
}

/// The result of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

fn did_you_mean(suggestion: &Option<&'static str>) -> String {
    suggestion.map_or(String::new(), |near| format!(", did you mean {near}?"))
}
