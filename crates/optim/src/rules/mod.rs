//! The rules, simplest first, and how one is found by name. To add one: a file here, a line in `rules!` below.
//!
//! A program adds rules of its own by [`register`].

use crate::backend::kernel::Kernel;
use crate::error::{Error, Result};
use crate::rule::contract::{AnyRule, Rule, unknown_key};
use crate::rule::declare::{Family, Spec};
use crate::rule::matrix::STEP;
use crate::rule::options::Options;
use crate::text::{PairError, SpecText, same_name, suggestion};
pub use crate::wrappers::sam::Sam;
pub use crate::wrappers::with_options::WithOptions;

mod gradient;
mod registered;

macro_rules! rules {
    ($($file:ident::$Rule:ident),* $(,)?) => {
        $(pub(crate) mod $file; pub use $file::$Rule;)*
        /// Makes each rule with its defaults.
        const ALL: &[fn() -> AnyRule] = &[$(|| $Rule::default().boxed()),*];
    };
}
rules!(
    sgd::Sgd,
    asgd::Asgd,
    rprop::Rprop,
    adagrad::Adagrad,
    adadelta::Adadelta,
    rmsprop::RmsProp,
    adam::Adam,
    adamax::Adamax,
    amsgrad::AmsGrad,
    adamw::AdamW,
    nadam::NAdam,
    radam::RAdam,
    lion::Lion,
    sophia::Sophia,
    lamb::Lamb,
    lars::Lars,
    signum::Signum,
    tiger::Tiger,
    adabelief::AdaBelief,
    yogi::Yogi,
    laprop::LaProp,
    adopt::Adopt,
    stable_adamw::StableAdamW,
    adan::Adan,
    ademamix::AdEmaMix,
    mars::Mars,
    schedule_free_sgd::ScheduleFreeSgd,
    schedule_free_adamw::ScheduleFreeAdamW,
    prodigy::Prodigy,
    lbfgs::Lbfgs,
    adafactor::Adafactor,
    muon::Muon,
    normuon::NorMuon,
    adamuon::AdaMuon,
    soap::Soap,
    shampoo::Shampoo,
);

/// The table of rules, simplest first, then those that are registered, the wrapper `sam` last.
pub fn specs() -> impl Iterator<Item = &'static Spec> {
    all().map(|rule| rule().spec()).chain([Sam::<AnyRule>::SPEC])
}

/// What makes each rule but for wrappers: those of this crate, then those that are registered.
fn all() -> impl Iterator<Item = fn() -> AnyRule> {
    ALL.iter().copied().chain(registered::all())
}

/// Makes a rule known by its name, to [`by_name`] and [`specs`], for as long as the program runs. Wrappers go around it:
/// `sam:base=NAME`.
///
/// # Errors
/// There is a rule of that name; the name is not one word; a hyperparameter has the name of an option or of SAM's; a default is out
/// of range.
///
/// ```
/// # use optim::rule::{Elementwise, OneKernelRule, Progress, Real};
/// # optim::rule::hyperparameters! {
/// #     /// The gradient.
/// #     pub struct Descent = "descent" {
/// #         /// Learning rate.
/// #         lr: 1e-2 in NON_NEGATIVE,
/// #     }
/// #     formula: "theta -= lr g"
/// #     best_for: "an example"
/// #     family: FirstOrder
/// # }
/// # impl Elementwise for Descent {
/// #     const NAME: &'static str = "descent";
/// #     const SCALARS: &'static [&'static str] = &[];
/// #     const SLOTS: &'static [&'static str] = &[];
/// #     type Scalars<R: Real> = [R; 0];
/// #     type State<R: Real> = [R; 0];
/// #     fn direction<R: Real>(_: [R; 0], grad: R, _param: R, _: [R; 0]) -> (R, [R; 0]) {
/// #         (grad, [])
/// #     }
/// # }
/// # impl OneKernelRule for Descent {
/// #     fn scalars(&self, _: &mut Progress<'_>) -> [f64; 0] {
/// #         []
/// #     }
/// # }
/// // `Descent` is declared by `hyperparameters!` with the name "descent".
/// optim::rules::register::<Descent>()?;
/// assert_eq!(optim::by_name("descent:lr=0.1")?.to_string(), "descent:lr=0.1");
/// assert_eq!(optim::by_name("sam:base=descent")?.to_string(), "sam:base=descent,rho=0.05,adaptive=false,lr=0.01");
/// # Ok::<(), optim::Error>(())
/// ```
pub fn register<R: Rule + Default>() -> Result<()> {
    let own: Vec<&str> = ALL.iter().map(|rule| rule().spec().name).chain([Sam::<AnyRule>::SPEC.name]).collect();
    let options = Options::ALL.iter().chain(Sam::<AnyRule>::SPEC.hyperparameters).map(|around| around.name);
    registered::add::<R>(&own, &options.chain(["base"]).collect::<Vec<_>>())
}

/// The rule of a text such as `adamw`, `adamw:lr=3e-4,beta2=0.95` or `sam:base=adamw,rho=0.1`. Keys that are not given
/// have the rule's defaults; `base` is `sgd` where it is not given. Every rule takes the [`Options`] as keys too. In names and keys
/// neither case nor `-` and `_` matter: `AdamW:weight-decay=0.1` is `adamw:weight_decay=0.1`. A hyperparameter that is a choice
/// takes its names likewise.
///
/// # Errors
/// An unknown rule or key (with the nearest known one), a value that is no number or out of range, a key given twice.
///
/// ```
/// use optim::Rule;
/// let rule = optim::by_name("adamw:beta2=0.95")?;
/// assert_eq!(rule.to_string(), "adamw:lr=0.001,beta1=0.9,beta2=0.95,eps=1e-8,weight_decay=0.01");
/// let error = optim::by_name("adamm").unwrap_err().to_string();
/// assert!(error.starts_with("unknown optimizer `adamm`: did you mean `adam`?"), "{error}");
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
    let mut options = Options::default();
    for known in Options::ALL {
        if let Some(at) = pairs.iter().position(|(key, _)| same_name(known.name, key)) {
            let (_, value) = pairs.remove(at);
            options.set(known.name, known.parse(name, value)?.into());
        }
    }
    let with_options = |base: AnyRule| {
        if options == Options::default() { base } else { WithOptions { base, options }.boxed() }
    };
    let is_sam = |name: &str| same_name(name, Sam::<AnyRule>::SPEC.name);
    let mut rule = if is_sam(name) {
        let base = pairs.iter().position(|(k, _)| same_name(k, "base")).map_or("sgd", |at| pairs.remove(at).1);
        if is_sam(base) {
            let names: Vec<&str> = all().map(|r| r().spec().name).collect();
            return Err(Error::NestedSam { allowed: names.join(", ") });
        }
        Sam::new(with_options(default_rule(base)?)).boxed()
    } else {
        with_options(default_rule(name)?)
    };
    let (head, all) = (rule.qualified_name(), rule.hyperparameters());
    for (key, value) in pairs {
        let found = all.iter().find(|h| same_name(h.name, key)).ok_or_else(|| unknown_key(&head, key, &all))?;
        rule.set(found.name, found.parse(&head, value)?)?;
    }
    Ok(rule)
}

fn default_rule(name: &str) -> Result<AnyRule> {
    let found = all().find(|r| same_name(r().spec().name, name));
    found.map(|r| r()).ok_or_else(|| {
        let names: Vec<&str> = specs().map(|s| s.name).collect();
        Error::UnknownRule { name: name.to_string(), suggestion: suggestion(name, &names), known: names.join(", ") }
    })
}

impl std::str::FromStr for AnyRule {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        by_name(text)
    }
}

/// Every kernel of this crate, one per rule and set of flags that changes its state: what stands in `kernels/rules/`.
pub fn kernels() -> Vec<&'static Kernel> {
    let mut kernels: Vec<&'static Kernel> = Vec::new();
    for rule in ALL.iter().map(|rule| rule()) {
        let of_matrices = rule.matrix().map(|matrix| [matrix.kernel(), STEP]);
        for kernel in rule.kernels().into_iter().chain(of_matrices.into_iter().flatten()) {
            // Rules on matrices share theirs with other rules.
            if kernels.iter().all(|known| known.name != kernel.name) {
                kernels.push(kernel);
            }
        }
    }
    kernels
}

/// The families that have rules, with these.
fn by_family() -> impl Iterator<Item = (Family, Vec<&'static Spec>)> {
    let of = |family| (family, specs().filter(|spec| spec.family == family).collect::<Vec<_>>());
    Family::ALL.into_iter().map(of).filter(|(_, own)| !own.is_empty())
}

/// The rules as tables in Markdown, one for each family under its heading: name, formula, defaults, use.
pub fn table() -> String {
    let mut out = String::new();
    for (family, own) in by_family() {
        let family = family.to_string();
        let (first, rest) = family.split_at(1);
        let heading = format!("## {}{rest}", first.to_uppercase());
        out += &format!("\n{heading}\n\n| rule | update | defaults | best for |\n| --- | --- | --- | --- |\n");
        for spec in own {
            let defaults: Vec<String> =
                spec.hyperparameters.iter().map(|h| format!("{} {}", h.name, h.default)).collect();
            let (name, formula, best_for) = (spec.name, spec.formula, spec.best_for);
            out += &format!("| `{name}` | `{formula}` | {} | {best_for} |\n", defaults.join(", "));
        }
    }
    out + "\n"
}

/// The names of the rules as a table in Markdown, a row for each family.
pub fn names_by_family() -> String {
    let mut out = String::from("| family | rules |\n| --- | --- |\n");
    for (family, own) in by_family() {
        let names: Vec<String> = own.iter().map(|spec| format!("`{}`", spec.name)).collect();
        out += &format!("| {family} | {} |\n", names.join(", "));
    }
    out
}
