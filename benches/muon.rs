//! Times a rule on whole matrices on those of a model, f32, on the CPU:
//!
//! `cargo bench --bench muon -- --workload resnet18 --rule muon --impl optim --threads 2 --seconds 2`
//!
//! and prints one JSON line. With `--paced` it measures, and prints a line, for each line that it reads.
//! `muon_torch.py` takes the same options for PyTorch's optimizers, and `muon.py` lets all take turns and prints a table.

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Result, Tensor, Var};
use clap::{Parser, ValueEnum};
use optim::matrix::{Coefficients, orthogonalise};
use optim::{AnyOptimizer, Group, Optimizer, by_name};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
use std::io::BufRead;
use std::time::Instant;

#[derive(Clone, Copy, ValueEnum)]
enum Workload {
    /// The convolutions of ResNet-18, out x (in kh kw).
    Resnet18,
    /// The layers of GPT-2 small at a quarter of its width.
    Gpt,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Impl {
    /// A step of our rule.
    Optim,
    /// Muon's orthogonalisation alone, equal shapes as one stack.
    Iteration,
    /// Multiplications and additions in registers: the peak.
    Peak,
}

#[derive(Parser)]
struct Options {
    #[arg(long)]
    workload: Workload,
    /// A rule as `by_name` reads it.
    #[arg(long, default_value = "muon")]
    rule: String,
    #[arg(long, value_name = "IMPL")]
    r#impl: Impl,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// The mean time of so many steps is one time: SOAP and Shampoo do more in each tenth step.
    #[arg(long, default_value_t = 1)]
    period: u32,
    /// For how long steps are timed; one time before is not.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Measures once for each line of the standard input.
    #[arg(long)]
    paced: bool,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// How many matrices there are of each shape.
fn stacks(workload: Workload) -> Vec<(usize, usize, usize)> {
    match workload {
        Workload::Resnet18 => vec![
            (1, 64, 147),
            (4, 64, 576),
            (1, 128, 576),
            (3, 128, 1152),
            (1, 128, 64),
            (1, 256, 1152),
            (3, 256, 2304),
            (1, 256, 128),
            (1, 512, 2304),
            (3, 512, 4608),
            (1, 512, 256),
        ],
        Workload::Gpt => vec![(12, 192, 576), (12, 192, 192), (12, 192, 768), (12, 768, 192)],
    }
}

/// The multiplications with an addition of Muon's iteration, on the Gram matrix where that needs fewer. Of a symmetric result half
/// counts, though tiles on the diagonal are computed as a whole.
fn multiplications(workload: Workload) -> f64 {
    let of = |(count, rows, columns): (usize, usize, usize)| {
        let (short, long) = (rows.min(columns) as f64, rows.max(columns) as f64);
        let (gram, symmetric, last) = (short * short * long / 2.0, short * short * short / 2.0, short * short * long);
        count as f64 * (5.0 * (gram + symmetric + last)).min(gram + 17.0 * symmetric + last)
    };
    stacks(workload).into_iter().map(of).sum()
}

/// Twelve chains of multiplications with an addition, none of which waits for another.
struct Chains(usize);

impl WithSimd for Chains {
    type Output = (usize, f32);

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
        let [factor, term, start] = std::hint::black_box([0.999_999, 1e-6, 1.0]).map(|x| simd.splat_f32s(x));
        let mut chains = [start; 12];
        for _ in 0..self.0 {
            for chain in &mut chains {
                *chain = simd.mul_add_f32s(*chain, factor, term);
            }
        }
        let sum = chains.into_iter().fold(simd.splat_f32s(0.0), |sum, chain| simd.add_f32s(sum, chain));
        (self.0 * chains.len() * size_of::<S::f32s>() / size_of::<f32>(), simd.reduce_sum_f32s(sum))
    }
}

/// Nanoseconds of each call within the time given, the mean of each `period`, the first left out.
fn time(seconds: f64, period: u32, call: &mut dyn FnMut() -> Result<()>) -> Result<Vec<u128>> {
    let mut all = || (0..period).try_for_each(|_| call());
    all()?;
    let start = Instant::now();
    let mut times = Vec::new();
    while times.is_empty() || start.elapsed().as_secs_f64() < seconds {
        let before = Instant::now();
        all()?;
        times.push(before.elapsed().as_nanos() / u128::from(period));
    }
    times.sort_unstable();
    Ok(times)
}

/// Measures once, or as often as it is asked to.
fn measure(options: &Options, multiplications: f64, mut call: impl FnMut() -> Result<()>) -> Result<()> {
    let mut report = || {
        let times = time(options.seconds, options.period, &mut call)?;
        let name = |value: Option<clap::builder::PossibleValue>| value.map(|v| v.get_name().to_string());
        let line = serde_json::json!({
            "impl": name(options.r#impl.to_possible_value()),
            "rule": options.rule,
            "workload": name(options.workload.to_possible_value()),
            "median_ns": times[times.len() / 2],
            "min_ns": times[0],
            "steps": times.len(),
            "multiplications": multiplications,
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

fn run(options: &Options) -> Result<()> {
    if options.r#impl == Impl::Peak {
        let run = || Arch::new().dispatch(Chains(std::hint::black_box(100_000)));
        let per_thread = run().0;
        return measure(options, (per_thread * options.threads) as f64, || {
            let results: Vec<_> = (0..options.threads).into_par_iter().map(|_| run()).collect();
            std::hint::black_box(results);
            Ok(())
        });
    }
    if options.r#impl == Impl::Optim {
        let shapes = stacks(options.workload);
        let shapes = shapes.into_iter().flat_map(|(count, rows, columns)| vec![(rows, columns); count]);
        let random = |shape| Tensor::randn(0f32, 1e-2, shape, &Device::Cpu);
        let parameters: Vec<(String, Var)> = shapes
            .enumerate()
            .map(|(i, shape)| Ok((format!("layer.{i}.weight"), Var::from_tensor(&random(shape)?)?)))
            .collect::<Result<_>>()?;
        let mut grads: GradStore = Var::zeros((), DType::F32, &Device::Cpu)?.as_tensor().sqr()?.backward()?;
        for (_, parameter) in &parameters {
            grads.insert(parameter, random(parameter.dims2()?)?);
        }
        let mut optimizer = AnyOptimizer::from_groups(vec![Group::new(parameters, by_name(&options.rule)?)])?;
        return measure(options, multiplications(options.workload), || optimizer.step(&grads));
    }
    let stacks: Vec<Tensor> = stacks(options.workload)
        .into_iter()
        .map(|(count, rows, columns)| Tensor::randn(0f32, 1e-2, (count, rows, columns), &Device::Cpu))
        .collect::<Result<_>>()?;
    measure(options, multiplications(options.workload), || {
        for stack in &stacks {
            std::hint::black_box(orthogonalise(stack, Coefficients::Jordan, stack.dtype(), 1.0)?);
        }
        Ok(())
    })
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(options.threads).build()?;
    pool.install(|| run(&options))?;
    Ok(())
}
