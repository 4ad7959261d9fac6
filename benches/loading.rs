//! What loading costs: times training steps on images of CIFAR-10's size, moved and mirrored at random, f32, on the CPU:
//!
//! `cargo bench --bench loading -- --model cnn4 --batch-size 128 --threads 2 --rounds 40`
//!
//! Steps on one batch, on batches that are made before each step, and on batches that are made ahead, as in an experiment, take turns
//! of five. It prints one JSON line: milliseconds of a median step of each, the median over the rounds of the ratio to the steps on
//! one batch, and what it takes to make a batch (the mean over an epoch, the drawing of its order included).

use anyhow::Result;
use candle_core::Device;
use candle_nn::Optimizer;
use clap::Parser;
use experiments::{
    config::operations::Operations,
    problem::{
        batches::{Batch, Batches, DeviceBatches, Sampling},
        data::{Data, ImageData, Split},
        models::{self, ForwardContext, Parameters},
        prefetch::Prefetcher,
    },
};
use rand::{Rng, SeedableRng};
use std::time::Instant;

#[derive(Parser)]
struct Options {
    #[arg(long, default_value = "cnn4")]
    model: String,
    #[arg(long, default_value_t = 128)]
    batch_size: usize,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    #[arg(long, default_value_t = 40)]
    rounds: usize,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

const IMAGES: usize = 50_000;
const STEPS_OF_A_TURN: u64 = 5;

/// Random images of CIFAR-10's size.
fn data() -> Data {
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(0);
    let mut split = |n: usize| {
        let mut images = vec![0; n * 3 * 32 * 32];
        random.fill_bytes(&mut images);
        Split { images, labels: vec![0; n] }
    };
    Data::Images(ImageData {
        name: "random",
        channels: 3,
        height: 32,
        width: 32,
        classes: 10,
        max_value: 255,
        train: split(IMAGES),
        test: split(1),
        mean: vec![0.5; 3],
        std: vec![0.25; 3],
        files: Vec::new(),
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn run(options: &Options) -> Result<()> {
    let (data, model, device) = (data(), models::parse(&options.model)?, Device::Cpu);
    let shape = model.shape(&data)?;
    let sampling = Sampling {
        batch_size: options.batch_size,
        augment: experiments::config::augmentation::Augmentation::Random,
        seed: 0,
    };
    let (parameters, on_device) = (Parameters::new(0), DeviceBatches::new(&data, &shape, &device));
    let batches = || Batches::new(&data, &shape, sampling, &device);
    let network = model.build(&shape, parameters.builder(&device))?;
    let variables = parameters.trainable().into_iter().map(|(_, var)| var).collect();
    let mut optimizer = optim::AnyOptimizer::new(variables, optim::by_name("adamw")?)?;
    let mut step = |batch: Batch| -> Result<()> {
        let (x, labels) = on_device.place(batch)?;
        let loss = Operations::Descent.cross_entropy(&network.forward(&x, &ForwardContext::train(0))?, &labels)?;
        Ok(optimizer.backward_step(&loss)?)
    };

    let (mut before, mut made, mut times) = (batches(), batches(), batches());
    let fixed = made.train(0);
    let mut prefetcher = Prefetcher::new("batch", move |step| made.train(step));
    let mut ways: [Vec<f64>; 3] = Default::default();
    let mut ratios: [Vec<f64>; 2] = Default::default();
    for round in 0..=options.rounds as u64 {
        let mut sums = [0.0; 3];
        for way in 0..3 {
            for at in round * STEPS_OF_A_TURN..(round + 1) * STEPS_OF_A_TURN {
                // A copy costs nothing of the step on one batch.
                let fixed = (way == 0).then(|| fixed.clone());
                let start = Instant::now();
                match (way, fixed) {
                    (0, Some(batch)) => step(batch)?,
                    (1, _) => step(before.train(at))?,
                    _ => prefetcher.use_and_make_next(at, Some(at + 1), &mut step)?,
                }
                let ms = start.elapsed().as_secs_f64() * 1e3;
                sums[way] += ms;
                // The first round warms up.
                if round > 0 {
                    ways[way].push(ms);
                }
            }
        }
        if round > 0 {
            ratios.iter_mut().zip(&sums[1..]).for_each(|(ratios, sum)| ratios.push(sum / sums[0]));
        }
    }
    let steps = (IMAGES / options.batch_size) as u64;
    let start = Instant::now();
    for at in 0..steps {
        std::hint::black_box(times.train(at));
    }
    let batch_ms = start.elapsed().as_secs_f64() * 1e3 / steps as f64;
    let [fixed, before, ahead] = ways.map(median);
    let [before_ratio, ahead_ratio] = ratios.map(median);
    let line = serde_json::json!({
        "model": model.to_string(),
        "batch_size": options.batch_size,
        "threads": options.threads,
        "step_ms": {"one_batch": fixed, "made_before": before, "made_ahead": ahead},
        "ratio": {"made_before": before_ratio, "made_ahead": ahead_ratio},
        "batch_ms": batch_ms,
        "batch_ms_over_step_ms": batch_ms / fixed,
    });
    println!("{line}");
    Ok(())
}

fn main() -> Result<()> {
    let options = Options::parse();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(options.threads).build()?;
    pool.install(|| run(&options))
}
