//! Sharpness-aware minimisation.

use crate::backend::kernel::Kernel;
use crate::error::{Error, Result};
use crate::rule::contract::{AnyRule, EvaluationPoint, Rule, Sharpness};
use crate::rule::declare::{Family, Spec};
use crate::rule::matrix::MatrixRule;
use crate::rule::options::Options;
use crate::rule::progress::Progress;
use crate::rule::value::{Allowed, Hyperparameter, NON_NEGATIVE, Value};

/// SAM, sharpness-aware minimisation, around any rule (Foret et al. 2021, arXiv:2010.01412), and its adaptive form ASAM
/// (Kwon et al. 2021, arXiv:2102.11600).
///
/// `e = rho g / (norm(g) + 1e-12)`, the norm over all parameters; the base rule steps from `theta` with the gradient at
/// `theta + e`. Adaptive: `e = rho theta^2 g / (norm(theta g) + 1e-12)`.
///
/// See [`FusedOptimizer::step_with`](crate::FusedOptimizer::step_with) for the two evaluations; a plain step, with one gradient, is an error.
/// Clipping applies to the second gradient.
#[derive(Clone, Debug, PartialEq)]
pub struct Sam<B> {
    /// The rule that makes the step.
    pub base: B,
    /// The size of the perturbation. ASAM wants about ten times more: 0.5.
    ///
    /// Default: 0.05.
    pub rho: f64,
    /// ASAM.
    ///
    /// Default: false.
    pub adaptive: bool,
}

impl<B> Sam<B> {
    /// What is known of SAM itself.
    pub const SPEC: &'static Spec = &Spec {
        name: "sam",
        doc: "SAM around any rule, `base` (default sgd), whose keys it takes too (Foret et al. 2021, arXiv:2010.01412; adaptive: ASAM, Kwon et al. 2021, arXiv:2102.11600).",
        formula: "e = rho g / (norm(g) + 1e-12), adaptive: e = rho theta^2 g / (norm(theta g) + 1e-12); theta: base's step with the gradient at theta + e",
        best_for: "generalisation of image models, at twice the cost of a step",
        family: Family::Wrapper,
        hyperparameters: &[
            Hyperparameter {
                name: "rho",
                doc: "Size of the perturbation.",
                default: Value::Number(0.05),
                allowed: Allowed::Number(NON_NEGATIVE),
                usual: 0.05,
            },
            Hyperparameter {
                name: "adaptive",
                doc: "ASAM; wants rho about 0.5.",
                default: Value::Flag(false),
                allowed: Allowed::Flag,
                usual: f64::NAN,
            },
        ],
    };

    /// SAM with its defaults around `base`.
    pub fn new(base: B) -> Self {
        Self { base, rho: 0.05, adaptive: false }
    }
}

impl<B: Default> Default for Sam<B> {
    fn default() -> Self {
        Self::new(B::default())
    }
}

impl<B: Rule + Clone> Rule for Sam<B> {
    fn spec(&self) -> &'static Spec {
        Self::SPEC
    }
    fn hyperparameters(&self) -> Vec<&'static Hyperparameter> {
        Self::SPEC.hyperparameters.iter().chain(self.base.hyperparameters()).collect()
    }
    fn field(&self, key: &str) -> Option<Value> {
        match key {
            "rho" => Some(self.rho.into()),
            "adaptive" => Some(self.adaptive.into()),
            _ => self.base.field(key),
        }
    }
    fn set_field(&mut self, key: &str, value: Value) {
        match key {
            "rho" => self.rho = value.into(),
            "adaptive" => self.adaptive = value.into(),
            _ => self.base.set_field(key, value),
        }
    }
    fn usual(&self, key: &str) -> Option<f64> {
        Self::SPEC.usual(key).or_else(|| self.base.usual(key))
    }
    fn kernel(&self) -> &'static Kernel {
        self.base.kernel()
    }
    fn kernels(&self) -> Vec<&'static Kernel> {
        self.base.kernels()
    }
    fn numbers(&self) -> &'static [(&'static str, f64)] {
        self.base.numbers()
    }
    fn scalars(&self, at: &mut Progress<'_>) -> Vec<f64> {
        self.base.scalars(at)
    }
    fn step_size(&self, at: &Progress<'_>) -> f64 {
        self.base.step_size(at)
    }
    fn weight_decay(&self) -> f64 {
        self.base.weight_decay()
    }
    fn options(&self) -> Options {
        self.base.options()
    }
    fn matrix(&self) -> Option<&dyn MatrixRule> {
        self.base.matrix()
    }
    fn smallest_state(&self) -> f64 {
        self.base.smallest_state()
    }
    fn evaluation_point(&self) -> Option<EvaluationPoint> {
        self.base.evaluation_point()
    }
    fn validate(&self) -> Result<()> {
        if self.base.quasi_newton().is_some() || self.base.curvature().is_some() {
            let (rule, key, value) = (Self::SPEC.name.to_string(), "base".to_string(), self.base.qualified_name());
            return Err(Error::OutOfRange { rule, key, value, allowed: "a rule that takes one gradient".to_string() });
        }
        let name = self.qualified_name();
        self.hyperparameters().iter().try_for_each(|h| h.check(&name, self.get(h.name)?))?;
        self.base.validate()
    }
    fn sharpness(&self) -> Option<Sharpness> {
        Some(Sharpness { rho: self.rho, adaptive: self.adaptive })
    }
    fn boxed(&self) -> AnyRule {
        AnyRule::new(Sam { base: self.base.boxed(), rho: self.rho, adaptive: self.adaptive })
    }
    fn qualified_name(&self) -> String {
        format!("sam:base={}", self.base.qualified_name())
    }
}
