//! The options around any rule, against their formulas.

mod problem;

use candle_core::backprop::GradStore;
use candle_core::{DType, Result, Var};
use optim::{AnyOptimizer, AnyRule, Group, Optimizer, Rule, Schedule, StateDict, by_name, rules};
use problem::{empty_grads, grads, start, values};

/// All rules but for wrappers and those that a plain step does not move, with momentum where it is off by default.
fn all() -> Vec<String> {
    // LaProp has the learning rate in its mean, so that its direction is not that of another rate.
    let others = ["sam", "lbfgs", "laprop"];
    let names = rules::specs().map(|spec| spec.name).filter(|name| !others.contains(name)).map(str::to_string);
    names.chain(["sgd:momentum=0.9".to_string(), "rmsprop:momentum=0.9,centered=true".to_string()]).collect()
}

fn with(text: &str, keys: &str) -> String {
    format!("{text}{}{keys}", if text.contains(':') { ',' } else { ':' })
}

fn optimizer(rule: AnyRule, params: &[(String, Var)]) -> AnyOptimizer {
    AnyOptimizer::from_groups(vec![Group::new(params.to_vec(), rule)]).expect("an optimizer")
}

/// A rule with this learning rate and decay, the same for all parameters, where it has them.
fn rule(text: &str, lr: f64, decay: f64) -> AnyRule {
    let mut rule = by_name(text).expect(text);
    for (key, value) in [("lr", lr), ("weight_decay", decay), ("adamw_weight_decay", decay), ("adamw_lr_factor", 1.0)] {
        if rule.field(key).is_some() {
            rule.set(key, value.into()).expect("in range");
        }
    }
    rule
}

/// A learning rate up to which no rule limits it.
const UNIT: f64 = 0.25;

/// Where a rule with options goes, and what the same rule without would move by at a learning rate of 1 and no decay, from the
/// same state; with the gradients.
fn one_step(text: &str, lr: f64, decay: f64) -> Result<Vec<[Vec<f64>; 4]>> {
    let bare = text.split(",cautious").next().unwrap_or(text).replace(":cautious=true", "");
    let bare = bare.split(":cautious").next().unwrap_or(&bare).to_string();
    let params = start(DType::F64)?;
    let mut first = optimizer(rule(&bare, 0.01, 0.0), &params);
    for t in 1..4 {
        first.step(&grads(&params, t, 1.0, |_| true)?)?;
    }
    let state: StateDict = first.state_dict().expect("between two steps");
    let before: Vec<_> = params.iter().map(|(_, var)| values(var)).collect::<Result<_>>()?;
    let store = grads(&params, 4, 1.0, |_| true)?;
    let run = |rule: AnyRule| -> Result<Vec<Vec<f64>>> {
        let copies = start(DType::F64)?;
        let mut given = empty_grads()?;
        for ((_, copy), (_, var)) in copies.iter().zip(&params) {
            copy.set(var)?;
            given.insert(copy, store.get(var).expect("a gradient").clone());
        }
        let mut optimizer = optimizer(rule, &copies);
        optimizer.load_state_dict(&state).expect("it fits");
        optimizer.step(&given)?;
        copies.iter().map(|(_, var)| values(var)).collect()
    };
    let after = run(rule(text, lr, decay))?;
    let moved = run(rule(&bare, UNIT, 0.0))?;
    let gradients: Vec<_> = params.iter().map(|(_, v)| values(store.get(v).expect("one"))).collect::<Result<_>>()?;
    let all = before.into_iter().zip(after).zip(moved).zip(gradients);
    Ok(all
        .map(|(((before, after), moved), gradient)| {
            let direction = before.iter().zip(&moved).map(|(before, moved)| (before - moved) / UNIT).collect();
            [before, after, direction, gradient]
        })
        .collect())
}

fn is_refused(text: &str, key: &str) -> bool {
    match by_name(text).expect(text).validate() {
        Ok(()) => false,
        Err(error) => {
            assert!(error.to_string().contains(key), "{text}: {error}");
            true
        }
    }
}

#[test]
fn a_cautious_direction_keeps_what_agrees_with_the_gradient() -> Result<()> {
    let mut checked = 0;
    for base in all() {
        let text = with(&base, "cautious=true");
        if is_refused(&text, "cautious") {
            continue;
        }
        for [before, after, direction, gradient] in one_step(&text, 0.125, 0.0)? {
            let agrees: Vec<bool> = direction.iter().zip(&gradient).map(|(u, g)| u * g > 0.0).collect();
            let share = agrees.iter().filter(|agrees| **agrees).count() as f64 / agrees.len() as f64;
            for i in 0..before.len() {
                let expected = before[i] - 0.125 * f64::from(u8::from(agrees[i])) * direction[i] / share.max(1e-3);
                assert!((after[i] - expected).abs() < 1e-11, "{text}: {} {expected}", after[i]);
            }
        }
        checked += 1;
    }
    assert!(checked > 12, "{checked} rules take it");
    Ok(())
}

#[test]
fn a_cautious_decay_decays_what_the_direction_moves_to_zero() -> Result<()> {
    let mut checked = 0;
    for base in all() {
        let text = with(&base, "cautious_decay=true");
        if is_refused(&text, "cautious_decay") {
            continue;
        }
        // Adan's decay is proximal: it divides the step.
        let rate = if base == "adan" { 0.125 / (1.0 + 0.125 * 0.5) } else { 0.125 };
        for [before, after, direction, _] in one_step(&text, 0.125, 0.5)? {
            // SOAP decays after the step, what it has moved by too.
            let share = if base == "soap" { 1.0 - 0.125 * 0.5 } else { 1.0 };
            for i in 0..before.len() {
                let decay = if direction[i] * before[i] >= 0.0 { 0.5 * before[i] } else { 0.0 };
                let expected = before[i] - rate * (share * direction[i] + decay);
                assert!((after[i] - expected).abs() < 1e-11, "{text}: {} {expected}", after[i]);
            }
        }
        checked += 1;
    }
    assert!(checked > 8, "{checked} rules take it");
    Ok(())
}

#[test]
fn a_corrected_decay_is_that_of_the_square_of_the_learning_rate() -> Result<()> {
    let schedule: Schedule = "linear:lr=0.25,end_lr=0.05,steps=8".parse()?;
    let after = |text: &str, decays: Option<&dyn Fn(f64) -> f64>| -> Result<Vec<f64>> {
        let params = start(DType::F64)?;
        let mut optimizer = optimizer(by_name(text)?, &params);
        optimizer.set_schedule("lr", &schedule)?;
        for t in 1..10 {
            if let Some(decay) = decays {
                let mut rule = optimizer.params().clone();
                rule.set("weight_decay", decay(schedule.at(t - 1)).into())?;
                optimizer.set_params(rule);
            }
            optimizer.step(&grads(&params, t, 1.0, |_| true)?)?;
        }
        values(&params[0].1)
    };
    for base in ["adamw", "lion", "adopt", "ademamix", "signum", "tiger"] {
        let corrected = after(&with(base, "weight_decay=0.5,corrected_decay=true"), None)?;
        let by_hand = after(base, Some(&|lr| 0.5 * (lr / 0.25)))?;
        assert_eq!(corrected, by_hand, "{base}");
        assert_ne!(corrected, after(&with(base, "weight_decay=0.5"), None)?, "{base}");
    }
    assert!(is_refused("adam:corrected_decay=true", "corrected_decay"));
    Ok(())
}

#[test]
fn to_maximize_is_to_minimize_the_negative() -> Result<()> {
    let wrapped = ["sam:base=adamw".to_string(), "sam:momentum=0.9,adaptive=true".to_string()];
    for text in all().into_iter().chain(wrapped) {
        for dtype in [DType::F32, DType::F64, DType::BF16] {
            let run = |maximize: bool| -> Result<Vec<Vec<u64>>> {
                let params = start(dtype)?;
                let text = if maximize { with(&text, "maximize=true") } else { text.clone() };
                let mut optimizer = optimizer(by_name(&text)?, &params);
                optimizer.set_clip(Some(optim::Clip::GlobalNorm(0.5)))?;
                let signed = |store: GradStore| -> Result<GradStore> {
                    let mut signed = empty_grads()?;
                    for (_, var) in &params {
                        let grad = store.get(var).expect("a gradient");
                        signed.insert(var, if maximize { grad.neg()? } else { grad.clone() });
                    }
                    Ok(signed)
                };
                for t in 1..4 {
                    let store = signed(grads(&params, t, 1.0, |_| true)?)?;
                    if optimizer.params().sharpness().is_some() {
                        optimizer.first_step(&store)?;
                        let store = signed(grads(&params, t, 1.0, |_| true)?)?;
                        optimizer.second_step(&store)?;
                    } else {
                        optimizer.step(&store)?;
                    }
                }
                let bits = |(_, var): &(String, Var)| Ok(values(var)?.iter().map(|x| x.to_bits()).collect());
                params.iter().map(bits).collect()
            };
            assert_eq!(run(true)?, run(false)?, "{text} {dtype:?}");
        }
    }
    Ok(())
}
