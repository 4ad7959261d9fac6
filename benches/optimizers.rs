//! Times a step of an optimizer on fixed gradients, f32, on the CPU:
//!
//! `cargo bench --bench optimizers -- --workload a --rule adamw --impl optim --threads 2 --seconds 2`
//!
//! and prints one JSON line. With `--paced` it measures, and prints a line, for each line that it reads.
//! `optimizers_torch.py` takes the same options for PyTorch, and `optimizers.py` lets both take turns many times a second
//! and prints the table of `RESULTS.md`.

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::Optimizer;
use clap::{Parser, ValueEnum};
use rayon::prelude::*;
use std::io::BufRead;
use std::time::Instant;

#[derive(Clone, Copy, ValueEnum)]
enum Workload {
    /// 25M parameters in 5 tensors.
    A,
    /// 2.2M parameters in 180 tensors.
    B,
}

#[derive(Clone, Copy, ValueEnum)]
enum Impl {
    /// This project's.
    Optim,
    /// candle_nn's AdamW.
    Candle,
    /// As many arrays as the rule touches, each read and (but for the gradient) written once: the memory's limit.
    Memory,
}

#[derive(Parser)]
struct Options {
    #[arg(long)]
    workload: Workload,
    /// A rule as `by_name` reads it; sgd is with momentum.
    #[arg(long)]
    rule: String,
    #[arg(long, value_name = "IMPL")]
    r#impl: Impl,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// For how long steps are timed; one step before is not.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Measures once for each line of the standard input.
    #[arg(long)]
    paced: bool,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn shapes(workload: Workload) -> Vec<Vec<usize>> {
    match workload {
        Workload::A => vec![vec![5_000_000]; 5],
        Workload::B => (0..60).flat_map(|_| [vec![64, 64, 3, 3], vec![64], vec![64]]).collect(),
    }
}

/// Nanoseconds of each call within the time given, the first left out.
fn time(seconds: f64, call: &mut dyn FnMut() -> Result<()>) -> Result<Vec<u128>> {
    call()?;
    let start = Instant::now();
    let mut times = Vec::new();
    while times.is_empty() || start.elapsed().as_secs_f64() < seconds {
        let before = Instant::now();
        call()?;
        times.push(before.elapsed().as_nanos());
    }
    times.sort_unstable();
    Ok(times)
}

/// Measures once, or as often as it is asked to.
fn measure(options: &Options, mut call: impl FnMut() -> Result<()>) -> Result<()> {
    let mut report = || {
        let times = time(options.seconds, &mut call)?;
        let name = |value: Option<clap::builder::PossibleValue>| value.map(|v| v.get_name().to_string());
        let line = serde_json::json!({
            "impl": name(options.r#impl.to_possible_value()),
            "rule": options.rule,
            "workload": name(options.workload.to_possible_value()),
            "median_ns": times[times.len() / 2],
            "min_ns": times[0],
            "steps": times.len(),
        });
        println!("{line}");
        Ok(())
    };
    if !options.paced {
        return report();
    }
    for line in std::io::stdin().lock().lines() {
        line?;
        report()?;
    }
    Ok(())
}

/// Floats that one thread works on at a time.
const CHUNK: usize = 16_384;

fn run(options: &Options) -> Result<()> {
    let filled = |shape: &Vec<usize>, seed: usize| -> Result<Tensor> {
        let len = shape.iter().product::<usize>();
        let values = (0..len).map(|i| ((i * 7919 + seed) % 1009) as f32 / 1009.0 - 0.5);
        Tensor::from_iter(values, &Device::Cpu)?.reshape(shape.as_slice())
    };
    let shapes = shapes(options.workload);
    if let Impl::Memory = options.r#impl {
        // Parameter and slots, which are read and written; the gradient is read.
        let arrays = if options.rule == "adamw" { 3 } else { 2 };
        let total: usize = shapes.iter().map(|s| s.iter().product::<usize>()).sum();
        let mut written = vec![vec![1f32; total]; arrays];
        let read = vec![1f32; total];
        return measure(options, || {
            let mut parts: Vec<_> = read.chunks(CHUNK).map(|read| (read, Vec::with_capacity(arrays))).collect();
            for array in &mut written {
                parts.iter_mut().zip(array.chunks_mut(CHUNK)).for_each(|(part, chunk)| part.1.push(chunk));
            }
            parts.into_par_iter().for_each(|(read, written)| {
                for chunk in written {
                    chunk.iter_mut().zip(read).for_each(|(x, r)| *x += *r);
                }
            });
            Ok(())
        });
    }
    let vars: Vec<Var> = shapes.iter().map(|s| Var::from_tensor(&filled(s, 1)?)).collect::<Result<_>>()?;
    let mut grads: GradStore = Var::zeros((), DType::F32, &Device::Cpu)?.as_tensor().sqr()?.backward()?;
    for (var, shape) in vars.iter().zip(&shapes) {
        grads.insert(var, filled(shape, 2)?);
    }
    match options.r#impl {
        Impl::Candle => {
            let mut optimizer = candle_nn::AdamW::new_lr(vars, 1e-3)?;
            measure(options, || optimizer.step(&grads))
        }
        _ => {
            let rule = if options.rule == "sgd" { "sgd:momentum=0.9" } else { &options.rule };
            let mut optimizer = optim::AnyOptimizer::new(vars, optim::by_name(rule)?)?;
            measure(options, || optimizer.step(&grads))
        }
    }
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(options.threads).build()?;
    pool.install(|| run(&options))?;
    Ok(())
}
