//! Schedules as text.

use super::given::{Defaults, Given};
use super::pieces::{Schedule, all};
use super::value::{POSITIVE, Value, read};
use crate::error::{Error, Result};
use crate::text::{SpecText, same_name, suggestion};
use std::{fmt, str::FromStr};

impl Schedule {
    /// Reads a [text](crate::schedule); keys that it lacks come from `defaults`.
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
    let entry = all().iter().find(|entry| same_name(entry.name, name)).ok_or_else(|| {
        let names: Vec<_> = all().iter().map(|entry| entry.name).collect();
        Error::UnknownSchedule { name: name.to_owned(), suggestion: suggestion(name, &names), known: names.join(", ") }
    })?;
    let given = Given::new(entry.name, entry.keys, &text)?;
    if let Some(steps) = given.text("steps") {
        run.steps = Some(read(entry.name, "steps", steps, &POSITIVE)?);
    }
    (entry.read)(&given, &run)
}
