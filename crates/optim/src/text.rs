//! Text that people type: `NAME:KEY=VALUE,..`, and how names in it are found.
//!
//! Rules, schedules, models and spaces of hyperparameters are all written as [`SpecText`].
//!
//! ```
//! use optim::text::SpecText;
//!
//! let mut text = SpecText::of("adamw: lr = 1e-3, beta2 = 0.95");
//! assert_eq!((text.name.as_str(), text.get("beta2")), ("adamw", Some("0.95")));
//! assert_eq!(text.pairs()?, [("lr", "1e-3"), ("beta2", "0.95")]);
//! text.set("lr", "3e-4");
//! assert_eq!(text.to_string(), "adamw:beta2=0.95,lr=3e-4");
//! # Ok::<(), optim::text::PairError>(())
//! ```

use std::fmt;

/// A text of the form `NAME` or `NAME:KEY=VALUE,..`.
///
/// The name ends at the first `:`. Commas part what follows it, and the first `=` of a part ends its key. Blanks around names,
/// keys, values and parts do not count. Any text can be taken apart in this way, and [`pairs`](Self::pairs) says what is wrong
/// with its parts. So an editor can change a text before it is known to be right.
///
/// A key is found as [`same_name`] says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecText {
    /// What comes before the first `:`.
    pub name: String,
    /// What the commas part, as it is written.
    parts: Vec<String>,
}

/// What is wrong with a part of a [`SpecText`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PairError {
    /// The part has no `=`. It may be blank.
    #[error("`{part}` is not of the form key=value")]
    NotAPair {
        /// The part.
        part: String,
    },
    /// An earlier part has the same key.
    #[error("`{key}` is given twice")]
    Twice {
        /// The key as this part writes it.
        key: String,
        /// The part.
        part: String,
    },
}

impl SpecText {
    /// Takes a text apart. `NAME` has no parts, and `NAME:` has a blank one.
    pub fn of(text: &str) -> Self {
        let (name, parts) = match text.split_once(':') {
            Some((name, parts)) => (name, Some(parts)),
            None => (text, None),
        };
        let parts = parts.into_iter().flat_map(|parts| parts.split(','));
        Self { name: name.trim().to_owned(), parts: parts.map(|part| part.trim().to_owned()).collect() }
    }

    /// The same without blank parts: `adamw:lr=1,` is `adamw:lr=1`, and `adamw:` is `adamw`.
    #[must_use]
    pub fn without_blanks(mut self) -> Self {
        self.parts.retain(|part| !part.is_empty());
        self
    }

    /// The keys with their values, as they are written.
    ///
    /// # Errors
    /// The first part that is not of the form key=value, or whose key was there before.
    pub fn pairs(&self) -> Result<Vec<(&str, &str)>, PairError> {
        let mut pairs: Vec<(&str, &str)> = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let (key, value) = split(part);
            let value = value.ok_or_else(|| PairError::NotAPair { part: part.clone() })?;
            if pairs.iter().any(|(other, _)| same_name(other, key)) {
                return Err(PairError::Twice { key: key.to_owned(), part: part.clone() });
            }
            pairs.push((key, value));
        }
        Ok(pairs)
    }

    /// The keys, as they are written. A part without `=` is a key without a value.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter(|part| !part.is_empty()).map(|part| split(part).0)
    }

    /// The first value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.parts.iter().map(|part| split(part)).find(|(other, _)| same_name(other, key))?.1
    }

    /// Gives a key a value, in place of any that it had. The pair becomes the last.
    pub fn set(&mut self, key: &str, value: &str) {
        self.remove(key);
        self.parts.retain(|part| !part.is_empty());
        self.parts.push(format!("{key}={value}"));
    }

    /// Takes a key out, with all its values; says whether it was there.
    pub fn remove(&mut self, key: &str) -> bool {
        let before = self.parts.len();
        self.parts.retain(|part| part.is_empty() || !same_name(split(part).0, key));
        self.parts.len() < before
    }
}

/// The key and the value of a part; no value where it has no `=`.
fn split(part: &str) -> (&str, Option<&str>) {
    match part.split_once('=') {
        Some((key, value)) => (key.trim(), Some(value.trim())),
        None => (part, None),
    }
}

impl fmt::Display for SpecText {
    /// Prints `NAME` or `NAME:KEY=VALUE,..`, without blanks around keys and values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        for (i, part) in self.parts.iter().enumerate() {
            f.write_str(if i == 0 { ":" } else { "," })?;
            match split(part) {
                (key, Some(value)) => write!(f, "{key}={value}")?,
                (part, None) => f.write_str(part)?,
            }
        }
        Ok(())
    }
}

/// Whether two names mean the same: neither case nor `-` and `_` matter.
pub fn same_name(a: &str, b: &str) -> bool {
    plain(a) == plain(b)
}

fn plain(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '-' | '_')).flat_map(char::to_lowercase).collect()
}

/// The known name that the given one probably means.
///
/// That is one from which a few edits lead to it (at most one for three letters of the known name; to swap neighbours is one), or
/// one of which it is the beginning, or which is its beginning. A similarity such as Jaro-Winkler's would not do: to it the slip
/// `gtp` is as far from `gpt` as from much else. The fewest edits win, then the shorter name, then the later.
pub fn nearest<'k>(given: &str, known: &[&'k str]) -> Option<&'k str> {
    let given = plain(given);
    let is_begun = |a: &str, b: &str| a.len() >= 3 && b.starts_with(a);
    let near = known.iter().rev().filter_map(|name| {
        let other = plain(name);
        let edits = strsim::damerau_levenshtein(&given, &other);
        let is_near = edits <= other.len().max(3) / 3 || is_begun(&given, &other) || is_begun(&other, &given);
        is_near.then_some((edits, other.len(), *name))
    });
    near.min_by_key(|(edits, len, _)| (*edits, *len)).map(|(.., name)| name)
}

/// ` did you mean ..?` with the known name that the given one is probably a slip of, or ` known are`.
pub(crate) fn suggestion(given: &str, known: &[&str]) -> String {
    match nearest(given, known) {
        Some(near) => format!(" did you mean `{near}`?"),
        None => " known are".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_taken_apart_the_same_way_however_it_is_written() {
        for (text, printed, pairs) in [
            ("adamw", "adamw", &[][..]),
            (" adamw ", "adamw", &[]),
            ("adamw:lr=1e-3", "adamw:lr=1e-3", &[("lr", "1e-3")]),
            ("adamw : lr = 1 , beta2=\t0.9 ", "adamw:lr=1,beta2=0.9", &[("lr", "1"), ("beta2", "0.9")]),
            ("a:k=v=w:x", "a:k=v=w:x", &[("k", "v=w:x")]),
            ("a:k=", "a:k=", &[("k", "")]),
            ("a:=v", "a:=v", &[("", "v")]),
            ("", "", &[]),
        ] {
            let read = SpecText::of(text);
            assert_eq!(read.to_string(), printed, "{text:?}");
            assert_eq!(read.pairs().unwrap(), pairs, "{text:?}");
            assert_eq!(SpecText::of(printed).to_string(), printed);
        }
    }

    #[test]
    fn parts_that_are_no_pairs_are_named() {
        let error = |text: &str| SpecText::of(text).pairs().unwrap_err().to_string();
        for (text, message) in [
            ("a:", "`` is not of the form key=value"),
            ("a:lr=1,", "`` is not of the form key=value"),
            ("a: lr ", "`lr` is not of the form key=value"),
            ("a:lr=1,LR=2", "`LR` is given twice"),
            ("a:min_lr=1,x=2,min-lr = 2", "`min-lr` is given twice"),
        ] {
            assert_eq!(error(text), message, "{text}");
        }
        for (text, printed) in [("a:", "a"), ("a:,lr=1,,", "a:lr=1"), ("a: , ", "a")] {
            let read = SpecText::of(text).without_blanks();
            assert_eq!(read.to_string(), printed);
            read.pairs().unwrap();
        }
    }

    #[test]
    fn a_key_is_set_once_however_it_is_written() {
        for (text, expected) in [
            ("wsd", "wsd:warmup=0"),
            ("wsd:", "wsd:warmup=0"),
            ("wsd:steps=9", "wsd:steps=9,warmup=0"),
            ("wsd:warmup=20,steps=9", "wsd:steps=9,warmup=0"),
            ("wsd : Warmup = 20 , steps=9, warmup=3", "wsd:steps=9,warmup=0"),
            ("wsd:warmup,steps", "wsd:steps,warmup=0"),
        ] {
            let mut edited = SpecText::of(text);
            let has = edited.keys().any(|key| same_name(key, "warmup"));
            assert_eq!(edited.clone().remove("warmup"), has, "{text}");
            assert_eq!(
                edited.get("warmup").is_some(),
                text.to_lowercase().contains("warmup ") || text.contains("warmup=")
            );
            edited.set("warmup", "0");
            assert_eq!((edited.to_string().as_str(), edited.get("warm-up")), (expected, Some("0")));
        }
    }

    #[test]
    fn the_nearest_name_is_one_that_is_meant() {
        let models = ["mlp", "cnn", "resnet20", "gpt"];
        let rules = ["sgd", "rmsprop", "adam", "amsgrad", "adamw", "lion", "lamb", "sam"];
        let schedules = ["constant", "cosine", "warmup_cosine", "exponential", "step"];
        for (given, known, expected) in [
            ("resnet2", &models[..], Some("resnet20")),
            ("ResNet20", &models, Some("resnet20")),
            ("mpl", &models, Some("mlp")),
            ("gtp", &models, Some("gpt")),
            ("transformer", &models, None),
            ("adamm", &rules, Some("adam")),
            ("Adam-V", &rules, Some("adam")),
            ("rms", &rules, Some("rmsprop")),
            ("quasi-newton", &rules, None),
            ("", &rules, None),
            ("s", &rules, None),
            ("exp", &schedules, Some("exponential")),
            ("cosine lr=1", &schedules, Some("cosine")),
            ("warmup_cosin", &schedules, Some("warmup_cosine")),
            ("nothing", &schedules, None),
            ("min-rl", &["lr", "min_lr", "steps"], Some("min_lr")),
            ("beta3", &["beta1", "beta2"], Some("beta2")),
        ] {
            assert_eq!(nearest(given, known), expected, "{given}");
        }
    }
}
