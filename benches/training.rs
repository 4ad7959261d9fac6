//! Times a step of training (forward, backward, SGD with momentum) on random images of CIFAR-10's size, f32, on the CPU:
//!
//! `cargo bench --bench training -- --model resnet20 --batch-size 128 --threads 2 --seconds 5`
//!
//! and prints one JSON line. `training.py` takes the same options for PyTorch.

use candle_core::{Device, Result, Tensor};
use candle_nn::Optimizer;
use clap::Parser;
use experiments::models::{self, ImageShape, Parameters, Pass, Shape};
use rand::{RngExt, SeedableRng};
use std::time::Instant;

#[derive(Parser)]
struct Options {
    #[arg(long, default_value = "resnet20")]
    model: String,
    #[arg(long, default_value_t = 128)]
    batch_size: usize,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// For how long steps are timed, after two to warm up; at least three are.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

const CIFAR10: ImageShape = ImageShape { channels: 3, height: 32, width: 32, classes: 10 };

/// Seconds of each step, sorted.
fn run(options: &Options) -> anyhow::Result<Vec<f64>> {
    let parameters = Parameters::new(0);
    let model = models::parse(&options.model)?.build(&Shape::Images(CIFAR10), parameters.builder(&Device::Cpu))?;
    let variables = parameters.trainable().into_iter().map(|(_, var)| var).collect();
    let mut optimizer = optim::AnyOptimizer::new(variables, optim::by_name("sgd:lr=0.1,momentum=0.9")?)?;

    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(0);
    let n = options.batch_size;
    let pixels: Vec<f32> = (0..n * 3 * 32 * 32).map(|_| random.random::<f32>() - 0.5).collect();
    let x = Tensor::from_vec(pixels, (n, 3, 32, 32), &Device::Cpu)?;
    let labels = Tensor::from_iter((0..n).map(|_| random.random_range(0..10u32)), &Device::Cpu)?;

    let mut step = || -> Result<()> {
        let logits = model.forward(&x, &Pass::train(0))?;
        optimizer.backward_step(&ops::cross_entropy(&logits, &labels)?)
    };
    (0..2).try_for_each(|_| step())?;
    let (start, mut times) = (Instant::now(), Vec::new());
    while times.len() < 3 || start.elapsed().as_secs_f64() < options.seconds {
        let before = Instant::now();
        step()?;
        times.push(before.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(options.threads).build()?;
    let times = pool.install(|| run(&options))?;
    let per_second = |seconds: f64| (options.batch_size as f64 / seconds).round();
    let line = serde_json::json!({
        "impl": "descent",
        "model": options.model,
        "batch_size": options.batch_size,
        "threads": options.threads,
        "images_per_second": per_second(times[times.len() / 2]),
        "best_images_per_second": per_second(times[0]),
        "steps": times.len(),
    });
    println!("{line}");
    Ok(())
}
