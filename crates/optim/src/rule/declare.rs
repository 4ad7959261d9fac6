//! The declaration of a rule: its name, documentation and hyperparameters, written once.

use super::value::{Hyperparameter, Value};
use std::fmt::Debug;

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
                pub $field: $crate::rule::declare::hyperparameters!(@type $($range)?),
            )*
        }

        impl Default for $Rule {
            fn default() -> Self {
                Self { $($field: $default),* }
            }
        }

        impl $crate::rule::declare::Hyperparameters for $Rule {
            const SPEC: &'static $crate::rule::declare::Spec = &$crate::rule::declare::Spec {
                name: $name,
                doc: concat!($($doc, "\n"),*).trim_ascii(),
                formula: $formula,
                best_for: $best_for,
                hyperparameters: &[$($crate::rule::value::Hyperparameter {
                    name: stringify!($field),
                    doc: concat!($($field_doc),*).trim_ascii(),
                    default: $crate::rule::declare::hyperparameters!(@value $default $(in $range)?),
                    range: $crate::rule::declare::hyperparameters!(@range $($range)?),
                }),*],
            };

            fn field(&self, key: &str) -> Option<$crate::rule::value::Value> {
                match key {
                    $(stringify!($field) => Some(self.$field.into()),)*
                    _ => None,
                }
            }

            fn set_field(&mut self, key: &str, value: $crate::rule::value::Value) {
                match key {
                    $(stringify!($field) => self.$field = value.into(),)*
                    _ => {}
                }
            }
        }
    };
    (@type $range:ident) => { f64 };
    (@type) => { bool };
    (@value $default:literal in $range:ident) => { $crate::rule::value::Value::Number($default) };
    (@value $default:literal) => { $crate::rule::value::Value::Flag($default) };
    (@range $range:ident) => { Some($crate::rule::value::$range) };
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
