//! Times a step of training (forward, backward, optimizer) on random images of CIFAR-10's size or random windows of 65
//! characters:
//!
//! `cargo bench --bench training -- --model resnet20 --batch-size 128 --opt sgd:lr=0.1,momentum=0.9 --threads 2 --seconds 5`
//! `cargo bench --bench training -- --model gpt --batch-size 12 --ops candle`
//! `cargo bench --bench training --features cuda,cudnn -- --model resnet18 --batch-size 512 --device cuda --precision bf16`
//!
//! and prints one JSON line. With `--paced` it reads a number of steps from each line of the standard input, takes them, and prints
//! their times. Models are those of the experiments. `training.py` has the same for PyTorch, and `training_table.py` lets both take
//! turns and prints the table of `RESULTS.md`.

use candle_core::{DType, Result, Tensor};
use candle_nn::Optimizer;
use clap::Parser;
use experiments::{
    config::{device::DeviceName, operations::Operations, precision::Precision},
    problem::models::{self, ForwardContext, ImageShape, Parameters, Shape},
    run::memory,
};
use rand::{RngExt, SeedableRng};
use std::{io::BufRead, time::Instant};

#[derive(Parser)]
struct Options {
    #[arg(long, default_value = "resnet20")]
    model: String,
    #[arg(long, default_value_t = 128)]
    batch_size: usize,
    #[arg(long, default_value = "adamw")]
    opt: String,
    /// Whose operations the model runs on.
    #[arg(long, default_value = "descent")]
    ops: Operations,
    #[arg(long, default_value_t = DeviceName::Cpu)]
    device: DeviceName,
    #[arg(long, default_value = "f32")]
    precision: Precision,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// For how long steps are timed, after two to warm up; at least three are.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Takes as many steps as each line of the standard input says.
    #[arg(long)]
    paced: bool,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Characters of tinyshakespeare.
const VOCABULARY: u32 = 65;
const CIFAR10: ImageShape = ImageShape { channels: 3, height: 32, width: 32, classes: 10 };

fn run(options: &Options) -> anyhow::Result<()> {
    let (parameters, n, device) = (Parameters::new(0), options.batch_size, options.device.open()?);
    options.precision.set(&device)?;
    let config = models::parse(&options.model)?;
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(0);
    let mut below = |len: usize, end: u32| Tensor::from_iter((0..len).map(|_| random.random_range(0..end)), &device);
    let (shape, x, labels) = match config.context() {
        Some(context) => {
            let tokens = n * context;
            let x = below(tokens, VOCABULARY)?.reshape((n, context))?;
            (Shape::Text { vocabulary: VOCABULARY as usize, context }, x, below(tokens, VOCABULARY)?)
        }
        None => {
            let x = (below(n * 3 * 32 * 32, 256)?.to_dtype(DType::F32)? / 256.0)?;
            (Shape::Images(CIFAR10), (x - 0.5)?.reshape((n, 3, 32, 32))?, below(n, 10)?)
        }
    };
    let model = config.build(&shape, parameters.builder(&device))?;
    let variables = parameters.trainable().into_iter().map(|(_, var)| var).collect();
    let mut optimizer = optim::AnyOptimizer::new(variables, optim::by_name(&options.opt)?)?;
    let pass = ForwardContext::train(0).with_ops(options.ops).with_dtype(options.precision.dtype());

    // Seconds.
    let mut step = || -> Result<f64> {
        let start = Instant::now();
        optimizer.step(&ops::backward(&pass.loss(&*model, &x, &labels)?.0)?)?;
        device.synchronize()?;
        Ok(start.elapsed().as_secs_f64())
    };
    for _ in 0..2 {
        step()?;
    }
    let memory = || memory::peak().map(|bytes| (bytes as f64 / f64::from(1 << 20)).round());
    if options.paced {
        for line in std::io::stdin().lock().lines() {
            let times: Vec<f64> = (0..line?.trim().parse::<usize>()?).map(|_| step()).collect::<Result<_>>()?;
            let times: Vec<f64> = times.into_iter().map(|seconds| seconds * 1e3).collect();
            println!("{}", serde_json::json!({"step_ms": times, "peak_memory_mib": memory()}));
        }
        return Ok(());
    }
    let (start, mut times) = (Instant::now(), Vec::new());
    while times.len() < 3 || start.elapsed().as_secs_f64() < options.seconds {
        times.push(step()?);
    }
    times.sort_by(f64::total_cmp);
    let per_second = |seconds: f64| (n as f64 / seconds).round();
    let line = serde_json::json!({
        "impl": options.ops,
        "model": config.to_string(),
        "batch_size": n,
        "threads": options.threads,
        "device": options.device.to_string(),
        "precision": options.precision,
        "examples_per_second": per_second(times[times.len() / 2]),
        "best_examples_per_second": per_second(times[0]),
        "steps": times.len(),
        "median_step_ms": times[times.len() / 2] * 1e3,
        "peak_memory_mib": memory(),
    });
    println!("{line}");
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(options.threads).build()?;
    pool.install(|| run(&options))
}
