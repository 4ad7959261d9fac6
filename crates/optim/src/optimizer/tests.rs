//! The state machine, cell by cell.

mod failures;
mod memory;

use super::fused::{Active, FusedOptimizer};
use super::phase::Phase;
use crate::rule::{AnyRule, Rule};
use crate::rules::by_name;
use crate::{Average, Clip, EmaWarmup, Error, Group, Lookahead, Optimizer, Result, Schedule};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};

/// Each rule, and the flags that change what state it keeps.
const RULES: [&str; 42] = [
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
    "asgd",
    "rprop",
    "adagrad",
    "adadelta",
    "adamax",
    "nadam",
    "radam",
    "lion",
    "sophia",
    "schedule_free_sgd:lr=0.1",
    "schedule_free_adamw",
    "prodigy",
    "lamb",
    "lars",
    "signum",
    "tiger",
    "adabelief",
    "yogi",
    "laprop",
    "adopt",
    "stable_adamw",
    "adan",
    "ademamix",
    "mars",
    "adafactor",
    "muon",
    "normuon",
    "adamuon",
    "soap",
    "shampoo",
    "sam",
    "sam:base=lamb,adaptive=true",
];

const PHASES: [Phase; 5] =
    [Phase::Idle, Phase::Accumulating, Phase::Perturbed, Phase::PerturbedAccumulating, Phase::Evaluating];

const AVERAGE: Average = Average::Ema { decay: 0.75, warmup: EmaWarmup::Ratio };

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
    optimizer.set_average(Some(AVERAGE)).unwrap();
    optimizer.set_lookahead(Some(Lookahead { every: 2, ..Lookahead::default() })).unwrap();
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
    if phase == Phase::Evaluating {
        optimizer.eval().unwrap();
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
    optimizer.train()?;
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
        Phase::Evaluating => unreachable!("train was called"),
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
            all.extend([&parameter.average, &parameter.slow].map(|beside| format!("{:?}", beside.as_ref().map(bits))));
        }
    }
    all.extend(optimizer.accumulated.sums().take(params.len()).map(|sum| format!("{:?}", sum.as_ref().map(bits))));
    all.push(format!("{:?}", optimizer.grad_norm().unwrap().map(f64::to_bits)));
    all.push(format!("{:?} {:?}", optimizer.clip, optimizer.stochastic_rounding));
    let averages = &optimizer.averages;
    all.push(format!("{:?}", (averages.average, averages.lookahead, averages.kind, averages.count)));
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
/// message. In turn: idle, accumulating, perturbed, perturbed and accumulating, evaluating.
const CALLS: [(&str, Call, [&str; 5], [&str; 5]); 29] = {
    const I: &str = "Idle";
    const A: &str = "Accumulating";
    const P: &str = "Perturbed";
    const PA: &str = "PerturbedAccumulating";
    const E: &str = "Evaluating";
    const HELD: &str = "discard_accumulated drops them";
    const NONE: &str = "no gradients were accumulated: call accumulate before it";
    const NO_SAM: &str = "the rule is not sam";
    const MADE: &str = "it was made already: call second_step";
    const BEFORE: &str = "first_step has to come before it";
    const SAVE: &str = "only between two whole steps";
    const TRAIN: &str = "call train, which restores them, first";
    const BETWEEN: &str = "eval: only between two whole steps";
    const LATE: &str = "master copies are chosen before the first step";
    [
        (
            "step",
            |o, p| Ok(o.step(&grads(p, 5))?),
            [I, HELD, "", "", TRAIN],
            ["call step_with(closure)", HELD, I, HELD, TRAIN],
        ),
        (
            "backward_step",
            |o, p| Ok(o.backward_step(&loss(p)?)?),
            [I, HELD, "", "", TRAIN],
            ["call step_with(closure)", HELD, I, HELD, TRAIN],
        ),
        ("accumulate", |o, p| o.accumulate(&grads(p, 5)), [A, A, "", "", TRAIN], [A, A, PA, PA, TRAIN]),
        (
            "step_accumulated",
            |o, _| o.step_accumulated(),
            [NONE, I, "", "", TRAIN],
            [NONE, "call first_step_accumulated, accumulate again", NONE, I, TRAIN],
        ),
        (
            "discard_accumulated",
            |o, _| {
                _ = o.discard_accumulated();
                Ok(())
            },
            [I, I, "", "", E],
            [I, I, P, P, E],
        ),
        ("first_step", |o, p| o.first_step(&grads(p, 5)), [NO_SAM, HELD, "", "", TRAIN], [P, HELD, MADE, MADE, TRAIN]),
        (
            "first_step_accumulated",
            |o, _| o.first_step_accumulated(),
            [NO_SAM, NO_SAM, "", "", TRAIN],
            [NONE, P, MADE, MADE, TRAIN],
        ),
        (
            "second_step",
            |o, p| o.second_step(&grads(p, 5)),
            [BEFORE, BEFORE, "", "", TRAIN],
            [BEFORE, BEFORE, I, HELD, TRAIN],
        ),
        ("cancel_first_step", |o, _| o.cancel_first_step(), [I, A, "", "", E], [I, A, I, I, E]),
        (
            "step_with",
            |o, p| o.step_with(|_| loss(p)).map(drop),
            [I, HELD, "", "", TRAIN],
            [I, HELD, "first_step was made already", "first_step was made already", TRAIN],
        ),
        (
            "step_with_gradients",
            |o, p| o.step_with_gradients(|_| Ok((loss(p)?, grads(p, 6)))).map(drop),
            [I, HELD, "", "", TRAIN],
            [I, HELD, "first_step was made already", "first_step was made already", TRAIN],
        ),
        ("state_dict", |o, _| o.state_dict().map(drop), [I, SAVE, "", "", TRAIN], [I, SAVE, SAVE, SAVE, TRAIN]),
        (
            "load_state_dict",
            |o, _| {
                let state = optimizer_state(o);
                o.load_state_dict(&state)
            },
            [I, SAVE, "", "", TRAIN],
            [I, SAVE, SAVE, SAVE, TRAIN],
        ),
        (
            "freeze",
            |o, _| {
                _ = o.freeze(|name| name == "a");
                Ok(())
            },
            [I, A, "", "", E],
            [I, A, P, PA, E],
        ),
        (
            "unfreeze",
            |o, _| {
                _ = o.unfreeze(|_| true);
                Ok(())
            },
            [I, A, "", "", E],
            [I, A, P, PA, E],
        ),
        ("push", |o, _| o.push(&Var::zeros(2, DType::F32, &Device::Cpu)?), [I, A, "", "", E], [I, A, P, PA, E]),
        ("set_clip", |o, _| o.set_clip(None), [I, A, "", "", E], [I, A, P, PA, E]),
        (
            "set_master_copies",
            |o, _| o.set_master_copies(true),
            [LATE, LATE, "", "", LATE],
            [LATE, LATE, LATE, LATE, LATE],
        ),
        ("set_stochastic_rounding", |o, _| o.set_stochastic_rounding(Some(1)), [I, A, "", "", E], [I, A, P, PA, E]),
        (
            "set_measure_grad_norm",
            |o, _| {
                o.set_measure_grad_norm(true);
                Ok(())
            },
            [I, A, "", "", E],
            [I, A, P, PA, E],
        ),
        (
            "set_params",
            |o, _| {
                o.set_params(o.params().clone());
                Ok(())
            },
            [I, A, "", "", E],
            [I, A, P, PA, E],
        ),
        (
            "set_group_params",
            |o, _| {
                o.set_group_params(0, o.params().clone());
                Ok(())
            },
            [I, A, "", "", E],
            [I, A, P, PA, E],
        ),
        (
            "set_schedule",
            |o, _| o.set_schedule("lr", &"linear:lr=0.5,end_lr=0.1,steps=99".parse()?),
            [I, A, "", "", E],
            [I, A, P, PA, E],
        ),
        (
            "set_learning_rate",
            |o, _| {
                o.set_learning_rate(0.5);
                Ok(())
            },
            [I, A, "", "", E],
            [I, A, P, PA, E],
        ),
        ("eval", |o, _| o.eval(), [E, BETWEEN, "", "", E], [E, BETWEEN, BETWEEN, BETWEEN, E]),
        ("train", |o, _| o.train(), [I, A, "", "", I], [I, A, P, PA, I]),
        (
            "evaluate_with",
            |o, p| o.evaluate_with(|| loss(p)).map(drop),
            [I, BETWEEN, "", "", E],
            [I, BETWEEN, BETWEEN, BETWEEN, E],
        ),
        ("set_average", |o, _| o.set_average(Some(AVERAGE)), [I, A, "", "", TRAIN], [I, A, P, PA, TRAIN]),
        ("set_lookahead", |o, _| o.set_lookahead(None), [I, A, "", "", TRAIN], [I, A, P, PA, TRAIN]),
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
    let of_sam = RULES.iter().filter(|text| text.starts_with("sam")).count();
    assert_eq!(cells, CALLS.len() * ((RULES.len() - of_sam) * 3 + of_sam * 5));
}

/// Public methods that change nothing, make an optimizer, or end it; and those of `StateDict`.
const OTHERS: [&str; 12] = [
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
    "save",
    "load",
];

#[test]
fn every_public_method_and_every_rule_is_in_the_table() {
    let sources = [
        include_str!("averaging.rs"),
        include_str!("fused.rs"),
        include_str!("sam.rs"),
        include_str!("save.rs"),
        include_str!("state_dict.rs"),
        include_str!("step.rs"),
    ];
    let methods = sources.iter().flat_map(|source| source.lines()).filter_map(|line| line.strip_prefix("    pub fn "));
    // The methods of candle's trait have no `pub`.
    let methods = methods.chain(include_str!("candle.rs").lines().filter_map(|line| line.strip_prefix("    fn ")));
    let names: Vec<&str> = methods.map(|rest| rest.split(['(', '<']).next().expect("a name")).collect();
    assert!(names.len() > 25, "{names:?}");
    for name in names {
        let is_known = CALLS.iter().any(|(call, ..)| *call == name) || OTHERS.contains(&name);
        assert!(is_known, "`{name}` is not in the table of phases and calls");
    }
    // L-BFGS, which has no plain step, has tests of its own. The other is registered by a check of devices in this process.
    for spec in crate::rules::specs().filter(|spec| !["lbfgs", "own_check"].contains(&spec.name)) {
        assert!(RULES.iter().any(|text| text.split(':').next() == Some(spec.name)), "{}", spec.name);
    }
}
