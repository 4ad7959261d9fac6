//! A rule with options around its direction.

use crate::backend::kernel::Kernel;
use crate::rule::contract::{AnyRule, Curvature, EvaluationPoint, QuasiNewton, Rule, Sharpness};
use crate::rule::declare::Spec;
use crate::rule::matrix::MatrixRule;
use crate::rule::options::Options;
use crate::rule::progress::Progress;
use crate::rule::value::{Hyperparameter, Value};

/// A rule with [`Options`] around its direction. Its text is that of the rule, with the options that are on:
/// `adamw:lr=0.001,..,cautious=true`.
///
/// ```
/// use optim::rule::Options;
/// use optim::rules::{Lion, WithOptions};
/// use optim::Rule;
///
/// let options = Options { cautious: true, ..Options::default() };
/// let rule = WithOptions { base: Lion::default(), options };
/// assert_eq!(rule.text(), "lion:lr=0.0001,beta1=0.9,beta2=0.99,weight_decay=0.0,cautious=true");
/// assert_eq!(optim::by_name("lion:cautious=true")?.text(), rule.text());
/// # Ok::<(), optim::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WithOptions<B> {
    /// The rule.
    pub base: B,
    /// What is put around its direction.
    pub options: Options,
}

impl<B: Rule + Clone> Rule for WithOptions<B> {
    fn spec(&self) -> &'static Spec {
        self.base.spec()
    }
    fn hyperparameters(&self) -> Vec<&'static Hyperparameter> {
        let on = Options::ALL.iter().filter(|option| self.options.get(option.name) == Some(true));
        self.base.hyperparameters().into_iter().chain(on).collect()
    }
    fn field(&self, key: &str) -> Option<Value> {
        self.options.get(key).map(Value::from).or_else(|| self.base.field(key))
    }
    fn set_field(&mut self, key: &str, value: Value) {
        if self.options.get(key).is_some() {
            self.options.set(key, value.into());
        } else {
            self.base.set_field(key, value);
        }
    }
    fn usual(&self, key: &str) -> Option<f64> {
        self.base.usual(key)
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
        self.options
    }
    fn matrix(&self) -> Option<&dyn MatrixRule> {
        self.base.matrix()
    }
    fn smallest_state(&self) -> f64 {
        self.base.smallest_state()
    }
    fn sharpness(&self) -> Option<Sharpness> {
        self.base.sharpness()
    }
    fn evaluation_point(&self) -> Option<EvaluationPoint> {
        self.base.evaluation_point()
    }
    fn curvature(&self) -> Option<Curvature> {
        self.base.curvature()
    }
    fn quasi_newton(&self) -> Option<QuasiNewton> {
        self.base.quasi_newton()
    }
    fn boxed(&self) -> AnyRule {
        AnyRule::new(WithOptions { base: self.base.boxed(), options: self.options })
    }
    fn qualified_name(&self) -> String {
        self.base.qualified_name()
    }
}
