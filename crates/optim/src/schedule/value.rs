//! The values of keys: their types, and which are allowed.

use crate::error::{Error, Result};

/// The set of values that a key can have.
pub(super) struct Allowed<T: 'static> {
    pub text: &'static str,
    pub holds: fn(&T) -> bool,
}

pub(super) const NON_NEGATIVE: Allowed<f64> =
    Allowed { text: "a finite number, 0 or more", holds: |x| *x >= 0.0 && x.is_finite() };
pub(super) const WHOLE: Allowed<u64> = Allowed { text: "a whole number from 0 to 2^64 - 1", holds: |_| true };
pub(super) const POSITIVE: Allowed<u64> = Allowed { text: "a whole number from 1 to 2^64 - 1", holds: |n| *n > 0 };
pub(super) const RISING: Allowed<Vec<u64>> = Allowed {
    text: "rising whole numbers, joined by /",
    holds: |list| !list.is_empty() && list.is_sorted_by(|a, b| a < b),
};

/// A value of a key, from text and to text.
pub(super) trait Value: Sized {
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

/// Whether a value is one that the key allows.
pub(super) fn check<T: Value>(
    schedule: &'static str,
    key: &'static str,
    value: &T,
    allowed: &Allowed<T>,
) -> Result<()> {
    if (allowed.holds)(value) {
        return Ok(());
    }
    Err(Error::ScheduleOutOfRange { schedule, key, value: value.print(), allowed: allowed.text.to_owned() })
}

/// The value that a text gives a key.
pub(super) fn read<T: Value>(schedule: &'static str, key: &'static str, text: &str, allowed: &Allowed<T>) -> Result<T> {
    T::read(text).ok_or_else(|| Error::UnreadableScheduleValue {
        schedule,
        key,
        value: text.to_owned(),
        allowed: allowed.text.to_owned(),
    })
}
