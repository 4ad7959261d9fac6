//! All that is to be known of a device, in one program: the checks against the CPU, then the benches, a table each. See
//! `benches/README.md`.
//!
//! `gpu_check [--device cuda|cuda:INDEX|metal|cpu] [--small]`; `--small` has tensors a thousandth as long, to try the program.
//! Exit status: 0, 1 where a check fails, 2 where the device cannot be opened.

#[path = "../tests/devices/checks.rs"]
mod checks;

use candle_core::{DType, Device, Result, Tensor, Var};
use checks::{CHECKS, Target};
use optim::{AnyOptimizer, Clip, Group, Optimizer, by_name};
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_small = arguments.iter().any(|argument| argument == "--small");
    let at = arguments.iter().position(|argument| argument == "--device");
    let name = at.map_or("cuda", |at| arguments.get(at + 1).map_or("", String::as_str));
    let device = match open(name) {
        Ok(device) => device,
        Err(error) => {
            eprintln!("error: device `{name}` cannot be opened: {}", error.to_string().replace('\n', " "));
            return ExitCode::from(2);
        }
    };
    println!("| check | on {:?} |\n| --- | --- |", device.location());
    let mut failures = 0;
    for (name, check) in CHECKS {
        let target = Target { is_metal: device.is_metal(), device: device.clone(), run: &|f| f() };
        match check(&target) {
            Ok(line) => println!("| {name} | ok: {line} |"),
            Err(error) => {
                println!("| {name} | FAILED: {error} |");
                failures += 1;
            }
        }
    }
    println!();
    if let Err(error) = benches(&device, if is_small { 1_000 } else { 1 }) {
        eprintln!("error: {error}");
        return ExitCode::FAILURE;
    }
    if failures > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn open(name: &str) -> Result<Device> {
    match (name, name.strip_prefix("cuda:").map(str::parse)) {
        ("cpu", _) => Ok(Device::Cpu),
        ("metal", _) => Device::new_metal(0),
        ("cuda", _) => Device::new_cuda(0),
        (_, Some(Ok(index))) => Device::new_cuda(index),
        _ => candle_core::bail!("allowed are cpu, cuda, cuda:INDEX, metal"),
    }
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

fn benches(device: &Device, divisor: usize) -> Result<()> {
    let large = vec![vec![256_000_000]];
    let workloads = [
        ("256M parameters, 1 tensor", large, vec![ADAMW, LION, SGD, LAMB, CLIPPED]),
        ("ResNet-18, 62 tensors", resnet18(), vec![ADAMW, LION, LAMB, CLIPPED, CANDLE]),
        ("GPT-2 small, 148 tensors", gpt2(), vec![ADAMW, LION, LAMB, CLIPPED, CANDLE]),
    ];
    let copied = copy(device, 256_000_000 / divisor)?;
    println!("A copy of {} f32 moves {:.0} GB/s, read and written.\n", 256_000_000 / divisor, copied / 1e9);
    println!(
        "| workload | optimizer | ms a step | GB/s | of the copy | times adamw's |\n| --- | --- | --- | --- | --- | --- |"
    );
    for (workload, shapes, benches) in workloads {
        let shapes: Shapes = if divisor > 1 {
            shapes.iter().map(|shape| vec![shape.iter().product::<usize>().div_ceil(divisor)]).collect()
        } else {
            shapes
        };
        let count: usize = shapes.iter().map(|shape| shape.iter().product::<usize>()).sum();
        let mut first = None;
        for bench in benches {
            let seconds = bench.run(device, &shapes)?;
            let rate = count as f64 * bench.bytes / seconds;
            println!(
                "| {workload} | {} | {:.4} | {:.0} | {:.0} % | {:.2} |",
                bench.what,
                1e3 * seconds,
                rate / 1e9,
                100.0 * rate / copied,
                seconds / *first.get_or_insert(seconds)
            );
        }
    }
    Ok(())
}

/// The median of the seconds that one of several equal calls takes, without the first.
fn median(device: &Device, mut call: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut run = |times: usize| -> Result<f64> {
        device.synchronize()?;
        let start = Instant::now();
        (0..times).try_for_each(|_| call())?;
        device.synchronize()?;
        Ok(start.elapsed().as_secs_f64() / times as f64)
    };
    run(3)?;
    // So many at a time that the wait at the end does not count: about 50 ms.
    let times = (0.05 / run(1)?).clamp(1.0, 200.0) as usize;
    let mut all = (0..11).map(|_| run(times)).collect::<Result<Vec<_>>>()?;
    all.sort_by(f64::total_cmp);
    Ok(all[5])
}

/// Bytes a second that a copy of `len` f32 reads and writes.
fn copy(device: &Device, len: usize) -> Result<f64> {
    let from = Tensor::rand(0f32, 1f32, len, device)?;
    let seconds = median(device, || from.force_contiguous().map(drop))?;
    Ok(2.0 * 4.0 * len as f64 / seconds)
}

impl Bench {
    fn run(&self, device: &Device, shapes: &Shapes) -> Result<f64> {
        let vars = shapes.iter().map(|shape| Var::rand(-1f32, 1f32, shape.as_slice(), device));
        let vars = vars.collect::<Result<Vec<_>>>()?;
        let mut grads = Var::zeros((), DType::F32, device)?.as_tensor().sqr()?.backward()?;
        for var in &vars {
            grads.insert(var, Tensor::rand(-1f32, 1f32, var.shape(), device)?);
        }
        match self.rule {
            Some(text) => {
                let params = vars.into_iter().enumerate().map(|(i, var)| (i.to_string(), var)).collect();
                let mut optimizer = AnyOptimizer::from_groups(vec![Group::new(params, by_name(text)?)])?;
                optimizer.set_clip(self.clip)?;
                median(device, || optimizer.step(&grads))
            }
            None => {
                let mut optimizer = candle_nn::AdamW::new(vars, candle_nn::ParamsAdamW::default())?;
                median(device, || optimizer.step(&grads))
            }
        }
    }
}
