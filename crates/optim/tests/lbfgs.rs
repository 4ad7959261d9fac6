//! L-BFGS, whose step evaluates the loss as often as it needs: against PyTorch, and by property.

mod problem;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Result, Tensor, Var};
use optim::{AnyOptimizer, Average, Clip, EmaWarmup, Error, Group, Optimizer, Rule, StateDict, by_name};
use problem::{empty_grads, start, values};
use serde_json::Value;
use std::panic::{AssertUnwindSafe, catch_unwind};

const TEXTS: [&str; 4] = [
    "lbfgs:lr=0.5,max_iter=4",
    "lbfgs:lr=0.3,max_iter=3,history_size=2",
    "lbfgs:strong_wolfe=true,max_iter=3",
    "lbfgs:strong_wolfe=true,max_iter=4,max_eval=5,history_size=3",
];

fn optimizer(text: &str, params: &[(String, Var)]) -> AnyOptimizer {
    let group = Group::new(params.to_vec(), by_name(text).expect(text));
    AnyOptimizer::from_groups(vec![group]).expect(text)
}

/// The loss of `fixtures/free_rules.py` over all parameters in turn, and its gradient, in the order of operations given there.
fn rosenbrock(params: &[(String, Var)], coupling: f64) -> Result<(Tensor, GradStore)> {
    let w = params.iter().map(|(_, var)| values(var)).collect::<Result<Vec<_>>>()?.concat();
    let (mut loss, mut gradient) = (0.0, vec![0.0; w.len()]);
    for i in 0..w.len() - 1 {
        let (apart, short) = (w[i + 1] - w[i] * w[i], 1.0 - w[i]);
        loss += coupling * (apart * apart) + short * short;
        gradient[i] += -4.0 * coupling * (apart * w[i]) - 2.0 * short;
        gradient[i + 1] += 2.0 * coupling * apart;
    }
    let (mut store, mut at) = (empty_grads()?, 0);
    for (_, var) in params {
        let len = var.elem_count();
        let grad = Tensor::from_slice(&gradient[at..at + len], var.shape(), &Device::Cpu)?;
        store.insert(var, grad.to_dtype(var.dtype())?);
        at += len;
    }
    Ok((Tensor::new(loss, &Device::Cpu)?, store))
}

/// Parameters and state, bit by bit.
fn bits(optimizer: &AnyOptimizer, params: &[(String, Var)]) -> Vec<(String, Vec<u64>)> {
    let of = |tensor: &Tensor| values(tensor).expect("values").iter().map(|x| x.to_bits()).collect();
    let mut all: Vec<_> = params.iter().map(|(name, var)| (name.clone(), of(var))).collect();
    let state = optimizer.state_dict().expect("state");
    all.extend(state.tensors.iter().map(|(key, t)| (key.clone(), of(t))));
    all.push((state.metadata["step"].clone(), vec![]));
    all
}

#[test]
fn it_agrees_with_pytorch_also_in_how_often_it_evaluates() -> Result<()> {
    let fixture = std::fs::read_to_string("tests/fixtures/lbfgs.json")?;
    let fixture: Value = serde_json::from_str(&fixture).expect("a fixture is JSON");
    let cases = fixture["cases"].as_array().expect("cases");
    assert!(cases.len() >= 4);
    for case in cases {
        let keys = case["hyperparameters"].as_object().expect("an object");
        let pairs: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let params = start(DType::F64)?;
        let mut optimizer = optimizer(&format!("lbfgs:{}", pairs.join(",")), &params);
        let coupling = case["coupling"].as_f64().expect("a number");
        let (mut count, mut worst) = (0, 0.0f64);
        for record in case["records"].as_array().expect("records") {
            let loss = optimizer.step_with_gradients(|evaluation| {
                count += 1;
                assert!(evaluation < 25);
                rosenbrock(&params, coupling)
            })?;
            let what = format!("{} step {}", case["name"], record["step"]);
            assert_eq!(count, record["evaluations"].as_u64().expect("a count"), "{what}: evaluations");
            let (loss, expected) = (loss.to_scalar::<f64>()?, record["loss"].as_f64().expect("a number"));
            assert!((loss - expected).abs() <= 1e-9 * expected.max(1e-3), "{what}: {loss} {expected}");
            let theta: Vec<f64> = serde_json::from_value(record["theta"].clone()).expect("numbers");
            let ours = params.iter().map(|(_, var)| values(var)).collect::<Result<Vec<_>>>()?.concat();
            let largest = theta.iter().fold(0.0f64, |a, x| a.max(x.abs()));
            let apart = ours.iter().zip(&theta).fold(0.0f64, |a, (x, y)| a.max((x - y).abs())) / largest;
            worst = worst.max(apart);
            assert!(apart <= 1e-9, "{what}: {apart:e}");
        }
        println!("{} {worst:.1e}", case["name"]);
    }
    Ok(())
}

#[test]
fn an_evaluation_that_fails_or_panics_leaves_everything_as_it_was() -> Result<()> {
    for text in TEXTS {
        for steps in [0, 2] {
            for panics in [false, true] {
                let params = start(DType::F64)?;
                let mut optimizer = optimizer(text, &params);
                optimizer.set_average(Some(Average::Ema { decay: 0.5, warmup: EmaWarmup::None }))?;
                for _ in 0..steps {
                    optimizer.step_with_gradients(|_| rosenbrock(&params, 1.0))?;
                }
                let (before, mut failures) = (bits(&optimizer, &params), 0);
                for at in 0.. {
                    let run = AssertUnwindSafe(|| {
                        optimizer.step_with_gradients(|evaluation| {
                            if evaluation == at {
                                assert!(!panics, "a panic in the closure");
                                candle_core::bail!("no data");
                            }
                            rosenbrock(&params, 1.0)
                        })
                    });
                    if let Ok(Ok(_)) = catch_unwind(run) {
                        break;
                    }
                    assert!(bits(&optimizer, &params) == before, "{text}: evaluation {at}");
                    failures += 1;
                }
                assert!(failures >= 2, "{text}: {failures}");
            }
        }
    }
    Ok(())
}

#[test]
fn it_resumes_at_any_step_and_keeps_no_more_than_its_history() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("state");
    for text in TEXTS {
        for dtype in [DType::F32, DType::F64] {
            let whole_params = start(dtype)?;
            let mut whole = optimizer(text, &whole_params);
            let history = f64::from(whole.params().get("history_size")?) as usize;
            let mut saved = Vec::new();
            for step in 0..5 {
                let model = whole_params.iter().map(|(_, v)| v.force_contiguous()).collect::<Result<Vec<_>>>()?;
                let state = whole.state_dict()?;
                let kept = state.tensors.keys().filter(|key| key.starts_with("lbfgs.")).count();
                assert!(kept <= 3 + 2 * history, "{text}: {kept}");
                saved.push((step, state, model));
                whole.step_with_gradients(|_| rosenbrock(&whole_params, 1.0))?;
            }
            for (step, state, model) in saved {
                state.save(&path)?;
                let params = start(dtype)?;
                params.iter().zip(&model).try_for_each(|((_, var), value)| var.set(value))?;
                let mut resumed = optimizer(text, &params);
                resumed.load_state_dict(&StateDict::load(&path)?)?;
                for _ in step..5 {
                    resumed.step_with_gradients(|_| rosenbrock(&params, 1.0))?;
                }
                let same = bits(&resumed, &params) == bits(&whole, &whole_params);
                assert!(same, "{text} {dtype:?}: resumed before step {step}");
            }
        }
    }
    Ok(())
}

#[test]
fn it_lowers_a_loss_in_f32_leaves_frozen_parameters_alone_and_goes_up_where_asked() -> Result<()> {
    for text in TEXTS {
        let params = start(DType::F32)?;
        let mut optimizer = optimizer(text, &params);
        optimizer.freeze(|name| name == "b");
        let frozen = values(&params[1].1)?;
        let first: f64 = optimizer.step_with_gradients(|_| rosenbrock(&params, 0.5))?.to_scalar()?;
        for _ in 0..8 {
            optimizer.step_with_gradients(|_| rosenbrock(&params, 0.5))?;
        }
        let last: f64 = optimizer.step_with_gradients(|_| rosenbrock(&params, 0.5))?.to_scalar()?;
        assert!(last < 0.7 * first, "{text}: {first} to {last}");
        assert_eq!(values(&params[1].1)?, frozen, "{text}");
        // Other parameters than before: it starts anew.
        optimizer.unfreeze(|_| true);
        for _ in 0..6 {
            optimizer.step_with_gradients(|_| rosenbrock(&params, 0.5))?;
        }
        assert_ne!(values(&params[1].1)?, frozen, "{text}");

        let run = |text: &str, sign: f64| -> Result<Vec<Vec<f64>>> {
            let params = start(DType::F64)?;
            let mut optimizer = self::optimizer(text, &params);
            for _ in 0..3 {
                optimizer.step_with_gradients(|_| {
                    let (loss, grads) = rosenbrock(&params, 0.5)?;
                    let mut signed = empty_grads()?;
                    for (_, var) in &params {
                        signed.insert(var, (grads.get(var).expect("a gradient") * sign)?);
                    }
                    Ok(((loss * sign)?, signed))
                })?;
            }
            params.iter().map(|(_, var)| values(var)).collect()
        };
        assert_eq!(run(text, 1.0)?, run(&format!("{text},maximize=true"), -1.0)?, "{text}");
    }
    Ok(())
}

#[test]
fn what_does_not_go_with_it_is_said() -> Result<()> {
    let text = TEXTS[0];
    let params = start(DType::F64)?;
    let mut optimizer = self::optimizer(text, &params);
    let (_, grads) = rosenbrock(&params, 1.0)?;
    let expected = "lbfgs evaluates the loss as often as it needs: call step_with(closure)";
    let wrong_state = |result: optim::Result<()>| match result {
        Err(Error::WrongState(text)) => text.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(wrong_state(optimizer.step(&grads).map_err(Error::from)), expected);
    assert_eq!(wrong_state(optimizer.accumulate(&grads)), expected);
    assert_eq!(wrong_state(optimizer.step_accumulated()), expected);
    assert_eq!(wrong_state(optimizer.first_step(&grads)), expected);
    assert_eq!(wrong_state(optimizer.second_step(&grads)), expected);
    optimizer.set_clip(Some(Clip::Value(1.0)))?;
    let step = |optimizer: &mut AnyOptimizer, params: &[(String, Var)]| {
        optimizer.step_with_gradients(|_| rosenbrock(params, 1.0)).map(drop)
    };
    assert_eq!(wrong_state(step(&mut optimizer, &params)), "lbfgs: clipping would bend its line; use set_clip(None)");
    let half = start(DType::BF16)?;
    let error = step(&mut self::optimizer(text, &half), &half).expect_err("bf16").to_string();
    assert_eq!(error, "parameter `a`: its type is BF16, but lbfgs is for f32 and f64");
    let groups = params.iter().map(|param| Group::new(vec![param.clone()], by_name(text).expect(text)));
    let mut groups = AnyOptimizer::from_groups(groups.collect())?;
    assert_eq!(wrong_state(step(&mut groups, &params)), "lbfgs: all parameters are to be in one group");
    let sam = Group::new(params.clone(), by_name("sam:base=lbfgs")?);
    let error = AnyOptimizer::from_groups(vec![sam]).expect_err("sam around it").to_string();
    assert_eq!(error, "sam: base = lbfgs is out of range: it must be a rule that takes one gradient");
    // The loss must depend on the parameters.
    let nothing = self::optimizer(text, &params)
        .step_with_gradients(|_| Ok((Tensor::new(1f64, &Device::Cpu)?, empty_grads()?)))
        .expect_err("no gradient");
    assert!(matches!(nothing, Error::NoGradient { count: 4 }), "{nothing}");
    Ok(())
}
