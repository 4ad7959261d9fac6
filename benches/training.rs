//! Times a step of training (forward, backward, optimizer) on random images of CIFAR-10's size or random windows of 65
//! characters, f32, on the CPU:
//!
//! `cargo bench --bench training -- --model resnet20 --batch-size 128 --opt sgd:lr=0.1,momentum=0.9 --threads 2 --seconds 5`
//! `cargo bench --bench training -- --model gpt --batch-size 12 --opt adamw:beta2=0.99,weight_decay=0.1`
//!
//! and prints one JSON line. Models are those of the experiments, and `cnn4` and `cnn4-norm`: four 3x3 convolutions of 32, 64,
//! 128 and 128 channels with strides 1, 2, 2, 1 and ReLU, with a bias or a batch norm each. `training.py` takes the same models,
//! batch sizes and threads for PyTorch, and `training_table.py` runs both.

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{Init, Linear, Module, Optimizer, VarBuilder, init::DEFAULT_KAIMING_NORMAL, linear};
use clap::Parser;
use experiments::models::{self, ImageShape, Model, ModelConfig, Parameters, Pass, Shape};
use ops::{Conv2d, ConvNorm, conv2d, conv2d_batch_norm, scale_shift};
use rand::{RngExt, SeedableRng};
use std::time::Instant;

#[derive(Parser)]
struct Options {
    #[arg(long, default_value = "resnet20")]
    model: String,
    #[arg(long, default_value_t = 128)]
    batch_size: usize,
    #[arg(long, default_value = "sgd:lr=0.1,momentum=0.9")]
    opt: String,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// For how long steps are timed, after two to warm up; at least three are.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Characters of tinyshakespeare.
const VOCABULARY: u32 = 65;
const CIFAR10: ImageShape = ImageShape { channels: 3, height: 32, width: 32, classes: 10 };

struct Cnn4 {
    norm: bool,
    /// Kernels, the norm's weight (ones without one) and the bias.
    layers: Vec<([Tensor; 3], usize)>,
    classifier: Linear,
}

impl Cnn4 {
    fn new(norm: bool, vb: &VarBuilder) -> Result<Self> {
        let mut layers = Vec::new();
        for (inputs, outputs, stride) in [(3, 32, 1), (32, 64, 2), (64, 128, 2), (128, 128, 1)] {
            let vb = vb.pp(format!("conv{}", layers.len()));
            let kernels = vb.get_with_hints((outputs, inputs, 3, 3), "weight", DEFAULT_KAIMING_NORMAL)?;
            let weight = match norm {
                true => vb.get_with_hints(outputs, "scale", Init::Const(1.0))?,
                false => Tensor::ones(outputs, DType::F32, &Device::Cpu)?,
            };
            layers.push(([kernels, weight, vb.get_with_hints(outputs, "bias", Init::Const(0.0))?], stride));
        }
        Ok(Self { norm, layers, classifier: linear(128, 10, vb.pp("classifier"))? })
    }
}

impl Model for Cnn4 {
    fn forward(&self, x: &Tensor, _: &Pass) -> Result<Tensor> {
        let mut x = x.clone();
        for ([kernels, weight, bias], stride) in &self.layers {
            let conv = Conv2d { stride: *stride, padding: 1, ..Default::default() };
            let options = ConvNorm { conv, eps: 1e-5, relu: true };
            x = match self.norm {
                true => conv2d_batch_norm(&x, kernels, weight, bias, None, options)?.output,
                false => scale_shift(&conv2d(&x, kernels, conv)?, weight, bias, true)?,
            };
        }
        self.classifier.forward(&x.flatten_from(2)?.mean(2)?)
    }
}

/// Seconds of each step, sorted.
fn run(options: &Options) -> anyhow::Result<Vec<f64>> {
    let (parameters, n, device) = (Parameters::new(0), options.batch_size, Device::Cpu);
    let config = match options.model.as_str() {
        "cnn4" | "cnn4-norm" => None,
        name => Some(models::parse(name)?),
    };
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(0);
    let mut below = |len: usize, end: u32| Tensor::from_iter((0..len).map(|_| random.random_range(0..end)), &device);
    let (shape, x, labels) = match config.as_ref().and_then(ModelConfig::context) {
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
    let model: Box<dyn Model> = match config {
        Some(config) => config.build(&shape, parameters.builder(&device))?,
        None => Box::new(Cnn4::new(options.model == "cnn4-norm", &parameters.builder(&device))?),
    };
    let variables = parameters.trainable().into_iter().map(|(_, var)| var).collect();
    let mut optimizer = optim::AnyOptimizer::new(variables, optim::by_name(&options.opt)?)?;

    let mut step = || -> Result<()> {
        let logits = model.forward(&x, &Pass::train(0))?;
        optimizer.backward_step(&ops::cross_entropy(&logits, &labels, 0.0)?)
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

/// The most memory that the process held, as the kernel counts it, where there is /proc.
fn peak_memory() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse::<f64>().ok().map(|kilobytes| (kilobytes / 1024.0).round())
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
        "examples_per_second": per_second(times[times.len() / 2]),
        "best_examples_per_second": per_second(times[0]),
        "steps": times.len(),
        "median_step_ms": times[times.len() / 2] * 1e3,
        "peak_memory_mb": peak_memory(),
    });
    println!("{line}");
    Ok(())
}
