//! Which parameters of a model a rule on matrices takes as such, and which it leaves to its formula for single elements.

use optim::{AnyRule, Rule};
use std::{collections::BTreeMap, fmt};

/// The names of a model's parameters, with their dimensions.
pub type Tensors = Vec<(String, Vec<usize>)>;

/// Rows and columns, where `rule` takes this parameter as a matrix: its first dimension by all others.
pub fn rows_and_columns(rule: &AnyRule, name: &str, dims: &[usize]) -> Option<(usize, usize)> {
    let [rows, rest @ ..] = dims else { return None };
    let is_matrix = !rest.is_empty() && rule.matrix()?.is_matrix(name, dims);
    is_matrix.then(|| (*rows, rest.iter().product()))
}

/// A model's parameters as a rule on matrices takes them.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    rule: &'static str,
    /// The name of the formula for all that is no matrix.
    formula: &'static str,
    matrices: Vec<String>,
    others: Vec<String>,
}

impl Split {
    /// Of the parameters with these names and dimensions; none where `rule` has nothing to do with matrices.
    pub fn of(rule: &AnyRule, tensors: &[(String, Vec<usize>)]) -> Option<Self> {
        rule.matrix()?;
        let (matrices, others): (Vec<_>, Vec<_>) =
            tensors.iter().partition(|(name, dims)| rows_and_columns(rule, name, dims).is_some());
        let names = |of: Vec<&(String, Vec<usize>)>| of.into_iter().map(|(name, _)| name.clone()).collect();
        Some(Self {
            rule: rule.spec().name,
            formula: rule.kernel().name,
            matrices: names(matrices),
            others: names(others),
        })
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, formula, matrices, others } = self;
        let [of_matrices, of_others] = [matrices, others].map(|names| short(names));
        write!(f, "{} matrices by {rule} ({of_matrices}); ", matrices.len())?;
        write!(f, "{} others element by element, by `{formula}` ({of_others})", others.len())
    }
}

/// Names in short: numbers in them are `*`, and those that are then the same are one, with their count.
fn short(names: &[String]) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for name in names {
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let parts: Vec<&str> = name.split('.').map(|part| if is_number(part) { "*" } else { part }).collect();
        *counts.entry(parts.join(".")).or_default() += 1;
    }
    let shown = |(name, count): (String, usize)| if count > 1 { format!("{count} {name}") } else { name };
    let shown: Vec<String> = counts.into_iter().map(shown).collect();
    if shown.is_empty() { "none".to_owned() } else { shown.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use optim::rule::{Kernel, MatrixRule, Progress, as_declared, hyperparameters, is_hidden_matrix};

    hyperparameters! {
        /// A rule on matrices.
        struct Own = "own" { lr: 1e-3 in NON_NEGATIVE, }
        formula: ""
        best_for: ""
        family: Matrix
    }

    impl Rule for Own {
        as_declared!();
        fn kernel(&self) -> &'static Kernel {
            optim::rules::AdamW::default().kernel()
        }
        fn scalars(&self, _: &mut Progress<'_>) -> Vec<f64> {
            Vec::new()
        }
        fn matrix(&self) -> Option<&dyn MatrixRule> {
            Some(self)
        }
    }

    impl MatrixRule for Own {
        fn kernel(&self) -> &'static Kernel {
            optim::rules::Lion::default().kernel()
        }
        fn scalars(&self, _: bool) -> Vec<f64> {
            Vec::new()
        }
        fn state(&self, rows: usize, columns: usize) -> Vec<(&'static str, Vec<usize>)> {
            vec![("left", vec![rows, rows]), ("right", vec![columns])]
        }
        fn transform(
            &self,
            _: u64,
            _: candle_core::Tensor,
            _: Option<candle_core::Tensor>,
            state: Vec<candle_core::Tensor>,
        ) -> candle_core::Result<(Option<candle_core::Tensor>, Vec<candle_core::Tensor>)> {
            Ok((None, state))
        }
        fn step_size(&self) -> f64 {
            0.0
        }
        fn weight_decay(&self) -> f64 {
            0.0
        }
    }

    fn tensors() -> Tensors {
        [
            ("blocks.0.qkv.weight", &[6, 2][..]),
            ("blocks.1.qkv.weight", &[6, 2]),
            ("blocks.0.norm.weight", &[2]),
            ("embedding.token", &[65, 2]),
            ("conv1.weight", &[4, 3, 2, 2]),
            ("head.weight", &[65, 2]),
        ]
        .map(|(name, dims)| (name.to_owned(), dims.to_vec()))
        .to_vec()
    }

    #[test]
    fn the_split_is_told_in_short_and_its_state_is_counted() {
        let rule = Own::default().boxed();
        assert!(is_hidden_matrix("blocks.0.qkv.weight", &[6, 2]));
        let split = Split::of(&rule, &tensors()).unwrap().to_string();
        assert_eq!(
            split,
            "3 matrices by own (2 blocks.*.qkv.weight, conv1.weight); \
             3 others element by element, by `adamw` (blocks.*.norm.weight, embedding.token, head.weight)"
        );
        assert_eq!(Split::of(&optim::by_name("adamw").unwrap(), &tensors()), None);
        // A slot of Lion's, and left and right, of each matrix; two slots of AdamW's of the others; two averages of all.
        let matrices = 2 * (12 + 36 + 2) + (48 + 16 + 12);
        let others = 2 * (2 + 130 + 130);
        let all = 12 + 12 + 2 + 130 + 48 + 130;
        let expected = 4 * (matrices + others + 2 * all);
        assert_eq!(crate::run::memory::of_optimizer(&rule, &tensors(), 2), expected);
    }
}
