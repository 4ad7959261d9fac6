//! The contract of a rule, and a rule whose type is chosen at run time.

use super::declare::{Hyperparameters, Spec};
use super::matrix::MatrixRule;
use super::options::Options;
use super::progress::Progress;
use super::value::{Hyperparameter, Value};
use crate::backend::kernel::Kernel;
use crate::error::{Error, Result};
use crate::formula::decay::Decay;
use crate::formula::elementwise::{Elementwise, Gives};
use crate::text::suggestion;
use std::fmt::{Debug, Display, Formatter};

/// Where SAM takes the gradient: at `theta + e`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sharpness {
    /// The norm of `e`.
    pub rho: f64,
    /// ASAM: measure the norm relative to the parameters.
    pub adaptive: bool,
}

/// Where a rule is evaluated, if not at the parameters `y` that it trains: at `x = y + weight (z - y)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EvaluationPoint {
    /// The slot of `z`.
    pub slot: &'static str,
    /// The weight.
    pub weight: f64,
}

/// How the gradient of a second loss enters the state now and then.
#[derive(Clone, Debug, PartialEq)]
pub struct Curvature {
    /// It enters in the first of as many steps.
    pub period: u64,
    /// The kernel's scalars in the pass in which it does, and in which no parameter moves.
    pub scalars: Vec<f64>,
}

/// What a step of L-BFGS is made with: [`Lbfgs`](crate::rules::Lbfgs) says what each is.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs, reason = "the rule documents them")]
pub struct QuasiNewton {
    pub lr: f64,
    pub max_iter: u64,
    pub max_eval: u64,
    pub tolerance_grad: f64,
    pub tolerance_change: f64,
    pub history_size: usize,
    pub strong_wolfe: bool,
}

/// A rule that a [`FusedOptimizer`](crate::FusedOptimizer) can apply: hyperparameters and a kernel.
///
/// A rule whose flags do not change its state implements [`OneKernelRule`], and gets this from it.
pub trait Rule: Debug + Send + Sync + 'static {
    /// Name, documentation and formula.
    fn spec(&self) -> &'static Spec;
    /// The hyperparameters, those of a wrapped rule included.
    fn hyperparameters(&self) -> Vec<&'static Hyperparameter> {
        self.spec().hyperparameters.iter().collect()
    }
    /// The value of a hyperparameter.
    fn field(&self, key: &str) -> Option<Value>;
    /// Sets a hyperparameter, unchecked; [`set`](Rule::set) is the checked way.
    fn set_field(&mut self, key: &str, value: Value);
    /// The kernel for the present flags.
    fn kernel(&self) -> &'static Kernel;
    /// The kernels for all combinations of flags.
    fn kernels(&self) -> Vec<&'static Kernel> {
        vec![self.kernel()]
    }
    /// The numbers that the rule keeps per parameter on the host, each with its first value.
    fn numbers(&self) -> &'static [(&'static str, f64)] {
        &[]
    }
    /// The kernel's scalars in an update of a parameter.
    fn scalars(&self, at: &mut Progress<'_>) -> Vec<f64>;
    /// What direction and decoupled decay are multiplied by; 0 for an update that only fills the state.
    fn step_size(&self, _at: &Progress<'_>) -> f64 {
        self.field("lr").map_or(0.0, f64::from)
    }
    /// What decoupled decay is multiplied by beside the step size.
    fn weight_decay(&self) -> f64 {
        self.field("weight_decay").map_or(0.0, f64::from)
    }
    /// The options around the direction.
    fn options(&self) -> Options {
        Options::default()
    }
    /// What the rule does with whole matrices, if it does.
    fn matrix(&self) -> Option<&dyn MatrixRule> {
        None
    }
    /// f32 state below this absolute value becomes 0 where the gradient is 0 (at every 32nd update): a mean of zeros decays to a
    /// denormal number and stays there, and processors are slow with those. By default what no step shows: [`smallest_state`] of
    /// `eps`. 0, for never, where such a number shows: in a rule that takes its sign.
    fn smallest_state(&self) -> f64 {
        smallest_state(self.field("eps").map_or(1.0, f64::from))
    }
    /// Where the gradient is to be taken, for SAM.
    fn sharpness(&self) -> Option<Sharpness> {
        None
    }
    /// Where the rule is evaluated, if not at the parameters; none for most.
    fn evaluation_point(&self) -> Option<EvaluationPoint> {
        None
    }
    /// How a second loss enters the state, by [`FusedOptimizer::step_with`](crate::FusedOptimizer::step_with); none for most.
    fn curvature(&self) -> Option<Curvature> {
        None
    }
    /// For a rule that evaluates the loss as often as it needs in a step, and has no use of its kernel; none for most.
    fn quasi_newton(&self) -> Option<QuasiNewton> {
        None
    }
    /// A copy whose type is chosen at run time.
    fn boxed(&self) -> AnyRule;
    /// The rule's name with what it wraps: the start of its text.
    fn qualified_name(&self) -> String {
        self.spec().name.to_string()
    }

    /// The hyperparameter `key`, or an error that names it and what the rule has.
    fn get(&self, key: &str) -> Result<Value> {
        self.field(key).ok_or_else(|| unknown_key(&self.qualified_name(), key, &self.hyperparameters()))
    }

    /// The value of the hyperparameter `key` that a search looks around, with the other hyperparameters as they are.
    fn usual(&self, key: &str) -> Option<f64> {
        self.spec().usual(key)
    }

    /// Sets the hyperparameter `key`, or says what is wrong with the key or the value.
    fn set(&mut self, key: &str, value: Value) -> Result<()> {
        let all = self.hyperparameters();
        let found = all.iter().find(|h| h.name == key).ok_or_else(|| unknown_key(&self.qualified_name(), key, &all))?;
        found.check(&self.qualified_name(), value)?;
        self.set_field(key, value);
        Ok(())
    }

    /// Checks every hyperparameter against its range, and whether the options have a meaning for the rule.
    fn validate(&self) -> Result<()> {
        let name = self.qualified_name();
        self.hyperparameters().iter().try_for_each(|h| h.check(&name, self.get(h.name)?))?;
        let kernel = self.kernel();
        let (gives_direction, is_decoupled) = (kernel.gives == Gives::Direction, kernel.decay == Decay::Decoupled);
        self.options().check(&name, gives_direction, is_decoupled, !kernel.sums.is_none())
    }

    /// The canonical text: `adamw:lr=0.001,beta1=0.9,..`; [`by_name`](crate::by_name) reads it back.
    fn text(&self) -> String {
        let values: Vec<String> =
            self.hyperparameters().iter().filter_map(|h| Some(format!("{}={}", h.name, self.field(h.name)?))).collect();
        let head = self.qualified_name();
        let join = if head.contains(':') { ',' } else { ':' };
        format!("{head}{join}{}", values.join(","))
    }
}

/// The state below which no step shows it where `eps` is added to a root of it: an [`Rule::smallest_state`].
///
/// A mean changes by a thousandth of itself, which is a denormal number from 1e-35 on. The root of 1e-35 is 3e-18.
pub fn smallest_state(eps: f64) -> f64 {
    match eps {
        eps if eps < 1e-12 => 0.0,
        eps if eps < 1e-9 => 1e-38,
        _ => 1e-35,
    }
}

pub(crate) fn unknown_key(rule: &str, key: &str, all: &[&'static Hyperparameter]) -> Error {
    let names: Vec<&str> = all.iter().map(|h| h.name).collect();
    Error::UnknownKey {
        rule: rule.to_string(),
        key: key.to_string(),
        suggestion: suggestion(key, &names),
        known: names.join(", "),
    }
}

/// What a rule that was declared takes from its declaration, within `impl Rule for ..`.
#[doc(hidden)]
#[macro_export]
macro_rules! __as_declared {
    () => {
        fn spec(&self) -> &'static $crate::rule::declare::Spec {
            <Self as $crate::rule::declare::Hyperparameters>::SPEC
        }
        fn field(&self, key: &str) -> ::core::option::Option<$crate::rule::value::Value> {
            $crate::rule::declare::Hyperparameters::field(self, key)
        }
        fn set_field(&mut self, key: &str, value: $crate::rule::value::Value) {
            $crate::rule::declare::Hyperparameters::set_field(self, key, value);
        }
        fn boxed(&self) -> $crate::rule::contract::AnyRule {
            $crate::rule::contract::AnyRule::new(::core::clone::Clone::clone(self))
        }
    };
}
#[doc(inline)]
pub use __as_declared as as_declared;

/// A rule with one kernel: hyperparameters and formula on the same struct.
pub trait OneKernelRule: Hyperparameters + Elementwise {
    /// Once per update, on the host, in f64: everything that is the same for all elements.
    fn scalars(&self, at: &mut Progress<'_>) -> Self::Scalars<f64>;
    /// As [`Rule::numbers`].
    fn numbers(&self) -> &'static [(&'static str, f64)] {
        &[]
    }
    /// As [`Rule::step_size`].
    fn step_size(&self, _at: &Progress<'_>) -> f64 {
        self.field("lr").map_or(0.0, f64::from)
    }
    /// As [`Rule::smallest_state`].
    fn smallest_state(&self) -> f64 {
        smallest_state(self.field("eps").map_or(1.0, f64::from))
    }
    /// As [`Rule::evaluation_point`].
    fn evaluation_point(&self) -> Option<EvaluationPoint> {
        None
    }
    /// As [`Rule::curvature`].
    fn curvature(&self) -> Option<Curvature> {
        None
    }
}

impl<T: OneKernelRule> Rule for T {
    as_declared!();

    fn kernel(&self) -> &'static Kernel {
        const { &Kernel::of::<T>() }
    }
    fn numbers(&self) -> &'static [(&'static str, f64)] {
        OneKernelRule::numbers(self)
    }
    fn scalars(&self, at: &mut Progress<'_>) -> Vec<f64> {
        OneKernelRule::scalars(self, at).as_ref().to_vec()
    }
    fn step_size(&self, at: &Progress<'_>) -> f64 {
        OneKernelRule::step_size(self, at)
    }
    fn smallest_state(&self) -> f64 {
        OneKernelRule::smallest_state(self)
    }
    fn evaluation_point(&self) -> Option<EvaluationPoint> {
        OneKernelRule::evaluation_point(self)
    }
    fn curvature(&self) -> Option<Curvature> {
        OneKernelRule::curvature(self)
    }
}

/// A rule chosen at run time.
#[derive(Debug)]
pub struct AnyRule(pub(crate) Box<dyn Rule>);

impl AnyRule {
    /// Hides the type of a rule.
    pub fn new(rule: impl Rule) -> Self {
        Self(Box::new(rule))
    }
}

impl Clone for AnyRule {
    fn clone(&self) -> Self {
        self.0.boxed()
    }
}

impl PartialEq for AnyRule {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl Display for AnyRule {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text())
    }
}

impl Rule for AnyRule {
    fn spec(&self) -> &'static Spec {
        self.0.spec()
    }
    fn hyperparameters(&self) -> Vec<&'static Hyperparameter> {
        self.0.hyperparameters()
    }
    fn field(&self, key: &str) -> Option<Value> {
        self.0.field(key)
    }
    fn set_field(&mut self, key: &str, value: Value) {
        self.0.set_field(key, value);
    }
    fn usual(&self, key: &str) -> Option<f64> {
        self.0.usual(key)
    }
    fn kernel(&self) -> &'static Kernel {
        self.0.kernel()
    }
    fn kernels(&self) -> Vec<&'static Kernel> {
        self.0.kernels()
    }
    fn numbers(&self) -> &'static [(&'static str, f64)] {
        self.0.numbers()
    }
    fn scalars(&self, at: &mut Progress<'_>) -> Vec<f64> {
        self.0.scalars(at)
    }
    fn step_size(&self, at: &Progress<'_>) -> f64 {
        self.0.step_size(at)
    }
    fn weight_decay(&self) -> f64 {
        self.0.weight_decay()
    }
    fn options(&self) -> Options {
        self.0.options()
    }
    fn matrix(&self) -> Option<&dyn MatrixRule> {
        self.0.matrix()
    }
    fn smallest_state(&self) -> f64 {
        self.0.smallest_state()
    }
    fn sharpness(&self) -> Option<Sharpness> {
        self.0.sharpness()
    }
    fn evaluation_point(&self) -> Option<EvaluationPoint> {
        self.0.evaluation_point()
    }
    fn curvature(&self) -> Option<Curvature> {
        self.0.curvature()
    }
    fn quasi_newton(&self) -> Option<QuasiNewton> {
        self.0.quasi_newton()
    }
    fn validate(&self) -> Result<()> {
        self.0.validate()
    }
    fn boxed(&self) -> AnyRule {
        self.0.boxed()
    }
    fn qualified_name(&self) -> String {
        self.0.qualified_name()
    }
}
