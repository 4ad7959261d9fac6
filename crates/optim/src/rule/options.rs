//! Options around the direction of any rule.

use crate::error::{Error, Result};
use crate::rule::value::{Allowed, Hyperparameter, Value};

/// What can be put around the direction of any rule, within the same pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Go up the gradient.
    pub maximize: bool,
    /// Cautious direction: elements of the direction that disagree in sign with the gradient are 0, and the others are divided by
    /// their share (at least 1e-3), which a first pass takes per tensor (Liang et al. 2024, arXiv:2411.16085). Of a matrix the
    /// direction is what its rule makes of the whole.
    pub cautious: bool,
    /// Cautious weight decay: decay only those elements that the direction moves towards 0 too (Chen et al. 2025,
    /// arXiv:2510.12402).
    pub cautious_decay: bool,
    /// Corrected weight decay, AdamC's: the decay is multiplied by `lr / lr_max` once more, with the largest learning rate of the
    /// schedule (Defazio 2025, arXiv:2506.02285).
    pub corrected_decay: bool,
}

impl Options {
    /// The options by name, with what each is.
    pub const ALL: &'static [Hyperparameter] = &[
        option("maximize", "Go up the gradient."),
        option("cautious", "Move only the elements whose direction agrees in sign with the gradient."),
        option("cautious_decay", "Decay only the elements that the direction moves towards 0 too."),
        option("corrected_decay", "Multiply the decay by lr / lr_max once more."),
    ];

    /// The option `key`.
    pub fn get(&self, key: &str) -> Option<bool> {
        Some(match key {
            "maximize" => self.maximize,
            "cautious" => self.cautious,
            "cautious_decay" => self.cautious_decay,
            "corrected_decay" => self.corrected_decay,
            _ => return None,
        })
    }

    /// Sets the option `key`; false where there is none of that name.
    pub fn set(&mut self, key: &str, on: bool) -> bool {
        let option = match key {
            "maximize" => &mut self.maximize,
            "cautious" => &mut self.cautious,
            "cautious_decay" => &mut self.cautious_decay,
            "corrected_decay" => &mut self.corrected_decay,
            _ => return false,
        };
        *option = on;
        true
    }

    /// An error where an option has no meaning for a formula: `has_direction` says whether it gives one element by element, `is_decoupled` whether
    /// its decay is, and `has_sums` whether it takes sums of its own.
    pub(crate) fn check(self, rule: &str, has_direction: bool, is_decoupled: bool, has_sums: bool) -> Result<()> {
        let refuse = |key: &str, why: &str| {
            let (rule, key) = (rule.to_string(), key.to_string());
            Err(Error::OutOfRange { rule, key, value: "true".to_string(), allowed: format!("false: {why}") })
        };
        if self.cautious && !has_direction {
            return refuse("cautious", "the rule has no direction of its own for each element");
        }
        if self.cautious && has_sums {
            return refuse("cautious", "the rule takes sums over the tensor itself");
        }
        if self.cautious_decay && !(has_direction && is_decoupled) {
            return refuse("cautious_decay", "the rule's weight decay is not decoupled from its direction");
        }
        if self.corrected_decay && !is_decoupled {
            return refuse("corrected_decay", "the rule's weight decay is not decoupled from its direction");
        }
        Ok(())
    }
}

const fn option(name: &'static str, doc: &'static str) -> Hyperparameter {
    Hyperparameter { name, doc, default: Value::Flag(false), allowed: Allowed::Flag, usual: f64::NAN }
}
