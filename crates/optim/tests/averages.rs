//! Averages of the weights and Lookahead: against packages, and by property over types of parameters.

mod problem;

use candle_core::{DType, Device, Result, Tensor, Var};
use optim::{AnyOptimizer, Average, EmaWarmup, Group, Lookahead, Optimizer, StateDict, by_name};
use problem::{empty_grads, grads, start, start_of, values};
use serde_json::Value;

/// What goes around the rule: an average, Lookahead, or both.
type Around = (Option<Average>, Option<Lookahead>);

const EMA: Average = Average::Ema { decay: 0.75, warmup: EmaWarmup::None };
const RATIO: Average = Average::Ema { decay: 0.9, warmup: EmaWarmup::Ratio };
const POWER: Average = Average::Ema { decay: 0.9, warmup: EmaWarmup::Power { gamma: 2.0 } };
const SWA: Average = Average::Swa { start: 3, every: 2 };
const LOOKAHEAD: Lookahead = Lookahead { every: 3, alpha: 0.5 };

const ALL: [Around; 7] = [
    (Some(EMA), None),
    (Some(RATIO), None),
    (Some(POWER), None),
    (Some(SWA), None),
    (None, Some(LOOKAHEAD)),
    (Some(EMA), Some(LOOKAHEAD)),
    (Some(SWA), Some(Lookahead { every: 1, alpha: 1.0 })),
];

/// Types of parameters, and whether they have master copies.
const TYPES: [(DType, bool); 5] =
    [(DType::F32, false), (DType::F64, false), (DType::BF16, false), (DType::BF16, true), (DType::F16, true)];

fn optimizer(text: &str, params: &[(String, Var)], around: Around, master: bool) -> AnyOptimizer {
    let group = Group::new(params.to_vec(), by_name(text).expect(text));
    let mut optimizer = AnyOptimizer::from_groups(vec![group]).expect(text);
    optimizer.set_master_copies(master).expect("before the first step");
    optimizer.set_average(around.0).expect("in range");
    optimizer.set_lookahead(around.1).expect("in range");
    optimizer
}

fn train(optimizer: &mut AnyOptimizer, params: &[(String, Var)], steps: std::ops::RangeInclusive<u64>) {
    for t in steps {
        optimizer.step(&grads(params, t, 1.0, |_| true).expect("gradients")).expect("a step");
    }
}

/// The values of all parameters.
fn all(params: &[(String, Var)]) -> Vec<Vec<f64>> {
    params.iter().map(|(_, var)| values(var).expect("values")).collect()
}

/// The bits of all parameters and of the whole state.
fn bits(optimizer: &AnyOptimizer, params: &[(String, Var)]) -> Vec<(String, Vec<u64>)> {
    let of = |tensor: &Tensor| values(tensor).expect("values").iter().map(|x| x.to_bits()).collect();
    let mut all: Vec<_> = params.iter().map(|(name, var)| (name.clone(), of(var))).collect();
    let state = optimizer.state_dict().expect("state");
    all.extend(state.tensors.iter().map(|(key, t)| (key.clone(), of(t))));
    all.extend(state.metadata.iter().map(|(key, text)| (format!("{key} {text}"), vec![])));
    all
}

#[test]
fn averages_agree_with_their_references() {
    let text = std::fs::read_to_string("tests/fixtures/averages.json").expect("the fixture");
    let fixture: Value = serde_json::from_str(&text).expect("a fixture is JSON");
    let cases = fixture["cases"].as_array().expect("cases");
    assert!(cases.len() >= 9);
    for case in cases {
        let number = |of: &Value, key: &str| of[key].as_f64().expect(key);
        let count = |of: &Value, key: &str| of[key].as_u64().expect(key);
        let (average, lookahead) = (&case["average"], &case["lookahead"]);
        let warmup = || match average["warmup"].as_str() {
            Some("ratio") => EmaWarmup::Ratio,
            Some("power") => EmaWarmup::Power { gamma: number(average, "gamma") },
            _ => EmaWarmup::None,
        };
        let average = match average["kind"].as_str() {
            Some("ema") => Some(Average::Ema { decay: number(average, "decay"), warmup: warmup() }),
            Some("swa") => Some(Average::Swa { start: count(average, "start"), every: count(average, "every") }),
            _ => None,
        };
        let lookahead = lookahead
            .get("every")
            .map(|_| Lookahead { every: count(lookahead, "every"), alpha: number(lookahead, "alpha") });
        for (dtype, bar) in [(DType::F64, 1e-12), (DType::F32, 1e-5)] {
            let params = start(dtype).expect("parameters");
            let text = format!("sgd:lr={},momentum={}", case["lr"], case["momentum"]);
            let mut optimizer = optimizer(&text, &params, (average, lookahead), false);
            let mut worst = 0.0f64;
            for t in 1..=100 {
                let has = |name: &str| t >= case["late"][name].as_u64().unwrap_or(1);
                optimizer.step(&grads(&params, t, 1.0, has).expect("gradients")).expect("a step");
                let record = case["records"].as_array().expect("records").iter().find(|r| r["update"] == t);
                let Some(record) = record else { continue };
                let state = optimizer.state_dict().expect("state");
                for (name, var) in &params {
                    for slot in ["param", "average", "slow"] {
                        let key = format!("{name}.{slot}");
                        let ours = if slot == "param" { Some(var.as_tensor()) } else { state.tensors.get(&key) };
                        let reference: Option<Vec<f64>> =
                            record[name].get(slot).map(|r| serde_json::from_value(r.clone()).expect("numbers"));
                        assert_eq!(ours.is_some(), reference.is_some(), "{} {key} at {t}", case["name"]);
                        let (Some(ours), Some(reference)) = (ours, reference) else { continue };
                        let largest = reference.iter().fold(0.0f64, |a, x| a.max(x.abs()));
                        for (a, b) in values(ours).expect("values").iter().zip(&reference) {
                            worst = worst.max((a - b).abs() / largest);
                        }
                    }
                }
            }
            println!("{} {dtype:?} {worst:.1e}", case["name"]);
            assert!(worst <= bar, "{} {dtype:?}: {worst:e}", case["name"]);
        }
    }
}

#[test]
fn what_is_evaluated_is_the_average_and_training_goes_on_as_if_nothing_were() -> Result<()> {
    for around in ALL {
        for (dtype, master) in TYPES {
            let what = format!("{around:?} {dtype:?} {master}");
            let (params, others) = (start(dtype)?, start(dtype)?);
            let mut evaluated = optimizer("adamw:lr=0.1", &params, around, master);
            let mut plain = optimizer("adamw:lr=0.1", &others, around, master);
            for t in 1..=7 {
                train(&mut evaluated, &params, t..=t);
                train(&mut plain, &others, t..=t);
                let (before, state) = (all(&params), evaluated.state_dict()?.tensors);
                evaluated.eval()?;
                evaluated.eval()?;
                for ((name, var), before) in params.iter().zip(&before) {
                    let expected = match state.get(&format!("{name}.average")) {
                        Some(average) => values(&average.to_dtype(dtype)?)?,
                        None => before.clone(),
                    };
                    assert_eq!(values(var)?, expected, "{what} {name} at {t}");
                }
                let is_moved = all(&params) != before;
                let has_average = around.0.is_some_and(|a| a != SWA || t > 3);
                assert!(is_moved == has_average || around.1.is_some() || t < 3, "{what} at {t}");
                assert!(evaluated.step(&grads(&params, t, 1.0, |_| true)?).is_err(), "{what}");
                // An element that is written meanwhile stays.
                let mut written = values(&params[1].1)?;
                written[2] = 0.5;
                params[1].1.set(&Tensor::new(written, &Device::Cpu)?.to_dtype(dtype)?)?;
                evaluated.train()?;
                evaluated.train()?;
                let mut expected = before;
                expected[1][2] = 0.5;
                assert_eq!(all(&params), expected, "{what} at {t}");
                others[1].1.set(&params[1].1)?;
                let inside = evaluated.evaluate_with(|| Ok(all(&params)))?;
                assert!(inside != all(&params) || !has_average || around.1.is_some() || t < 3, "{what} at {t}");
                assert_eq!(all(&params), expected, "{what} at {t}");
            }
            assert!(bits(&evaluated, &params) == bits(&plain, &others), "{what}");
        }
    }
    Ok(())
}

#[test]
fn a_run_with_averages_resumes_at_any_step() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for around in ALL {
        for (dtype, master) in TYPES {
            let whole_params = start(dtype)?;
            let mut whole = optimizer("lion:lr=0.05", &whole_params, around, master);
            let mut saved = Vec::new();
            for t in 1..=8 {
                let model: Vec<Tensor> =
                    whole_params.iter().map(|(_, v)| v.force_contiguous()).collect::<Result<_>>()?;
                saved.push((t, whole.state_dict()?, model));
                train(&mut whole, &whole_params, t..=t);
            }
            for (t, state, model) in saved {
                let path = folder.path().join("state");
                state.save(&path)?;
                let params = start(dtype)?;
                params.iter().zip(&model).try_for_each(|((_, var), value)| var.set(value))?;
                let mut resumed = optimizer("lion:lr=0.05", &params, around, master);
                resumed.load_state_dict(&StateDict::load(&path)?)?;
                train(&mut resumed, &params, t..=8);
                let same = bits(&resumed, &params) == bits(&whole, &whole_params);
                assert!(same, "{around:?} {dtype:?} {master}: resumed before {t}");
                // The saved state is a copy.
                assert!(StateDict::load(&path)?.tensors.iter().all(|(key, tensor)| {
                    values(tensor).expect("values") == values(&state.tensors[key]).expect("values")
                }));
            }
        }
    }
    Ok(())
}

#[test]
fn threads_change_no_bit_of_an_average() {
    let tensors: [(&str, &[usize]); 4] =
        [("large", &[3, 16_411]), ("empty", &[0, 4]), ("scalar", &[]), ("square", &[181, 181])];
    for around in ALL {
        for (dtype, master) in TYPES {
            let with = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
                pool.install(|| {
                    let params = start_of(&tensors, dtype).expect("parameters");
                    let mut optimizer = optimizer("adamw:lr=0.1", &params, around, master);
                    train(&mut optimizer, &params, 1..=4);
                    optimizer.evaluate_with(|| Ok(())).expect("evaluated");
                    bits(&optimizer, &params)
                })
            };
            assert!(with(1) == with(3), "{around:?} {dtype:?}");
        }
    }
}

#[test]
fn what_a_step_leaves_out_is_averaged_as_it_is() -> Result<()> {
    for around in ALL {
        for freeze in [true, false] {
            let params = start(DType::F32)?;
            let mut optimizer = optimizer("sgd:lr=0.1", &params, around, false);
            train(&mut optimizer, &params, 1..=2);
            let before = values(&params[1].1)?;
            if freeze {
                optimizer.freeze(|name| name == "b");
            }
            let mut distance = f64::INFINITY;
            for t in 3..=40 {
                optimizer.step(&grads(&params, t, 1.0, |name| freeze || name != "b")?)?;
                assert_eq!(values(&params[1].1)?, before, "{around:?}");
                if let Some(average) = optimizer.state_dict()?.tensors.get("b.average") {
                    let average = values(average)?;
                    let apart = average.iter().zip(&before).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                    assert!(apart <= distance, "{around:?}: {apart} after {distance}");
                    distance = apart;
                }
            }
            assert!(around.0.is_none() || distance < 1e-4, "{around:?} {distance}");
        }
    }
    Ok(())
}

#[test]
fn lookahead_loses_nothing_of_a_master_copy() -> Result<()> {
    // 200 steps of 0.001, half of which Lookahead takes back: each is far below the last place of bf16 at 1.
    let w = Var::ones(3, DType::BF16, &Device::Cpu)?;
    let params = [("w".to_string(), w.clone())];
    let mut optimizer = optimizer("sgd:lr=0.001", &params, (None, Some(Lookahead { every: 2, alpha: 0.5 })), true);
    let mut store = empty_grads()?;
    store.insert(&w, w.ones_like()?);
    for _ in 0..200 {
        optimizer.step(&store)?;
    }
    let state = optimizer.state_dict()?.tensors;
    assert_eq!(values(&state["w.master"])?, values(&state["w.slow"])?);
    assert!(values(&state["w.master"])?.iter().all(|x| (x - 0.9).abs() < 1e-4));
    assert_eq!(values(&w)?, values(&state["w.slow"].to_dtype(DType::BF16)?)?);
    Ok(())
}

#[test]
fn settings_start_an_average_go_on_with_it_and_drop_it() -> Result<()> {
    let count = |optimizer: &AnyOptimizer| -> Result<(usize, Option<String>)> {
        let state = optimizer.state_dict()?;
        let averages = state.tensors.keys().filter(|key| key.ends_with(".average") || key.ends_with(".slow")).count();
        Ok((averages, state.metadata.get("averaged").cloned()))
    };
    let params = start(DType::F32)?;
    let mut optimizer = optimizer("sgd", &params, (None, None), false);
    train(&mut optimizer, &params, 1..=2);
    assert_eq!(count(&optimizer)?, (0, None));
    optimizer.set_average(Some(EMA))?;
    optimizer.set_lookahead(Some(LOOKAHEAD))?;
    assert_eq!(count(&optimizer)?, (0, None));
    let before = values(&params[0].1)?;
    train(&mut optimizer, &params, 3..=3);
    assert_eq!(count(&optimizer)?, (8, Some("1".into())));
    let (average, now) = (values(&optimizer.state_dict()?.tensors["a.average"])?, values(&params[0].1)?);
    for (average, (before, now)) in average.iter().zip(before.iter().zip(&now)) {
        assert!((average - (0.75 * before + 0.25 * now)).abs() < 1e-6);
    }
    // Other numbers go on; a parameter that comes later starts with the value that it has.
    optimizer.set_average(Some(RATIO))?;
    let late = Var::new(&[0.25f32; 3], &Device::Cpu)?;
    optimizer.push(&late)?;
    train(&mut optimizer, &params, 4..=4);
    let state = optimizer.state_dict()?;
    assert_eq!(count(&optimizer)?, (10, Some("2".into())));
    assert_eq!(values(&state.tensors["4.average"])?, [0.25; 3]);
    // Loaded without settings they are there to be evaluated, until the next step drops them.
    let (others, mut all_params) = (start(DType::F32)?, start(DType::F32)?);
    all_params.push(("4".into(), Var::new(&[0.5f32; 3], &Device::Cpu)?));
    let mut other = self::optimizer("sgd", &all_params, (None, None), false);
    other.load_state_dict(&state)?;
    other.evaluate_with(|| {
        assert_eq!(values(&all_params[4].1)?, [0.25; 3]);
        Ok(())
    })?;
    assert_eq!(count(&other)?, (10, Some("2".into())));
    train(&mut other, &all_params, 5..=5);
    assert_eq!(count(&other)?, (0, None));
    // Another kind starts anew.
    optimizer.set_average(Some(Average::Swa { start: 0, every: 1 }))?;
    assert_eq!(count(&optimizer)?, (5, None));
    train(&mut optimizer, &params, 5..=5);
    assert_eq!(count(&optimizer)?, (10, Some("1".into())));
    assert_eq!(values(&optimizer.state_dict()?.tensors["a.average"])?, values(&params[0].1)?);
    optimizer.set_average(None)?;
    optimizer.set_lookahead(None)?;
    assert_eq!(count(&optimizer)?, (0, None));
    drop(others);
    Ok(())
}

#[test]
fn what_is_wrong_with_an_average_is_said() -> Result<()> {
    let params = start(DType::F32)?;
    let mut ours = optimizer("sgd", &params, (Some(EMA), None), false);
    train(&mut ours, &params, 1..=2);
    let state = ours.state_dict()?;
    let message = |result: optim::Result<()>| result.expect_err("it is refused").to_string();
    let ema = |decay, warmup| Some(Average::Ema { decay, warmup });
    let lookahead = |every, alpha| Some(Lookahead { every, alpha });
    for (error, expected) in [
        (
            message(ours.set_average(ema(1.0, EmaWarmup::None))),
            "ema: decay = 1 is out of range: it must be a number in [0, 1)",
        ),
        (
            message(ours.set_average(ema(f64::NAN, EmaWarmup::Ratio))),
            "ema: decay = NaN is out of range: it must be a number in [0, 1)",
        ),
        (
            message(ours.set_average(ema(0.5, EmaWarmup::Power { gamma: 0.0 }))),
            "ema: gamma = 0 is out of range: it must be a number > 0",
        ),
        (
            message(ours.set_average(Some(Average::Swa { start: 1, every: 0 }))),
            "swa: every = 0 is out of range: it must be a whole number >= 1",
        ),
        (
            message(ours.set_lookahead(lookahead(0, 0.5))),
            "lookahead: every = 0 is out of range: it must be a whole number >= 1",
        ),
        (
            message(ours.set_lookahead(lookahead(6, 1.5))),
            "lookahead: alpha = 1.5 is out of range: it must be a number in (0, 1]",
        ),
        (
            message(optimizer("sgd", &start(DType::F32)?, (Some(SWA), None), false).load_state_dict(&state)),
            "saved state: its average is of the kind `ema`, but the optimizer's is `swa`",
        ),
        (
            message({
                let mut state = state.clone();
                let shape = state.tensors["b.average"].clone();
                state.tensors.insert("a.average".into(), shape);
                ours.load_state_dict(&state)
            }),
            "saved state: `a.average` has the shape [7], but the optimizer has [3, 5]",
        ),
        (
            message({
                let mut state = state.clone();
                state.metadata.remove("average");
                ours.load_state_dict(&state)
            }),
            "saved state: `a.average` is there, but the metadata have no `average`",
        ),
    ] {
        assert_eq!(error, expected);
    }
    Ok(())
}

#[test]
fn schedule_free_is_evaluated_at_its_average_and_goes_on_as_if_nothing_were() -> Result<()> {
    for (text, beta) in [("schedule_free_sgd:lr=0.2,momentum=0.8", 0.8), ("schedule_free_adamw:lr=0.1", 0.9)] {
        for (dtype, master) in TYPES {
            let what = format!("{text} {dtype:?} {master}");
            let (params, others) = (start(dtype)?, start(dtype)?);
            let mut evaluated = optimizer(text, &params, (None, None), master);
            let mut plain = optimizer(text, &others, (None, None), master);
            evaluated.evaluate_with(|| {
                assert_eq!(all(&params), all(&others), "{what}: before the first step");
                Ok(())
            })?;
            for t in 1..=6 {
                train(&mut evaluated, &params, t..=t);
                train(&mut plain, &others, t..=t);
                let (before, state) = (all(&params), evaluated.state_dict()?.tensors);
                evaluated.eval()?;
                for ((name, var), before) in params.iter().zip(&before) {
                    let y = match state.get(&format!("{name}.master")) {
                        Some(master) => values(master)?,
                        None => before.clone(),
                    };
                    let z = values(&state[&format!("{name}.z")])?;
                    // As near as a parameter of its type comes.
                    let bar = match dtype {
                        DType::F64 => 1e-14,
                        DType::F32 => 1e-6,
                        _ => 8e-3,
                    };
                    for (x, (y, z)) in values(var)?.iter().zip(y.iter().zip(&z)) {
                        let expected = (y - (1.0 - beta) * z) / beta;
                        assert!((x - expected).abs() <= bar * expected.abs().max(1.0), "{what}: {x} {expected}");
                    }
                }
                assert!(all(&params) != before || t == 1, "{what} at {t}");
                evaluated.train()?;
                assert_eq!(all(&params), before, "{what} at {t}");
            }
            assert!(bits(&evaluated, &params) == bits(&plain, &others), "{what}");
            // An average is what is evaluated where one is kept.
            evaluated.set_average(Some(EMA))?;
            train(&mut evaluated, &params, 7..=7);
            let average = values(&evaluated.state_dict()?.tensors["a.average"].to_dtype(dtype)?)?;
            assert_eq!(evaluated.evaluate_with(|| values(&params[0].1))?, average, "{what}");
        }
    }
    Ok(())
}

#[test]
fn sophia_takes_a_second_gradient_in_the_first_step_of_each_period() -> Result<()> {
    for (dtype, master) in TYPES {
        let params = start(dtype)?;
        let mut sophia = optimizer("sophia:update_period=3,lr=0.1", &params, (None, None), master);
        let loss = Tensor::zeros((), DType::F32, &Device::Cpu)?;
        for t in 1..=7 {
            let before = bits(&sophia, &params);
            let hessian = |o: &AnyOptimizer| -> Result<Option<Vec<f64>>> {
                o.state_dict()?.tensors.get("a.hessian").map(values).transpose()
            };
            let (old, is_due) = (hessian(&sophia)?, t % 3 == 1);
            // Where the second loss fails, nothing has changed.
            let failing = sophia.step_with_gradients(|evaluation| {
                if evaluation == 1 {
                    candle_core::bail!("no labels");
                }
                if is_due {
                    Ok((loss.clone(), grads(&params, t, 1.0, |_| true)?))
                } else {
                    candle_core::bail!("no data")
                }
            });
            assert!(failing.is_err() && bits(&sophia, &params) == before, "{dtype:?} at {t}");
            let mut evaluations = 0;
            sophia.step_with_gradients(|evaluation| {
                evaluations += 1;
                Ok((loss.clone(), grads(&params, t + 100 * evaluation as u64, 1.0, |_| true)?))
            })?;
            assert_eq!(evaluations, if is_due { 2 } else { 1 }, "{dtype:?} at {t}");
            assert_eq!(hessian(&sophia)? != old, is_due, "{dtype:?} at {t}");
        }
        // A plain step goes on with the curvature there is.
        train(&mut sophia, &params, 8..=8);
    }
    Ok(())
}
