//! The declaration of a rule: its name, documentation and hyperparameters, written once.

use super::value::{Hyperparameter, Value};
use std::fmt::{Debug, Display, Formatter};

/// What a rule is of, by what it reads of a gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// The step follows the gradient, its mean or its sign.
    FirstOrder,
    /// Each element has a step size of its own, by the size of its gradients.
    Adaptive,
    /// The step is made of a matrix as a whole.
    Matrix,
    /// The rule finds its step size, or its schedule, by itself.
    LearningRateFree,
    /// It goes around any rule.
    Wrapper,
}

impl Family {
    /// All, in the order of lists.
    pub const ALL: [Self; 5] = [Self::FirstOrder, Self::Adaptive, Self::Matrix, Self::LearningRateFree, Self::Wrapper];
}

impl Display for Family {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::FirstOrder => "first-order",
            Self::Adaptive => "adaptive",
            Self::Matrix => "matrix",
            Self::LearningRateFree => "learning-rate free",
            Self::Wrapper => "wrapper",
        })
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
    /// What it is of.
    pub family: Family,
    /// Its own hyperparameters in order of declaration.
    pub hyperparameters: &'static [Hyperparameter],
}

impl Spec {
    /// The value of its own hyperparameter `key` that a search looks around, where that is a number.
    pub fn usual(&self, key: &str) -> Option<f64> {
        let own = self.hyperparameters.iter().find(|own| own.name == key);
        own.map(|own| own.usual).filter(|usual| !usual.is_nan())
    }
}

/// Declares the struct of a rule's hyperparameters, from which its command line, its range checks, its record and its
/// row in the table of rules derive.
///
/// It defines the struct, its [`Default`] and its [`Hyperparameters`]. What a field is follows from its declaration:
///
/// | declaration | type of the field | what it may be |
/// | --- | --- | --- |
/// | `lr: 1e-3 in NON_NEGATIVE` | `f64` | a number of that [`Range`](crate::rule::Range): one of [`rule`](crate::rule), or the path of your own |
/// | `lr: 1e-2 in NON_NEGATIVE around 0.1` | `f64` | the same, and a search looks around 0.1 instead of around the default |
/// | `nesterov: false` | `bool` | true or false |
/// | `scale: "original" of ["original", "match_rms_adamw"]` | `&'static str` | one of these names |
///
/// `family` is a variant of [`Family`].
///
/// ```
/// use optim::rule::{Range, hyperparameters};
/// use std::ops::Bound;
///
/// const WHOLE: Range = Range::new(Bound::Included(1.0), Bound::Excluded(1e9), "a number from 1 to 1e9");
///
/// hyperparameters! {
///     /// An example (its source).
///     pub struct Example = "example" {
///         /// Learning rate.
///         lr: 1e-3 in NON_NEGATIVE,
///         /// Updates between two syncs.
///         period: 6.0 in WHOLE,
///         /// Look ahead along the momentum.
///         nesterov: false,
///         /// How the step is scaled.
///         scale: "original" of ["original", "match_rms_adamw"],
///     }
///     formula: "theta -= lr g"
///     best_for: "an example"
///     family: FirstOrder
/// }
///
/// assert_eq!(Example::default(), Example { lr: 1e-3, period: 6.0, nesterov: false, scale: "original" });
/// ```
#[doc(hidden)]
#[macro_export]
macro_rules! __hyperparameters {
    (
        $(#[doc = $doc:literal])*
        $visibility:vis struct $Rule:ident = $name:literal {
            $(
                $(#[doc = $field_doc:literal])*
                $field:ident: $default:literal $(in $($range:ident)::+)? $(around $usual:literal)? $(of [$($choice:literal),+ $(,)?])?,
            )*
        }
        formula: $formula:literal
        best_for: $best_for:literal
        family: $family:ident
    ) => {
        $(#[doc = $doc])*
        #[doc = ""]
        #[doc = ::core::concat!("Update: `", $formula, "`")]
        #[derive(Clone, Debug, PartialEq)]
        $visibility struct $Rule {
            $(
                $(#[doc = $field_doc])*
                #[doc = ::core::concat!("\n\nDefault: ", ::core::stringify!($default), ".")]
                pub $field: $crate::rule::declare::hyperparameters!(@type $(in $($range)::+)? $(of $($choice)+)?),
            )*
        }

        impl ::core::default::Default for $Rule {
            fn default() -> Self {
                Self { $($field: $default),* }
            }
        }

        impl $crate::rule::declare::Hyperparameters for $Rule {
            const SPEC: &'static $crate::rule::declare::Spec = &$crate::rule::declare::Spec {
                name: $name,
                doc: ::core::concat!($($doc, "\n"),*).trim_ascii(),
                formula: $formula,
                best_for: $best_for,
                family: $crate::rule::declare::Family::$family,
                hyperparameters: &[$($crate::rule::value::Hyperparameter {
                    name: ::core::stringify!($field),
                    doc: ::core::concat!($($field_doc),*).trim_ascii(),
                    default: $crate::rule::declare::hyperparameters!(@value $default, $(in $($range)::+)? $(of $($choice)+)?),
                    allowed: $crate::rule::declare::hyperparameters!(@allowed $(in $($range)::+)? $(of $($choice)+)?),
                    usual: $crate::rule::declare::hyperparameters!(@usual $default, $(in $($range)::+)? $(around $usual)?),
                }),*],
            };

            fn field(&self, key: &str) -> ::core::option::Option<$crate::rule::value::Value> {
                match key {
                    $(::core::stringify!($field) => ::core::option::Option::Some(self.$field.into()),)*
                    _ => ::core::option::Option::None,
                }
            }

            fn set_field(&mut self, key: &str, value: $crate::rule::value::Value) {
                match key {
                    $(::core::stringify!($field) => $crate::rule::value::Field::set(&mut self.$field, value),)*
                    _ => {}
                }
            }
        }
    };
    (@type in $($range:ident)::+) => { f64 };
    (@type of $($choice:literal)+) => { &'static str };
    (@type) => { bool };
    (@value $default:literal, in $($range:ident)::+) => { $crate::rule::value::Value::Number($default) };
    (@value $default:literal, of $($choice:literal)+) => {
        $crate::rule::value::Value::Choice($crate::rule::value::one_of($default, &[$($choice),+]))
    };
    (@value $default:literal,) => { $crate::rule::value::Value::Flag($default) };
    (@allowed in $($range:ident)::+) => {
        $crate::rule::value::Allowed::Number($crate::rule::declare::hyperparameters!(@range $($range)::+))
    };
    (@allowed of $($choice:literal)+) => { $crate::rule::value::Allowed::Choice(&[$($choice),+]) };
    (@allowed) => { $crate::rule::value::Allowed::Flag };
    (@usual $default:literal, in $($range:ident)::+) => { $default };
    (@usual $default:literal, in $($range:ident)::+ around $usual:literal) => { $usual };
    (@usual $default:literal,) => { ::core::primitive::f64::NAN };
    // The ranges of this crate go by their names everywhere.
    (@range NON_NEGATIVE) => { $crate::rule::value::NON_NEGATIVE };
    (@range FRACTION) => { $crate::rule::value::FRACTION };
    (@range POSITIVE) => { $crate::rule::value::POSITIVE };
    (@range OPEN_FRACTION) => { $crate::rule::value::OPEN_FRACTION };
    (@range ABOVE_ONE) => { $crate::rule::value::ABOVE_ONE };
    (@range $($range:ident)::+) => { $($range)::+ };
}
#[doc(inline)]
pub use __hyperparameters as hyperparameters;

/// A struct of hyperparameters; implemented by `hyperparameters!`.
pub trait Hyperparameters: Clone + Debug + Default + Send + Sync + 'static {
    /// What was declared.
    const SPEC: &'static Spec;
    /// The value of the field `key`.
    fn field(&self, key: &str) -> Option<Value>;
    /// Sets the field `key`, unchecked; nothing happens for an unknown key, or a value of another kind than the field's.
    fn set_field(&mut self, key: &str, value: Value);
}
