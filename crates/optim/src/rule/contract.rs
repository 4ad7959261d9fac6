//! The contract of a rule: what is written once per optimizer, and everything that derives from it.
//!
//! A rule is a struct of hyperparameters (declared with `hyperparameters!`) and a pure function from gradient and
//! state to a **direction** ([`Elementwise::direction`]). The optimizer does the rest: it clips the gradient, adds the
//! weight decay, multiplies by the learning rate and writes the parameter.

use crate::backend::cpu;
use crate::error::{Error, Result};
use crate::real::{Array, MAX_SLOTS, Real, Slots};
use crate::rules;
use crate::text::{PairError, SpecText, same_name, suggestion};
use crate::wrappers::{Sam, Sharpness, TrustRatio};
use std::fmt::{Debug, Display, Formatter};
use std::ops::Bound;

/// The numbers that a hyperparameter may take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    low: Bound<f64>,
    high: Bound<f64>,
    text: &'static str,
}

/// Finite and `>= 0`.
pub const NON_NEGATIVE: Range =
    Range { low: Bound::Included(0.0), high: Bound::Excluded(f64::INFINITY), text: "a number >= 0" };
/// `0 <= x < 1`: the decay rate of a moving average.
pub const FRACTION: Range = Range { low: Bound::Included(0.0), high: Bound::Excluded(1.0), text: "a number in [0, 1)" };

impl Range {
    /// Whether `x` lies in it. NaN never does.
    pub fn contains(&self, x: f64) -> bool {
        use std::ops::RangeBounds;
        (self.low, self.high).contains(&x)
    }
}

impl Display for Range {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text)
    }
}

/// The value of a hyperparameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A number, checked against the hyperparameter's [`Range`].
    Number(f64),
    /// A switch.
    Flag(bool),
}

impl Display for Value {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            // `{:?}` is the shortest text that reads back as the same number.
            Value::Number(x) => write!(f, "{x:?}"),
            Value::Flag(x) => write!(f, "{x}"),
        }
    }
}

impl From<f64> for Value {
    fn from(x: f64) -> Self {
        Value::Number(x)
    }
}
impl From<bool> for Value {
    fn from(x: bool) -> Self {
        Value::Flag(x)
    }
}
impl From<Value> for f64 {
    /// A flag counts as 0 or 1.
    fn from(value: Value) -> f64 {
        match value {
            Value::Number(x) => x,
            Value::Flag(x) => f64::from(u8::from(x)),
        }
    }
}
impl From<Value> for bool {
    fn from(value: Value) -> bool {
        f64::from(value) != 0.0
    }
}

/// What is known of a hyperparameter.
#[derive(Clone, Debug, PartialEq)]
pub struct Hyperparameter {
    /// Its key, the field of the rule's struct.
    pub name: &'static str,
    /// One sentence.
    pub doc: &'static str,
    /// The value that a default rule has.
    pub default: Value,
    /// The allowed numbers; `None` for a flag.
    pub range: Option<Range>,
}

impl Hyperparameter {
    fn allowed(&self) -> String {
        self.range.map_or("true or false".to_string(), |r| r.to_string())
    }

    fn check(&self, rule: &str, value: Value) -> Result<()> {
        let fits = match (self.range, value) {
            (Some(range), Value::Number(x)) => range.contains(x),
            (None, Value::Flag(_)) => true,
            _ => false,
        };
        if fits { Ok(()) } else { Err(self.refuse(rule, value.to_string())) }
    }

    fn parse(&self, rule: &str, text: &str) -> Result<Value> {
        let value = match self.range {
            Some(_) => text.parse().ok().map(Value::Number),
            None => text.parse().ok().map(Value::Flag),
        };
        value.ok_or_else(|| self.refuse(rule, text.to_string()))
    }

    fn refuse(&self, rule: &str, value: String) -> Error {
        Error::OutOfRange { rule: rule.to_string(), key: self.name.to_string(), value, allowed: self.allowed() }
    }
}

/// What is known of a rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// Its name on the command line and in files.
    pub name: &'static str,
    /// What it is, with its source.
    pub doc: &'static str,
    /// The recurrence: g gradient, theta parameter, t the number of the update from 1, wd the weight decay.
    pub formula: &'static str,
    /// What it is best for.
    pub best_for: &'static str,
    /// Its own hyperparameters in order of declaration.
    pub hyperparameters: &'static [Hyperparameter],
}

/// Declares the struct of a rule's hyperparameters, from which its command line, its range checks, its record and its
/// row in the table of rules derive. A hyperparameter with a range is a number, one without is a flag.
macro_rules! hyperparameters {
    (
        $(#[doc = $doc:literal])*
        pub struct $Rule:ident = $name:literal {
            $($(#[doc = $field_doc:literal])* $field:ident: $default:literal $(in $range:ident)?,)*
        }
        formula: $formula:literal
        best_for: $best_for:literal
    ) => {
        $(#[doc = $doc])*
        #[doc = ""]
        #[doc = concat!("Update: `", $formula, "`")]
        #[derive(Clone, Debug, PartialEq)]
        pub struct $Rule {
            $(
                $(#[doc = $field_doc])*
                #[doc = concat!("\n\nDefault: ", stringify!($default), ".")]
                pub $field: $crate::rule::hyperparameters!(@type $($range)?),
            )*
        }

        impl Default for $Rule {
            fn default() -> Self {
                Self { $($field: $default),* }
            }
        }

        impl $crate::rule::Hyperparameters for $Rule {
            const SPEC: &'static $crate::rule::Spec = &$crate::rule::Spec {
                name: $name,
                doc: concat!($($doc, "\n"),*).trim_ascii(),
                formula: $formula,
                best_for: $best_for,
                hyperparameters: &[$($crate::rule::Hyperparameter {
                    name: stringify!($field),
                    doc: concat!($($field_doc),*).trim_ascii(),
                    default: $crate::rule::hyperparameters!(@value $default $(in $range)?),
                    range: $crate::rule::hyperparameters!(@range $($range)?),
                }),*],
            };

            fn field(&self, key: &str) -> Option<$crate::rule::Value> {
                match key {
                    $(stringify!($field) => Some(self.$field.into()),)*
                    _ => None,
                }
            }

            fn set_field(&mut self, key: &str, value: $crate::rule::Value) {
                match key {
                    $(stringify!($field) => self.$field = value.into(),)*
                    _ => {}
                }
            }
        }
    };
    (@type $range:ident) => { f64 };
    (@type) => { bool };
    (@value $default:literal in $range:ident) => { $crate::rule::Value::Number($default) };
    (@value $default:literal) => { $crate::rule::Value::Flag($default) };
    (@range $range:ident) => { Some($crate::rule::$range) };
    (@range) => { None };
}
pub(crate) use hyperparameters;

/// A struct of hyperparameters; implemented by `hyperparameters!`.
pub trait Hyperparameters: Clone + Debug + Default + Send + Sync + 'static {
    /// What was declared.
    const SPEC: &'static Spec;
    /// The value of the field `key`.
    fn field(&self, key: &str) -> Option<Value>;
    /// Sets the field `key`, unchecked; nothing happens for an unknown key.
    fn set_field(&mut self, key: &str, value: Value);
}

/// How weight decay enters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decay {
    /// `wd theta` is added to the gradient before the rule sees it.
    L2,
    /// `wd theta` is added to the direction, so that it is not part of the rule's averages.
    Decoupled,
}

/// The formula of a rule, per element. Written once: `f32` and `f64` run it on the CPU, and
/// [`trace::header`](crate::trace::header) prints it for the GPU.
pub trait Elementwise: Sized + 'static {
    /// The name of the header, `kernels/rules/<NAME>.h`.
    const NAME: &'static str;
    /// How weight decay enters.
    const DECAY: Decay = Decay::Decoupled;
    /// The names of the scalars.
    const SCALARS: &'static [&'static str];
    /// The names of the state slots; each starts at 0.
    const SLOTS: &'static [&'static str];
    /// What is the same for all elements in an update, `[R; n]`.
    type Scalars<R: Real>: Array<R>;
    /// The state of an element, `[R; n]`.
    type State<R: Real>: Slots<R>;

    /// The direction of an element and its new state. The parameter moves by `-lr * direction`.
    fn direction<R: Real>(scalars: Self::Scalars<R>, grad: R, param: R, state: Self::State<R>) -> (R, Self::State<R>);
}

/// The compiled forms of an [`Elementwise`] formula.
pub struct Kernel {
    /// The name of the header.
    pub name: &'static str,
    /// How weight decay enters.
    pub decay: Decay,
    /// The names of the scalars.
    pub scalars: &'static [&'static str],
    /// The names of the state slots.
    pub slots: &'static [&'static str],
    /// Prints the header.
    pub header: fn() -> String,
    /// The formula for one element in f32: scalars, gradient, parameter and slots in, direction and new slots out.
    pub direction_f32: Direction<f32>,
    /// The same in f64.
    pub direction_f64: Direction<f64>,
    pub(crate) f32: cpu::Loops<f32>,
    pub(crate) f64: cpu::Loops<f64>,
}

/// A formula as a plain function: `f(scalars, gradient, parameter, slots) -> direction`.
pub type Direction<R> = fn(&[R], R, R, &mut [R; MAX_SLOTS]) -> R;

fn direction<T: Elementwise, R: Real>(scalars: &[R], grad: R, param: R, slots: &mut [R; MAX_SLOTS]) -> R {
    let scalars = T::Scalars::<R>::from_fn(|k| scalars[k]);
    let state = T::State::<R>::from_fn(|k| slots[k]);
    let (direction, state) = T::direction(scalars, grad, param, state);
    slots[..state.as_ref().len()].copy_from_slice(state.as_ref());
    direction
}

/// Whether no name is there twice: the header of a formula knows its inputs by name.
const fn names_differ(lists: &[&[&str]]) -> bool {
    let (mut list, mut at) = (0, 0);
    while list < lists.len() {
        if at == lists[list].len() {
            (list, at) = (list + 1, 0);
            continue;
        }
        let (mut other_list, mut other_at) = (list, at + 1);
        while other_list < lists.len() {
            if other_at == lists[other_list].len() {
                (other_list, other_at) = (other_list + 1, 0);
                continue;
            }
            if same_text(lists[list][at].as_bytes(), lists[other_list][other_at].as_bytes()) {
                return false;
            }
            other_at += 1;
        }
        at += 1;
    }
    true
}

const fn same_text(a: &[u8], b: &[u8]) -> bool {
    let mut at = 0;
    while at < a.len() && at < b.len() && a[at] == b[at] {
        at += 1;
    }
    at == a.len() && at == b.len()
}

impl Debug for Kernel {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernel").field("name", &self.name).field("slots", &self.slots).finish_non_exhaustive()
    }
}

impl Kernel {
    /// The kernel of a formula: `const KERNEL: &Kernel = &Kernel::of::<T>();`
    pub const fn of<T: Elementwise>() -> Self {
        assert!(T::SCALARS.len() == <T::Scalars<f64> as Array<f64>>::LEN, "a name per scalar");
        assert!(T::SLOTS.len() == <T::State<f64> as Array<f64>>::LEN, "a name per slot");
        assert!(names_differ(&[T::SCALARS, T::SLOTS, &["grad", "param"]]), "a name for two inputs of a formula");
        Self {
            name: T::NAME,
            decay: T::DECAY,
            scalars: T::SCALARS,
            slots: T::SLOTS,
            header: crate::trace::header::<T>,
            direction_f32: direction::<T, f32>,
            direction_f64: direction::<T, f64>,
            f32: cpu::Loops::of::<T>(),
            f64: cpu::Loops::of::<T>(),
        }
    }
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
    /// The kernel's scalars in update number `t` (from 1) of a parameter. `starts`: a slot of the state starts in this update, as
    /// in the first, and where a hyperparameter that needs it is switched on later.
    fn scalars(&self, t: u64, starts: bool) -> Vec<f64>;
    /// f32 state below this absolute value becomes 0 where the gradient is 0 (at every 32nd update): a mean of zeros decays to a
    /// denormal number and stays there, and processors are slow with those. 1e-38 by default, which no step shows; 0, for never,
    /// where such a number shows: in a rule that takes its sign, or divides by it with (almost) no `eps` beside it.
    fn smallest_state(&self) -> f64 {
        smallest_state(self.field("eps"))
    }
    /// How the direction of a whole tensor is rescaled.
    fn trust_ratio(&self) -> Option<TrustRatio> {
        None
    }
    /// Where the gradient is to be taken, for SAM.
    fn sharpness(&self) -> Option<Sharpness> {
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

    /// Sets the hyperparameter `key`, or says what is wrong with the key or the value.
    fn set(&mut self, key: &str, value: Value) -> Result<()> {
        let all = self.hyperparameters();
        let found = all.iter().find(|h| h.name == key).ok_or_else(|| unknown_key(&self.qualified_name(), key, &all))?;
        found.check(&self.qualified_name(), value)?;
        self.set_field(key, value);
        Ok(())
    }

    /// Checks every hyperparameter against its range.
    fn validate(&self) -> Result<()> {
        self.hyperparameters().iter().try_for_each(|h| h.check(&self.qualified_name(), self.get(h.name)?))
    }

    /// The canonical text: `adamw:lr=0.001,beta1=0.9,..`; [`by_name`] reads it back.
    fn text(&self) -> String {
        let values: Vec<String> =
            self.hyperparameters().iter().filter_map(|h| Some(format!("{}={}", h.name, self.field(h.name)?))).collect();
        let head = self.qualified_name();
        let join = if head.contains(':') { ',' } else { ':' };
        format!("{head}{join}{}", values.join(","))
    }
}

/// What [`Rule::smallest_state`] is by default.
fn smallest_state(eps: Option<Value>) -> f64 {
    if eps.is_some_and(|eps| f64::from(eps) < 1e-12) { 0.0 } else { 1e-38 }
}

fn unknown_key(rule: &str, key: &str, all: &[&'static Hyperparameter]) -> Error {
    let names: Vec<&str> = all.iter().map(|h| h.name).collect();
    Error::UnknownKey {
        rule: rule.to_string(),
        key: key.to_string(),
        suggestion: suggestion(key, &names),
        known: names.join(", "),
    }
}

/// A rule with one kernel: hyperparameters and formula on the same struct.
pub trait OneKernelRule: Hyperparameters + Elementwise {
    /// Once per update, on the host, in f64: everything that is the same for all elements. `t` counts from 1.
    fn scalars(&self, t: u64) -> Self::Scalars<f64>;
    /// As [`Rule::smallest_state`].
    fn smallest_state(&self) -> f64 {
        smallest_state(self.field("eps"))
    }
    /// How the direction of a whole tensor is rescaled.
    fn trust_ratio(&self) -> Option<TrustRatio> {
        None
    }
}

impl<T: OneKernelRule> Rule for T {
    fn spec(&self) -> &'static Spec {
        T::SPEC
    }
    fn field(&self, key: &str) -> Option<Value> {
        Hyperparameters::field(self, key)
    }
    fn set_field(&mut self, key: &str, value: Value) {
        Hyperparameters::set_field(self, key, value);
    }
    fn kernel(&self) -> &'static Kernel {
        const { &Kernel::of::<T>() }
    }
    fn scalars(&self, t: u64, _starts: bool) -> Vec<f64> {
        OneKernelRule::scalars(self, t).as_ref().to_vec()
    }
    fn smallest_state(&self) -> f64 {
        OneKernelRule::smallest_state(self)
    }
    fn trust_ratio(&self) -> Option<TrustRatio> {
        OneKernelRule::trust_ratio(self)
    }
    fn boxed(&self) -> AnyRule {
        AnyRule::new(self.clone())
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

impl std::str::FromStr for AnyRule {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        by_name(text)
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
    fn kernel(&self) -> &'static Kernel {
        self.0.kernel()
    }
    fn kernels(&self) -> Vec<&'static Kernel> {
        self.0.kernels()
    }
    fn scalars(&self, t: u64, starts: bool) -> Vec<f64> {
        self.0.scalars(t, starts)
    }
    fn smallest_state(&self) -> f64 {
        self.0.smallest_state()
    }
    fn trust_ratio(&self) -> Option<TrustRatio> {
        self.0.trust_ratio()
    }
    fn sharpness(&self) -> Option<Sharpness> {
        self.0.sharpness()
    }
    fn boxed(&self) -> AnyRule {
        self.0.boxed()
    }
    fn qualified_name(&self) -> String {
        self.0.qualified_name()
    }
}

/// The rule of a text such as `adamw`, `adamw:lr=3e-4,beta2=0.95` or `sam:base=adamw,rho=0.1`. Keys that are not given
/// have the rule's defaults; `base` is `sgd` where it is not given. In names and keys neither case nor `-` and `_` matter:
/// `AdamW:weight-decay=0.1` is `adamw:weight_decay=0.1`.
///
/// # Errors
/// An unknown rule or key (with the nearest known one), a value that is no number or out of range, a key given twice.
///
/// ```
/// use optim::Rule;
/// let rule = optim::by_name("adamw:beta2=0.95")?;
/// assert_eq!(rule.to_string(), "adamw:lr=0.001,beta1=0.9,beta2=0.95,eps=1e-8,weight_decay=0.01");
/// assert_eq!(
///     optim::by_name("adamm").unwrap_err().to_string(),
///     "unknown optimizer `adamm`: did you mean `adam`? (sgd, rmsprop, adam, amsgrad, adamw, lion, lamb, sam)"
/// );
/// # Ok::<(), optim::Error>(())
/// ```
pub fn by_name(text: &str) -> Result<AnyRule> {
    let text = SpecText::of(text).without_blanks();
    let rule = || text.name.clone();
    let mut pairs = text.pairs().map_err(|error| match error {
        PairError::NotAPair { part } => Error::NotAPair { rule: rule(), pair: part },
        PairError::Twice { key, .. } => Error::RepeatedKey { rule: rule(), key },
    })?;
    let name = text.name.as_str();
    let is_sam = |name: &str| same_name(name, Sam::<AnyRule>::SPEC.name);
    let mut rule = if is_sam(name) {
        let base = pairs.iter().position(|(k, _)| same_name(k, "base")).map_or("sgd", |at| pairs.remove(at).1);
        if is_sam(base) {
            let names: Vec<&str> = rules::ALL.iter().map(|r| r().spec().name).collect();
            return Err(Error::NestedSam { allowed: names.join(", ") });
        }
        Sam::new(default_rule(base)?).boxed()
    } else {
        default_rule(name)?
    };
    let (head, all) = (rule.qualified_name(), rule.hyperparameters());
    for (key, value) in pairs {
        let found = all.iter().find(|h| same_name(h.name, key)).ok_or_else(|| unknown_key(&head, key, &all))?;
        rule.set(found.name, found.parse(&head, value)?)?;
    }
    Ok(rule)
}

fn default_rule(name: &str) -> Result<AnyRule> {
    let found = rules::ALL.iter().find(|r| same_name(r().spec().name, name));
    found.map(|r| r()).ok_or_else(|| {
        let names: Vec<&str> = rules::specs().map(|s| s.name).collect();
        Error::UnknownRule { name: name.to_string(), suggestion: suggestion(name, &names), known: names.join(", ") }
    })
}

#[cfg(test)]
mod tests {
    use super::names_differ;

    #[test]
    fn a_name_that_is_there_twice_is_found() {
        for (lists, differ) in [
            (&[&["a", "b"][..], &["c"], &["grad", "param"]][..], true),
            (&[&["a", "ab"], &["aba"], &[]], true),
            (&[&["a", "b", "a"], &[], &[]], false),
            (&[&["a"], &["b", "a"], &[]], false),
            (&[&["x"], &["grad"], &["grad", "param"]], false),
        ] {
            assert_eq!(names_differ(lists), differ, "{lists:?}");
        }
    }
}
