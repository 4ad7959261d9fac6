//! What the text of a piece gives, and what stands in for the rest.

use super::value::{Allowed, Value, read};
use crate::error::{Error, Result};
use crate::text::{PairError, SpecText, same_name, suggestion};

/// What stands in for keys that a text lacks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Defaults {
    /// The optimizer's own learning rate.
    pub lr: Option<f64>,
    /// The length of the run, in updates.
    pub steps: Option<u64>,
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

/// The keys of a piece as its text gives them: all known, none twice.
pub(super) struct Given<'a> {
    schedule: &'static str,
    pairs: Vec<(&'static str, &'a str)>,
}

impl<'a> Given<'a> {
    pub fn new(schedule: &'static str, keys: &[Key], text: &'a SpecText) -> Result<Given<'a>> {
        let pairs = text.pairs().map_err(|error| match error {
            PairError::NotAPair { part } => {
                Error::ScheduleSyntax { text: part, expected: "must have the form key=value" }
            }
            PairError::Twice { part, .. } => Error::ScheduleSyntax { text: part, expected: "this key is given twice" },
        })?;
        let known = |(key, value): (&str, &'a str)| {
            let known = keys.iter().find(|known| same_name(known.name, key)).ok_or_else(|| {
                let names: Vec<_> = keys.iter().map(|key| key.name).collect();
                Error::UnknownScheduleKey {
                    schedule,
                    key: key.to_owned(),
                    suggestion: suggestion(key, &names),
                    known: names.join(", "),
                }
            })?;
            Ok((known.name, value))
        };
        Ok(Given { schedule, pairs: pairs.into_iter().map(known).collect::<Result<_>>()? })
    }

    pub fn text(&self, key: &str) -> Option<&'a str> {
        self.pairs.iter().find(|(name, _)| *name == key).map(|(_, text)| *text)
    }

    pub fn value<T: Value>(
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
