//! What every device must do, over the table of rules: the same as the CPU. Where bits may differ, the check says by how
//! much and why.
#![allow(dead_code, reason = "each program uses a part")]

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use optim::{AnyOptimizer, Clip, Group, Optimizer, Rule, by_name, rules};
use std::collections::BTreeSet;

pub type Outcome = Result<String, Box<dyn std::error::Error>>;

/// A device, and how a step on it is run.
pub struct Target<'a> {
    pub device: Device,
    /// Whether norms are sums in two floats, as on Metal, rather than doubles; there is no f64 then.
    pub is_metal: bool,
    /// Calls its argument; a stand-in for a device is on meanwhile.
    pub run: &'a dyn Fn(&mut dyn FnMut()),
}

impl Target<'_> {
    fn on<T>(&self, f: impl FnOnce() -> T) -> T {
        let (mut f, mut out) = (Some(f), None);
        (self.run)(&mut || out = f.take().map(|f| f()));
        out.expect("it was run")
    }
}

/// The CPU.
pub const CPU: Target<'static> = Target { device: Device::Cpu, is_metal: false, run: &|f| f() };

pub type Check = fn(&Target) -> Outcome;

pub const CHECKS: [(&str, Check); 9] = [
    ("every rule, every mix of types", updates),
    ("many tensors, small and large", sizes),
    ("clipping", clipping),
    ("gradients that are not finite", not_finite),
    ("sums of gradients", sums),
    ("groups, late and frozen parameters", groups),
    ("state to the CPU and back", state),
    ("stochastic rounding", rounding),
    ("the same bits twice, and errors", twice),
];

/// Each rule with its defaults, and the flags that change what state it keeps or how it steps.
pub const RULES: [&str; 16] = [
    "sgd",
    "sgd:momentum=0.9,dampening=0.1,weight_decay=0.01",
    "sgd:momentum=0.9,nesterov=true",
    "rmsprop",
    "rmsprop:momentum=0.9,eps_inside=false",
    "rmsprop:centered=true,weight_decay=0.01",
    "rmsprop:centered=true,momentum=0.9",
    "adam:weight_decay=0.01",
    "amsgrad",
    "adamw",
    "lion:weight_decay=0.1",
    "lamb",
    "lamb:trust_clip=true,bias_correction=false",
    "sam:momentum=0.9",
    "sam:base=adamw,adaptive=true,rho=0.5",
    "sam:base=lamb",
];

/// Types of parameter and gradient, and whether there is a master copy.
const TYPES: [(DType, DType, bool); 7] = [
    (DType::F32, DType::F32, false),
    (DType::F64, DType::F64, false),
    (DType::BF16, DType::BF16, false),
    (DType::BF16, DType::F32, false),
    (DType::BF16, DType::BF16, true),
    (DType::F16, DType::F16, false),
    (DType::F16, DType::F32, true),
];

/// Around the lengths of vectors, blocks and chunks.
const SIZES: [usize; 11] = [0, 1, 3, 255, 256, 257, 1_025, 4_095, 4_096, 4_097, 10_007];

fn noise(seed: u64, len: usize) -> Vec<f64> {
    let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x >> 40) as f64 / (1u64 << 23) as f64 - 1.0
    };
    let _ = (0..8).map(|_| next()).sum::<f64>();
    (0..len).map(|_| next()).collect()
}

/// What is run on a device and on the CPU.
#[derive(Clone)]
struct Run<'a> {
    text: &'a str,
    types: (DType, DType, bool),
    sizes: &'a [usize],
    steps: u64,
    clip: Option<Clip>,
    seed: Option<u64>,
    scale: f64,
}

impl<'a> Run<'a> {
    fn new(text: &'a str, types: (DType, DType, bool), sizes: &'a [usize], steps: u64) -> Self {
        Self { text, types, sizes, steps, clip: None, seed: None, scale: 1.0 }
    }

    fn params(&self, device: &Device) -> candle_core::Result<Vec<(String, Var)>> {
        let param = |(i, len): (usize, &usize)| {
            let start = Tensor::from_vec(noise(i as u64, *len), *len, &Device::Cpu)?;
            Ok((format!("{i:03}"), Var::from_tensor(&start.to_dtype(self.types.0)?.to_device(device)?)?))
        };
        self.sizes.iter().enumerate().map(param).collect()
    }

    /// The gradients of a step: noise, whatever the parameters are.
    fn grads(&self, params: &[(String, Var)], step: u64) -> candle_core::Result<GradStore> {
        let mut store = Var::zeros((), DType::F32, &Device::Cpu)?.as_tensor().sqr()?.backward()?;
        for (i, (_, var)) in params.iter().enumerate() {
            let noise = noise(1_000 * step + i as u64, var.elem_count()).into_iter().map(|x| x * self.scale);
            let grad = Tensor::from_iter(noise.collect::<Vec<f64>>(), &Device::Cpu)?;
            store.insert(var, grad.to_dtype(self.types.1)?.to_device(var.device())?);
        }
        Ok(store)
    }

    fn optimizer(&self, params: &[(String, Var)]) -> optim::Result<AnyOptimizer> {
        let mut optimizer = AnyOptimizer::from_groups(vec![Group::new(params.to_vec(), by_name(self.text)?)])?;
        optimizer.set_clip(self.clip)?;
        optimizer.set_master_copies(self.types.2)?;
        optimizer.set_stochastic_rounding(self.seed);
        Ok(optimizer)
    }

    fn step(&self, optimizer: &mut AnyOptimizer, params: &[(String, Var)], step: u64) -> optim::Result<()> {
        if optimizer.params().sharpness().is_some() {
            optimizer.first_step(&self.grads(params, 100 + step)?)?;
        }
        Ok(optimizer.step(&self.grads(params, step)?)?)
    }

    /// Parameters and state after the steps, and the norm.
    fn result(&self, target: &Target) -> Result<Values, Box<dyn std::error::Error>> {
        target.on(|| {
            let params = self.params(&target.device)?;
            let mut optimizer = self.optimizer(&params)?;
            for step in 1..=self.steps {
                self.step(&mut optimizer, &params, step)?;
            }
            Ok(Values { norm: optimizer.grad_norm()?, tensors: values(&optimizer, &params)? })
        })
    }
}

struct Values {
    norm: Option<f64>,
    tensors: Vec<(String, DType, Vec<f64>)>,
}

fn on_host(tensor: &Tensor) -> candle_core::Result<Vec<f64>> {
    tensor.flatten_all()?.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_vec1()
}

fn values(optimizer: &AnyOptimizer, params: &[(String, Var)]) -> optim::Result<Vec<(String, DType, Vec<f64>)>> {
    let state = optimizer.state_dict()?.tensors;
    let params = params.iter().map(|(name, var)| (name, var.as_tensor()));
    params.chain(&state).map(|(name, t)| Ok((name.clone(), t.dtype(), on_host(t)?))).collect()
}

/// How far apart, in units of the last place of the larger number; 0 for the same bits. A difference below 1e-9 is none:
/// where numbers cancel, a last place means nothing.
fn apart(dtype: DType, a: f64, b: f64) -> f64 {
    if a == b || (a.is_nan() && b.is_nan()) {
        return 0.0;
    }
    let digits = match dtype {
        DType::F64 => 52,
        DType::BF16 => 7,
        DType::F16 => 10,
        _ => 23,
    };
    let place = a.abs().max(b.abs()) * 0.5f64.powi(digits);
    if (a - b).abs() < 1e-9 { 0.5 } else { (a - b).abs() / place }
}

/// The largest difference in units of the last place.
fn compare(what: &str, ours: &Values, theirs: &Values, bound: f64) -> Result<f64, Box<dyn std::error::Error>> {
    if ours.tensors.len() != theirs.tensors.len() {
        return Err(format!("{what}: {} and {} tensors", ours.tensors.len(), theirs.tensors.len()).into());
    }
    let mut worst = 0.0f64;
    for ((name, dtype, a), (other, other_dtype, b)) in ours.tensors.iter().zip(&theirs.tensors) {
        if name != other || dtype != other_dtype || a.len() != b.len() {
            return Err(format!("{what}: {name} and {other} differ in kind").into());
        }
        for (i, (a, b)) in a.iter().zip(b).enumerate() {
            let apart = apart(*dtype, *a, *b);
            if apart.is_nan() || apart > bound {
                return Err(format!("{what}: {name}[{i}] is {a:e}, on the CPU {b:e}: {apart:.1} last places").into());
            }
            worst = worst.max(apart);
        }
    }
    Ok(worst)
}

/// Sums have another order than the CPU's, so a norm differs in its last bits, and then what it scales by a last place; three
/// steps add that up. On Metal the sums have 48 bits and the norm 24.
fn bound(text: &str, has_norm: bool) -> f64 {
    if has_norm || text.contains("lamb") || text.contains("sam") { 64.0 } else { 0.0 }
}

fn types<'a>(target: &Target) -> impl Iterator<Item = (DType, DType, bool)> + use<'a> {
    let is_metal = target.is_metal;
    TYPES.into_iter().filter(move |types| !is_metal || types.0 != DType::F64)
}

fn updates(target: &Target) -> Outcome {
    let mut kernels = BTreeSet::new();
    let mut worst = 0.0f64;
    for text in RULES {
        kernels.insert(by_name(text)?.kernel().name);
        for types in types(target) {
            let run = Run::new(text, types, &SIZES, 3);
            let (ours, theirs) = (run.result(target)?, run.result(&CPU)?);
            worst = worst.max(compare(&format!("{text} {types:?}"), &ours, &theirs, bound(text, false))?);
            if types.0 == DType::F32 {
                oracle(text, &ours, &Run::new(text, (DType::F64, DType::F64, false), &SIZES, 3).result(&CPU)?)?;
            }
        }
    }
    let all: BTreeSet<_> = rules::kernels().iter().map(|kernel| kernel.name).collect();
    if kernels != all {
        return Err(format!("kernels {all:?}, checked {kernels:?}").into());
    }
    Ok(format!(
        "{} rules and settings, {} kernels; at most {worst:.1} last places, 0 without norms",
        RULES.len(),
        all.len()
    ))
}

/// f32 against f64: what rounding does in three steps, by the largest number of each tensor.
fn oracle(text: &str, ours: &Values, exact: &Values) -> Result<(), Box<dyn std::error::Error>> {
    for ((name, _, a), (_, _, b)) in ours.tensors.iter().zip(&exact.tensors) {
        let largest = b.iter().fold(0.0f64, |max, x| max.max(x.abs()));
        for (a, b) in a.iter().zip(b) {
            let apart = (a - b).abs();
            if apart.is_nan() || apart > 2e-5 * largest {
                return Err(format!("{text}: {name} is {a:e} in f32, {b:e} in f64").into());
            }
        }
    }
    Ok(())
}

fn sizes(target: &Target) -> Outcome {
    // More than a launch takes, and one that needs hundreds of blocks; a launch in which all are empty.
    let mut sizes: Vec<usize> = (0..300).map(|i| SIZES[i % 7]).collect();
    sizes[150] = 1_000_003;
    for (text, types) in [("adamw", TYPES[0]), ("lamb", TYPES[2]), ("sgd", TYPES[5])] {
        let run = Run::new(text, types, &sizes, 1);
        compare(text, &run.result(target)?, &run.result(&CPU)?, bound(text, false))?;
    }
    let run = Run::new("lamb", TYPES[0], &[0, 0], 1);
    compare("empty", &run.result(target)?, &run.result(&CPU)?, 0.0)?;
    Ok(format!("{} tensors, {} elements", sizes.len(), sizes.iter().sum::<usize>()))
}

fn clipping(target: &Target) -> Outcome {
    let mut worst = 0.0f64;
    for types in types(target) {
        for (clip, bits) in [(Clip::GlobalNorm(0.5), false), (Clip::GlobalNorm(1e6), true), (Clip::Value(0.1), true)] {
            for text in ["adamw", "sgd:lr=1"] {
                let run = Run { clip: Some(clip), ..Run::new(text, types, &SIZES, 3) };
                let (ours, theirs) = (run.result(target)?, run.result(&CPU)?);
                compare(&format!("{text} {types:?} {clip:?}"), &ours, &theirs, bound(text, !bits))?;
                match (ours.norm, theirs.norm) {
                    (Some(ours), Some(theirs)) => worst = worst.max((ours / theirs - 1.0).abs()),
                    (None, None) => {}
                    norms => return Err(format!("{clip:?}: norms {norms:?}").into()),
                }
            }
        }
    }
    let bound = if target.is_metal { 1e-6 } else { 1e-14 };
    if worst > bound {
        return Err(format!("a norm differs by {worst:e}").into());
    }
    Ok(format!("norms within {worst:.1e} of the CPU's"))
}

fn not_finite(target: &Target) -> Outcome {
    for (text, bad) in [("adamw", f64::NAN), ("lion", f64::INFINITY), ("lamb", f64::NAN), ("amsgrad", f64::INFINITY)] {
        for clip in [None, Some(Clip::GlobalNorm(1.0)), Some(Clip::Value(0.5))] {
            let run = Run { clip, scale: bad, ..Run::new(text, TYPES[0], &[5, 300], 2) };
            let (ours, theirs) = (run.result(target)?, run.result(&CPU)?);
            compare(&format!("{text} {bad} {clip:?}"), &ours, &theirs, bound(text, clip.is_some()))?;
        }
    }
    Ok("as on the CPU".to_string())
}

fn sums(target: &Target) -> Outcome {
    for types in types(target) {
        let run = Run::new("adamw", types, &SIZES, 1);
        let result = |target: &Target| -> Result<Values, Box<dyn std::error::Error>> {
            target.on(|| {
                let params = run.params(&target.device)?;
                let mut optimizer = run.optimizer(&params)?;
                for step in 1..=6 {
                    optimizer.accumulate(&run.grads(&params, step)?)?;
                    if step % 3 == 0 {
                        optimizer.step_accumulated()?;
                    }
                }
                Ok(Values { norm: None, tensors: values(&optimizer, &params)? })
            })
        };
        compare(&format!("{types:?}"), &result(target)?, &result(&CPU)?, 0.0)?;
    }
    Ok("the CPU's bits".to_string())
}

fn groups(target: &Target) -> Outcome {
    let run = Run::new("adamw", TYPES[0], &SIZES, 1);
    let result = |target: &Target| -> Result<Values, Box<dyn std::error::Error>> {
        target.on(|| {
            let params = run.params(&target.device)?;
            let (first, second) = params.split_at(5);
            let group =
                |params: &[(String, Var)], text| Ok::<_, optim::Error>(Group::new(params.to_vec(), by_name(text)?));
            let mut optimizer = AnyOptimizer::from_groups(vec![
                group(first, "adamw:lr=0.1")?,
                group(second, "lion:weight_decay=0.3")?,
            ])?;
            optimizer.freeze(|name| name == "003" || name == "008");
            run.step(&mut optimizer, &params, 1)?;
            optimizer.unfreeze(|_| true);
            for step in 2..4 {
                run.step(&mut optimizer, &params, step)?;
            }
            // Another set of slots, of which some are kept.
            optimizer.set_group_params(0, by_name("amsgrad")?);
            run.step(&mut optimizer, &params, 4)?;
            Ok(Values { norm: None, tensors: values(&optimizer, &params)? })
        })
    };
    compare("groups", &result(target)?, &result(&CPU)?, 0.0)?;
    Ok("the CPU's bits".to_string())
}

fn state(target: &Target) -> Outcome {
    for text in RULES {
        for types in [TYPES[0], TYPES[4]] {
            let run = Run::new(text, types, &SIZES, 2);
            // Two steps here, a third there, a fourth here again.
            let [here, there] = [target, &CPU];
            let mut saved = None;
            for (place, step) in [(here, 1), (here, 2), (there, 3), (here, 4), (there, 5)] {
                saved = place.on(|| -> Result<_, Box<dyn std::error::Error>> {
                    let params = run.params(&place.device)?;
                    let mut optimizer = run.optimizer(&params)?;
                    if let Some((state, tensors)) = &saved {
                        optimizer.load_state_dict(state)?;
                        for ((_, var), tensor) in params.iter().zip(tensors) {
                            let tensor: &Tensor = tensor;
                            var.set(&tensor.to_device(&place.device)?)?;
                        }
                    }
                    run.step(&mut optimizer, &params, step)?;
                    let tensors = params.iter().map(|(_, var)| var.to_device(&Device::Cpu)?.force_contiguous());
                    Ok(Some((optimizer.state_dict()?, tensors.collect::<candle_core::Result<Vec<_>>>()?)))
                })?;
            }
            let Some((state, tensors)) = saved else { return Err("nothing was saved".into()) };
            let params = run.sizes.iter().enumerate().zip(&tensors).map(|((i, _), tensor)| (format!("{i:03}"), tensor));
            let named = params.chain(state.tensors.iter().map(|(name, tensor)| (name.clone(), tensor)));
            let ours = named.map(|(name, t)| Ok((name, t.dtype(), on_host(t)?))).collect::<candle_core::Result<_>>()?;
            let theirs = Run { steps: 5, ..run.clone() }.result(&CPU)?;
            compare(text, &Values { norm: None, tensors: ours }, &theirs, bound(text, false))?;
        }
    }
    Ok("a run goes on as if it had not moved".to_string())
}

fn rounding(target: &Target) -> Outcome {
    for text in ["adamw", "lamb", "sgd:momentum=0.9"] {
        let run = Run { seed: Some(5), ..Run::new(text, TYPES[2], &SIZES, 3) };
        compare(text, &run.result(target)?, &run.result(&CPU)?, if text == "lamb" { 1.0 } else { 0.0 })?;
    }
    // Steps of 0.001 from 1, where the distance to the next number below is 0.0039: on average nothing is lost.
    let mean = |seed| {
        target.on(|| -> candle_core::Result<f64> {
            let x = Var::from_tensor(&Tensor::ones(10_000, DType::BF16, &target.device)?)?;
            let mut optimizer = AnyOptimizer::new(vec![x.clone()], by_name("sgd:lr=0.001")?)?;
            optimizer.set_stochastic_rounding(seed);
            for _ in 0..100 {
                let mut store = Var::zeros((), DType::F32, &Device::Cpu)?.as_tensor().sqr()?.backward()?;
                store.insert(&x, Tensor::ones(10_000, DType::BF16, &target.device)?);
                optimizer.step(&store)?;
            }
            Ok(on_host(&x)?.iter().sum::<f64>() / 10_000.0)
        })
    };
    let (lost, first, second) = (mean(None)?, mean(Some(1))?, mean(Some(2))?);
    // The rounding of a step has a deviation below 0.002, that of 100 steps and 10,000 numbers is 100 times less: 2e-4.
    if lost != 1.0 || (first - 0.9).abs() > 8e-4 || (second - 0.9).abs() > 8e-4 || first == second {
        return Err(format!("means {lost}, {first}, {second} of 0.9").into());
    }
    Ok(format!("means {first:.5} and {second:.5} of 0.9"))
}

fn twice(target: &Target) -> Outcome {
    let run = Run { clip: Some(Clip::GlobalNorm(0.5)), ..Run::new("lamb", TYPES[0], &SIZES, 3) };
    let (first, second) = (run.result(target)?, run.result(target)?);
    compare("twice", &first, &second, 0.0)?;
    if first.norm.map(f64::to_bits) != second.norm.map(f64::to_bits) {
        return Err("the norm differs".into());
    }
    if target.device.is_cpu() {
        return Ok("the same bits".to_string());
    }
    let (near, far) = (Var::zeros(2, DType::F32, &target.device)?, Var::zeros(2, DType::F32, &Device::Cpu)?);
    let params = vec![("near".to_string(), near), ("far".to_string(), far)];
    let error = AnyOptimizer::from_groups(vec![Group::new(params, by_name("adamw")?)]).err().ok_or("two devices")?;
    let expected = format!(
        "parameter `far`: it is on Cpu, but `near` is on {:?}: an optimizer has one device",
        target.device.location()
    );
    if error.to_string() != expected {
        return Err(format!("{error}, not {expected}").into());
    }
    Ok("the same bits; mixed devices are an error".to_string())
}
