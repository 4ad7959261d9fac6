//! A group: one of the things that are compared.

use super::choice::Choice;
use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One of the things that are compared, as text that users write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupConfig {
    /// Its name in tables and pictures; no two are the same.
    pub name: String,
    /// The data set, as in `--dataset`.
    pub dataset: String,
    /// The model, as in `--model`.
    pub model: String,
    /// The optimizer, as in `--opt`; with `--tune`, before tuning.
    pub optimizer: String,
    /// The schedule of its learning rate, as in `--schedule`.
    pub schedule: String,
    /// What sets it apart from other groups, by the name of the aspect: `optimizer`, `schedule`, `warmup` (`yes` or `no`),
    /// `peak` (the largest learning rate), `norm` (`pre` or `post`), `dataset`, `model`, `batch_size`, `clip` (0 for no clipping), and
    /// each key of an optimizer, a schedule or a model that has a list. Only what is compared is here.
    pub factors: BTreeMap<String, String>,
}

impl GroupConfig {
    /// Sets it apart by `factor`, which is `value`; its name says it by `words`.
    ///
    /// # Errors
    /// When it is set apart by that factor already.
    pub fn vary(&mut self, factor: &str, value: impl Into<String>, words: &str) -> Result<()> {
        if !self.name.is_empty() {
            self.name += ", ";
        }
        self.name += words;
        if self.factors.insert(factor.to_owned(), value.into()).is_some() {
            bail!("`{factor}` is compared twice, by different options: give a list of it once");
        }
        Ok(())
    }

    /// Sets it apart by what `choice` has of lists, and before that, where there is a `factor`, by the text without these.
    ///
    /// # Errors
    /// As [`Self::vary`].
    pub fn choose(&mut self, factor: Option<&str>, choice: &Choice) -> Result<()> {
        if let Some(factor) = factor {
            self.vary(factor, &choice.head, &choice.head)?;
        }
        choice.listed.iter().try_for_each(|(key, value)| self.vary(key, value, &format!("{key} {value}")))
    }
}
