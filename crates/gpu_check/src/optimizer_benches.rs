//! The benches of the optimizers, and the bars they have to reach.

use crate::timing::{Call, medians};
use candle_core::{DType, Device, Result, Tensor, Var};
use optim::{AnyOptimizer, Clip, Group, Optimizer, by_name};

type Shapes = Vec<Vec<usize>>;

/// The 62 tensors of a ResNet-18 for images of 32 x 32.
fn resnet18() -> Shapes {
    let mut all = vec![vec![64, 3, 3, 3], vec![64], vec![64]];
    let mut width = 64;
    for (layer, out) in [64, 128, 256, 512].into_iter().enumerate() {
        for block in 0..2 {
            all.extend([vec![out, width, 3, 3], vec![out], vec![out], vec![out, out, 3, 3], vec![out], vec![out]]);
            if block == 0 && layer > 0 {
                all.extend([vec![out, width, 1, 1], vec![out], vec![out]]);
            }
            width = out;
        }
    }
    all.extend([vec![10, 512], vec![10]]);
    all
}

/// The 148 tensors of GPT-2 small.
fn gpt2() -> Shapes {
    let n = 768;
    let mut all = vec![vec![50_257, n], vec![1_024, n]];
    for _ in 0..12 {
        all.extend([vec![n], vec![n], vec![3 * n, n], vec![3 * n], vec![n, n], vec![n]]);
        all.extend([vec![n], vec![n], vec![4 * n, n], vec![4 * n], vec![n, 4 * n], vec![n]]);
    }
    all.extend([vec![n], vec![n]]);
    all
}

/// What is timed: an optimizer of ours by its text, perhaps with clipping, or candle's AdamW.
#[derive(Clone)]
struct Bench {
    what: &'static str,
    rule: Option<&'static str>,
    clip: Option<Clip>,
    /// The least that has to be moved for an f32 parameter.
    bytes: f64,
}

const ADAMW: Bench = Bench { what: "adamw", rule: Some("adamw"), clip: None, bytes: 28.0 };
const LION: Bench = Bench { what: "lion", rule: Some("lion"), clip: None, bytes: 20.0 };
const SGD: Bench = Bench { what: "sgd", rule: Some("sgd"), clip: None, bytes: 12.0 };
const LAMB: Bench = Bench { what: "lamb", rule: Some("lamb"), clip: None, bytes: 40.0 };
const CLIPPED: Bench =
    Bench { what: "adamw, clipped", rule: Some("adamw"), clip: Some(Clip::GlobalNorm(1.0)), bytes: 32.0 };
const CANDLE: Bench = Bench { what: "candle_nn::AdamW", rule: None, clip: None, bytes: 28.0 };

/// What is measured on the same tensors in turn, so that ratios are of one time.
struct Workload {
    name: &'static str,
    shapes: Shapes,
    benches: Vec<Bench>,
    /// How many times as long as adamw candle_nn::AdamW must take.
    candle: Option<f64>,
}

/// A ratio that was measured and what it must be.
struct Bar {
    what: String,
    measured: f64,
    at_least: bool,
    wanted: f64,
}

impl Bar {
    fn is_met(&self) -> bool {
        if self.at_least { self.measured >= self.wanted } else { self.measured <= self.wanted }
    }
}

/// Prints the tables; returns how many bars were missed. They are of a GPU and whole tensors, and not judged elsewhere.
pub fn benches(device: &Device, divisor: usize) -> Result<usize> {
    let small = vec![ADAMW, LION, LAMB, CLIPPED, CANDLE];
    let workloads = [
        Workload {
            name: "256M parameters, 1 tensor",
            shapes: vec![vec![256_000_000]],
            benches: vec![ADAMW, LION, SGD, LAMB, CLIPPED],
            candle: None,
        },
        Workload { name: "ResNet-18, 62 tensors", shapes: resnet18(), benches: small.clone(), candle: Some(20.0) },
        Workload { name: "GPT-2 small, 148 tensors", shapes: gpt2(), benches: small, candle: Some(5.0) },
    ];
    let copied = copy(device, 256_000_000 / divisor)?;
    println!("A copy of {} f32 moves {:.0} GB/s, read and written.\n", 256_000_000 / divisor, copied / 1e9);
    println!(
        "| workload | optimizer | ms a step | GB/s | of the copy | times adamw's |\n| --- | --- | --- | --- | --- | --- |"
    );
    let mut bars = Vec::new();
    for Workload { name, shapes, benches, candle } in workloads {
        let shapes: Shapes = if divisor > 1 {
            shapes.iter().map(|shape| vec![shape.iter().product::<usize>().div_ceil(divisor)]).collect()
        } else {
            shapes
        };
        let count: usize = shapes.iter().map(|shape| shape.iter().product::<usize>()).sum();
        let times = measure(device, &shapes, &benches)?;
        for (bench, seconds) in benches.iter().zip(&times) {
            let rate = count as f64 * bench.bytes / seconds;
            let (share, ratio) = (rate / copied, seconds / times[0]);
            println!(
                "| {name} | {} | {:.4} | {:.0} | {:.0} % | {ratio:.2} |",
                bench.what,
                1e3 * seconds,
                rate / 1e9,
                100.0 * share,
            );
            let mut bar = |what: &str, measured, at_least, wanted| {
                bars.push(Bar { what: format!("{name}: {what}"), measured, at_least, wanted });
            };
            match (bench.what, candle) {
                ("adamw" | "lion", None) => bar(&format!("{}, of the copy's bandwidth", bench.what), share, true, 0.9),
                ("lamb", _) => bar("lamb / adamw", ratio, false, 1.7),
                ("adamw, clipped", _) => bar("adamw, clipped / adamw", ratio, false, 1.15),
                ("candle_nn::AdamW", Some(wanted)) => bar("candle_nn::AdamW / adamw", ratio, true, wanted),
                _ => {}
            }
        }
    }
    println!("\n| bar | wanted | measured | |\n| --- | --- | --- | --- |");
    let is_judged = divisor == 1 && !device.is_cpu();
    for bar in &bars {
        let verdict = match (is_judged, bar.is_met()) {
            (false, _) => "not judged here",
            (true, true) => "met",
            (true, false) => "MISSED",
        };
        let most = if bar.at_least { "at least" } else { "at most" };
        println!("| {} | {most} {:.2} | {:.3} | {verdict} |", bar.what, bar.wanted, bar.measured);
    }
    Ok(if is_judged { bars.iter().filter(|bar| !bar.is_met()).count() } else { 0 })
}

/// Bytes a second that a copy of `len` f32 into memory that is there reads and writes.
fn copy(device: &Device, len: usize) -> Result<f64> {
    let (from, to) = (Tensor::rand(0f32, 1f32, len, device)?, Var::zeros(len, DType::F32, device)?);
    let seconds = medians(device, vec![Box::new(|| to.set(&from))])?[0];
    Ok(2.0 * 4.0 * len as f64 / seconds)
}

/// The seconds of a step of each, all on the same parameters and gradients.
fn measure(device: &Device, shapes: &Shapes, benches: &[Bench]) -> Result<Vec<f64>> {
    let vars = shapes.iter().map(|shape| Var::rand(-1f32, 1f32, shape.as_slice(), device));
    let vars = vars.collect::<Result<Vec<_>>>()?;
    let mut grads = Var::zeros((), DType::F32, device)?.as_tensor().sqr()?.backward()?;
    for var in &vars {
        grads.insert(var, Tensor::rand(-1f32, 1f32, var.shape(), device)?);
    }
    let grads = &grads;
    let call = |bench: &Bench| -> Result<Call<'_>> {
        let Some(text) = bench.rule else {
            let mut optimizer = candle_nn::AdamW::new(vars.clone(), candle_nn::ParamsAdamW::default())?;
            return Ok(Box::new(move || optimizer.step(grads)));
        };
        let params = vars.iter().enumerate().map(|(i, var)| (i.to_string(), var.clone())).collect();
        let mut optimizer = AnyOptimizer::from_groups(vec![Group::new(params, by_name(text)?)])?;
        optimizer.set_clip(bench.clip)?;
        Ok(Box::new(move || optimizer.step(grads)))
    };
    medians(device, benches.iter().map(call).collect::<Result<_>>()?)
}
