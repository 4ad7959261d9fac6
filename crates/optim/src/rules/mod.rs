//! The rules, simplest first. To add one: a file here, a line in `rules!` below.

use crate::rule::{AnyRule, Kernel, Rule, Spec};
pub use crate::wrappers::Sam;

macro_rules! rules {
    ($($file:ident::$Rule:ident),* $(,)?) => {
        $(mod $file; pub use $file::$Rule;)*
        /// Makes each rule with its defaults.
        pub(crate) const ALL: &[fn() -> AnyRule] = &[$(|| $Rule::default().boxed()),*];
    };
}
rules!(sgd::Sgd, rmsprop::RmsProp, adam::Adam, amsgrad::AmsGrad, adamw::AdamW, lion::Lion, lamb::Lamb);

/// The table of rules, simplest first, the wrapper `sam` last.
pub fn specs() -> impl Iterator<Item = &'static Spec> {
    ALL.iter().map(|rule| rule().spec()).chain([Sam::<AnyRule>::SPEC])
}

/// Every kernel, one per rule and set of flags that changes its state: what stands in `kernels/rules/`.
pub fn kernels() -> Vec<&'static Kernel> {
    ALL.iter().flat_map(|rule| rule().kernels()).collect()
}

/// The rules as a table in Markdown: name, formula, defaults, use.
pub fn table() -> String {
    let mut out = String::from("| rule | update | defaults | best for |\n| --- | --- | --- | --- |\n");
    for spec in specs() {
        let defaults: Vec<String> = spec.hyperparameters.iter().map(|h| format!("{} {}", h.name, h.default)).collect();
        let (name, formula, best_for) = (spec.name, spec.formula, spec.best_for);
        out += &format!("| `{name}` | `{formula}` | {} | {best_for} |\n", defaults.join(", "));
    }
    out
}
