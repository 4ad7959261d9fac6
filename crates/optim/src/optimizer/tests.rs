//! The state machine, cell by cell; and that a call that fails leaves everything as it was.

use super::phase::Phase;
use super::{Active, FusedOptimizer};
use crate::backend::{allocations, emulated};
use crate::rule::{AnyRule, Rule};
use crate::rules::by_name;
use crate::{Clip, Error, Group, Optimizer, Result, Schedule};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Each rule, and the flags that change what state it keeps.
const RULES: [&str; 14] = [
    "sgd",
    "sgd:momentum=0.9,dampening=0.4",
    "sgd:momentum=0.9,nesterov=true",
    "rmsprop",
    "rmsprop:momentum=0.9",
    "rmsprop:centered=true",
    "rmsprop:centered=true,momentum=0.9",
    "adam",
    "amsgrad",
    "adamw",
    "lion",
    "lamb",
    "sam",
    "sam:base=lamb,adaptive=true",
];

const PHASES: [Phase; 4] = [Phase::Idle, Phase::Accumulating, Phase::Perturbed, Phase::PerturbedAccumulating];

fn is_sam(optimizer: &FusedOptimizer<AnyRule>) -> bool {
    optimizer.params().sharpness().is_some()
}

fn params(dtype: DType) -> Vec<(String, Var)> {
    let var = |shape: &[usize], seed: usize| {
        let values = (0..shape.iter().product()).map(|i| ((i * 7 + seed * 3) % 11) as f32 / 8.0 - 0.5);
        let values = Tensor::from_iter(values, &Device::Cpu).unwrap().reshape(shape).unwrap();
        Var::from_tensor(&values.to_dtype(dtype).unwrap()).unwrap()
    };
    vec![("a".to_string(), var(&[3, 5], 1)), ("b".to_string(), var(&[7], 2)), ("c".to_string(), var(&[], 3))]
}

fn optimizer(text: &str, params: &[(String, Var)]) -> FusedOptimizer<AnyRule> {
    let schedule = "linear:lr=0.1,end_lr=0,steps=50".parse::<Schedule>().unwrap();
    let group = Group::new(params.to_vec(), by_name(text).unwrap()).schedule("lr", schedule).unwrap();
    let mut optimizer = FusedOptimizer::from_groups(vec![group]).unwrap();
    optimizer.set_clip(Some(Clip::GlobalNorm(0.7))).unwrap();
    optimizer.set_master_copies(true).unwrap();
    optimizer
}

/// Gradients number `n`, which do not depend on the parameters.
fn grads(params: &[(String, Var)], n: usize) -> GradStore {
    let mut store = Var::zeros((), DType::F32, &Device::Cpu).unwrap().as_tensor().sqr().unwrap().backward().unwrap();
    for (k, (_, var)) in params.iter().enumerate() {
        let values = (0..var.elem_count()).map(|i| ((i * 5 + n * 3 + k) % 13) as f32 / 8.0 - 0.75);
        let values = Tensor::from_iter(values, &Device::Cpu).unwrap().reshape(var.shape()).unwrap();
        store.insert(var, values.to_dtype(var.dtype()).unwrap());
    }
    store
}

/// Brings an optimizer that has made a step into a phase; `false` where its rule has none.
fn enter(optimizer: &mut FusedOptimizer<AnyRule>, params: &[(String, Var)], phase: Phase) -> bool {
    if matches!(phase, Phase::Perturbed | Phase::PerturbedAccumulating) {
        if !is_sam(optimizer) {
            return false;
        }
        optimizer.first_step(&grads(params, 2)).unwrap();
    }
    if matches!(phase, Phase::Accumulating | Phase::PerturbedAccumulating) {
        optimizer.accumulate(&grads(params, 3)).unwrap();
        optimizer.accumulate(&grads(params, 4)).unwrap();
    }
    assert_eq!(optimizer.phase(), phase);
    true
}

/// An optimizer and its parameters.
type Entered = (FusedOptimizer<AnyRule>, Vec<(String, Var)>);

/// An optimizer after one whole step, in a phase.
fn entered(text: &str, dtype: DType, phase: Phase) -> Option<Entered> {
    let params = params(dtype);
    let mut optimizer = optimizer(text, &params);
    complete(&mut optimizer, &params, 1).unwrap();
    enter(&mut optimizer, &params, phase).then_some((optimizer, params))
}

/// Completes a step from any phase.
fn complete(optimizer: &mut FusedOptimizer<AnyRule>, params: &[(String, Var)], n: usize) -> Result<()> {
    match optimizer.phase() {
        Phase::Idle if !is_sam(optimizer) => Ok(optimizer.step(&grads(params, n))?),
        Phase::Idle => {
            optimizer.first_step(&grads(params, n))?;
            optimizer.second_step(&grads(params, n + 1))
        }
        Phase::Accumulating if is_sam(optimizer) => {
            optimizer.first_step_accumulated()?;
            optimizer.second_step(&grads(params, n))
        }
        Phase::Perturbed => optimizer.second_step(&grads(params, n)),
        Phase::Accumulating | Phase::PerturbedAccumulating => optimizer.step_accumulated(),
    }
}

/// All that an optimizer and its parameters hold, bit by bit.
fn snapshot(optimizer: &FusedOptimizer<AnyRule>, params: &[(String, Var)]) -> Vec<String> {
    let bits = |tensor: &Tensor| {
        let values: Vec<f64> = tensor.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap();
        format!("{:?}", values.into_iter().map(f64::to_bits).collect::<Vec<_>>())
    };
    let mut all = vec![format!("{:?}", (optimizer.phase(), optimizer.step, optimizer.accumulated.count))];
    all.extend(params.iter().map(|(name, var)| format!("{name} {}", bits(var))));
    for Active { rule, params, .. } in &optimizer.groups {
        all.push(rule.text());
        for parameter in params {
            let (slots, master) = parameter.state.tensors(&parameter.var).unwrap();
            all.push(format!("{} {} {}", parameter.name, parameter.updates, parameter.frozen));
            all.push(format!("{:?}", parameter.kernel.map(|kernel| kernel.slots)));
            all.extend(slots.iter().chain(&master).map(bits));
        }
    }
    all.extend(optimizer.accumulated.sums().take(params.len()).map(|sum| format!("{:?}", sum.as_ref().map(bits))));
    all.push(format!("{:?}", optimizer.grad_norm().unwrap().map(f64::to_bits)));
    all.push(format!("{:?} {:?}", optimizer.clip, optimizer.stochastic_rounding));
    all
}

/// Two snapshots are the same; else the first line that differs is shown.
fn same(ours: &[String], theirs: &[String], what: &str) {
    let differing = ours.iter().zip(theirs).find(|(a, b)| a != b);
    assert!(differing.is_none() && ours.len() == theirs.len(), "{what}: {differing:?}");
}

type Call = fn(&mut FusedOptimizer<AnyRule>, &[(String, Var)]) -> Result<()>;

fn loss(params: &[(String, Var)]) -> candle_core::Result<Tensor> {
    let zero = Tensor::zeros((), DType::F32, &Device::Cpu)?;
    params.iter().try_fold(zero, |sum, (_, v)| sum + v.to_dtype(DType::F32)?.sqr()?.sum_all()?)
}

/// Every public method that changes something, with what it leads to: from each phase the phase after it, or a part of the
/// message. In turn: idle, accumulating, perturbed, perturbed and accumulating.
const CALLS: [(&str, Call, [&str; 4], [&str; 4]); 23] = {
    const I: &str = "Idle";
    const A: &str = "Accumulating";
    const P: &str = "Perturbed";
    const PA: &str = "PerturbedAccumulating";
    const HELD: &str = "discard_accumulated drops them";
    const NONE: &str = "no gradients were accumulated: call accumulate before it";
    const NO_SAM: &str = "the rule is not sam";
    const MADE: &str = "it was made already: call second_step";
    const BEFORE: &str = "first_step has to come before it";
    const SAVE: &str = "only between two whole steps";
    const LATE: &str = "master copies are chosen before the first step";
    [
        ("step", |o, p| Ok(o.step(&grads(p, 5))?), [I, HELD, "", ""], ["call step_with(closure)", HELD, I, HELD]),
        (
            "backward_step",
            |o, p| Ok(o.backward_step(&loss(p)?)?),
            [I, HELD, "", ""],
            ["call step_with(closure)", HELD, I, HELD],
        ),
        ("accumulate", |o, p| o.accumulate(&grads(p, 5)), [A, A, "", ""], [A, A, PA, PA]),
        (
            "step_accumulated",
            |o, _| o.step_accumulated(),
            [NONE, I, "", ""],
            [NONE, "call first_step_accumulated, accumulate again", NONE, I],
        ),
        (
            "discard_accumulated",
            |o, _| {
                _ = o.discard_accumulated();
                Ok(())
            },
            [I, I, "", ""],
            [I, I, P, P],
        ),
        ("first_step", |o, p| o.first_step(&grads(p, 5)), [NO_SAM, HELD, "", ""], [P, HELD, MADE, MADE]),
        ("first_step_accumulated", |o, _| o.first_step_accumulated(), [NO_SAM, NO_SAM, "", ""], [NONE, P, MADE, MADE]),
        ("second_step", |o, p| o.second_step(&grads(p, 5)), [BEFORE, BEFORE, "", ""], [BEFORE, BEFORE, I, HELD]),
        ("cancel_first_step", |o, _| o.cancel_first_step(), [I, A, "", ""], [I, A, I, I]),
        (
            "step_with",
            |o, p| o.step_with(|_| loss(p)).map(drop),
            [I, HELD, "", ""],
            [I, HELD, "first_step was made already", "first_step was made already"],
        ),
        (
            "step_with_gradients",
            |o, p| o.step_with_gradients(|_| Ok((loss(p)?, grads(p, 6)))).map(drop),
            [I, HELD, "", ""],
            [I, HELD, "first_step was made already", "first_step was made already"],
        ),
        ("state_dict", |o, _| o.state_dict().map(drop), [I, SAVE, "", ""], [I, SAVE, SAVE, SAVE]),
        (
            "load_state_dict",
            |o, _| {
                let state = optimizer_state(o);
                o.load_state_dict(&state)
            },
            [I, SAVE, "", ""],
            [I, SAVE, SAVE, SAVE],
        ),
        (
            "freeze",
            |o, _| {
                _ = o.freeze(|name| name == "a");
                Ok(())
            },
            [I, A, "", ""],
            [I, A, P, PA],
        ),
        (
            "unfreeze",
            |o, _| {
                _ = o.unfreeze(|_| true);
                Ok(())
            },
            [I, A, "", ""],
            [I, A, P, PA],
        ),
        ("push", |o, _| o.push(&Var::zeros(2, DType::F32, &Device::Cpu)?), [I, A, "", ""], [I, A, P, PA]),
        ("set_clip", |o, _| o.set_clip(None), [I, A, "", ""], [I, A, P, PA]),
        ("set_master_copies", |o, _| o.set_master_copies(true), [LATE, LATE, "", ""], [LATE, LATE, LATE, LATE]),
        ("set_stochastic_rounding", |o, _| o.set_stochastic_rounding(Some(1)), [I, A, "", ""], [I, A, P, PA]),
        (
            "measure_grad_norm",
            |o, _| {
                o.set_measure_grad_norm(true);
                Ok(())
            },
            [I, A, "", ""],
            [I, A, P, PA],
        ),
        (
            "set_params",
            |o, _| {
                o.set_params(o.params().clone());
                Ok(())
            },
            [I, A, "", ""],
            [I, A, P, PA],
        ),
        (
            "set_group_params",
            |o, _| {
                o.set_group_params(0, o.params().clone());
                Ok(())
            },
            [I, A, "", ""],
            [I, A, P, PA],
        ),
        (
            "set_learning_rate",
            |o, _| {
                o.set_learning_rate(0.5);
                Ok(())
            },
            [I, A, "", ""],
            [I, A, P, PA],
        ),
    ]
};

/// The state of an optimizer of the same rule between two steps.
fn optimizer_state(of: &FusedOptimizer<AnyRule>) -> crate::StateDict {
    let params = params(of.groups[0].params[0].var.dtype());
    let mut other = optimizer(&of.params().text(), &params);
    complete(&mut other, &params, 1).unwrap();
    other.state_dict().unwrap()
}

#[test]
fn every_call_in_every_phase_leads_to_the_next_phase_or_says_what_to_do() {
    let mut cells = 0;
    for text in RULES {
        for (name, call, plain, sam) in CALLS {
            for (index, phase) in PHASES.into_iter().enumerate() {
                let Some((mut optimizer, params)) = entered(text, DType::F32, phase) else { continue };
                let expected = if is_sam(&optimizer) { sam[index] } else { plain[index] };
                let before = snapshot(&optimizer, &params);
                let what = format!("{text}: {name} when {phase:?}");
                match call(&mut optimizer, &params) {
                    Ok(()) => assert_eq!(format!("{:?}", optimizer.phase()), expected, "{what}"),
                    Err(error) => {
                        assert!(error.to_string().contains(expected), "{what}: {error}, not {expected}");
                        assert!(matches!(error, Error::WrongState(_)), "{what}: {error:?}");
                        same(&snapshot(&optimizer, &params), &before, &what);
                    }
                }
                // Whatever was called, the optimizer is of use.
                complete(&mut optimizer, &params, 9).unwrap();
                cells += 1;
            }
        }
    }
    assert_eq!(cells, CALLS.len() * (12 * 2 + 2 * 4));
}

/// Public methods that change nothing, make an optimizer, or end it; and those of `StateDict`.
const OTHERS: [&str; 13] = [
    "named",
    "from_groups",
    "new",
    "new_lr",
    "into_inner",
    "params",
    "group_params",
    "learning_rate",
    "grad_norm",
    "steps",
    "is_half",
    "save",
    "load",
];

#[test]
fn every_public_method_and_every_rule_is_in_the_table() {
    let sources = [include_str!("mod.rs"), include_str!("step.rs"), include_str!("../state.rs")];
    let lines = sources.iter().flat_map(|source| source.lines());
    // The methods of candle's trait have no `pub`.
    let of_candle =
        include_str!("mod.rs").split("Optimizer for FusedOptimizer<R> {").nth(1).expect("the implementation");
    let methods = lines.filter_map(|line| line.strip_prefix("    pub fn "));
    let methods = methods.chain(of_candle.lines().filter_map(|line| line.strip_prefix("    fn ")));
    let names: Vec<&str> = methods.map(|rest| rest.split(['(', '<']).next().expect("a name")).collect();
    assert!(names.len() > 25, "{names:?}");
    for name in names {
        let is_known = CALLS.iter().any(|(call, ..)| *call == name) || OTHERS.contains(&name);
        assert!(is_known, "`{name}` is not in the table of phases and calls");
    }
    for spec in crate::rules::specs() {
        assert!(RULES.iter().any(|text| text.split(':').next() == Some(spec.name)), "{}", spec.name);
    }
}

/// Calls that fail, with the kind of error.
const FAILURES: [(&str, Call, &str); 14] = [
    ("a gradient of another shape", |o, p| complete_with(o, p, 0, &[9, 9]), "Parameter"),
    ("the last gradient of another shape", |o, p| complete_with(o, p, 2, &[9, 9]), "Parameter"),
    ("no gradient", |o, p| complete_with(o, p, 3, &[]), "NoGradient"),
    ("a learning rate below 0", negative_learning_rate, "Value"),
    (
        "a schedule that leaves the range",
        |o, p| {
            let all = o.params().hyperparameters();
            let Some(key) = all.iter().find(|h| h.range.is_some_and(|r| !r.contains(2.0))) else {
                return negative_learning_rate(o, p);
            };
            let schedules = o.groups[0].schedules.clone();
            o.groups[0].schedules.push((key.name.into(), "constant:lr=2".parse()?));
            let result = complete(o, p, 9);
            o.groups[0].schedules = schedules;
            result
        },
        "Value",
    ),
    ("accumulating another shape", |o, p| o.accumulate(&shaped(p, 1, &[9, 9])), "Parameter"),
    ("a clip of 0", |o, _| o.set_clip(Some(Clip::Value(0.0))), "Value"),
    ("master copies too late", |o, _| o.set_master_copies(false), "Order"),
    ("a parameter twice", |o, p| o.push(&p[0].1), "Tied"),
    ("integers", |o, _| o.push(&Var::zeros(3, DType::U32, &Device::Cpu)?), "Parameter"),
    (
        "f16 with stochastic rounding",
        |o, _| {
            let f16 = Var::zeros(3, DType::F16, &Device::Cpu)?;
            (o.stochastic_rounding, o.master_copies) = (Some(3), false);
            let result = o.push(&f16);
            (o.stochastic_rounding, o.master_copies) = (None, true);
            result
        },
        "Parameter",
    ),
    ("the first evaluation", |o, _| o.step_with(|_| candle_core::bail!("no data")).map(drop), "Candle|Order"),
    (
        "the second evaluation",
        |o, p| {
            let is_sam = is_sam(o);
            let fails = |evaluation| evaluation == 1 || !is_sam;
            o.step_with(|evaluation| if fails(evaluation) { candle_core::bail!("no data") } else { loss(p) }).map(drop)
        },
        "Candle|Order",
    ),
    (
        "a state of another rule",
        |o, _| {
            let mut state = optimizer_state(o);
            state.metadata.insert("rules".into(), "other".into());
            o.load_state_dict(&state)
        },
        "State|Order",
    ),
];

fn negative_learning_rate(optimizer: &mut FusedOptimizer<AnyRule>, params: &[(String, Var)]) -> Result<()> {
    let (rule, schedules) = (optimizer.params().clone(), optimizer.groups[0].schedules.clone());
    optimizer.set_learning_rate(-1.0);
    let result = complete(optimizer, params, 9);
    optimizer.groups[0].schedules = schedules;
    optimizer.set_params(rule);
    result
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
                    assert!(kinds.split('|').any(|k| kind.starts_with(k)), "{what}: {kind}");
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

#[test]
fn a_gpu_without_memory_leaves_everything_as_it_was() {
    let mut failures = 0;
    for text in
        ["sgd:momentum=0.9,dampening=0.4", "rmsprop:centered=true,momentum=0.9", "adamw", "lamb", "sam:base=lamb"]
    {
        for dtype in [DType::F32, DType::BF16] {
            for phase in PHASES {
                failures += without_memory(text, dtype, phase, 0);
            }
        }
    }
    // More tensors than one launch takes.
    failures += without_memory("adamw", DType::BF16, Phase::Idle, 270);
    assert!(failures > 500, "{failures} allocations failed");
}

/// Steps on a GPU in which each allocation fails once; returns how many did. `more`: tensors beside the few.
fn without_memory(text: &str, dtype: DType, phase: Phase, more: usize) -> usize {
    let make = || {
        let mut params = params(dtype);
        params.extend((0..more).map(|i| {
            let value = Tensor::full(i as f32 / 300.0, 1 + i % 3, &Device::Cpu).unwrap();
            (format!("d{i}"), Var::from_tensor(&value.to_dtype(dtype).unwrap()).unwrap())
        }));
        let mut optimizer = optimizer(text, &params);
        if more > 0 {
            // A norm over many tensors takes long where a GPU is emulated.
            optimizer.set_clip(None).unwrap();
        }
        enter(&mut optimizer, &params, phase).then_some((optimizer, params))
    };
    let mut failures = 0;
    emulated::with(emulated::Source::Cuda, || {
        let (Some((mut optimizer, params)), Some((mut whole, whole_params))) = (make(), make()) else { return };
        for n in 20..22 {
            let (mut twin, twin_params) = make().unwrap();
            (20..n).for_each(|n| complete(&mut twin, &twin_params, n).unwrap());
            let count = allocations::of(|| complete(&mut twin, &twin_params, n).unwrap());
            // Of many that are alike some. Tables that a call before the failing one left make the step need fewer.
            let mut is_complete = false;
            for at in (0..count).filter(|at| *at < 16 || at % 37 == 0 || at + 16 >= count) {
                let (before, phase) = (snapshot(&optimizer, &params), optimizer.phase());
                let Err(error) = allocations::fail_at(at, || complete(&mut optimizer, &params, n)) else {
                    is_complete = true;
                    break;
                };
                assert!(error.to_string().contains("out of memory"), "{error}");
                // The first of two steps succeeded: it is taken back by hand.
                if optimizer.phase() != phase {
                    optimizer.cancel_first_step().unwrap();
                    if phase == Phase::Accumulating {
                        optimizer.accumulate(&grads(&params, 3)).unwrap();
                        optimizer.accumulate(&grads(&params, 4)).unwrap();
                    }
                }
                failures += 1;
                same(&snapshot(&optimizer, &params), &before, &format!("{text} {dtype:?} {phase:?}: allocation {at}"));
            }
            if !is_complete {
                complete(&mut optimizer, &params, n).unwrap();
            }
            complete(&mut whole, &whole_params, n).unwrap();
            same(&snapshot(&optimizer, &params), &snapshot(&whole, &whole_params), &format!("{text} {phase:?}"));
        }
    });
    failures
}
