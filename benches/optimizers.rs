//! Times a step of an optimizer on fixed gradients, f32, on the CPU:
//!
//! `cargo bench --bench optimizers -- --workload a --rule adamw --impl optim --threads 2 --seconds 2`
//!
//! and prints one JSON line. With `--paced` it measures, and prints a line, for each line that it reads.
//! `optimizers_torch.py` takes the same options for PyTorch, and `optimizers.py` lets both take turns many times a second
//! and prints the table of `RESULTS.md`.
//!
//! `cargo bench --bench optimizers -- --table a` (`b`, `denormals`) prints a table of all elementwise rules, in each set of flags
//! that has a kernel of its own. Each step takes turns with the memory's limit, in one process.

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::Optimizer;
use clap::{Parser, ValueEnum};
use optim::{AnyOptimizer, AnyRule, Rule, Value};
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

#[derive(Clone, Copy, ValueEnum)]
enum Table {
    /// How fast 25M parameters in 5 tensors are updated, against memory.
    A,
    /// 2.2M parameters in 180 tensors.
    B,
    /// How much slower steps are while gradients are 0 and state decays through the denormal numbers.
    Denormals,
}

#[derive(Parser)]
struct Options {
    #[arg(long, required_unless_present = "table")]
    workload: Option<Workload>,
    /// A rule as `by_name` reads it; sgd is with momentum.
    #[arg(long, required_unless_present = "table")]
    rule: Option<String>,
    #[arg(long, value_name = "IMPL", required_unless_present = "table")]
    r#impl: Option<Impl>,
    /// Prints a table of all rules.
    #[arg(long)]
    table: Option<Table>,
    /// In a table, only the rules whose text contains this.
    #[arg(long, default_value = "")]
    only: String,
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
fn measure(options: &Options, what: &serde_json::Value, mut call: impl FnMut() -> Result<()>) -> Result<()> {
    let mut report = || {
        let times = time(options.seconds, &mut call)?;
        let mut line = what.clone();
        line["median_ns"] = serde_json::json!(times[times.len() / 2]);
        line["min_ns"] = serde_json::json!(times[0]);
        line["steps"] = serde_json::json!(times.len());
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

/// What a rule does to memory, by plain loops: reads a gradient, and reads and writes `arrays` arrays.
struct Memory {
    read: Vec<f32>,
    written: Vec<Vec<f32>>,
}

impl Memory {
    fn new(workload: Workload, arrays: usize) -> Self {
        let total = shapes(workload).iter().map(|s| s.iter().product::<usize>()).sum();
        Self { read: vec![1.0; total], written: vec![vec![1.0; total]; arrays] }
    }

    fn update(&mut self) {
        let arrays = self.written.len();
        let mut parts: Vec<_> = self.read.chunks(CHUNK).map(|read| (read, Vec::with_capacity(arrays))).collect();
        for array in &mut self.written {
            parts.iter_mut().zip(array.chunks_mut(CHUNK)).for_each(|(part, chunk)| part.1.push(chunk));
        }
        parts.into_par_iter().for_each(|(read, written)| {
            for chunk in written {
                chunk.iter_mut().zip(read).for_each(|(x, r)| *x += *r);
            }
        });
    }

    /// The pass of a rule with sums: reads all arrays.
    fn measure(&self) -> f32 {
        let sum = |all: &[f32]| -> f32 {
            let part = |chunk: &[f32]| {
                let mut sums = [0f32; 64];
                chunk.chunks_exact(64).for_each(|x| sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += *x));
                sums.iter().sum::<f32>()
            };
            all.par_chunks(CHUNK).map(part).sum()
        };
        sum(&self.read) + self.written.iter().map(|array| sum(array)).sum::<f32>()
    }
}

fn filled(shape: &[usize], value: impl Fn(usize) -> f32) -> Result<Tensor> {
    Tensor::from_iter((0..shape.iter().product::<usize>()).map(value), &Device::Cpu)?.reshape(shape)
}

/// An even spread from -0.5 to 0.5.
fn spread(i: usize, seed: usize) -> f32 {
    ((i * 7919 + seed) % 1009) as f32 / 1009.0 - 0.5
}

fn variables(workload: Workload) -> Result<Vec<Var>> {
    shapes(workload).iter().map(|s| Var::from_tensor(&filled(s, |i| spread(i, 1))?)).collect()
}

fn gradients(vars: &[Var], value: impl Fn(usize) -> f32 + Copy) -> Result<GradStore> {
    let mut grads = Var::zeros((), DType::F32, &Device::Cpu)?.as_tensor().sqr()?.backward()?;
    for var in vars {
        grads.insert(var, filled(var.dims(), value)?);
    }
    Ok(grads)
}

fn run(options: &Options, workload: Workload, rule: &str, r#impl: Impl) -> Result<()> {
    let name = |value: Option<clap::builder::PossibleValue>| value.map(|v| v.get_name().to_string());
    let what = serde_json::json!({
        "impl": name(r#impl.to_possible_value()), "rule": rule, "workload": name(workload.to_possible_value()),
    });
    let rule = if rule == "sgd" { "sgd:momentum=0.9" } else { rule };
    if let Impl::Memory = r#impl {
        let mut memory = Memory::new(workload, 1 + optim::by_name(rule)?.kernel().slots.len());
        return measure(options, &what, || {
            memory.update();
            Ok(())
        });
    }
    let vars = variables(workload)?;
    let grads = gradients(&vars, |i| spread(i, 2))?;
    match r#impl {
        Impl::Candle => {
            let mut optimizer = candle_nn::AdamW::new_lr(vars, 1e-3)?;
            measure(options, &what, || optimizer.step(&grads))
        }
        _ => {
            let mut optimizer = AnyOptimizer::new(vars, optim::by_name(rule)?)?;
            measure(options, &what, || optimizer.step(&grads))
        }
    }
}

/// All rules that are one elementwise kernel, with their defaults, and with each set of flags that has another kernel.
fn elementwise_rules() -> Result<Vec<(String, AnyRule)>> {
    let mut found = Vec::new();
    for spec in optim::rules::specs() {
        let rule = optim::by_name(spec.name)?;
        if rule.matrix().is_some() || rule.quasi_newton().is_some() || rule.sharpness().is_some() {
            continue;
        }
        let mut kernels = vec![rule.kernel().name];
        let first = found.len();
        found.push((spec.name.to_string(), rule));
        let mut at = first;
        while at < found.len() {
            for hyperparameter in spec.hyperparameters {
                let (text, rule) = &found[at];
                let (mut rule, join) = (rule.clone(), if text.contains(':') { ',' } else { ':' });
                let (value, name) = match hyperparameter.default {
                    Value::Flag(default) => (Value::Flag(!default), hyperparameter.name),
                    _ if hyperparameter.name == "momentum" => (Value::Number(0.9), "momentum"),
                    _ => continue,
                };
                if rule.set(name, value).is_err() || kernels.contains(&rule.kernel().name) {
                    continue;
                }
                kernels.push(rule.kernel().name);
                let text = format!("{text}{join}{name}={value}");
                found.push((text, rule));
            }
            at += 1;
        }
    }
    Ok(found)
}

fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

fn milliseconds(call: impl FnOnce() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    call()?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// A row per rule: a step, the loop, their ratio; and the ratio to the loop with another reading pass where the rule takes sums.
fn print_speeds(options: &Options, workload: Workload) -> Result<()> {
    println!("| rule | arrays | step, ms | loop, ms | loop / step | with the pass for sums |");
    println!("| --- | --- | --- | --- | --- | --- |");
    for (text, rule) in elementwise_rules()?.into_iter().filter(|(text, _)| text.contains(&options.only)) {
        let (arrays, has_sums) = (1 + rule.kernel().slots.len(), !rule.kernel().sums.of.is_empty());
        let vars = variables(workload)?;
        let grads = gradients(&vars, |i| spread(i, 2))?;
        let mut optimizer = AnyOptimizer::new(vars, rule)?;
        let mut memory = Memory::new(workload, arrays);
        let mut turns: Vec<[f64; 3]> = Vec::new();
        let start = Instant::now();
        while turns.len() < 5 || start.elapsed().as_secs_f64() < options.seconds {
            // Each twice, so that what is timed does not find the other's memory in a cache.
            optimizer.step(&grads)?;
            let step = milliseconds(|| optimizer.step(&grads))?;
            memory.update();
            let update = milliseconds(|| {
                memory.update();
                Ok(())
            })?;
            let mut both = update;
            if has_sums {
                both += milliseconds(|| {
                    std::hint::black_box(memory.measure());
                    Ok(())
                })?;
            }
            turns.push([step, update, both]);
        }
        let of = |f: fn(&[f64; 3]) -> f64| median(turns.iter().map(f));
        let (step, update) = (of(|t| t[0]), of(|t| t[1]));
        let (ratio, with_sums) = (of(|t| t[1] / t[0]), of(|t| t[2] / t[0]));
        let with_sums = if has_sums { format!("{with_sums:.2}") } else { String::new() };
        println!("| {text} | {} | {step:.2} | {update:.2} | {ratio:.2} | {with_sums} |", arrays + 1);
    }
    Ok(())
}

/// Steps with a gradient, then ten times as many without.
const STEPS: usize = 60;

/// A row per rule: a step with usual gradients; the mean of steps with gradients that are 0, after some between 1e-18 and 1e-15; and
/// the slowest tenth of those. State decays through the denormal numbers meanwhile, and stays there unless it is dropped.
fn print_denormals(options: &Options) -> Result<()> {
    println!("| rule | usual gradient, ms | gradient 0, ms | ratio | slowest tenth of the time |");
    println!("| --- | --- | --- | --- | --- |");
    for (text, rule) in elementwise_rules()?.into_iter().filter(|(text, _)| text.contains(&options.only)) {
        let vars = variables(Workload::B)?;
        let tiny = gradients(&vars, |i| 1e-18 * 10f32.powi((i % 4) as i32))?;
        let (normal, zero) = (gradients(&vars, |i| spread(i, 2))?, gradients(&vars, |_| 0.0)?);
        let mut optimizer = AnyOptimizer::new(vars.clone(), rule.clone())?;
        let mut steps = |grads: &GradStore| -> Result<Vec<f64>> {
            (0..STEPS).map(|_| milliseconds(|| optimizer.step(grads))).collect()
        };
        steps(&tiny)?;
        let parts = (0..10).map(|_| Ok(median(steps(&zero)?))).collect::<Result<Vec<_>>>()?;
        let mut optimizer = AnyOptimizer::new(vars, rule)?;
        optimizer.step(&normal)?;
        let normal = median((0..STEPS).map(|_| milliseconds(|| optimizer.step(&normal))).collect::<Result<Vec<_>>>()?);
        let (mean, slowest) = (parts.iter().sum::<f64>() / 10.0, parts.iter().copied().fold(0.0, f64::max));
        println!("| {text} | {normal:.2} | {mean:.2} | {:.2} | {:.2} |", mean / normal, slowest / normal);
    }
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(options.threads).build()?;
    pool.install(|| match (options.table, options.workload, &options.rule, options.r#impl) {
        (Some(Table::A), ..) => print_speeds(&options, Workload::A),
        (Some(Table::B), ..) => print_speeds(&options, Workload::B),
        (Some(Table::Denormals), ..) => print_denormals(&options),
        (None, Some(workload), Some(rule), Some(r#impl)) => run(&options, workload, rule, r#impl),
        _ => Ok(()),
    })?;
    Ok(())
}
