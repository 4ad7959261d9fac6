//! Times the operations of `ops` by themselves, forward and backward, f32, on the CPU:
//!
//! `cargo bench --bench ops -- --threads 2`
//!
//! and prints one JSON object, the milliseconds of each. `ops_table.py` has the same for PyTorch, lets both take turns, and prints the
//! table of `RESULTS.md`. The backward pass is that of the sum of the output, by all that has a gradient.

use candle_core::{DType, Device, Result, Tensor, Var};
use clap::Parser;
use ops::{Conv2dOptions, Pool2dOptions};
use rand::{RngExt, SeedableRng};
// It brings the allocator that the experiments have.
use experiments as _;
use std::{collections::BTreeMap, time::Instant};

#[derive(Parser)]
struct Options {
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Passes of each operation, of which the fourth quickest counts.
    #[arg(long, default_value_t = 20)]
    passes: usize,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn variable(shape: &[usize]) -> Result<Var> {
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(0);
    let numbers = (0..shape.iter().product()).map(|_| random.random_range(-1f32..1.0));
    Var::from_tensor(&Tensor::from_iter(numbers, &Device::Cpu)?.reshape(shape)?)
}

fn milliseconds(passes: usize, mut pass: impl FnMut() -> Result<()>) -> Result<f64> {
    pass()?;
    let mut times = Vec::new();
    for _ in 0..passes {
        let start = Instant::now();
        pass()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[3.min(passes - 1)])
}

fn run(passes: usize) -> Result<()> {
    type Op = Box<dyn Fn() -> Result<Tensor>>;
    let images = variable(&[128, 64, 32, 32])?;
    let image_op = |op: fn(&Tensor) -> Result<Tensor>| -> Op {
        let images = images.clone();
        Box::new(move || op(&images))
    };
    let conv = |x: [usize; 4], weight: [usize; 4], stride: usize, groups: usize| -> Result<Op> {
        let (x, weight) = (variable(&x)?, variable(&weight)?);
        let options = Conv2dOptions { stride, padding: weight.dim(2)? / 2, groups, ..Default::default() };
        Ok(Box::new(move || ops::conv2d(&x, &weight, options)))
    };
    let pool = |size: usize, stride: usize, padding: usize| Pool2dOptions { kernel: (size, size), stride, padding };
    let (pool2, pool3) = (pool(2, 2, 0), pool(3, 2, 1));
    let (rows, row, expand) = (variable(&[4096, 512])?, variable(&[512])?, variable(&[2048, 512])?);
    let (logits, tokens) = (variable(&[4096, 1000])?, Tensor::zeros(4096, DType::U32, &Device::Cpu)?);
    let qkv = variable(&[16 * 256, 3 * 256])?;
    let (weight, bias) = (variable(&[64])?, variable(&[64])?);
    let list: Vec<(&str, Op)> = vec![
        ("conv 3x3, 16 channels, 32x32", conv([128, 16, 32, 32], [16, 16, 3, 3], 1, 1)?),
        ("conv 3x3, 64 to 128 channels, stride 2, 16x16", conv([128, 64, 16, 16], [128, 64, 3, 3], 2, 1)?),
        ("conv 3x3, 128 channels, 8x8", conv([128, 128, 8, 8], [128, 128, 3, 3], 1, 1)?),
        ("conv 3x3, 512 channels, 4x4", conv([32, 512, 4, 4], [512, 512, 3, 3], 1, 1)?),
        ("conv 3x3, 256 to 512 channels, stride 2, 8x8", conv([32, 256, 8, 8], [512, 256, 3, 3], 2, 1)?),
        ("conv 1x1, 128 to 256 channels, 16x16", conv([64, 128, 16, 16], [256, 128, 1, 1], 1, 1)?),
        ("conv 3x3, depthwise, 64 channels, 32x32", conv([128, 64, 32, 32], [64, 1, 3, 3], 1, 64)?),
        ("conv 3x3, depthwise, stride 2", conv([128, 64, 32, 32], [64, 1, 3, 3], 2, 64)?),
        (
            "max pool 2x2",
            Box::new({
                let x = images.clone();
                move || ops::max_pool2d(&x, pool2)
            }),
        ),
        (
            "max pool 3x3, stride 2",
            Box::new({
                let x = images.clone();
                move || ops::max_pool2d(&x, pool3)
            }),
        ),
        (
            "average pool 2x2",
            Box::new({
                let x = images.clone();
                move || ops::avg_pool2d(&x, pool2, true)
            }),
        ),
        (
            "average pool 3x3, stride 2",
            Box::new({
                let x = images.clone();
                move || ops::avg_pool2d(&x, pool3, true)
            }),
        ),
        ("global average", image_op(|x| ops::avg_pool2d(x, Pool2dOptions::whole(32, 32), true))),
        ("relu", image_op(ops::relu)),
        (
            "batch norm",
            Box::new({
                let x = images.clone();
                move || Ok(ops::batch_norm(&x, &weight, &bias, 1e-5, false)?.output)
            }),
        ),
        (
            "layer norm, 512",
            Box::new({
                let (x, w) = (rows.clone(), row.clone());
                move || ops::layer_norm(&x, &w, 1e-5)
            }),
        ),
        (
            "gelu",
            Box::new({
                let x = rows.clone();
                move || ops::gelu(&x)
            }),
        ),
        (
            "linear, 512 to 2048",
            Box::new({
                let x = rows.clone();
                move || ops::linear(&x, &expand)
            }),
        ),
        ("cross-entropy, 1000 classes", Box::new(move || ops::cross_entropy(&logits, &tokens, 0.0))),
        (
            "causal attention, 16 x 4 x 256 x 64",
            Box::new(move || ops::causal_attention(&qkv, ops::Heads { heads: 4, context: 256 }, None)),
        ),
    ];
    let mut times = BTreeMap::new();
    for (name, op) in list {
        let forward = milliseconds(passes, || op().map(drop))?;
        let y = op()?;
        times.insert(name, [forward, milliseconds(passes, || ops::backward(&y).map(drop))?]);
    }
    println!("{}", serde_json::json!(times));
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(options.threads).build()?;
    Ok(pool.install(|| run(options.passes))?)
}
