//! The compiled forms of a formula.

use super::cpu::loops::Loops;
use crate::formula::decay::Decay;
use crate::formula::elementwise::{Elementwise, Gives};
use crate::formula::real::Real;
use crate::formula::slots::{Array, MAX_SLOTS};
use crate::formula::sums::{MAX_FACTORS, MAX_SUMS, Scope, Sums};
use crate::formula::trace;
use std::fmt::{Debug, Formatter};

/// The compiled forms of an [`Elementwise`] formula.
pub struct Kernel {
    /// The name of the header.
    pub name: &'static str,
    /// How weight decay enters.
    pub decay: Decay,
    /// What the formula returns.
    pub gives: Gives,
    /// The sums that it needs.
    pub sums: Sums,
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
    /// What an element adds to each sum, in f32.
    pub measured_f32: Measured<f32>,
    /// The same in f64.
    pub measured_f64: Measured<f64>,
    /// The factors from the sums, in f32, as on Metal.
    pub factors_f32: Factors<f32>,
    /// The same in f64.
    pub factors_f64: Factors<f64>,
    pub(crate) f32: Loops<f32>,
    pub(crate) f64: Loops<f64>,
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

/// What an element adds to each sum: `f(scalars, gradient, parameter, slots)`.
pub type Measured<R> = fn(&[R], R, R, &[R; MAX_SLOTS]) -> [R; MAX_SUMS];

fn measured<T: Elementwise, R: Real>(scalars: &[R], grad: R, param: R, slots: &[R; MAX_SLOTS]) -> [R; MAX_SUMS] {
    let scalars = T::Scalars::<R>::from_fn(|k| scalars[k]);
    T::measured(scalars, grad, param, T::State::<R>::from_fn(|k| slots[k]))
}

/// The factors from the sums: `f(scalars, sums, number of elements)`.
pub type Factors<R> = fn(&[R], [R; MAX_SUMS], R) -> [R; MAX_FACTORS];

fn factors<T: Elementwise, R: Real>(scalars: &[R], sums: [R; MAX_SUMS], len: R) -> [R; MAX_FACTORS] {
    T::factors(T::Scalars::<R>::from_fn(|k| scalars[k]), sums, len)
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

/// Whether a name can be part of a name in C++.
const fn is_identifier(name: &str) -> bool {
    let name = name.as_bytes();
    let mut at = 0;
    while at < name.len() {
        if !(name[at].is_ascii_alphanumeric() || name[at] == b'_') {
            return false;
        }
        at += 1;
    }
    at > 0
}

impl Kernel {
    /// What tells kernels apart: two crates may have kernels of one name.
    pub(crate) fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Whether its factors stay from update to update.
    pub(crate) fn keeps_factors(&self) -> bool {
        self.sums.scope == Scope::All
    }

    /// The kernel of a formula: `const KERNEL: &Kernel = &Kernel::of::<T>();`
    pub const fn of<T: Elementwise>() -> Self {
        assert!(is_identifier(T::NAME), "a name is letters, digits and `_`");
        assert!(T::SCALARS.len() == <T::Scalars<f64> as Array<f64>>::LEN, "a name per scalar");
        assert!(T::SLOTS.len() == <T::State<f64> as Array<f64>>::LEN, "a name per slot");
        assert!(names_differ(&[T::SCALARS, T::SLOTS, &["grad", "param"]]), "a name for two inputs of a formula");
        assert!(
            T::SUMS.of.len() <= MAX_SUMS && T::SUMS.factors <= MAX_FACTORS,
            "no more sums and factors than there may be"
        );
        assert!(T::SUMS.factors <= T::SCALARS.len(), "the factors are the last scalars");
        Self {
            name: T::NAME,
            decay: T::DECAY,
            gives: T::GIVES,
            sums: T::SUMS,
            scalars: T::SCALARS,
            slots: T::SLOTS,
            header: trace::header::<T>,
            direction_f32: direction::<T, f32>,
            direction_f64: direction::<T, f64>,
            measured_f32: measured::<T, f32>,
            measured_f64: measured::<T, f64>,
            factors_f32: factors::<T, f32>,
            factors_f64: factors::<T, f64>,
            f32: Loops::<f32>::of::<T>(),
            f64: Loops::<f64>::of::<T>(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{is_identifier, names_differ};

    #[test]
    fn a_name_is_part_of_a_name_in_cpp() {
        for (name, is) in [
            ("lion", true),
            ("sgd_momentum2", true),
            ("", false),
            ("a-b", false),
            ("a b", false),
            ("a\n", false),
            ("\u{e4}", false),
        ] {
            assert_eq!(is_identifier(name), is, "{name:?}");
        }
    }

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
