//! Rules that are declared in another crate than `optim`.

use candle_core::{Device, Var};
use optim::rule::{Allowed, Elementwise, Family, Kernel, Progress, Range, Real, Rule, as_declared, hyperparameters};
use optim::rules::{register, specs};
use optim::{AnyOptimizer, AnyRule, FusedOptimizer, Group, Optimizer, Result, Value, by_name};
use std::ops::Bound;
use std::sync::Once;

mod ranges {
    use super::*;
    pub const UNIT: Range = Range::new(Bound::Included(-1.0), Bound::Included(1.0), "a number from -1 to 1");
}

hyperparameters! {
    /// A rule with every kind of hyperparameter.
    pub(crate) struct Scaled = "scaled" {
        /// Learning rate.
        lr: 0.5 in NON_NEGATIVE,
        /// A range by its path.
        tilt: -0.25 in ranges::UNIT,
        /// A flag.
        signed: true,
        /// The size of a step.
        size: "match_rms" of ["match_rms", "original"],
    }
    formula: "theta -= lr sign(g)"
    best_for: "a test"
    family: Matrix
}

/// Steps by the gradient, or its sign; twice as far with the size `original`.
struct Signed;
struct Plain;

impl Elementwise for Signed {
    const NAME: &'static str = "scaled_signed";
    const SCALARS: &'static [&'static str] = &["size"];
    const SLOTS: &'static [&'static str] = &[];
    type Scalars<R: Real> = [R; 1];
    type State<R: Real> = [R; 0];
    fn direction<R: Real>([size]: [R; 1], grad: R, _param: R, _: [R; 0]) -> (R, [R; 0]) {
        (size * grad.sign(), [])
    }
}

impl Elementwise for Plain {
    const NAME: &'static str = "scaled";
    const SCALARS: &'static [&'static str] = &["size"];
    const SLOTS: &'static [&'static str] = &[];
    type Scalars<R: Real> = [R; 1];
    type State<R: Real> = [R; 0];
    fn direction<R: Real>([size]: [R; 1], grad: R, _param: R, _: [R; 0]) -> (R, [R; 0]) {
        (size * grad, [])
    }
}

impl Rule for Scaled {
    as_declared!();

    fn kernel(&self) -> &'static Kernel {
        self.kernels()[usize::from(self.signed)]
    }
    fn kernels(&self) -> Vec<&'static Kernel> {
        vec![const { &Kernel::of::<Plain>() }, const { &Kernel::of::<Signed>() }]
    }
    fn scalars(&self, _at: &mut Progress<'_>) -> Vec<f64> {
        vec![if self.size == "original" { 2.0 } else { 1.0 }]
    }
}

#[test]
fn what_is_declared_is_known() {
    let spec = Scaled::default().spec();
    assert_eq!(
        (spec.name, spec.doc, spec.family),
        ("scaled", "A rule with every kind of hyperparameter.", Family::Matrix)
    );
    let kinds: Vec<(&str, String, Value)> =
        spec.hyperparameters.iter().map(|h| (h.name, h.allowed.to_string(), h.default)).collect();
    assert_eq!(
        kinds,
        [
            ("lr", "a number >= 0".to_string(), 0.5.into()),
            ("tilt", "a number from -1 to 1".to_string(), (-0.25).into()),
            ("signed", "true or false".to_string(), true.into()),
            ("size", "match_rms or original".to_string(), "match_rms".into()),
        ]
    );
    assert_eq!(Scaled::default().text(), "scaled:lr=0.5,tilt=-0.25,signed=true,size=match_rms");
    for (names, text) in [(&["a"][..], "a"), (&["a", "b"], "a or b"), (&["a", "b", "c"], "a, b or c")] {
        assert_eq!(Allowed::Choice(names).to_string(), text);
    }
}

#[test]
fn a_value_of_another_kind_or_name_is_refused() {
    for (key, value, allowed) in [
        ("size", "Original".into(), Err("scaled: size = Original is out of range: it must be match_rms or original")),
        ("size", 1.0.into(), Err("scaled: size = 1.0 is out of range: it must be match_rms or original")),
        ("size", true.into(), Err("scaled: size = true is out of range: it must be match_rms or original")),
        ("lr", "original".into(), Err("scaled: lr = original is out of range: it must be a number >= 0")),
        ("signed", "true".into(), Err("scaled: signed = true is out of range: it must be true or false")),
        ("tilt", 1.5.into(), Err("scaled: tilt = 1.5 is out of range: it must be a number from -1 to 1")),
        ("size", Value::Choice("original"), Ok(())),
        ("tilt", (-1.0).into(), Ok(())),
    ] {
        let mut rule = Scaled::default();
        let result = rule.set(key, value).map_err(|error| error.to_string());
        assert_eq!(result, allowed.map_err(str::to_string), "{key}={value}");
        let expected = if allowed.is_ok() { value } else { Scaled::default().get(key).expect(key) };
        assert_eq!(rule.get(key).expect(key), expected);
        // Unchecked, a value of another kind changes nothing.
        rule.set_field(key, value);
        rule.set_field("size", 3.0.into());
        rule.set_field("lr", "original".into());
        assert!(matches!((rule.field("lr"), rule.field("size")), (Some(Value::Number(_)), Some(Value::Choice(_)))));
    }
    let rule = Scaled { size: "none", ..Scaled::default() };
    let error = FusedOptimizer::new(vec![variable()], rule).map(drop).unwrap_err().to_string();
    assert_eq!(error, "scaled: size = none is out of range: it must be match_rms or original");
    let group = Group::new(Vec::new(), Scaled::default());
    let error = group.schedule("size", "constant:lr=1".parse().expect("a schedule")).map(drop).unwrap_err().to_string();
    assert_eq!(error, "scaled: size = 1.0 is out of range: it must be match_rms or original");
}

fn variable() -> Var {
    Var::new(&[1f32, -2.0], &Device::Cpu).expect("a variable")
}

#[test]
fn a_choice_and_a_flag_change_the_step() -> Result<()> {
    for (signed, size, expected) in [
        (true, "match_rms", [0.5, -1.5]),
        (true, "original", [0.0, -1.0]),
        (false, "match_rms", [0.0, 0.0]),
        (false, "original", [-1.0, 2.0]),
    ] {
        let w = variable();
        let rule = AnyRule::new(Scaled { signed, size, ..Scaled::default() });
        let mut optimizer = FusedOptimizer::new(vec![w.clone()], rule)?;
        optimizer.backward_step(&w.sqr()?.sum_all()?)?;
        assert_eq!(w.to_vec1::<f32>()?, expected, "{signed} {size}");
    }
    Ok(())
}

/// Registers `Scaled`, once for all tests.
fn scaled(text: &str) -> Result<AnyRule> {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| register::<Scaled>().expect("its name is free"));
    by_name(text)
}

#[test]
fn a_registered_rule_is_found_by_name_and_its_text_reads_back() -> Result<()> {
    for (text, expected) in [
        ("scaled", "scaled:lr=0.5,tilt=-0.25,signed=true,size=match_rms"),
        ("Scaled: size = Match-RMS", "scaled:lr=0.5,tilt=-0.25,signed=true,size=match_rms"),
        ("scaled:size=ORIGINAL,tilt=1e-3", "scaled:lr=0.5,tilt=0.001,signed=true,size=original"),
        ("sam:base=scaled", "sam:base=scaled,rho=0.05,adaptive=false,lr=0.5,tilt=-0.25,signed=true,size=match_rms"),
        (
            "sam:size=original,base=SCALED,rho=0.1",
            "sam:base=scaled,rho=0.1,adaptive=false,lr=0.5,tilt=-0.25,signed=true,size=original",
        ),
    ] {
        let rule = scaled(text)?;
        assert_eq!(rule.text(), expected, "{text}");
        assert_eq!(by_name(&rule.text())?, rule, "{text}");
        rule.validate()?;
    }
    for (text, expected) in [
        ("scaled:size=none", "scaled: size = none is out of range: it must be match_rms or original"),
        ("scaled:size=", "scaled: size =  is out of range: it must be match_rms or original"),
        (
            "scaled:sizes=original",
            "scaled has no hyperparameter `sizes`: did you mean `size`? (lr, tilt, signed, size)",
        ),
        ("scaled:tilt=2", "scaled: tilt = 2.0 is out of range: it must be a number from -1 to 1"),
    ] {
        assert_eq!(scaled(text).unwrap_err().to_string(), expected);
    }
    // In the table before wrappers, and in what an unknown name is told.
    let names: Vec<&str> = specs().map(|spec| spec.name).collect();
    let place = |name: &str| names.iter().position(|other| *other == name).expect(name);
    assert!(place("lamb") < place("scaled") && place("scaled") < place("sam"), "{names:?}");
    let error = by_name("scaledd").unwrap_err().to_string();
    assert!(error.starts_with("unknown optimizer `scaledd`: did you mean `scaled`? (sgd, "), "{error}");

    let w = variable();
    let mut optimizer = AnyOptimizer::new(vec![w.clone()], scaled("sam:base=scaled,signed=false,rho=0")?)?;
    optimizer.step_with(|_| w.sqr()?.sum_all())?;
    assert_eq!(w.to_vec1::<f32>()?, [0.0, 0.0]);
    Ok(())
}

/// A rule of any name and learning rate.
macro_rules! named {
    ($($Rule:ident = $name:literal, $lr:literal $(, $key:ident)?;)*) => {$(
        hyperparameters! {
            /// A name.
            struct $Rule = $name {
                /// Learning rate.
                lr: $lr in NON_NEGATIVE,
                $($key: 0.5 in FRACTION,)?
            }
            formula: "theta -= lr g"
            best_for: "a test"
            family: FirstOrder
        }
        impl Rule for $Rule {
            as_declared!();
            fn kernel(&self) -> &'static Kernel {
                const { &Kernel::of::<Plain>() }
            }
            fn scalars(&self, _: &mut Progress<'_>) -> Vec<f64> {
                vec![1.0]
            }
        }
    )*};
}
named! {
    AdamW = "adamw", 0.1;
    OtherCase = "Ada-MW", 0.1;
    Wrapper = "sam", 0.1;
    Again = "SCALED", 0.1;
    Empty = "", 0.1;
    Digit = "2sgd", 0.1;
    Blank = "my rule", 0.1;
    Colon = "a:b", 0.1;
    Comma = "a,b", 0.1;
    Umlaut = "gr\u{fc}n", 0.1;
    Negative = "negative", -0.1;
    OfOptions = "option", 0.1, maximize;
    OfSam = "of_sam", 0.1, rho;
    Base = "base", 0.1, base;
    Fine = "fine-2", 0.1, alpha;
}

#[test]
fn a_rule_that_would_not_be_found_is_not_registered() {
    const WORD: &str = "a name is letters, digits, `_` and `-`, and starts with a letter";
    let taken = |other| format!("there is a rule `{other}`, and neither case nor `-` and `_` tell names apart");
    let around = |key| format!("its hyperparameter `{key}` has the name of what goes around every rule");
    scaled("scaled").expect("it is registered");
    let before = |name: &str| specs().filter(|spec| spec.name == name).count();
    for (name, register, problem) in [
        ("adamw", register::<AdamW> as fn() -> Result<()>, taken("adamw")),
        ("Ada-MW", register::<OtherCase>, taken("adamw")),
        ("sam", register::<Wrapper>, taken("sam")),
        ("scaled", register::<Scaled>, taken("scaled")),
        ("SCALED", register::<Again>, taken("scaled")),
        ("", register::<Empty>, WORD.to_string()),
        ("2sgd", register::<Digit>, WORD.to_string()),
        ("my rule", register::<Blank>, WORD.to_string()),
        ("a:b", register::<Colon>, WORD.to_string()),
        ("a,b", register::<Comma>, WORD.to_string()),
        ("option", register::<OfOptions>, around("maximize")),
        ("of_sam", register::<OfSam>, around("rho")),
        ("base", register::<Base>, around("base")),
        ("gr\u{fc}n", register::<Umlaut>, WORD.to_string()),
    ] {
        let count = before(name);
        let error = register().unwrap_err().to_string();
        assert_eq!(error, format!("cannot register the rule `{name}`: {problem}"));
        assert_eq!(before(name), count, "{name}");
    }
    let error = register::<Negative>().unwrap_err().to_string();
    assert_eq!(error, "negative: lr = -0.1 is out of range: it must be a number >= 0");
    assert!(register::<Fine>().is_ok() && by_name("FINE_2:lr=1").is_ok());
    assert!(register::<Fine>().is_err(), "it is there now");
}
