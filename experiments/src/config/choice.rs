//! Lists in a text: `adamw:lr=1e-3|3e-3` stands for two optimizers, and its learning rate is a factor of the comparison.

use super::names::number;
use anyhow::{Result, anyhow, bail};
use optim::text::SpecText;

/// What parts the values of a list.
const OR: char = '|';

/// One of the texts that a text with lists stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The text with one value of each list.
    pub text: String,
    /// The text without the keys that have a list: the same for all choices of it.
    pub head: String,
    /// The keys that have a list, each with its value here.
    pub listed: Vec<(String, String)>,
}

impl Choice {
    /// The choices of a text `NAME[:KEY=VALUE,..]` whose values may be lists `VALUE|VALUE..`; the last list varies first. A text without a
    /// list is its own choice.
    ///
    /// # Errors
    /// A list with an empty value, or with a value twice; a list in a schedule of several parts; more than `most` choices; and, where
    /// there is a list, a part that is no pair.
    pub fn all(text: &str, most: usize) -> Result<Vec<Self>> {
        if !text.contains(OR) {
            return Ok(vec![Self { text: text.to_owned(), head: text.to_owned(), listed: Vec::new() }]);
        }
        if text.contains(" then ") {
            bail!("`{text}`: a schedule of several parts has no lists: give each schedule by an option of its own");
        }
        let spec = SpecText::of(text).without_blanks();
        let pairs = spec.pairs().map_err(|error| anyhow!("`{text}`: {error}"))?;
        let mut choices = vec![Self { text: spec.name.clone(), head: spec.name.clone(), listed: Vec::new() }];
        for (key, value) in pairs {
            let values = list(text, key, value)?;
            if choices.len().saturating_mul(values.len()) > most {
                bail!("`{text}`: its lists make more than {most} groups");
            }
            let is_listed = values.len() > 1;
            choices = choices
                .iter()
                .flat_map(|choice| {
                    values.iter().map(move |value| {
                        let mut next = choice.clone();
                        append(&mut next.text, key, value);
                        if is_listed {
                            next.listed.push((factor(key), short(value)));
                        } else {
                            append(&mut next.head, key, value);
                        }
                        next
                    })
                })
                .collect();
        }
        Ok(choices)
    }

    /// The choices of all `texts`, in their order.
    ///
    /// # Errors
    /// As [`Self::all`].
    pub fn of(texts: &[String], most: usize) -> Result<Vec<Self>> {
        let choices = texts.iter().map(|text| Self::all(text, most)).collect::<Result<Vec<_>>>()?;
        Ok(choices.concat())
    }
}

/// The values of a list.
fn list<'a>(text: &str, key: &str, value: &'a str) -> Result<Vec<&'a str>> {
    let values: Vec<&str> = value.split(OR).map(str::trim).collect();
    if values.len() > 1 && values.contains(&"") {
        bail!("`{text}`: `{key}={value}` has an empty value between its `|`");
    }
    if let Some(twice) = twice(values.iter().map(|value| short(value))) {
        bail!("`{text}`: `{key}={value}` has {twice} twice");
    }
    Ok(values)
}

/// The first of `values` that is there twice.
pub fn twice(values: impl Iterator<Item = String>) -> Option<String> {
    let mut seen = Vec::new();
    for value in values {
        if seen.contains(&value) {
            return Some(value);
        }
        seen.push(value);
    }
    None
}

/// Adds a pair to the text of an optimizer, a schedule or a model.
fn append(text: &mut String, key: &str, value: &str) {
    let sign = if text.contains(':') { ',' } else { ':' };
    *text += &format!("{sign}{key}={value}");
}

/// A key as records and reports name it.
fn factor(key: &str) -> String {
    key.to_lowercase().replace('-', "_")
}

/// A number in its shortest form, so that the same value is the same text; else the value as it is.
fn short(value: &str) -> String {
    value.parse().map_or_else(|_| value.to_owned(), number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_stands_for_each_of_its_values() {
        for (text, head, expected) in [
            ("adamw", "adamw", &[("adamw", &[][..])][..]),
            ("adamw: lr = 1e-3", "adamw: lr = 1e-3", &[("adamw: lr = 1e-3", &[])]),
            (
                "adamw:lr=1e-3|0.003,beta2=0.9",
                "adamw:beta2=0.9",
                &[
                    ("adamw:lr=1e-3,beta2=0.9", &[("lr", "0.001")][..]),
                    ("adamw:lr=0.003,beta2=0.9", &[("lr", "0.003")]),
                ],
            ),
            (
                "adamw: lr = 1 | 2, Weight-Decay = 3e-5|0",
                "adamw",
                &[
                    ("adamw:lr=1,Weight-Decay=3e-5", &[("lr", "1"), ("weight_decay", "3e-5")]),
                    ("adamw:lr=1,Weight-Decay=0", &[("lr", "1"), ("weight_decay", "0")]),
                    ("adamw:lr=2,Weight-Decay=3e-5", &[("lr", "2"), ("weight_decay", "3e-5")]),
                    ("adamw:lr=2,Weight-Decay=0", &[("lr", "2"), ("weight_decay", "0")]),
                ],
            ),
            (
                "sam:base=sgd|adam,rho=0.1",
                "sam:rho=0.1",
                &[("sam:base=sgd,rho=0.1", &[("base", "sgd")]), ("sam:base=adam,rho=0.1", &[("base", "adam")])],
            ),
        ] {
            let choices = Choice::all(text, 100).unwrap();
            assert_eq!(choices.len(), expected.len(), "{text}");
            for (choice, (one, listed)) in choices.iter().zip(expected) {
                let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
                let listed = listed.iter().map(owned).collect();
                let expected = Choice { text: (*one).to_owned(), head: head.to_owned(), listed };
                assert_eq!(*choice, expected);
            }
        }
    }

    #[test]
    fn a_list_that_is_none_is_refused() {
        for (text, part) in [
            ("adamw:lr=1e-3|", "`lr=1e-3|` has an empty value"),
            ("adamw:lr=|1", "`lr=|1` has an empty value"),
            ("adamw:lr=1||2", "`lr=1||2` has an empty value"),
            ("adamw:lr=1e-3|0.001", "`lr=1e-3|0.001` has 0.001 twice"),
            ("sam:base=sgd|adam|sgd", "has sgd twice"),
            ("adamw:lr=1|2,lr=3", "`lr` is given twice"),
            ("adamw:lr=1|2,fast", "`fast` is not of the form key=value"),
            ("adamw:lr=1|2|3,beta1=0|0.1|0.2|0.3", "more than 11 groups"),
            ("linear:steps=1|2 until 9 then constant", "several parts"),
        ] {
            let message = Choice::all(text, 11).expect_err(text).to_string();
            assert!(message.contains(part) && message.contains(&format!("`{text}`")), "{text}: {message}");
        }
    }
}
