//! A call that fails leaves everything as it was.

use super::*;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Calls that fail, with the kind of error.
const FAILURES: [(&str, Call, &str); 17] = [
    ("a gradient of another shape", |o, p| complete_with(o, p, 0, &[9, 9]), "UnsuitableParameter"),
    ("the last gradient of another shape", |o, p| complete_with(o, p, 2, &[9, 9]), "UnsuitableParameter"),
    ("no gradient", |o, p| complete_with(o, p, 3, &[]), "NoGradient"),
    ("a learning rate below 0", negative_learning_rate, "OutOfRange"),
    (
        "a schedule that leaves the range",
        |o, p| {
            let all = o.params().hyperparameters();
            let Some(key) = all.iter().find(|h| h.allowed.range().is_some_and(|r| !r.contains(2.0))) else {
                return negative_learning_rate(o, p);
            };
            let schedules = o.groups[0].schedules.clone();
            o.groups[0].schedules.push((key.name.into(), "constant:lr=2".parse()?));
            let result = attempt(o, p);
            o.groups[0].schedules = schedules;
            result
        },
        "OutOfRange",
    ),
    ("accumulating another shape", |o, p| o.accumulate(&shaped(p, 1, &[9, 9])), "UnsuitableParameter"),
    ("a clip of 0", |o, _| o.set_clip(Some(Clip::Value(0.0))), "OutOfRange"),
    ("master copies too late", |o, _| o.set_master_copies(false), "WrongState"),
    ("a parameter twice", |o, p| o.push(&p[0].1), "TiedParameters"),
    ("integers", |o, _| o.push(&Var::zeros(3, DType::U32, &Device::Cpu)?), "UnsuitableParameter"),
    (
        "f16 with stochastic rounding",
        |o, _| {
            let f16 = Var::zeros(3, DType::F16, &Device::Cpu)?;
            (o.stochastic_rounding, o.master_copies) = (Some(3), false);
            let result = o.push(&f16);
            (o.stochastic_rounding, o.master_copies) = (None, true);
            result
        },
        "UnsuitableParameter",
    ),
    ("the first evaluation", |o, _| o.step_with(|_| candle_core::bail!("no data")).map(drop), "Candle|WrongState"),
    (
        "the second evaluation",
        |o, p| {
            let is_sam = is_sam(o);
            let fails = |evaluation| evaluation == 1 || !is_sam;
            o.step_with(|evaluation| if fails(evaluation) { candle_core::bail!("no data") } else { loss(p) }).map(drop)
        },
        "Candle|WrongState",
    ),
    (
        "the evaluation",
        |o, _| o.evaluate_with(|| -> candle_core::Result<()> { candle_core::bail!("no data") }),
        "Candle|WrongState",
    ),
    (
        "a decay of 1",
        |o, _| o.set_average(Some(Average::Ema { decay: 1.0, warmup: EmaWarmup::None })),
        "OutOfRange|WrongState",
    ),
    ("an alpha of 0", |o, _| o.set_lookahead(Some(Lookahead { alpha: 0.0, every: 1 })), "OutOfRange|WrongState"),
    (
        "a state of another rule",
        |o, _| {
            let mut state = optimizer_state(o);
            state.metadata.insert("rules".into(), "other".into());
            o.load_state_dict(&state)
        },
        "StateMismatch|WrongState",
    ),
];

fn negative_learning_rate(optimizer: &mut FusedOptimizer<AnyRule>, params: &[(String, Var)]) -> Result<()> {
    let (rule, schedules) = (optimizer.params().clone(), optimizer.groups[0].schedules.clone());
    optimizer.set_learning_rate(-1.0);
    let result = attempt(optimizer, params);
    optimizer.groups[0].schedules = schedules;
    optimizer.set_params(rule);
    result
}

/// Completes a step, or tries to between `eval` and `train`.
fn attempt(optimizer: &mut FusedOptimizer<AnyRule>, params: &[(String, Var)]) -> Result<()> {
    match optimizer.phase() {
        Phase::Evaluating => Ok(optimizer.step(&grads(params, 9))?),
        _ => complete(optimizer, params, 9),
    }
}

/// The gradients of all parameters but one (none for `which = 3`), which has another shape.
fn shaped(params: &[(String, Var)], which: usize, shape: &[usize]) -> GradStore {
    if which == 3 {
        return grads(&[], 1);
    }
    let mut store = grads(params, 8);
    store.insert(&params[which].1, Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap());
    store
}

/// Completes a step with such gradients, in every phase that takes gradients to complete it.
fn complete_with(
    optimizer: &mut FusedOptimizer<AnyRule>,
    params: &[(String, Var)],
    which: usize,
    shape: &[usize],
) -> Result<()> {
    let store = shaped(params, which, shape);
    match optimizer.phase() {
        Phase::Idle if is_sam(optimizer) => optimizer.first_step(&store),
        Phase::Idle => Ok(optimizer.step(&store)?),
        Phase::Perturbed => optimizer.second_step(&store),
        _ => optimizer.accumulate(&store),
    }
}

#[test]
fn a_call_that_fails_leaves_everything_as_it_was() {
    for text in RULES {
        for dtype in [DType::F32, DType::F64, DType::BF16] {
            for phase in PHASES {
                let Some((mut optimizer, params)) = entered(text, dtype, phase) else { continue };
                for (name, call, kinds) in FAILURES {
                    let before = snapshot(&optimizer, &params);
                    let error = call(&mut optimizer, &params).expect_err(name);
                    let what = format!("{text} {dtype:?} {phase:?}: {name}");
                    let kind = format!("{error:?}");
                    let is_refused = phase == Phase::Evaluating && kind.starts_with("WrongState");
                    assert!(is_refused || kinds.split('|').any(|k| kind.starts_with(k)), "{what}: {kind}");
                    same(&snapshot(&optimizer, &params), &before, &what);
                }
                // A panic of the closure.
                if phase == Phase::Idle {
                    for at in [0, 1] {
                        let before = snapshot(&optimizer, &params);
                        let run = AssertUnwindSafe(|| {
                            optimizer.step_with(|evaluation| {
                                assert!(evaluation != at && text.starts_with("sam"), "a panic in the closure");
                                loss(&params)
                            })
                        });
                        assert!(catch_unwind(run).is_err(), "{text} {at}");
                        same(
                            &snapshot(&optimizer, &params),
                            &before,
                            &format!("{text} {dtype:?}: a panic in evaluation {at}"),
                        );
                    }
                    let before = snapshot(&optimizer, &params);
                    let run = AssertUnwindSafe(|| optimizer.evaluate_with(|| -> candle_core::Result<()> { panic!() }));
                    assert!(catch_unwind(run).is_err(), "{text}");
                    same(
                        &snapshot(&optimizer, &params),
                        &before,
                        &format!("{text} {dtype:?}: a panic of evaluate_with"),
                    );
                }
                // After all that it goes on to the bits of one that nothing befell.
                let (mut other, other_params) = entered(text, dtype, phase).unwrap();
                for n in 10..13 {
                    complete(&mut optimizer, &params, n).unwrap();
                    complete(&mut other, &other_params, n).unwrap();
                }
                same(
                    &snapshot(&optimizer, &params),
                    &snapshot(&other, &other_params),
                    &format!("{text} {dtype:?} {phase:?}"),
                );
            }
        }
    }
}
