//! All that is to be known of a device, in one program: the checks against the CPU, then the benches, then the bars they have
//! to reach, a table each. See `benches/README.md`.
//!
//! `gpu_check [--device cuda|cuda:INDEX|metal|cpu] [--small]`; `--small` has tensors a thousandth as long, to try the program.
//! Exit status: 0; 1 where a check fails or a bar is missed; 2 where the device cannot be opened.

#[path = "../tests/devices/checks.rs"]
mod checks;

use candle_core::{DType, Device, Result, Tensor, Var};
use checks::{CHECKS, Outcome, Target};
use optim::{AnyOptimizer, Clip, Group, Optimizer, by_name};
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let (mut name, mut is_small) = ("cuda".to_string(), false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--small" => is_small = true,
            "--device" => name = arguments.next().unwrap_or_default(),
            _ => return cannot(&format!("`{argument}`: allowed are --device NAME, --small")),
        }
    }
    let device = match open(&name) {
        Ok(device) => device,
        // What follows the first line is a backtrace.
        Err(error) => {
            return cannot(&format!("device `{name}`: {}", error.to_string().lines().next().unwrap_or_default()));
        }
    };
    println!("| check | on {:?} |\n| --- | --- |", device.location());
    let mut failures = 0;
    let mut report = |name: &str, outcome: Outcome| match outcome {
        Ok(line) => println!("| {name} | ok: {line} |"),
        Err(error) => {
            println!("| {name} | FAILED: {error} |");
            failures += 1;
        }
    };
    let target = Target { is_metal: device.is_metal(), device: device.clone(), run: &|f| f() };
    for (name, check) in CHECKS {
        report(name, check(&target));
    }
    report(
        "a step reads nothing back",
        counter().map_or(Ok("not checked: this driver does not count".to_string()), |count| {
            checks::reads_nothing_back(&target, &count)
        }),
    );
    println!();
    match benches(&device, if is_small { 1_000 } else { 1 }) {
        Ok(missed) if missed + failures == 0 => ExitCode::SUCCESS,
        Ok(missed) => {
            println!("\n{failures} checks failed, {missed} bars were missed.");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn cannot(what: &str) -> ExitCode {
    eprintln!("error: {what}");
    ExitCode::from(2)
}

fn open(name: &str) -> Result<Device> {
    match (name, name.strip_prefix("cuda:").map(str::parse::<usize>)) {
        ("cpu", _) => Ok(Device::Cpu),
        ("metal", _) => Device::new_metal(0),
        ("cuda", _) => Device::new_cuda(0),
        (_, Some(Ok(index))) => Device::new_cuda(index),
        _ => candle_core::bail!("allowed are cpu, cuda, cuda:INDEX, metal"),
    }
}

/// How often something was copied to the host, where the driver is the one of `.ci/cuda/host`.
fn counter() -> Option<impl Fn() -> u64> {
    #[cfg(unix)]
    {
        use libloading::os::unix::Library;
        let program = Library::this();
        // SAFETY: only that driver has the name, for a function of this type.
        let count =
            unsafe { program.get::<unsafe extern "C" fn() -> u64>(b"descent_copies_to_host\0") }.ok().map(|f| *f)?;
        // SAFETY: it reads a number.
        Some(move || unsafe { count() })
    }
    #[cfg(not(unix))]
    None::<fn() -> u64>
}

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
fn benches(device: &Device, divisor: usize) -> Result<usize> {
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

/// Seconds of a call, one of several equal ones.
fn time(device: &Device, times: usize, call: &mut dyn FnMut() -> Result<()>) -> Result<f64> {
    device.synchronize()?;
    let start = Instant::now();
    (0..times).try_for_each(|_| call())?;
    device.synchronize()?;
    Ok(start.elapsed().as_secs_f64() / times as f64)
}

type Call<'a> = Box<dyn FnMut() -> Result<()> + 'a>;

/// The median seconds of each call, which take 11 turns, each so long that the wait at its end does not count: about 50 ms.
fn medians(device: &Device, mut calls: Vec<Call<'_>>) -> Result<Vec<f64>> {
    let mut counts = Vec::new();
    for call in &mut calls {
        time(device, 3, call)?;
        counts.push((0.05 / time(device, 1, call)?).clamp(1.0, 200.0) as usize);
    }
    let mut all = vec![Vec::new(); calls.len()];
    for _ in 0..11 {
        for ((call, count), times) in calls.iter_mut().zip(&counts).zip(&mut all) {
            times.push(time(device, *count, call)?);
        }
    }
    for times in &mut all {
        times.sort_by(f64::total_cmp);
    }
    Ok(all.iter().map(|times| times[5]).collect())
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
