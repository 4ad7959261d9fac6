//! What every device must do, over the table of rules: the same as the CPU. Where bits may differ, the check says by how
//! much and why.
#![allow(dead_code, reason = "each program uses a part")]

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use optim::rule::{Elementwise, Family, OneKernelRule, Progress, Real, hyperparameters};
use optim::{AnyOptimizer, Average, Clip, EmaWarmup, Group, Lookahead, Optimizer, Rule, by_name, rules};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Once;

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

    /// Lengths of tensors, the empty one where the device has such.
    fn sizes(&self) -> &'static [usize] {
        let can_make =
            |len: usize| Tensor::zeros(len, DType::F32, &self.device).and_then(|made| on_host(&made)).is_ok();
        // What fails when a tensor is dropped is an error of the next call.
        if can_make(0) & can_make(1) { &SIZES } else { &SIZES[1..] }
    }
}

/// The CPU.
pub const CPU: Target<'static> = Target { device: Device::Cpu, is_metal: false, run: &|f| f() };

pub type Check = fn(&Target) -> Outcome;

/// Steps with every rule, clipping, master copies and sums read nothing back: `count` tells how often something was copied from
/// the device. Not of `CHECKS`, as not every driver counts.
pub fn reads_nothing_back(target: &Target, count: &dyn Fn() -> u64) -> Outcome {
    let mut steps = 0;
    for text in RULES {
        for types in [TYPES[0], TYPES[4]] {
            for clip in [None, Some(Clip::GlobalNorm(0.5)), Some(Clip::Value(0.1))] {
                let run = Run { clip, ..Run::new(text, types, &[257, 4_097], 2) };
                target.on(|| -> Outcome {
                    let params = run.params(&target.device)?;
                    let mut optimizer = run.optimizer(&params)?;
                    optimizer.set_average(Some(Average::Ema { decay: 0.75, warmup: EmaWarmup::None }))?;
                    optimizer.set_lookahead(Some(Lookahead { every: 2, alpha: 0.75 }))?;
                    for step in 1..=run.steps {
                        let grads = run.grads(&params, step)?;
                        let before = count();
                        if optimizer.params().sharpness().is_some() {
                            optimizer.first_step(&grads)?;
                        }
                        optimizer.step(&grads)?;
                        if optimizer.params().sharpness().is_some() {
                            optimizer.accumulate(&grads)?;
                            optimizer.first_step_accumulated()?;
                        }
                        optimizer.accumulate(&grads)?;
                        optimizer.accumulate(&grads)?;
                        optimizer.step_accumulated()?;
                        if count() != before {
                            return Err(format!("{text} {types:?} {clip:?}: {} copies", count() - before).into());
                        }
                        steps += 2;
                    }
                    let before = count();
                    if optimizer.grad_norm()?.is_some() && count() == before {
                        return Err("the norm was read, but not counted".into());
                    }
                    Ok(String::new())
                })?;
            }
        }
    }
    Ok(format!("{steps} steps"))
}

pub const CHECKS: [(&str, Check); 15] = [
    ("every rule, every pair of types", updates),
    ("tensors of all types in one optimizer", mixed),
    ("many tensors, small and large", sizes),
    ("clipping", clipping),
    ("gradients that are not finite", not_finite),
    ("sums of gradients", sums),
    ("groups, late and frozen parameters", groups),
    ("state to the CPU and back", state),
    ("stochastic rounding", rounding),
    ("the same bits twice, and errors", twice),
    ("parameters written between steps", written),
    ("state that decays to nothing", tiny),
    ("averages of the weights", averages),
    ("a rule of another crate", own),
    ("rules on matrices", matrices),
];

/// Each rule with its defaults, and the flags that change what state it keeps or how it steps.
pub const RULES: [&str; 55] = [
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
    // Few digits are left of how far a parameter moved where that is far below it.
    "prodigy:d0=0.1,weight_decay=0.01",
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

/// Types of parameter and gradient that meet in one optimizer. The last is left out where there is no f64.
const MIX: [(DType, DType); 6] = [
    (DType::F32, DType::F32),
    (DType::BF16, DType::BF16),
    (DType::F16, DType::F32),
    (DType::BF16, DType::F32),
    (DType::F16, DType::F16),
    (DType::F64, DType::F64),
];

/// Around the lengths of vectors, blocks and chunks.
static SIZES: [usize; 11] = [0, 1, 3, 255, 256, 257, 1_025, 4_095, 4_096, 4_097, 10_007];

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
    /// How many of `MIX` the tensors have in turn; none where all have `types`.
    mix: Option<usize>,
    sizes: &'a [usize],
    steps: u64,
    clip: Option<Clip>,
    seed: Option<u64>,
    scale: f64,
}

impl<'a> Run<'a> {
    fn new(text: &'a str, types: (DType, DType, bool), sizes: &'a [usize], steps: u64) -> Self {
        Self { text, types, mix: None, sizes, steps, clip: None, seed: None, scale: 1.0 }
    }

    fn with_scale(mut self, scale: f64) -> Self {
        self.scale = scale;
        self
    }

    fn dtypes(&self, i: usize) -> (DType, DType) {
        match self.mix.map(|count| MIX[i % count]) {
            // Not of f16.
            Some((DType::F16, _)) if self.seed.is_some() => MIX[0],
            pair => pair.unwrap_or((self.types.0, self.types.1)),
        }
    }

    fn params(&self, device: &Device) -> candle_core::Result<Vec<(String, Var)>> {
        let param = |(i, len): (usize, &usize)| {
            let start = Tensor::from_vec(noise(i as u64, *len), *len, &Device::Cpu)?;
            Ok((format!("{i:03}"), Var::from_tensor(&start.to_dtype(self.dtypes(i).0)?.to_device(device)?)?))
        };
        self.sizes.iter().enumerate().map(param).collect()
    }

    /// The gradients of a step: noise, whatever the parameters are. Every third starts an element behind an aligned address.
    fn grads(&self, params: &[(String, Var)], step: u64) -> candle_core::Result<GradStore> {
        let mut store = Var::zeros((), DType::F32, &Device::Cpu)?.as_tensor().sqr()?.backward()?;
        for (i, (_, var)) in params.iter().enumerate() {
            let (len, skipped) = (var.elem_count(), usize::from(i % 3 == 2));
            let noise = noise(1_000 * step + i as u64, len + skipped).into_iter().map(|x| x * self.scale);
            let grad = Tensor::from_iter(noise.collect::<Vec<f64>>(), &Device::Cpu)?;
            let grad = grad.to_dtype(self.dtypes(i).1)?.to_device(var.device())?;
            store.insert(var, grad.narrow(0, skipped, len)?);
        }
        Ok(store)
    }

    fn optimizer(&self, params: &[(String, Var)]) -> optim::Result<AnyOptimizer> {
        let mut optimizer = AnyOptimizer::from_groups(vec![Group::new(params.to_vec(), by_name(self.text)?)])?;
        optimizer.set_clip(self.clip)?;
        optimizer.set_master_copies(self.types.2)?;
        optimizer.set_stochastic_rounding(self.seed)?;
        Ok(optimizer)
    }

    /// Where the rule is SAM, also where the parameters were in between.
    fn step(
        &self,
        optimizer: &mut AnyOptimizer,
        params: &[(String, Var)],
        step: u64,
    ) -> optim::Result<Vec<(String, DType, Vec<f64>)>> {
        let mut between = Vec::new();
        if optimizer.params().sharpness().is_some() {
            optimizer.first_step(&self.grads(params, 100 + step)?)?;
            for (name, var) in params {
                between.push((format!("{name}{MOVED} {step}"), var.dtype(), on_host(var)?));
            }
        }
        optimizer.step(&self.grads(params, step)?)?;
        Ok(between)
    }

    /// Parameters and state after the steps, and the norm.
    fn result(&self, target: &Target) -> Result<Values, Box<dyn std::error::Error>> {
        target.on(|| {
            let params = self.params(&target.device)?;
            let mut optimizer = self.optimizer(&params)?;
            let mut tensors = Vec::new();
            for step in 1..=self.steps {
                tensors.extend(self.step(&mut optimizer, &params, step)?);
            }
            tensors.extend(values(&optimizer, &params)?);
            Ok(Values { norm: optimizer.grad_norm()?, tensors })
        })
    }
}

/// How the name of a parameter between the two halves of a step of SAM goes on.
const MOVED: &str = ", moved in step";

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

/// How far apart, in units of the last place of `scale`, the largest number of their kind: where numbers cancel, their own last
/// place means nothing. 0 for the same bits.
fn apart(dtype: DType, a: f64, b: f64, scale: f64) -> f64 {
    if a == b || (a.is_nan() && b.is_nan()) {
        return 0.0;
    }
    let digits = match dtype {
        DType::F64 => 52,
        DType::BF16 => 7,
        DType::F16 => 10,
        _ => 23,
    };
    (a - b).abs() / (scale * 0.5f64.powi(digits))
}

/// The largest difference in units of the last place.
fn compare(what: &str, ours: &Values, theirs: &Values, bound: Bound) -> Result<f64, Box<dyn std::error::Error>> {
    if ours.tensors.len() != theirs.tensors.len() {
        return Err(format!("{what}: {} and {} tensors", ours.tensors.len(), theirs.tensors.len()).into());
    }
    let kind = |name: &str, dtype| (name.split('.').nth(1).map(str::to_string), format!("{dtype:?}"));
    let mut scales = BTreeMap::new();
    for (name, dtype, values) in &theirs.tensors {
        let largest = values.iter().filter(|x| x.is_finite()).fold(0.0f64, |max, x| max.max(x.abs()));
        let scale: &mut f64 = scales.entry(kind(name, *dtype)).or_default();
        *scale = scale.max(largest);
    }
    let mut worst = 0.0f64;
    for ((name, dtype, a), (other, other_dtype, b)) in ours.tensors.iter().zip(&theirs.tensors) {
        if name != other || dtype != other_dtype || a.len() != b.len() {
            return Err(format!("{what}: {name} and {other} differ in kind").into());
        }
        let scale = scales.get(&kind(name, *dtype)).copied().unwrap_or_default();
        // Factors of sums over all tensors are saved in f64, which Metal does not have.
        let is_rounded = name.starts_with("all.") && bound.f32 > 0.0;
        let dtype = if is_rounded { &DType::F32 } else { dtype };
        let bound = match dtype {
            DType::F64 => bound.f64,
            DType::F32 => bound.f32,
            _ => bound.halves,
        };
        for (i, (a, b)) in a.iter().zip(b).enumerate() {
            let apart = apart(*dtype, *a, *b, scale);
            if apart.is_nan() || apart > bound {
                return Err(format!("{what}: {name}[{i}] is {a:e}, on the CPU {b:e}: {apart:.1} last places").into());
            }
            worst = worst.max(apart);
        }
    }
    Ok(worst)
}

/// The most that numbers may be apart, in last places of their type; `halves` have 16 bits.
#[derive(Clone, Copy)]
struct Bound {
    f64: f64,
    f32: f64,
    halves: f64,
}

const BITS: Bound = Bound { f64: 0.0, f32: 0.0, halves: 0.0 };

/// Without a norm, the same bits. A norm is a sum in another order than the CPU's, and scales all that follows:
///
/// - Sums in f64. The longest chain of additions is 1,040 long on the CPU and 32 on the device, each of which errs by half a
///   last place at random: about sqrt(1,072) / 2 = 16 of a sum, 8 of its root, 16 of what has two of them (a ratio of norms, or
///   a square of the scaled gradient), and 4 for roundings since. What is computed in f32 takes the norm rounded to f32, in
///   which the difference is lost, and so has the same bits.
/// - Sums in two floats (Metal), whose error is far below a last place of f32: the root of the two errs by 3/4, twice that in a
///   ratio, half for the division, half for that on the CPU; a step adds half for each of its two roundings. That is 3 1/2;
///   16 bits may round to the neighbour.
fn bound(target: &Target, text: &str, has_norm: bool) -> Bound {
    match (has_norm || has_sums(text) || text.contains("sam"), target.is_metal) {
        (false, _) => BITS,
        (true, false) => Bound { f64: 20.0, ..BITS },
        (true, true) => Bound { f32: 3.5, halves: 1.0, ..BITS },
    }
}

/// Three. On Metal, where sums differ, a parameter of 16 bits may round to the neighbour in the first: a state that sees the
/// parameter cannot be compared after it.
fn steps(target: &Target, text: &str, (param, _, has_master): (DType, DType, bool)) -> u64 {
    let rounds = target.is_metal && param != DType::F32 && !has_master;
    if rounds && text.starts_with("lars") { 1 } else { 3 }
}

fn has_sums(text: &str) -> bool {
    by_name(text).is_ok_and(|rule| !rule.kernel().sums.of.is_empty() || rule.options().cautious)
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
            let run = Run::new(text, types, target.sizes(), steps(target, text, types));
            let (ours, theirs) = (run.result(target)?, run.result(&CPU)?);
            worst = worst.max(compare(&format!("{text} {types:?}"), &ours, &theirs, bound(target, text, false))?);
            if types.0 == DType::F32 {
                oracle(text, &ours, &Run::new(text, (DType::F64, DType::F64, false), target.sizes(), 3).result(&CPU)?)?;
            }
        }
    }
    // Those of matrices have a check of their own.
    let of_matrices = kernels_of_matrices();
    let names = rules::kernels().into_iter().map(|kernel| kernel.name);
    let all: BTreeSet<_> = names.filter(|name| !of_matrices.contains(name) || kernels.contains(name)).collect();
    if kernels != all {
        return Err(format!("kernels {all:?}, checked {kernels:?}").into());
    }
    Ok(format!(
        "{} rules and settings, {} kernels; at most {worst:.1} last places, where there are norms",
        RULES.len(),
        all.len()
    ))
}

fn mixed(target: &Target) -> Outcome {
    let all = target.sizes();
    let sizes: Vec<usize> = (0..4 * MIX.len() + 1).map(|i| all[i % all.len()]).collect();
    let count = MIX.len() - usize::from(target.is_metal);
    for text in ["adamw", "sgd:momentum=0.9", "lamb", "sam:base=lamb,adaptive=true"] {
        for (clip, seed, master) in [(None, None, true), (Some(Clip::GlobalNorm(0.5)), Some(7), false)] {
            let types = (DType::F32, DType::F32, master);
            let run = Run { mix: Some(count), clip, seed, ..Run::new(text, types, &sizes, 3) };
            let (ours, theirs) = (run.result(target)?, run.result(&CPU)?);
            compare(&format!("{text} {clip:?}"), &ours, &theirs, bound(target, text, clip.is_some()))?;
        }
    }
    Ok(format!("{} tensors of {count} pairs of types", sizes.len()))
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
    let mut sizes: Vec<usize> = (0..300).map(|i| target.sizes()[i % 7]).collect();
    sizes[150] = 1_000_003;
    for (text, types) in [("adamw", TYPES[0]), ("lamb", TYPES[2]), ("sgd", TYPES[5])] {
        let run = Run::new(text, types, &sizes, 1);
        compare(text, &run.result(target)?, &run.result(&CPU)?, bound(target, text, false))?;
    }
    if target.sizes().contains(&0) {
        let run = Run::new("lamb", TYPES[0], &[0, 0], 1);
        compare("empty", &run.result(target)?, &run.result(&CPU)?, BITS)?;
    }
    let empty = if target.sizes().contains(&0) { "" } else { "; the device has no empty tensor" };
    Ok(format!("{} tensors, {} elements{empty}", sizes.len(), sizes.iter().sum::<usize>()))
}

fn clipping(target: &Target) -> Outcome {
    let mut worst = 0.0f64;
    for types in types(target) {
        for (clip, bits) in [(Clip::GlobalNorm(0.5), false), (Clip::GlobalNorm(1e6), true), (Clip::Value(0.1), true)] {
            for text in ["adamw", "sgd:lr=1"] {
                let run = Run { clip: Some(clip), ..Run::new(text, types, target.sizes(), 3) };
                let (ours, theirs) = (run.result(target)?, run.result(&CPU)?);
                compare(&format!("{text} {types:?} {clip:?}"), &ours, &theirs, bound(target, text, !bits))?;
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
            compare(&format!("{text} {bad} {clip:?}"), &ours, &theirs, bound(target, text, clip.is_some()))?;
        }
    }
    Ok("as on the CPU".to_string())
}

fn sums(target: &Target) -> Outcome {
    for types in types(target) {
        let run = Run::new("adamw", types, target.sizes(), 1);
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
        compare(&format!("{types:?}"), &result(target)?, &result(&CPU)?, BITS)?;
    }
    Ok("the CPU's bits".to_string())
}

fn groups(target: &Target) -> Outcome {
    let run = Run::new("adamw", TYPES[0], target.sizes(), 1);
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
    compare("groups", &result(target)?, &result(&CPU)?, BITS)?;
    Ok("the CPU's bits".to_string())
}

fn state(target: &Target) -> Outcome {
    for text in RULES {
        for types in [TYPES[0], TYPES[4]] {
            let run = Run::new(text, types, target.sizes(), 2);
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
            let mut theirs = Run { steps: 5, ..run.clone() }.result(&CPU)?;
            theirs.tensors.retain(|(name, ..)| !name.contains(MOVED));
            compare(text, &Values { norm: None, tensors: ours }, &theirs, bound(target, text, false))?;
        }
    }
    Ok("a run goes on as if it had not moved".to_string())
}

fn rounding(target: &Target) -> Outcome {
    for text in ["adamw", "lamb", "sgd:momentum=0.9", "rprop"] {
        let run = Run { seed: Some(5), ..Run::new(text, TYPES[2], target.sizes(), 3) };
        compare(text, &run.result(target)?, &run.result(&CPU)?, bound(target, text, false))?;
    }
    // Steps of 0.001 from 1, where the distance to the next number below is 0.0039: on average nothing is lost.
    let mean = |seed| {
        target.on(|| -> candle_core::Result<f64> {
            let x = Var::from_tensor(&Tensor::ones(10_000, DType::BF16, &target.device)?)?;
            let mut optimizer = AnyOptimizer::new(vec![x.clone()], by_name("sgd:lr=0.001")?)?;
            optimizer.set_stochastic_rounding(seed)?;
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
    let run = Run { clip: Some(Clip::GlobalNorm(0.5)), ..Run::new("lamb", TYPES[0], target.sizes(), 3) };
    let (first, second) = (run.result(target)?, run.result(target)?);
    compare("twice", &first, &second, BITS)?;
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

/// A part of each parameter is written between two steps, and of SAM's also between its first and second step.
fn written(target: &Target) -> Outcome {
    for text in ["sgd:momentum=0.9", "asgd:t0=0", "adamw", "lamb", "sam:momentum=0.9"] {
        for types in types(target) {
            let run = Run::new(text, types, target.sizes(), 1);
            let result = |target: &Target| -> Result<Values, Box<dyn std::error::Error>> {
                target.on(|| {
                    let params = run.params(&target.device)?;
                    let write = |seed: u64| -> candle_core::Result<()> {
                        for (i, (_, var)) in params.iter().enumerate() {
                            let mut values = on_host(var)?;
                            for (k, x) in noise(seed + i as u64, values.len()).into_iter().enumerate() {
                                if k % 3 == 1 {
                                    values[k] = if k % 5 == 0 { f64::NAN } else { x };
                                }
                            }
                            let values = Tensor::from_vec(values, var.shape(), &Device::Cpu)?;
                            var.set(&values.to_dtype(var.dtype())?.to_device(var.device())?)?;
                        }
                        Ok(())
                    };
                    let mut optimizer = run.optimizer(&params)?;
                    for step in 1..=3 {
                        run.step(&mut optimizer, &params, step)?;
                        write(50 + step)?;
                    }
                    if optimizer.params().sharpness().is_some() {
                        optimizer.first_step(&run.grads(&params, 4)?)?;
                        write(60)?;
                        optimizer.second_step(&run.grads(&params, 5)?)?;
                        optimizer.first_step(&run.grads(&params, 6)?)?;
                        write(70)?;
                        optimizer.cancel_first_step()?;
                    }
                    Ok(Values { norm: None, tensors: values(&optimizer, &params)? })
                })
            };
            compare(&format!("{text} {types:?}"), &result(target)?, &result(&CPU)?, bound(target, text, false))?;
        }
    }
    Ok("as on the CPU".to_string())
}

/// Gradients of 0 after small ones, until state is too small to count.
fn tiny(target: &Target) -> Outcome {
    for text in ["sgd:momentum=0.9", "adamw", "amsgrad", "lamb", "lion", "rmsprop:centered=true,momentum=0.9"] {
        for types in [TYPES[0], TYPES[3]] {
            let run = Run { scale: 3e-37, ..Run::new(text, types, &[1, 257, 4_097], 1) };
            let result = |target: &Target| -> Result<Values, Box<dyn std::error::Error>> {
                target.on(|| {
                    let params = run.params(&target.device)?;
                    let mut optimizer = run.optimizer(&params)?;
                    for step in 1..=66 {
                        let scale = if step < 5 { run.scale } else { 0.0 };
                        run.clone().with_scale(scale).step(&mut optimizer, &params, step)?;
                    }
                    Ok(Values { norm: None, tensors: values(&optimizer, &params)? })
                })
            };
            let theirs = result(&CPU)?;
            let means = theirs.tensors.iter().filter(|(name, ..)| name.ends_with("exp_avg"));
            let has_tiny = means.flat_map(|(.., values)| values).any(|x| *x != 0.0 && x.abs() < 1e-38);
            if has_tiny != (text == "lion") {
                return Err(format!("{text} {types:?}: denormal numbers: {has_tiny}").into());
            }
            if target.is_metal && !target.device.is_cpu() {
                // Metal has no denormal numbers at all.
                continue;
            }
            compare(&format!("{text} {types:?}"), &result(target)?, &theirs, bound(target, text, false))?;
        }
    }
    Ok("as on the CPU".to_string())
}

/// The kernels that go over a matrix before and after it is transformed.
fn kernels_of_matrices() -> BTreeSet<&'static str> {
    let all = rules::specs().filter(|spec| spec.family == Family::Matrix);
    let names = all.filter_map(|spec| by_name(spec.name).ok()?.matrix().map(|matrix| matrix.kernel().name));
    names.chain(["step"]).collect()
}

/// Rules on matrices, against the CPU. A product of matrices is a sum in another order on another device, and there are fifteen of
/// them in a direction: three digits of single precision are left to differ.
fn matrices(target: &Target) -> Outcome {
    const SHAPES: [&[usize]; 4] = [&[12, 20], &[33, 7], &[4, 3, 3, 3], &[9]];
    const FAR: Bound = Bound { f64: 1e6, f32: 1e4, halves: 4.0 };
    let mut kernels = BTreeSet::from(["step"]);
    let texts = [
        "muon:products=f32",
        "muon:scale=original,products=f32,nesterov=false",
        "normuon:products=f32",
        "adamuon:products=f32",
    ];
    for text in texts.into_iter().chain(["adafactor", "shampoo"]) {
        kernels.extend(by_name(text)?.matrix().map(|matrix| matrix.kernel().name));
        for types in types(target) {
            let result = |target: &Target| -> Result<Values, Box<dyn std::error::Error>> {
                let sizes = SHAPES.map(|shape| shape.iter().product());
                let run = Run { clip: Some(Clip::Value(0.5)), ..Run::new(text, types, &sizes, 3) };
                target.on(|| {
                    let params = run.params(&target.device)?;
                    let shaped = params.iter().zip(SHAPES).map(|((name, var), shape)| {
                        Ok((name.clone(), Var::from_tensor(&var.reshape(shape)?.force_contiguous()?)?))
                    });
                    let shaped = shaped.collect::<candle_core::Result<Vec<_>>>()?;
                    let mut optimizer = run.optimizer(&shaped)?;
                    for step in 1..=run.steps {
                        let flat = run.grads(&params, step)?;
                        let mut grads = Var::zeros((), DType::F32, &Device::Cpu)?.as_tensor().sqr()?.backward()?;
                        for ((_, var), (_, shaped)) in params.iter().zip(&shaped) {
                            let grad = flat.get(var).ok_or("a gradient")?.force_contiguous()?;
                            grads.insert(shaped, grad.reshape(shaped.shape())?);
                        }
                        optimizer.step(&grads)?;
                    }
                    Ok(Values { norm: None, tensors: values(&optimizer, &shaped)? })
                })
            };
            compare(&format!("{text} {types:?}"), &result(target)?, &result(&CPU)?, FAR)?;
        }
    }
    if kernels != kernels_of_matrices() {
        return Err(format!("kernels {:?}, checked {kernels:?}", kernels_of_matrices()).into());
    }
    Ok(format!("{} kernels", kernels.len()))
}

/// An average and Lookahead around a rule, evaluated after each step.
fn averages(target: &Target) -> Outcome {
    let ema = Average::Ema { decay: 0.75, warmup: EmaWarmup::Power { gamma: 1.0 } };
    for average in [ema, Average::Swa { start: 2, every: 1 }] {
        for types in types(target) {
            let run = Run::new("adamw", types, target.sizes(), 1);
            let result = |target: &Target| -> Result<Values, Box<dyn std::error::Error>> {
                target.on(|| {
                    let params = run.params(&target.device)?;
                    let mut optimizer = run.optimizer(&params)?;
                    optimizer.set_average(Some(average))?;
                    optimizer.set_lookahead(Some(Lookahead { every: 2, alpha: 0.75 }))?;
                    let mut tensors = Vec::new();
                    for step in 1..=4 {
                        run.step(&mut optimizer, &params, step)?;
                        tensors.extend(optimizer.evaluate_with(|| {
                            let all = params.iter();
                            all.map(|(name, var)| Ok((format!("{name}, evaluated"), var.dtype(), on_host(var)?)))
                                .collect::<candle_core::Result<Vec<_>>>()
                        })?);
                    }
                    tensors.extend(values(&optimizer, &params)?);
                    Ok(Values { norm: None, tensors })
                })
            };
            compare(&format!("{average:?} {types:?}"), &result(target)?, &result(&CPU)?, BITS)?;
        }
    }
    Ok("the CPU's bits".to_string())
}

hyperparameters! {
    /// A rule that the library does not have.
    pub struct Own = "own_check" {
        /// Learning rate.
        lr: 0.1 in NON_NEGATIVE,
        /// Decay rate of the mean.
        beta1: 0.9 in FRACTION,
    }
    formula: "m = beta1 m + (1 - beta1) g; theta -= lr m / (1 + abs(m))"
    best_for: "a check"
    family: FirstOrder
}

/// Its kernel has the name of one that the library has.
impl Elementwise for Own {
    const NAME: &'static str = "lion";
    const SCALARS: &'static [&'static str] = &["one_minus_beta1"];
    const SLOTS: &'static [&'static str] = &["exp_avg"];
    type Scalars<R: Real> = [R; 1];
    type State<R: Real> = [R; 1];

    fn direction<R: Real>([rate]: [R; 1], grad: R, _param: R, [m]: [R; 1]) -> (R, [R; 1]) {
        let m = m.lerp(grad, rate);
        (m / (R::constant(1.0) + m.abs()), [m])
    }
}

impl OneKernelRule for Own {
    fn scalars(&self, _: &mut Progress<'_>) -> [f64; 1] {
        [1.0 - self.beta1]
    }
}

/// A rule of another crate is compiled where it runs, and keeps apart from the library's kernel of the same name, in one launch too.
fn own(target: &Target) -> Outcome {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| rules::register::<Own>().expect("its name is free"));
    let mut worst = 0.0f64;
    for types in types(target) {
        for text in ["own_check", "lion", "own_check:beta1=0.5"] {
            let run = Run::new(text, types, target.sizes(), 3);
            let ours = match run.result(target) {
                // Another program than this crate's compiles it.
                Err(error) if error.to_string().contains("NVRTC was found") => return Ok(format!("skipped: {error}")),
                ours => ours?,
            };
            worst = worst.max(compare(&format!("{text} {types:?}"), &ours, &run.result(&CPU)?, BITS)?);
        }
    }
    let both = |target: &Target| -> Result<Values, Box<dyn std::error::Error>> {
        let run = Run::new("", TYPES[0], &[257, 4_097, 3], 3);
        target.on(|| {
            let params = run.params(&target.device)?;
            let group = |(param, text): (&(String, Var), &str)| Ok(Group::new(vec![param.clone()], by_name(text)?));
            let groups = params.iter().zip(["lion:lr=0.1", "own_check", "lion"]).map(group);
            let mut optimizer = AnyOptimizer::from_groups(groups.collect::<optim::Result<_>>()?)?;
            for step in 1..=run.steps {
                optimizer.step(&run.grads(&params, step)?)?;
            }
            Ok(Values { norm: None, tensors: values(&optimizer, &params)? })
        })
    };
    compare("two rules of one name", &both(target)?, &both(&CPU)?, BITS)?;
    Ok(format!("at most {worst:.1} last places"))
}
