//! What is searched, and what is found.

use super::*;
use crate::run::tune::MOST;

fn rule(text: &str) -> AnyRule {
    optim::by_name(text).unwrap()
}

#[test]
fn every_rule_has_a_space_whose_points_it_accepts() {
    for spec in optim::rules::specs() {
        let rule = rule(spec.name);
        let space = Space::of(&rule);
        let mut lrs = Vec::new();
        for index in 0..64 {
            let point = space.spread(&rule, index).unwrap();
            point.validate().unwrap();
            lrs.push(f64::from(point.get("lr").unwrap()));
        }
        // A quasi-random sequence of 64 points leaves no sixteenth of the interval empty.
        let Interval { low, high, .. } = space.intervals[0];
        let sixteenth = |lr: f64| ((lr / low).ln() / (high / low).ln() * 16.0) as usize;
        let mut hit = [false; 16];
        lrs.iter().for_each(|lr| hit[sixteenth(*lr).min(15)] = true);
        assert!(hit.iter().all(|hit| *hit), "{}: {lrs:?}", spec.name);
    }
    assert_eq!(Space::of(&rule("sam:base=lion")), Space::of(&rule("lion")));
    assert_eq!(Space::of(&rule("adamw:cautious=true")), Space::of(&rule("adamw")));
    assert_eq!(Space::of(&rule("adamw")).to_string(), "lr=1e-5..0.1,weight_decay=0|0.003..0.3");
}

#[test]
fn rules_are_searched_on_equal_terms() {
    let lr = |name: &str| Space::of(&rule(name)).intervals[0].clone();
    for spec in optim::rules::specs() {
        for Interval { key, low, high, has_zero, grows } in Space::of(&rule(spec.name)).intervals {
            let (decades, has_zero_too) = if key == "lr" { (4.0, false) } else { (2.0, true) };
            assert!(((high / low).log10() - decades).abs() < 1e-9, "{}: {key} of {low} to {high}", spec.name);
            assert!(grows && has_zero == has_zero_too, "{}: {key}", spec.name);
        }
        let keys = Space::of(&rule(spec.name)).intervals.into_iter().map(|interval| interval.key);
        let own = rule(spec.name);
        let has = ["lr", "weight_decay"].into_iter().filter(|key| own.field(key).is_some());
        assert_eq!(keys.collect::<Vec<_>>(), has.collect::<Vec<_>>(), "{}", spec.name);
    }
    // An update of each of these is about lr per element.
    for name in ["adam", "amsgrad", "adamw", "adamax", "nadam", "radam", "adabelief", "laprop", "stable_adamw"] {
        assert_eq!(lr(name), lr("rmsprop"), "{name}");
    }
    for name in ["signum", "tiger"] {
        assert_eq!(lr(name), lr("lion"), "{name}");
    }
    // Where a choice makes steps longer, it is searched there.
    for (longer, usual) in [("muon:scale=original", "muon"), ("shampoo:grafting=sgd", "shampoo")] {
        assert!(lr(longer).low > lr(usual).low, "{longer}");
    }
}

#[test]
fn a_registered_rule_is_searched_around_its_defaults() {
    for (rule, space) in [
        (own::Full::default().boxed(), "lr=1e-7..0.001,weight_decay=0|0.01..1"),
        (own::NoDecay::default().boxed(), "lr=0.01..100"),
        (own::Around::default().boxed(), "lr=0.001..10"),
        (optim::rules::Sam::new(own::Full::default()).boxed(), "lr=1e-7..0.001,weight_decay=0|0.01..1"),
    ] {
        let found = Space::of(&rule);
        assert_eq!(found.to_string(), space, "{rule}");
        found.spread(&rule, 5).unwrap().validate().unwrap();
    }
}

/// Rules of a program.
mod own {
    use optim::{
        Rule,
        rule::{Kernel, Progress, as_declared, hyperparameters},
    };

    macro_rules! rule {
        ($Rule:ident, $($key:ident: $default:literal $(around $usual:literal)?),*) => {
            hyperparameters! {
                /// A rule of a program.
                pub struct $Rule = "own" { $($key: $default in NON_NEGATIVE $(around $usual)?,)* }
                formula: ""
                best_for: ""
                family: FirstOrder
            }
            impl Rule for $Rule {
                as_declared!();
                fn kernel(&self) -> &'static Kernel {
                    optim::rules::Sgd::default().kernel()
                }
                fn scalars(&self, _: &mut Progress<'_>) -> Vec<f64> {
                    Vec::new()
                }
            }
        };
    }
    rule!(Full, lr: 1e-5, weight_decay: 0.1);
    rule!(NoDecay, lr: 1.0, weight_decay: 0.0);
    rule!(Around, lr: 1.0 around 0.1);
}

/// Searches the learning rate of `text` as tuning does, where the loss is that of `loss`.
fn search(text: &str, given: &[&str], count: usize, loss: impl Fn(f64, f64) -> Option<f64>) -> (AnyRule, Space) {
    let given: Vec<String> = given.iter().map(|text| (*text).to_owned()).collect();
    let rule = rule(text);
    let mut space = Space::choose(text, &rule, &given).unwrap();
    let of = |rule: AnyRule| {
        let value = |key| rule.field(key).map_or(0.0, f64::from);
        let loss = loss(value("lr"), value("weight_decay"));
        (rule, loss)
    };
    let mut tried = Vec::new();
    for (round, size) in crate::run::tune::rounds(count).into_iter().enumerate() {
        let points = match round {
            0 => (0..size).map(|at| space.spread(&rule, at).unwrap()).collect(),
            _ => space.around_best(&tried, round - 1).unwrap(),
        };
        assert!(points.len() >= size);
        tried.extend(points.into_iter().take(size).map(of));
    }
    assert_eq!(tried.len(), count);
    let best = |trial: &&(AnyRule, Option<f64>)| trial.1.unwrap_or(f64::INFINITY);
    (tried.iter().min_by(|a, b| best(a).total_cmp(&best(b))).unwrap().0.clone(), space)
}

#[test]
fn eight_trials_come_near_the_best_learning_rate_wherever_it_is() {
    // From two decades below the usual one to two above, and beyond an end.
    for decades in -5..=5 {
        let best = 1e-3 * 10f64.powf(f64::from(decades) / 2.0);
        // Training diverges ten times above the best.
        let loss = |lr: f64, _| (lr < 10.0 * best).then(|| (lr / best).log10().powi(2));
        let (found, _) = search("adamw:weight_decay=0", &[], 8, loss);
        let off = (f64::from(found.get("lr").unwrap()) / best).log10().abs();
        assert!(off < 0.35, "{best}: {found}");
    }
    let (found, space) = search("adamw:weight_decay=0", &[], 16, |lr, _| Some((lr / 3.0).log10().powi(2)));
    let off = (f64::from(found.get("lr").unwrap()) / 3.0).log10().abs();
    assert!(off < 0.35 && space.at_edge(&found).is_empty(), "{found} in {space}");
    // What a user gave does not grow.
    let given = ["adamw:lr=1e-4..1e-2"];
    let (found, space) = search("adamw:weight_decay=0", &given, 16, |lr, _| Some(-lr));
    assert_eq!(space.to_string(), "lr=1e-4..0.01");
    assert_eq!(space.at_edge(&found), ["lr"], "{found}");
}

#[test]
fn a_parabola_through_three_points_is_lowest_where_it_is_flat() {
    for best in [2e-3, 1e-2, 5e-2] {
        let loss = |x: f64| (0.3 + (x / best).ln().powi(2)).exp();
        let points = [1e-3, 1e-2, 1e-1].map(|x| (x, loss(x)));
        match lowest_of_parabola(points) {
            Some(lowest) => assert!((lowest / best).ln().abs() < 0.01, "{lowest}, not {best}"),
            None => assert_eq!(best, 1e-2),
        }
    }
    for points in
        [[(1.0, 1.0); 3], [(0.0, 2.0), (1.0, 1.0), (2.0, 2.0)], [(0.1, 2.0), (1.0, 1.0), (2.0, f64::INFINITY)]]
    {
        assert_eq!(lowest_of_parabola(points), None);
    }
}

#[test]
fn a_decay_that_serves_is_found_too_and_none_where_none_serves() {
    let lr_term = |lr: f64| (lr / 1e-3).log10().powi(2);
    for (best, most_off) in [(0.01, 0.7), (0.1, 0.7)] {
        let loss = |lr, decay: f64| Some(lr_term(lr) + (decay.max(1e-9) / best).log10().powi(2));
        let (found, _) = search("adamw", &[], 16, loss);
        let off = (f64::from(found.get("weight_decay").unwrap()) / best).log10().abs();
        assert!(off < most_off, "{best}: {found}");
    }
    let (found, space) = search("adamw", &[], 16, |lr, decay: f64| Some(lr_term(lr) + decay));
    assert_eq!(f64::from(found.get("weight_decay").unwrap()), 0.0, "{found}");
    assert!(space.at_edge(&found).is_empty());
}

#[test]
fn what_a_user_gave_is_not_searched() {
    let space = |text: &str, given: &[&str]| {
        let given: Vec<String> = given.iter().map(|text| (*text).to_owned()).collect();
        Space::choose(text, &rule(text), &given).unwrap()
    };
    for (text, given, expected) in [
        ("adamw", &[][..], "lr=1e-5..0.1,weight_decay=0|0.003..0.3"),
        ("adamw:weight_decay=0.3", &[], "lr=1e-5..0.1"),
        ("adam:weight_decay=1e-2", &[], "lr=1e-5..0.1"),
        ("adamw:beta2=0.95, lr=1e-3", &[], "weight_decay=0|0.003..0.3"),
        ("AdamW:Weight-Decay=0.3", &[], "lr=1e-5..0.1"),
        ("sam:base=adamw,lr=1e-3", &[], "weight_decay=0|0.003..0.3"),
        ("adam:weight_decay=0", &["Adam:lr=1e-4..1e-2"], "lr=1e-4..0.01"),
        ("adam:weight_decay=0", &["adam:lr=1e-4..1e-2"], "lr=1e-4..0.01"),
        ("adam:beta2=0.9", &["adam:lr=1e-4..1e-2,beta2=0.9..0.99"], "lr=1e-4..0.01"),
    ] {
        let space = space(text, given);
        assert_eq!(space.to_string(), expected, "{text} {given:?}");
        assert!(space.is_searchable());
        let given = rule(text);
        let tried = space.spread(&given, 3).unwrap();
        for pair in text.split_once(':').map_or("", |(_, pairs)| pairs).split(',') {
            let key = pair.split('=').next().unwrap().trim();
            assert_eq!(tried.field(key), given.field(key), "{text}: {key}");
        }
    }
    for (text, given) in
        [("adam:lr=1,weight_decay=0", &[][..]), ("adamw:lr=1,weight_decay=0", &[]), ("sgd", &["sgd:lr=1"])]
    {
        assert!(!space(text, given).is_searchable(), "{text}");
    }
    for (text, free) in [
        ("adamw:lr=2e-3", "adamw"),
        ("sgd:lr=0.05,momentum=0.9", "sgd:momentum=0.9"),
        ("adamw:beta2=0.99", "adamw:beta2=0.99"),
        ("lion", "lion"),
    ] {
        assert_eq!(Space::free(text).unwrap(), free);
    }
}

#[test]
fn points_are_the_same_share_of_every_space() {
    let (a, b) = (rule("sgd"), rule("adam"));
    for index in 0..8 {
        let share = |rule: &AnyRule, space: &Space| {
            let lr = f64::from(space.spread(rule, index).unwrap().get("lr").unwrap());
            let Interval { low, high, .. } = space.intervals[0];
            (lr / low).ln() / (high / low).ln()
        };
        assert!((share(&a, &Space::of(&a)) - share(&b, &Space::of(&b))).abs() < 2e-3);
    }
}

#[test]
fn a_given_space_replaces_the_default_of_its_rule() {
    let given = ["adam:lr=1e-3..1e-1,beta2=0.9..0.99".to_owned(), "sgd:lr=1".to_owned()];
    let space = Space::choose("adam", &rule("adam"), &given).unwrap();
    assert_eq!(space.to_string(), "lr=0.001..0.1,beta2=0.9..0.99");
    assert_eq!(Space::choose("lion", &rule("lion"), &given).unwrap(), Space::of(&rule("lion")));
    let text = "adamw:lr=1e-4..1e-2,weight_decay=0|0.01..1";
    let with_zero = Space::choose("adamw", &rule("adamw"), &[text.to_owned()]).unwrap();
    assert_eq!(with_zero.to_string(), "lr=1e-4..0.01,weight_decay=0|0.01..1");
    let sgd = Space::choose("sgd", &rule("sgd"), &given).unwrap();
    assert_eq!(f64::from(sgd.spread(&rule("sgd"), 5).unwrap().get("lr").unwrap()), 1.0);
    let near_one = Space::choose("adam", &rule("adam"), &["adam:beta2=0.9998..0.9999".to_owned()]).unwrap();
    assert_eq!(f64::from(near_one.spread(&rule("adam"), MOST - 1).unwrap().get("beta2").unwrap()), 0.9999);
    for (text, at_edge) in [
        ("adam:lr=1.1e-3,beta2=0.95", &["lr"][..]),
        ("adam:lr=1e-2,beta2=0.95", &[]),
        ("adam:lr=9.9e-2,beta2=0.9", &["lr", "beta2"]),
        // The ends belong to the space.
        ("adam:lr=1e-1,beta2=0.95", &["lr"]),
    ] {
        assert_eq!(space.at_edge(&rule(text)), at_edge, "{text}");
    }
    for (text, parts) in [
        ("adam", &["adam", "KEY=LOW..HIGH"][..]),
        ("adamm:lr=1..2", &["`adamm`", "did you mean `adam`?"]),
        ("adam:lr=2..1", &["lr=2..1", "LOW < HIGH"]),
        ("adam:lr=0..1", &["lr=0..1", "0|LOW..HIGH"]),
        ("adam:beta2=0|0.9..1.5", &["beta2", "1.5"]),
        ("adam:lr=-1", &["lr=-1"]),
        ("adam:lr=1e-3..1e-2,lr=1e-5..1e-4", &["`lr` is given twice"]),
        ("adam:beta3=0.1..0.2", &["beta3", "did you mean `beta2`?"]),
        ("adam:beta1=0.5..1.5", &["beta1", "1.5"]),
        ("sgd:nesterov=0.5..1", &["`sgd:nesterov=0.5..1`", "`nesterov` is true or false", "--opt"]),
        ("adam:cautious=0.5..1", &["`cautious` is true or false", "--opt"]),
        ("sgd:Nesterov=true", &["`nesterov` is true or false", "--opt"]),
    ] {
        let message = format!("{:#}", Space::choose("adam", &rule("adam"), &[text.to_owned()]).unwrap_err());
        assert!(parts.iter().all(|part| message.contains(part)), "{text}: {message}");
    }
}
