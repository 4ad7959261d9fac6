//! Every rule times every property of the optimizer.

mod problem;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::VarMap;
use optim::rule::Range;
use optim::{
    AnyOptimizer, AnyRule, Clip, Group, Optimizer, Rule, Schedule, by_name, exclude_from_decay, named_params, rules,
};
use problem::{empty_grads, grads, noise, start, start_of, values};
use std::collections::HashMap;

/// Each rule with its defaults, and the flags that change what state it keeps or how it steps.
const RULES: [&str; 56] = [
    "sgd",
    "sgd:momentum=0.9,dampening=0.1,weight_decay=0.01",
    "sgd:momentum=0.9,nesterov=true",
    "asgd:t0=0,weight_decay=0.01",
    "rprop",
    "adagrad:initial_accumulator_value=0.1,lr_decay=0.01",
    "adadelta",
    "rmsprop",
    "rmsprop:momentum=0.9,eps_inside=false",
    "rmsprop:centered=true,weight_decay=0.01",
    "rmsprop:centered=true,momentum=0.9",
    "adam:weight_decay=0.01",
    "adamax",
    "amsgrad",
    "adamw",
    "nadam:weight_decay=0.01",
    "nadam:weight_decay=0.01,decoupled_weight_decay=true",
    "radam:beta2=0.9",
    "radam:weight_decay=0.01,decoupled_weight_decay=true",
    "lion:weight_decay=0.1",
    "sophia:update_period=2",
    "schedule_free_sgd:lr=0.1,warmup=2,weight_decay=0.01",
    "schedule_free_adamw",
    "prodigy:weight_decay=0.01",
    "prodigy:d0=0.1,use_bias_correction=true,growth_rate=1.1",
    "lamb",
    "lamb:trust_clip=true,bias_correction=false",
    "lars:trust_coefficient=0.5,weight_decay=0.01",
    "lars:trust_coefficient=0.5,nesterov=true",
    "lars:always_adapt=false",
    "signum:weight_decay=0.1",
    "tiger",
    "adabelief",
    "yogi:weight_decay=0.01",
    "laprop:weight_decay=0.01",
    "adopt:weight_decay=0.01",
    "stable_adamw",
    "adan:weight_decay=0.1",
    "ademamix",
    "ademamix:warmup=5,weight_decay=0.01",
    "mars:weight_decay=0.01",
    "adamw:cautious=true,cautious_decay=true,weight_decay=0.1",
    "lion:cautious=true,weight_decay=0.1",
    "sgd:momentum=0.9,maximize=true",
    "tiger:cautious_decay=true,corrected_decay=true",
    "adafactor",
    "muon",
    "muon:nesterov=false,scale=original,coefficients=polar_express",
    "normuon:adamw_lr_factor=1",
    "adamuon:adamw_lr_factor=1",
    "soap:precondition_frequency=1,max_precondition_dim=200",
    "shampoo:precondition_frequency=1,block_size=64",
    "shampoo:grafting=none,block_size=64",
    "sam:momentum=0.9",
    "sam:base=adamw,adaptive=true,rho=0.5",
    "sam:base=lamb",
];

fn optimizer(text: &str, params: &[(String, Var)]) -> AnyOptimizer {
    let group = Group::new(params.to_vec(), by_name(text).expect(text));
    AnyOptimizer::from_groups(vec![group]).expect(text)
}

/// `count` updates from update `from` on.
fn train(optimizer: &mut AnyOptimizer, params: &[(String, Var)], from: u64, count: u64) {
    for t in from..from + count {
        let gradients = grads(params, t, 1.0, |_| true).expect("gradients");
        if optimizer.params().sharpness().is_some() {
            optimizer.first_step(&gradients).expect("first step");
            let gradients = grads(params, t, 1.0, |_| true).expect("gradients");
            optimizer.second_step(&gradients).expect("second step");
        } else {
            optimizer.step(&gradients).expect("step");
        }
    }
}

/// The bits of all parameters and of the whole state.
fn bits(optimizer: &AnyOptimizer, params: &[(String, Var)]) -> Vec<(String, Vec<u64>)> {
    let of = |tensor: &Tensor| values(tensor).expect("values").iter().map(|x| x.to_bits()).collect();
    let mut all: Vec<_> = params.iter().map(|(name, var)| (name.clone(), of(var))).collect();
    all.extend(optimizer.state_dict().expect("state").tensors.iter().map(|(key, t)| (key.clone(), of(t))));
    all
}

/// A step with the same gradient wherever the rule asks for one.
fn step(optimizer: &mut AnyOptimizer, grads: &GradStore) -> Result<()> {
    if optimizer.params().sharpness().is_some() {
        optimizer.first_step(grads)?;
    }
    optimizer.step(grads)
}

#[test]
fn every_rule_is_in_the_table() {
    // L-BFGS, which has no plain step, has tests of its own.
    for spec in rules::specs().filter(|spec| spec.name != "lbfgs") {
        assert!(RULES.iter().any(|text| text.split(':').next() == Some(spec.name)), "{}", spec.name);
    }
}

#[test]
fn candles_trait_lowers_a_loss() -> Result<()> {
    for text in RULES {
        let x = Var::from_vec(noise(0, 0, 40), 40, &Device::Cpu)?;
        let target = Tensor::from_vec(noise(1, 0, 40), 40, &Device::Cpu)?;
        let loss = |x: &Var| x.as_tensor().sub(&target)?.sqr()?.sum_all();
        let mut optimizer = AnyOptimizer::new(vec![x.clone()], by_name(text)?)?;
        // Adadelta's steps are in the parameter's own unit, Prodigy finds them.
        let lr = if text == "adadelta" || text.starts_with("prodigy") { 1.0 } else { 0.01 };
        optimizer.set_learning_rate(lr);
        assert_eq!(optimizer.learning_rate(), lr);
        let before = loss(&x)?.to_scalar::<f64>()?;
        for _ in 0..50 {
            if optimizer.params().sharpness().is_some() {
                optimizer.first_step(&loss(&x)?.backward()?)?;
            }
            optimizer.backward_step(&loss(&x)?)?;
        }
        let after = loss(&x)?.to_scalar::<f64>()?;
        let lowers = if text.contains("maximize") { after > 1.1 * before } else { after < 0.9 * before };
        assert!(lowers, "{text}: {before} to {after}");
    }
    Ok(())
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    // Several chunks each, an odd rest, and empty and tiny tensors between them.
    let tensors: [(&str, &[usize]); 5] =
        [("large", &[3, 16_411]), ("empty", &[0, 4]), ("row", &[257]), ("scalar", &[]), ("square", &[181, 181])];
    for text in RULES {
        for dtype in [DType::F32, DType::F64, DType::BF16, DType::F16] {
            let with = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
                pool.install(|| {
                    let params = start_of(&tensors, dtype).expect("parameters");
                    let mut optimizer = optimizer(text, &params);
                    optimizer.set_clip(Some(Clip::GlobalNorm(1.0))).expect("a clip");
                    train(&mut optimizer, &params, 1, 2);
                    (optimizer.grad_norm().expect("a norm").map(f64::to_bits), bits(&optimizer, &params))
                })
            };
            let one = with(1);
            for threads in [2, 3, 7] {
                assert!(with(threads) == one, "{text} {dtype:?}: {threads} threads");
            }
        }
    }
}

#[test]
fn tensors_of_any_size_step_as_one_by_one() {
    // More tensors than one nest holds, of sizes around the lengths of chunk and block.
    let sizes: Vec<usize> = (0..300).map(|i| [0, 1, 3, 255, 256, 257, 1_023, 1_025, 16_383, 16_385][i % 10]).collect();
    let names: Vec<String> = (0..sizes.len()).map(|i| format!("{i:03}")).collect();
    for (text, dtype) in [
        ("adamw", DType::F32),
        ("lamb", DType::BF16),
        ("lion", DType::F16),
        ("rprop", DType::BF16),
        ("sgd", DType::F64),
    ] {
        let shapes: Vec<[usize; 1]> = sizes.iter().map(|n| [*n]).collect();
        let tensors: Vec<(&str, &[usize])> = names.iter().zip(&shapes).map(|(n, s)| (n.as_str(), &s[..])).collect();
        let params = start_of(&tensors, dtype).expect("parameters");
        let store = grads(&params, 1, 1.0, |_| true).expect("gradients");
        let alone: Vec<Var> =
            params.iter().map(|(_, v)| Var::from_tensor(&v.force_contiguous().expect("copy")).expect("var")).collect();
        optimizer(text, &params).step(&store).expect("step");
        for ((name, together), alone) in params.iter().zip(&alone).filter(|((_, v), _)| v.elem_count() > 0) {
            let mut own = empty_grads().expect("a store");
            own.insert(alone, store.get(together).expect("a gradient").clone());
            optimizer(text, &[(name.clone(), alone.clone())]).step(&own).expect("step");
            assert_eq!(values(together).expect("values"), values(alone).expect("values"), "{text} {name}");
        }
    }
}

#[test]
fn a_saved_state_goes_on_in_a_fresh_process() {
    let folder = tempfile::tempdir().expect("a folder");
    for text in RULES {
        for (dtype, master) in [(DType::F32, false), (DType::BF16, false), (DType::BF16, true), (DType::F64, false)] {
            let params = start(dtype).expect("parameters");
            let mut whole = optimizer(text, &params);
            whole.set_master_copies(master).expect("before the first step");
            train(&mut whole, &params, 1, 3);
            let (state, model) = (folder.path().join("state"), folder.path().join("model"));
            whole.state_dict().expect("state").save(&state).expect("saved");
            let tensors: HashMap<String, Tensor> =
                params.iter().map(|(n, v)| (n.clone(), v.as_tensor().clone())).collect();
            candle_core::safetensors::save(&tensors, &model).expect("saved");
            train(&mut whole, &params, 4, 4);

            // The same test program, asked to run `resumes` alone, is the fresh process.
            let output = std::process::Command::new(std::env::current_exe().expect("this program"))
                .args(["--exact", "resumes", "--ignored", "--nocapture"])
                .env("RESUME", format!("{text}|{dtype:?}|{master}|{}", folder.path().display()))
                .output()
                .expect("it starts");
            let printed = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "{text} {dtype:?}: {printed}");
            let expected = format!("{:?}", bits(&whole, &params));
            assert!(printed.contains(&expected), "{text} {dtype:?} master {master}: the resumed run differs");
        }
    }
}

#[test]
#[ignore = "the second process of a_saved_state_goes_on_in_a_fresh_process"]
fn resumes() {
    let request = std::env::var("RESUME").expect("RESUME");
    let [text, dtype, master, folder] = request.split('|').collect::<Vec<_>>()[..] else { panic!("{request}") };
    let dtype = match dtype {
        "F32" => DType::F32,
        "F64" => DType::F64,
        _ => DType::BF16,
    };
    let folder = std::path::Path::new(folder);
    let params = start(dtype).expect("parameters");
    let model = candle_core::safetensors::load(folder.join("model"), &Device::Cpu).expect("the model");
    params.iter().for_each(|(name, var)| var.set(&model[name]).expect("set"));
    let mut optimizer = optimizer(text, &params);
    optimizer.set_master_copies(master == "true").expect("before the first step");
    let state = optim::StateDict::load(folder.join("state")).expect("the state");
    optimizer.load_state_dict(&state).expect("it fits");
    train(&mut optimizer, &params, 4, 4);
    println!("{:?}", bits(&optimizer, &params));
}

#[test]
fn a_strided_gradient_equals_its_copy() -> Result<()> {
    for text in RULES {
        let var = || Var::from_vec(noise(0, 0, 12), (3, 4), &Device::Cpu);
        let flat = Tensor::from_vec(noise(1, 0, 24), (2, 12), &Device::Cpu)?;
        // Transposed, with an offset; and broadcast, with strides of 0.
        for strided in
            [flat.get(1)?.reshape((4, 3))?.t()?, flat.narrow(0, 0, 1)?.narrow(1, 0, 4)?.broadcast_as((3, 4))?]
        {
            assert!(!strided.is_contiguous());
            let mut after = Vec::new();
            for grad in [strided.clone(), strided.force_contiguous()?] {
                let var = var()?;
                let mut store = empty_grads()?;
                store.insert(&var, grad);
                step(&mut optimizer(text, &[("x".to_string(), var.clone())]), &store)?;
                after.push(values(&var)?);
            }
            assert_eq!(after[0], after[1], "{text}");
        }
    }
    Ok(())
}

#[test]
fn a_gradient_may_be_a_parameter_itself() -> Result<()> {
    // Of 0.5 x^2: taken together, the locks of reading and writing would wait for each other.
    let params = start(DType::F64)?;
    let mut store = empty_grads()?;
    params.iter().for_each(|(_, var)| drop(store.insert(var, var.as_tensor().clone())));
    let before = values(&params[0].1)?;
    optimizer("sgd:lr=0.5", &params).step(&store)?;
    assert_eq!(values(&params[0].1)?, before.iter().map(|x| 0.5 * x).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn a_parameter_without_a_gradient_or_frozen_is_left_alone() {
    for text in RULES {
        let run = |freeze: bool| {
            let params = start(DType::F32).expect("parameters");
            let mut optimizer = optimizer(text, &params);
            train(&mut optimizer, &params, 1, 2);
            let (before, state) = (values(&params[1].1).expect("values"), optimizer.state_dict().expect("state"));
            if freeze {
                assert_eq!(optimizer.freeze(|name| name == "b"), 1);
            }
            for t in 3..6 {
                let gradients = grads(&params, t, 1.0, |name| freeze || name != "b").expect("gradients");
                step(&mut optimizer, &gradients).expect("step");
            }
            let after = optimizer.state_dict().expect("state");
            assert_eq!(values(&params[1].1).expect("values"), before, "{text}");
            for (key, tensor) in after.tensors.iter().filter(|(key, _)| key.starts_with("b.")) {
                assert_eq!(
                    values(tensor).expect("values"),
                    values(&state.tensors[key]).expect("values"),
                    "{text} {key}"
                );
            }
            assert_eq!(values(&after.tensors["a.step"]).expect("a count"), [5.0]);
            if freeze {
                assert_eq!(optimizer.unfreeze(|_| true), 4);
            }
            train(&mut optimizer, &params, 6, 1);
            assert_ne!(values(&params[1].1).expect("values"), before, "{text}");
            bits(&optimizer, &params)
        };
        assert!(run(true) == run(false), "{text}");
    }
}

#[test]
fn half_precision_follows_single_precision() {
    for text in RULES {
        for (dtype, epsilon) in [(DType::BF16, 0.0079), (DType::F16, 0.00098)] {
            let params = start(DType::F32).expect("parameters");
            let rounded = start(dtype).expect("parameters");
            // Both start from the rounded values and get the same gradients.
            params
                .iter()
                .zip(&rounded)
                .for_each(|((_, p), (_, r))| p.set(&r.to_dtype(DType::F32).expect("f32")).expect("set"));
            let mut full = optimizer(text, &params);
            let mut half = optimizer(text, &rounded);
            half.set_master_copies(true).expect("before the first step");
            for t in 1..20 {
                let wide = grads(&rounded, t, 1.0, |_| true).expect("gradients");
                let mut single = empty_grads().expect("a store");
                for ((_, p), (_, r)) in params.iter().zip(&rounded) {
                    single.insert(p, wide.get(r).expect("a gradient").to_dtype(DType::F32).expect("f32"));
                }
                step(&mut full, &single).expect("step");
                step(&mut half, &wide).expect("step");
            }
            let state = half.state_dict().expect("state");
            for ((name, full), (_, half)) in params.iter().zip(&rounded) {
                // With a master copy nothing is lost but the rounding of the parameter itself.
                let (full, half) = (values(full).expect("values"), values(half).expect("values"));
                assert_eq!(
                    values(&state.tensors[&format!("{name}.master")]).expect("values"),
                    full,
                    "{text} {dtype:?}"
                );
                for (f, h) in full.iter().zip(half) {
                    assert!((f - h).abs() <= epsilon / 2.0 * f.abs() + 1e-7, "{text} {dtype:?} {name}: {f} {h}");
                }
            }
        }
    }
}

#[test]
fn a_master_copy_adds_up_what_half_precision_loses() -> Result<()> {
    let step = |master: bool| -> Result<f64> {
        let x = Var::ones(1, DType::BF16, &Device::Cpu)?;
        let mut optimizer = optimizer("sgd:lr=0.001", &[("x".to_string(), x.clone())]);
        optimizer.set_master_copies(master)?;
        for _ in 0..100 {
            let mut store = empty_grads()?;
            store.insert(&x, Tensor::ones(1, DType::BF16, &Device::Cpu)?);
            optimizer.step(&store)?;
        }
        Ok(values(&x)?[0])
    };
    assert_eq!(step(false)?, 1.0);
    assert!((step(true)? - 0.9).abs() < 0.004);
    Ok(())
}

#[test]
fn micro_batches_equal_the_large_batch() -> Result<()> {
    for text in RULES {
        // The basis of a null space is arbitrary, and follows from rounding: SOAP is compared on a square. Near eigenvalues make
        // rounding larger.
        let (columns, exact) = if text.starts_with("soap") { (6, [1e-8, 1e-2]) } else { (3, [1e-12, 1e-5]) };
        for dtype in [DType::F64, DType::F32] {
            let data = Tensor::from_vec(noise(5, 0, 8 * 6), (8, 6), &Device::Cpu)?.to_dtype(dtype)?;
            let run = |micro: usize| -> Result<Vec<f64>> {
                let params = start_of(&[("w", &[6, columns])], dtype)?;
                let w = &params[0].1;
                let mut optimizer = optimizer(text, &params);
                for _ in 0..3 {
                    let loss = |rows: &Tensor| rows.matmul(w)?.sqr()?.mean_all();
                    if micro == 1 {
                        let takes_one = optimizer.params().curvature().is_some();
                        if takes_one {
                            optimizer.backward_step(&loss(&data)?)?;
                        } else {
                            optimizer.step_with(|_| loss(&data))?;
                        }
                        continue;
                    }
                    let accumulate = |optimizer: &mut AnyOptimizer| -> Result<()> {
                        for rows in data.chunk(micro, 0)? {
                            optimizer.accumulate(&loss(&rows)?.backward()?)?;
                        }
                        Ok(())
                    };
                    accumulate(&mut optimizer)?;
                    if optimizer.params().sharpness().is_some() {
                        optimizer.first_step_accumulated()?;
                        accumulate(&mut optimizer)?;
                    }
                    optimizer.step_accumulated()?;
                }
                values(w)
            };
            let (whole, bar) = (run(1)?, if dtype == DType::F64 { exact[0] } else { exact[1] });
            for micro in [2, 4, 8] {
                for (a, b) in whole.iter().zip(run(micro)?) {
                    assert!((a - b).abs() <= bar, "{text} {dtype:?} in {micro}: {a} {b}");
                }
            }
        }
    }
    Ok(())
}

#[test]
fn clipping_equals_gradients_clipped_beforehand() -> Result<()> {
    for text in RULES {
        for clip in [Clip::GlobalNorm(0.5), Clip::GlobalNorm(1e6), Clip::Value(0.1)] {
            let (ours, theirs) = (start(DType::F64)?, start(DType::F64)?);
            let store = grads(&ours, 1, 1.0, |_| true)?;
            let all: Vec<f64> =
                ours.iter().map(|(_, v)| values(store.get(v).expect("one"))).collect::<Result<Vec<_>>>()?.concat();
            let norm = all.iter().map(|x| x * x).sum::<f64>().sqrt();
            let mut clipped = empty_grads()?;
            for ((_, our), (_, their)) in ours.iter().zip(&theirs) {
                let grad = store.get(our).expect("a gradient");
                clipped.insert(
                    their,
                    match clip {
                        Clip::GlobalNorm(max) => (grad * (max / (norm + 1e-6)).min(1.0))?,
                        Clip::Value(max) => grad.clamp(-max, max)?,
                    },
                );
            }
            let mut optimizer = optimizer(text, &ours);
            optimizer.set_clip(Some(clip))?;
            optimizer.set_measure_grad_norm(true);
            step(&mut optimizer, &store)?;
            step(&mut self::optimizer(text, &theirs), &clipped)?;
            let measured = optimizer.grad_norm().expect("read").expect("measured");
            assert!((measured - norm).abs() < 1e-12 * norm, "{measured} {norm}");
            for ((_, our), (_, their)) in ours.iter().zip(&theirs) {
                for (a, b) in values(our)?.iter().zip(values(their)?) {
                    assert!((a - b).abs() < 1e-12, "{text} {clip:?}: {a} {b}");
                }
            }
        }
    }
    Ok(())
}

#[test]
fn nan_and_infinity_reach_the_parameter() -> Result<()> {
    for text in RULES {
        for clip in [None, Some(Clip::GlobalNorm(1.0)), Some(Clip::Value(1.0))] {
            let params = start(DType::F32)?;
            let mut optimizer = optimizer(text, &params);
            optimizer.set_clip(clip)?;
            let mut store = grads(&params, 1, 1.0, |_| true)?;
            store.insert(&params[1].1, Tensor::new(&[0f32, 1., f32::NAN, 1., 0., 2., 3.], &Device::Cpu)?);
            step(&mut optimizer, &store)?;
            assert!(values(&params[1].1)?[2].is_nan(), "{text} {clip:?}");
        }
    }
    Ok(())
}

#[test]
fn groups_follow_their_own_hyperparameters_and_schedules() -> Result<()> {
    // Prodigy's estimate is one for all groups. A corrected decay asks for the peak of a schedule, which is not there where the values
    // are set by hand.
    let is_apart = |text: &&&str| !text.starts_with("prodigy") && !text.contains("corrected_decay");
    for text in RULES.iter().filter(is_apart) {
        let schedule: Schedule = "linear:lr=0.1,end_lr=0,steps=5".parse()?;
        let decay: Schedule = "linear:lr=0,end_lr=0.5,steps=4".parse()?;
        let (together, apart) = (start(DType::F64)?, start(DType::F64)?);
        let first = Group::new(together[..2].to_vec(), by_name(text)?);
        let mut first = first.schedule("lr", schedule.clone())?;
        let has_decay = by_name(text)?.field("weight_decay").is_some();
        if has_decay {
            first = first.schedule("weight_decay", decay.clone())?;
        }
        let second = Group::new(together[2..].to_vec(), by_name(text)?);
        let mut optimizer = AnyOptimizer::from_groups(vec![first, second])?;
        let mut scheduled = self::optimizer(text, &apart[..2]);
        let mut plain = self::optimizer(text, &apart[2..]);
        for t in 1..8 {
            let store = grads(&together, t, 1.0, |_| true)?;
            let mut other = empty_grads()?;
            for ((_, a), (_, b)) in together.iter().zip(&apart) {
                other.insert(b, store.get(a).expect("a gradient").clone());
            }
            assert_eq!(optimizer.learning_rate(), schedule.at(t - 1));
            step(&mut optimizer, &store)?;
            let mut rule = scheduled.params().clone();
            rule.set("lr", schedule.at(t - 1).into())?;
            if has_decay {
                rule.set("weight_decay", decay.at(t - 1).into())?;
            }
            scheduled.set_params(rule);
            step(&mut scheduled, &other)?;
            step(&mut plain, &other)?;
        }
        for ((name, a), (_, b)) in together.iter().zip(&apart) {
            assert_eq!(values(a)?, values(b)?, "{text} {name}");
        }
        optimizer.set_learning_rate(0.25);
        assert_eq!(optimizer.learning_rate(), 0.25);
        assert_eq!(f64::from(optimizer.group_params(1).get("lr")?), 0.25);
    }
    Ok(())
}

#[test]
fn decay_leaves_biases_and_norms_out() -> Result<()> {
    for text in ["adamw:weight_decay=0.5,lr=0.1", "sgd:weight_decay=0.5,lr=0.1", "lion:weight_decay=0.5,lr=0.1"] {
        let params = start(DType::F64)?;
        let before: Vec<_> = params.iter().map(|(_, v)| values(v)).collect::<Result<_>>()?;
        let mut optimizer = AnyOptimizer::from_groups(exclude_from_decay(params.clone(), &by_name(text)?).into())?;
        let mut store = empty_grads()?;
        for (_, var) in &params {
            store.insert(var, var.zeros_like()?);
        }
        optimizer.step(&store)?;
        for ((name, var), before) in params.iter().zip(&before) {
            let decays = var.rank() >= 2;
            assert_eq!(values(var)? != *before, decays, "{text} {name}");
        }
    }
    Ok(())
}

#[test]
fn sam_restores_exactly_also_when_the_second_evaluation_fails() -> Result<()> {
    for text in RULES.iter().filter(|text| text.starts_with("sam")) {
        for dtype in [DType::F32, DType::BF16] {
            let params = start(dtype)?;
            let before: Vec<_> = params.iter().map(|(_, v)| values(v)).collect::<Result<_>>()?;
            let mut optimizer = optimizer(text, &params);
            let mut moved = false;
            let result = optimizer.step_with(|evaluation| {
                if evaluation == 1 {
                    moved = values(&params[0].1)? != before[0];
                    candle_core::bail!("out of data");
                }
                params.iter().try_fold(Tensor::zeros((), DType::F32, &Device::Cpu)?, |sum, (_, v)| {
                    sum + v.to_dtype(DType::F32)?.sqr()?.sum_all()?
                })
            });
            assert!(moved, "{text}: the second evaluation is elsewhere");
            assert!(result.expect_err("it failed").to_string().contains("out of data"));
            for ((name, var), before) in params.iter().zip(&before) {
                assert_eq!(values(var)?, *before, "{text} {name}");
            }
        }
    }
    Ok(())
}

#[test]
fn sam_with_a_closure_equals_its_two_steps() -> Result<()> {
    // A rule that takes a second gradient gets none by a plain step.
    for text in RULES.iter().filter(|text| by_name(text).expect(text).curvature().is_none()) {
        let run = |closure: bool| -> Result<(f64, Vec<f64>)> {
            let x = Var::from_vec(noise(0, 0, 10), 10, &Device::Cpu)?;
            let loss = || x.as_tensor().powf(4.0)?.sum_all();
            let mut optimizer = optimizer(text, &[("x".to_string(), x.clone())]);
            let value = if closure {
                optimizer.step_with(|_| loss())?
            } else {
                let value = loss()?;
                if optimizer.params().sharpness().is_some() {
                    optimizer.first_step(&value.backward()?)?;
                    assert_ne!(values(&x)?, noise(0, 0, 10), "{text}");
                    optimizer.backward_step(&loss()?)?; // completes the update
                } else {
                    optimizer.backward_step(&value)?;
                }
                value
            };
            Ok((value.to_scalar()?, values(&x)?))
        };
        assert_eq!(run(true)?, run(false)?, "{text}");
    }
    Ok(())
}

#[test]
fn texts_read_back_and_flags_change_the_state() {
    // A corrected decay asks for the peak of a schedule, which is not there where the values are set by hand.
    for text in RULES.iter().filter(|text| !text.contains("corrected_decay")) {
        let rule = by_name(text).expect(text);
        assert_eq!(by_name(&rule.to_string()).expect("its own text"), rule, "{rule}");
        for hyperparameter in rule.hyperparameters() {
            assert!(rule.get(hyperparameter.name).is_ok(), "{text} {}", hyperparameter.name);
            assert!(!hyperparameter.doc.is_empty(), "{text} {}", hyperparameter.name);
        }
    }
    // A flag set between two steps adds its slot and keeps the others.
    let params = start(DType::F32).expect("parameters");
    let mut optimizer = optimizer("rmsprop", &params);
    train(&mut optimizer, &params, 1, 2);
    let before = optimizer.state_dict().expect("state").tensors["a.square_avg"].clone();
    let mut rule: AnyRule = optimizer.params().clone();
    rule.set("momentum", 0.9.into()).expect("in range");
    rule.set("alpha", 0.0.into()).expect("in range");
    optimizer.set_params(rule);
    optimizer.freeze(|name| name != "b");
    train(&mut optimizer, &params, 3, 1);
    optimizer.unfreeze(|_| true);
    train(&mut optimizer, &params, 4, 1);
    let state = optimizer.state_dict().expect("state");
    assert!(state.tensors.contains_key("b.momentum_buffer") && state.tensors.contains_key("a.momentum_buffer"));
    assert_ne!(values(&before).expect("values"), values(&state.tensors["a.square_avg"]).expect("values"));
}

#[test]
fn a_norm_of_zero_leaves_the_trust_ratio_at_one() -> Result<()> {
    for (theta, grad, expected) in [(0.0f64, 1.0f64, -0.1), (1.0, 0.0, 1.0), (0.0, 0.0, 0.0)] {
        let x = Var::from_vec(vec![theta; 4], 4, &Device::Cpu)?;
        let mut store = empty_grads()?;
        store.insert(&x, Tensor::from_vec(vec![grad; 4], 4, &Device::Cpu)?);
        // The first direction of a constant gradient has size 1 per element.
        optimizer("lamb:lr=0.1,eps=1e-30,weight_decay=0", &[("x".to_string(), x.clone())]).step(&store)?;
        let after = values(&x)?;
        assert!(after.iter().all(|x| (x - expected).abs() < 1e-12), "{theta} {grad}: {after:?}");
    }
    Ok(())
}

#[test]
fn a_centered_variance_that_rounds_below_zero_counts_as_zero() {
    // With equal gradients v - a^2 comes to 0, on either side of it by rounding.
    let kernels = rules::kernels();
    let kernel = kernels.iter().find(|k| k.name == "rmsprop_centered").expect("the kernel");
    let mut below = 0;
    for i in 1..2_000 {
        let g = f64::from(i) / 977.0;
        let (mut slots, mut mean) = ([g * g, g, 0.0, 0.0], g);
        let direction = (kernel.direction_f64)(&[0.9, 1.0 - 0.9, 1e-8, 0.0, 0.0], g, 0.0, &mut slots);
        mean += (1.0 - 0.9) * (g - mean);
        below += usize::from(0.9 * (g * g) + (1.0 - 0.9) * (g * g) < mean * mean);
        assert!((direction - g / 1e-4).abs() < 1e-2 * g / 1e-4, "{g}: {direction}");
    }
    assert!(below > 0, "the case occurs");
}

#[test]
fn rprop_keeps_its_sign_where_the_product_of_two_gradients_is_zero() -> Result<()> {
    let x = Var::zeros(2, DType::F32, &Device::Cpu)?;
    let mut optimizer = optimizer("rprop:lr=1", &[("x".to_string(), x.clone())]);
    for _ in 0..2 {
        let mut store = empty_grads()?;
        store.insert(&x, Tensor::new(&[1e-30f32, -1e-40], &Device::Cpu)?);
        optimizer.step(&store)?;
    }
    // 1, and then 1.2 times as much.
    assert_eq!(x.to_vec1::<f32>()?, [-2.2, 2.2]);
    Ok(())
}

#[test]
fn the_mean_of_asgd_is_the_parameter_before_it_starts() -> Result<()> {
    let params = start(DType::F32)?;
    let mut optimizer = optimizer("asgd:lr=0.3,t0=3", &params);
    for t in 1..=6 {
        train(&mut optimizer, &params, t, 1);
        let state = optimizer.state_dict()?;
        for (name, var) in &params {
            let mean = values(&state.tensors[&format!("{name}.ax")])?;
            assert_eq!(mean == values(var)?, t <= 5, "{name} at {t}");
        }
    }
    Ok(())
}

/// What happens, and the whole message.
type Failure = (&'static str, fn() -> optim::Result<()>, &'static str);

fn adamw(params: Vec<(String, Var)>) -> optim::Result<AnyOptimizer> {
    AnyOptimizer::from_groups(vec![Group::new(params, by_name("adamw")?)])
}

fn named(names: &[&str]) -> Vec<(String, Var)> {
    let var = || Var::zeros((2, 3), DType::F32, &Device::Cpu).expect("a variable");
    names.iter().map(|name| (name.to_string(), var())).collect()
}

fn with_gradient(grad: Tensor) -> optim::Result<()> {
    let params = named(&["layer.weight"]);
    let mut store = empty_grads()?;
    store.insert(&params[0].1, grad);
    Ok(adamw(params)?.step(&store)?)
}

fn load(change: impl Fn(&mut optim::StateDict)) -> optim::Result<()> {
    let params = start(DType::F32)?;
    let mut optimizer = optimizer("adamw", &params);
    train(&mut optimizer, &params, 1, 2);
    let mut state = optimizer.state_dict()?;
    change(&mut state);
    let before = bits(&optimizer, &params);
    let result = optimizer.load_state_dict(&state);
    assert!(bits(&optimizer, &params) == before, "a refused state changes nothing");
    result
}

const NO_PARAMETERS: &str = "the optimizer has no parameters: a `VarMap` has them once the model is built; or add them by `push` before the first step";

/// `{rules}` and `{bases}` stand for the names of all rules, with SAM and without.
const FAILURES: [Failure; 38] = [
    ("rule", || by_name("adamm").map(drop), "unknown optimizer `adamm`: did you mean `adam`? ({rules})"),
    ("far rule", || by_name("quasi-newton").map(drop), "unknown optimizer `quasi-newton`: known are ({rules})"),
    ("empty", || by_name("").map(drop), "unknown optimizer ``: known are ({rules})"),
    ("base", || by_name("sam:base=sam").map(drop), "sam cannot go around itself: base must be one of {bases}"),
    (
        "key",
        || by_name("adamw:beta3=0.9").map(drop),
        "adamw has no hyperparameter `beta3`: did you mean `beta2`? (lr, beta1, beta2, eps, weight_decay)",
    ),
    (
        "key of sam",
        || by_name("sam:base=lion,eps=1").map(drop),
        "sam:base=lion has no hyperparameter `eps`: known are (rho, adaptive, lr, beta1, beta2, weight_decay)",
    ),
    ("twice", || by_name("adamw:lr=1,lr=2").map(drop), "adamw: `lr` is given twice"),
    ("pair", || by_name("adamw:lr").map(drop), "adamw: `lr` is not of the form key=value"),
    ("number", || by_name("adamw:lr=fast").map(drop), "adamw: lr = fast is out of range: it must be a number >= 0"),
    (
        "range",
        || by_name("adamw:beta2=1").map(drop),
        "adamw: beta2 = 1.0 is out of range: it must be a number in [0, 1)",
    ),
    ("nan", || by_name("adamw:lr=nan").map(drop), "adamw: lr = NaN is out of range: it must be a number >= 0"),
    (
        "infinite",
        || by_name("lion:weight_decay=inf").map(drop),
        "lion: weight_decay = inf is out of range: it must be a number >= 0",
    ),
    (
        "open fraction",
        || by_name("rprop:etaminus=1").map(drop),
        "rprop: etaminus = 1.0 is out of range: it must be a number in (0, 1)",
    ),
    (
        "above one",
        || by_name("rprop:etaplus=1").map(drop),
        "rprop: etaplus = 1.0 is out of range: it must be a number > 1",
    ),
    ("flag", || by_name("sgd:nesterov=yes").map(drop), "sgd: nesterov = yes is out of range: it must be true or false"),
    (
        "struct",
        || {
            optim::AdamW::from_groups(vec![Group::new(vec![], rules::AdamW { beta1: -0.1, ..Default::default() })])
                .map(drop)
        },
        "adamw: beta1 = -0.1 is out of range: it must be a number in [0, 1)",
    ),
    (
        "set_params",
        || {
            let params = start(DType::F32)?;
            let mut o = adamw(params.clone())?;
            o.set_learning_rate(-1.0);
            Ok(o.step(&grads(&params, 1, 1.0, |_| true)?)?)
        },
        "adamw: lr = -1.0 is out of range: it must be a number >= 0",
    ),
    (
        "schedule",
        || Group::new(vec![], by_name("adamw")?).schedule("beta", "constant:lr=0.5".parse()?).map(drop),
        "adamw has no hyperparameter `beta`: did you mean `beta2`? (lr, beta1, beta2, eps, weight_decay)",
    ),
    (
        "tied",
        || {
            let mut p = named(&["embedding"]);
            p.push(("head".into(), p[0].1.clone()));
            adamw(p).map(drop)
        },
        "parameters `embedding` and `head` share their storage: give a tied parameter once",
    ),
    (
        "same name",
        || adamw(named(&["w", "w"])).map(drop),
        "two parameters are named `w`: state is kept by name, so names must differ",
    ),
    (
        "dtype",
        || adamw(vec![("ids".into(), Var::zeros(3, DType::U32, &Device::Cpu)?)]).map(drop),
        "parameter `ids`: its type is U32, but must be f32, f64, bf16 or f16",
    ),
    (
        "shape",
        || with_gradient(Tensor::zeros((3, 2), DType::F32, &Device::Cpu)?),
        "parameter `layer.weight`: its gradient has the shape [3, 2], but it has [2, 3]",
    ),
    (
        "integer gradient",
        || with_gradient(Tensor::zeros((2, 3), DType::I64, &Device::Cpu)?),
        "parameter `layer.weight`: its gradient has the type I64",
    ),
    (
        "no gradient",
        || Ok(adamw(named(&["a", "b"]))?.step(&empty_grads()?)?),
        "no gradient for any of the 2 parameters that are not frozen: does the loss depend on them?",
    ),
    ("no parameters", || optim::AdamW::named(&VarMap::new(), Default::default()).map(drop), NO_PARAMETERS),
    ("no variables", || Ok(optim::AdamW::new(vec![], Default::default()).map(drop)?), NO_PARAMETERS),
    ("nothing pushed", || Ok(adamw(vec![])?.step(&empty_grads()?)?), NO_PARAMETERS),
    (
        "half of f16",
        || adamw(vec![("w".into(), Var::zeros(3, DType::F16, &Device::Cpu)?)])?.set_stochastic_rounding(Some(1)),
        "parameter `w`: its type is F16, but stochastic rounding is of bf16 parameters: choose bf16, or master copies",
    ),
    (
        "f16 pushed later",
        || {
            let mut optimizer = adamw(named(&["a"]))?;
            optimizer.set_stochastic_rounding(Some(1))?;
            optimizer.push(&Var::zeros(3, DType::F16, &Device::Cpu)?)
        },
        "parameter `1`: its type is F16, but stochastic rounding is of bf16 parameters: choose bf16, or master copies",
    ),
    (
        "sam in one step",
        || Ok(optimizer("sam", &named(&["a"])).step(&empty_grads()?)?),
        "step: sam needs two gradients: call step_with(closure), or first_step before and second_step after the second gradient",
    ),
    (
        "master of f32",
        || load(|state| drop(state.tensors.insert("a.master".into(), state.tensors["a.exp_avg"].clone()))),
        "saved state: `a.master` is unknown: the optimizer has no such parameter or slot",
    ),
    (
        "key twice in two spellings",
        || by_name("adamw:weight-decay=1,weight_decay=2").map(drop),
        "adamw: `weight_decay` is given twice",
    ),
    (
        "unnamed",
        || AnyOptimizer::new(vec![Var::zeros(1, DType::F32, &Device::Cpu)?], by_name("adamw")?)?.state_dict().map(drop),
        "this optimizer was made without names of parameters, so its state cannot be saved: make it with `named(&varmap, config)`",
    ),
    ("not sam", || adamw(named(&["a"]))?.first_step(&empty_grads()?), "first_step: the rule is not sam"),
    (
        "clip",
        || adamw(vec![])?.set_clip(Some(Clip::GlobalNorm(0.0))),
        "clip: norm = 0 is out of range: it must be a number > 0",
    ),
    (
        "missing key",
        || load(|state| drop(state.tensors.remove("c.exp_avg_sq"))),
        "saved state: `c.exp_avg_sq` is missing",
    ),
    (
        "unknown key",
        || load(|state| drop(state.tensors.insert("e.exp_avg".into(), state.tensors["a.exp_avg"].clone()))),
        "saved state: `e.exp_avg` is unknown: the optimizer has no such parameter or slot",
    ),
    (
        "state shape",
        || load(|state| drop(state.tensors.insert("a.exp_avg".into(), state.tensors["b.exp_avg"].clone()))),
        "saved state: `a.exp_avg` has the shape [7], but the optimizer has [3, 5]",
    ),
];

#[test]
fn every_failure_names_the_thing_the_value_and_what_is_allowed() {
    let names: Vec<&str> = rules::specs().map(|spec| spec.name).collect();
    let (all, bases) = (names.join(", "), names[..names.len() - 1].join(", "));
    for (name, fails, message) in FAILURES {
        let error = fails().expect_err(name).to_string();
        assert_eq!(error, message.replace("{rules}", &all).replace("{bases}", &bases), "{name}");
    }
    let refused = |key: &str, value: &str| {
        load(|state| drop(state.metadata.insert(key.to_string(), value.to_string()))).expect_err(key).to_string()
    };
    assert_eq!(refused("version", "9"), "saved state: its version is 9, but this program reads 1");
    assert_eq!(refused("rules", "lion"), "saved state: it is of `lion`, but the optimizer is `adamw`");
    let missing = optim::StateDict::load("no/such/file").expect_err("it is not there").to_string();
    assert!(missing.starts_with("no/such/file: "), "{missing}");
}

#[test]
fn a_varmap_is_sorted_and_integers_are_left_out() -> Result<()> {
    let varmap = VarMap::new();
    for (name, dtype) in [("z", DType::F32), ("a", DType::F64), ("ids", DType::U32), ("m", DType::BF16)] {
        varmap.data().lock().expect("the map").insert(name.to_string(), Var::zeros(2, dtype, &Device::Cpu)?);
    }
    let names: Vec<String> = named_params(&varmap).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["a", "m", "z"]);
    assert_eq!(optim::AdamW::new(varmap.all_vars(), Default::default())?.into_inner().len(), 3);
    Ok(())
}

/// Schedules that take each number of a rule through what it may be: on and off again, where 0 is off and may be.
fn schedules_of(text: &str) -> Vec<(String, Schedule)> {
    let rule = by_name(text).expect(text);
    // A schedule is of numbers that are not negative.
    let has_schedules = |range: Range| range.contains(0.5) || range.contains(1.5);
    let numbers = rule.hyperparameters().into_iter().filter(|h| h.allowed.range().is_some_and(has_schedules));
    let texts = [
        "linear:lr=0,end_lr=0.8,steps=4",
        "linear:lr=0.8,end_lr=0,steps=4",
        "constant:lr=0 until 2 then constant:lr=0.9 until 4 then constant:lr=0 until 6 then constant:lr=0.5",
    ];
    let without_zero = ["linear:lr=0.1,end_lr=0.8,steps=4", "linear:lr=1.8,end_lr=1.1,steps=4"];
    let all = numbers.flat_map(|h| {
        let fits = |schedule: &Schedule| (0..8).all(|t| h.allowed.range().expect("a number").contains(schedule.at(t)));
        let fitting = |texts: &[&str]| -> Vec<Schedule> {
            texts.iter().map(|text| text.parse().expect(text)).filter(fits).collect()
        };
        let mut schedules = fitting(&texts);
        if schedules.is_empty() {
            schedules = fitting(&without_zero);
        }
        assert!(!schedules.is_empty(), "{text} {}", h.name);
        schedules.into_iter().map(|schedule| (h.name.to_string(), schedule))
    });
    all.collect()
}

#[test]
fn a_run_resumes_at_any_step_of_any_schedule() {
    let mut resumed = 0;
    for text in RULES {
        for (key, schedule) in schedules_of(text) {
            for (dtype, master) in [(DType::F32, false), (DType::BF16, true)] {
                let make = || {
                    let params = start(dtype).expect("parameters");
                    let group = Group::new(params.clone(), by_name(text).expect(text));
                    let group = group.schedule(&key, schedule.clone()).expect("a schedule");
                    let mut optimizer = AnyOptimizer::from_groups(vec![group]).expect(text);
                    optimizer.set_master_copies(master).expect("before the first step");
                    (optimizer, params)
                };
                let (mut whole, whole_params) = make();
                let mut saved = Vec::new();
                for t in 1..=8 {
                    let values: Vec<Tensor> =
                        whole_params.iter().map(|(_, v)| v.force_contiguous().expect("a copy")).collect();
                    saved.push((t, whole.state_dict().expect("state"), values));
                    train(&mut whole, &whole_params, t, 1);
                }
                for (t, state, values) in saved {
                    let (mut optimizer, params) = make();
                    params.iter().zip(&values).for_each(|((_, var), value)| var.set(value).expect("set"));
                    optimizer.load_state_dict(&state).unwrap_or_else(|e| panic!("{text} {key}={schedule} at {t}: {e}"));
                    train(&mut optimizer, &params, t, 9 - t);
                    let same = bits(&optimizer, &params) == bits(&whole, &whole_params);
                    assert!(same, "{text} {key}={schedule} {dtype:?}, resumed before update {t}");
                    resumed += 1;
                }
            }
        }
    }
    assert!(resumed > 3_000, "{resumed}");
}

#[test]
fn momentum_and_centring_are_switched_on_and_off_at_resume() -> Result<()> {
    let with = |text: &str, state: Option<&optim::StateDict>| -> Result<(AnyOptimizer, Vec<(String, Var)>)> {
        let params = start(DType::F64)?;
        let mut optimizer = optimizer(text, &params);
        if let Some(state) = state {
            optimizer.load_state_dict(state)?;
        }
        Ok((optimizer, params))
    };
    let slots = |optimizer: &AnyOptimizer| -> Result<Vec<String>> {
        let state = optimizer.state_dict()?;
        let slots = state.tensors.keys().filter_map(|key| key.strip_prefix("a.").map(str::to_string));
        Ok(slots.filter(|slot| slot != "step").collect())
    };
    for (before, after, expected) in [
        ("sgd", "sgd:momentum=0.9", &["momentum_buffer"][..]),
        ("sgd:momentum=0.9", "sgd", &[]),
        ("rmsprop", "rmsprop:centered=true,momentum=0.5", &["grad_avg", "momentum_buffer", "square_avg"]),
        ("rmsprop:centered=true,momentum=0.5", "rmsprop", &["square_avg"]),
        ("rmsprop:centered=true", "rmsprop:momentum=0.5", &["momentum_buffer", "square_avg"]),
    ] {
        let (mut first, params) = with(before, None)?;
        train(&mut first, &params, 1, 2);
        let (mut second, params) = with(after, Some(&first.state_dict()?))?;
        train(&mut second, &params, 3, 1);
        assert_eq!(slots(&second)?, expected, "{before} to {after}");
    }
    // A slot that no hyperparameters of the rule use, or that all need, is refused.
    let (mut first, params) = with("rmsprop", None)?;
    train(&mut first, &params, 1, 2);
    let mut state = first.state_dict()?;
    state.tensors.remove("b.square_avg");
    let error = with("rmsprop", Some(&state)).expect_err("it is missing").to_string();
    assert_eq!(error, "saved state: `b.square_avg` is missing");
    Ok(())
}

#[test]
fn what_someone_else_writes_into_a_parameter_stays() -> Result<()> {
    // Four steps of 0.25 from 1, then 1 is loaded: with a master copy too the next step gives 0.75.
    for dtype in [DType::BF16, DType::F16, DType::F32] {
        for length in [1, 5, 40_000] {
            let w = Var::ones(length, dtype, &Device::Cpu)?;
            let mut optimizer = optimizer("sgd:lr=0.25", &[("w".to_string(), w.clone())]);
            optimizer.set_master_copies(true)?;
            let mut store = empty_grads()?;
            store.insert(&w, Tensor::ones(length, dtype, &Device::Cpu)?);
            for _ in 0..4 {
                optimizer.step(&store)?;
            }
            assert_eq!(values(&w)?, vec![0.0; length]);
            // One element alone is written: the others go on.
            let mut written = vec![0.0; length];
            written[length / 2] = 1.0;
            w.set(&Tensor::new(written, &Device::Cpu)?.to_dtype(dtype)?)?;
            optimizer.step(&store)?;
            let mut expected = vec![-0.25; length];
            expected[length / 2] = 0.75;
            assert_eq!(values(&w)?, expected, "{dtype:?} {length}");
        }
    }
    // A change that the parameter's type cannot show leaves the master copy as it is.
    let w = Var::ones(1, DType::BF16, &Device::Cpu)?;
    let mut optimizer = optimizer("sgd:lr=0.001", &[("w".to_string(), w.clone())]);
    optimizer.set_master_copies(true)?;
    let mut store = empty_grads()?;
    store.insert(&w, Tensor::ones(1, DType::BF16, &Device::Cpu)?);
    for _ in 0..100 {
        let same = w.force_contiguous()?;
        w.set(&same)?;
        optimizer.step(&store)?;
    }
    assert!((values(&optimizer.state_dict()?.tensors["w.master"])?[0] - 0.9).abs() < 1e-5);
    Ok(())
}

#[test]
fn what_is_written_between_sams_steps_stays_and_the_rest_is_restored() -> Result<()> {
    for text in RULES.iter().filter(|text| text.starts_with("sam")) {
        for dtype in [DType::F32, DType::F64, DType::BF16, DType::F16] {
            for gradient in [1.0, f64::NAN] {
                let params = start(dtype)?;
                let before: Vec<_> = params.iter().map(|(_, v)| values(v)).collect::<Result<_>>()?;
                let mut optimizer = optimizer(text, &params);
                let mut store = empty_grads()?;
                for (_, var) in &params {
                    store.insert(var, (var.ones_like()? * gradient)?);
                }
                optimizer.first_step(&store)?;
                let mut loaded = values(&params[1].1)?;
                loaded[2] = 0.5;
                let loaded = Tensor::new(loaded, &Device::Cpu)?.to_dtype(dtype)?;
                params[1].1.set(&loaded)?;
                optimizer.cancel_first_step()?;
                for ((name, var), mut before) in params.iter().zip(before) {
                    if name == "b" {
                        before[2] = 0.5;
                    }
                    assert_eq!(values(var)?, before, "{text} {dtype:?} {gradient} {name}");
                }
            }
        }
    }
    Ok(())
}

#[test]
fn freezing_drops_what_was_accumulated() -> Result<()> {
    let params: Vec<(String, Var)> = ["a", "b"]
        .iter()
        .map(|name| Ok((name.to_string(), Var::ones((), DType::F64, &Device::Cpu)?)))
        .collect::<Result<_>>()?;
    let mut optimizer = optimizer("sgd:lr=0.1", &params);
    let mut store = empty_grads()?;
    params
        .iter()
        .for_each(|(_, var)| drop(store.insert(var, Tensor::ones((), DType::F64, &Device::Cpu).expect("one"))));
    let now = || -> Result<Vec<f64>> { params.iter().map(|(_, v)| v.to_scalar()).collect() };
    optimizer.accumulate(&store)?;
    optimizer.freeze(|name| name == "a");
    optimizer.accumulate(&store)?;
    optimizer.step_accumulated()?;
    assert_eq!(now()?, [1.0, 0.9]);
    // Taken back in between two micro-batches it has the gradient of one of them.
    optimizer.accumulate(&store)?;
    optimizer.unfreeze(|_| true);
    optimizer.accumulate(&store)?;
    optimizer.step_accumulated()?;
    assert_eq!(now()?, [0.95, 0.8]);
    // What was dropped does not come back.
    optimizer.accumulate(&store)?;
    assert_eq!(optimizer.discard_accumulated(), 1);
    optimizer.step(&store)?;
    assert_eq!(now()?, [0.95 - 0.1, 0.8 - 0.1]);
    Ok(())
}

#[test]
fn every_path_gives_the_same_kind_of_error() -> Result<()> {
    let is_no_gradient = |error: optim::Error| matches!(error, optim::Error::NoGradient { count: 4 });
    for text in RULES {
        let params = start(DType::F32)?;
        let mut optimizer = optimizer(text, &params);
        let constant = || Var::ones((), DType::F32, &Device::Cpu)?.sqr();
        let is_sam = optimizer.params().sharpness().is_some();
        assert!(is_no_gradient(optimizer.step_with(|_| constant()).expect_err(text)), "{text}");
        assert!(is_no_gradient(optimizer.accumulate(&empty_grads()?).expect_err(text)), "{text}");
        if is_sam {
            assert!(is_no_gradient(optimizer.first_step(&empty_grads()?).expect_err(text)), "{text}");
            optimizer.first_step(&grads(&params, 1, 1.0, |_| true)?)?;
        }
        for error in
            [optimizer.step(&empty_grads()?).expect_err(text), optimizer.backward_step(&constant()?).expect_err(text)]
        {
            assert!(
                matches!(optim::Error::of(&error), Some(optim::Error::NoGradient { count: 4 })),
                "{text}: {error:?}"
            );
            assert_eq!(error.to_string(), optim::Error::NoGradient { count: 4 }.to_string());
            let context = error.context("training").with_path("model");
            assert!(optim::Error::of(&context).is_some());
        }
    }
    let other = candle_core::Error::Msg("another".to_string()).bt();
    assert!(optim::Error::of(&other).is_none() && matches!(other.into(), optim::Error::Candle(_)));
    Ok(())
}

#[test]
fn names_compare_without_case_and_hyphens() {
    for (text, same) in [
        ("AdamW", "adamw"),
        ("ADAMW", "adamw"),
        ("adam-w", "adamw"),
        ("RMS_prop:Eps-Inside=false", "rmsprop:eps_inside=false"),
        ("SAM:Base=AdamW,weight-decay=0.5", "sam:base=adamw,weight_decay=0.5"),
    ] {
        assert_eq!(by_name(text).expect(text), by_name(same).expect(same), "{text}");
    }
    let schedule = |text: &str| text.parse::<Schedule>().expect(text);
    assert_eq!(
        schedule("Warmup-Cosine:LR=1,warmup=2,min-lr=0,steps=9"),
        schedule("warmup_cosine:lr=1,warmup=2,min_lr=0,steps=9")
    );
    assert_eq!(optim::recipes::by_name("LLM", 1).expect("a recipe").name, "llm");
    let error = by_name("Adam-V").expect_err("there is none").to_string();
    assert!(error.starts_with("unknown optimizer `Adam-V`: did you mean `adam"), "{error}");
}

#[test]
fn a_step_inside_a_busy_pool_ends() {
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
    // Tasks of the same pool read the parameters all the time: a step that ran one of them while it holds the locks, or that
    // waited for threads which wait for the locks, would never end.
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for threads in [1, 2, 3] {
            for text in ["adamw", "lamb"] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
                let tensors: [(&str, &[usize]); 3] = [("a", &[300_000]), ("b", &[40_000]), ("c", &[7])];
                let params = start_of(&tensors, DType::F32).expect("parameters");
                let mut optimizer = optimizer(text, &params);
                optimizer.set_clip(Some(Clip::GlobalNorm(1.0))).expect("a clip");
                let is_over = AtomicBool::new(false);
                std::thread::scope(|scope| {
                    for _ in 0..4 {
                        scope.spawn(|| {
                            while !is_over.load(SeqCst) {
                                let (params, (send, receive)) = (params.clone(), std::sync::mpsc::channel());
                                pool.spawn(move || {
                                    let lengths = params.iter().map(|(_, v)| values(v).expect("values").len());
                                    send.send(lengths.sum::<usize>()).expect("it is waited for");
                                });
                                assert_eq!(receive.recv(), Ok(340_007));
                            }
                        });
                    }
                    pool.install(|| {
                        for t in 1..60 {
                            let gradients = grads(&params, t, 1.0, |_| true).expect("gradients");
                            optimizer.step(&gradients).expect("step");
                        }
                    });
                    is_over.store(true, SeqCst);
                });
            }
        }
        done.send(()).expect("the test waits");
    });
    ended.recv_timeout(std::time::Duration::from_secs(240)).expect("every step ends");
}

#[test]
fn state_that_decays_becomes_zero_and_what_grows_is_left() -> Result<()> {
    // Where the smallest number shows, it stays.
    for text in RULES.iter().filter(|text| by_name(text).expect(text).smallest_state() > 0.0) {
        let params = start(DType::F32)?;
        let mut optimizer = optimizer(text, &params);
        train(&mut optimizer, &params, 1, 3);
        let mut zero = empty_grads()?;
        params.iter().for_each(|(_, var)| drop(zero.insert(var, var.zeros_like().expect("zeros"))));
        let mut rule = optimizer.params().clone();
        let short = [
            ("beta1", 0.5),
            ("beta2", 0.6),
            ("adamw_beta1", 0.5),
            ("adamw_beta2", 0.6),
            ("beta3", 0.5),
            ("alpha", 0.5),
            ("rho", 0.5),
            ("momentum", 0.5),
            ("weight_decay", 0.0),
        ];
        for (key, value) in short {
            // Short means, so that they are gone soon; momentum where there is some.
            if rule.field(key).is_some_and(|old| f64::from(old) != 0.0 || key == "beta3") {
                rule.set(key, value.into())?;
            }
        }
        optimizer.set_params(rule);
        for _ in 0..320 {
            step(&mut optimizer, &zero)?;
        }
        let is_matrix = |key: &str| {
            let dims = params.iter().find(|(name, _)| key.starts_with(&format!("{name}."))).map(|(_, var)| var.dims());
            dims.is_some_and(|dims| optimizer.params().matrix().is_some_and(|rule| rule.is_matrix("", dims)))
        };
        for (key, tensor) in optimizer.state_dict()?.tensors {
            // A count, a maximum, a sum, numbers on the host, points, AdaBelief's mean square with eps, and Yogi's, which moves by shares
            // of the gradient's.
            let others = [
                "step",
                "max_exp_avg_sq",
                "exp_inf",
                "sum",
                "mu_product",
                "exp_avg_lr",
                "exp_avg_var",
                ".z",
                "lr_max",
                ".p0",
                "all.prodigy",
            ];
            let is_yogis = text.starts_with("yogi") && key.ends_with("exp_avg_sq");
            let is_mean = !is_yogis && !others.iter().any(|other| key.ends_with(other));
            // Of matrices the momentum, but where its sign is taken.
            if is_matrix(&key) && (!key.ends_with("momentum_buffer") || text.starts_with("adamuon")) {
                continue;
            }
            assert!(!is_mean || values(&tensor)?.iter().all(|x| *x == 0.0), "{text} {key}");
        }
    }
    // A mean square that grows from nothing in steps that are too small to count alone.
    let x = Var::ones(3, DType::F32, &Device::Cpu)?;
    let mut optimizer = optimizer("adam", &[("x".to_string(), x.clone())]);
    let mut store = empty_grads()?;
    store.insert(&x, (x.ones_like()? * 3e-19)?);
    for _ in 0..3_000 {
        optimizer.step(&store)?;
    }
    let state = values(&optimizer.state_dict()?.tensors["x.exp_avg_sq"])?;
    let expected = 9e-38 * (1.0 - 0.999f64.powi(3_000));
    assert!(state.iter().all(|v| (v - expected).abs() < 0.01 * expected), "{state:?} {expected}");
    Ok(())
}
