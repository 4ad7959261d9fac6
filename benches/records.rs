//! What records cost: the same training with its records, checkpoints and event file written, and with none of it, in turn.
//!
//! `cargo bench --bench records -- --rounds 9` prints a line of JSON for each model: the median of the rounds' ratios of the
//! whole wall time, less 1. Checkpoints are as frequent as by default.

use anyhow::{Context, Result};
use candle_core::Device;
use clap::Parser;
use experiments::{
    console::Console,
    data::Dataset,
    experiment::{CHECKPOINT_EVERY, CHECKPOINTS_APART},
    models, optimizer,
    record::{MetricsWriter, Phase, TrialConfig, TrialRecord, read_metrics},
    tensorboard,
    train::{Saving, Training},
};
use std::{sync::atomic::AtomicBool, time::Instant};

#[derive(Parser)]
struct Options {
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Data set, model, batch size, updates, and whether every update is probed (which is not part of either side's cost here: the
/// probe computes, and its lines are records).
const WORKLOADS: [(Dataset, &str, usize, u64, bool); 3] = [
    (Dataset::Digits, "mlp", 32, 1_760, false),
    (Dataset::Digits, "cnn", 32, 440, false),
    (Dataset::Language, "gpt:layers=2,width=64", 12, 200, true),
];

fn main() -> Result<()> {
    let options = Options::parse();
    let console = Console::start(0)?;
    for (dataset, model, batch_size, steps, probe) in WORKLOADS {
        let data = dataset.load(None, None, console.bars())?;
        let model = models::parse(model)?;
        let shape = model.shape(&data)?;
        let rule = optimizer::parse("adamw")?;
        let schedule = optimizer::parse_schedule("cosine", &rule, steps)?;
        let config = TrialConfig {
            phase: Phase::Final,
            dataset: dataset.to_string(),
            text_sha256: None,
            model: model.to_string(),
            optimizer: rule.to_string(),
            schedule: schedule.to_string(),
            clip: None,
            decay_matrices_only: false,
            batch_size,
            steps,
            evaluate_every: steps,
            augment: false,
            max_loss: 1e3,
            probe,
            device: "cpu".to_owned(),
            seed: 0,
        };
        let training = Training { data: &data, model: &model, shape, rule, schedule, config: &config };
        let run = |with_records: bool| -> Result<f64> {
            let folder = tempfile::tempdir()?;
            let start = Instant::now();
            let path = folder.path().join("metrics.jsonl");
            let mut metrics = if with_records { MetricsWriter::open(path.clone())? } else { MetricsWriter::nowhere() };
            let (every, apart) = (CHECKPOINT_EVERY, CHECKPOINTS_APART);
            let saving = Saving { path: folder.path().join("checkpoint.safetensors"), every, apart };
            let stop = AtomicBool::new(false);
            let saving = with_records.then_some(&saving);
            let outcome = training.run(&Device::Cpu, &mut metrics, saving, &console.trial("bench", steps), &stop)?;
            if with_records {
                metrics.sync()?;
                let record =
                    TrialRecord { id: config.id(), group: "bench".to_owned(), config: config.clone(), outcome };
                tensorboard::write(folder.path(), &record, &read_metrics(&path)?)?;
            }
            Ok(start.elapsed().as_secs_f64())
        };
        run(true)?;
        let mut ratios = Vec::new();
        for _ in 0..options.rounds {
            ratios.push(run(true)? / run(false)?);
        }
        ratios.sort_by(f64::total_cmp);
        let median = ratios.get(ratios.len() / 2).context("--rounds must be at least 1")?;
        println!(
            "{}",
            serde_json::json!({
                "dataset": dataset.to_string(),
                "model": model.to_string(),
                "steps": steps,
                "records_cost_percent": (median - 1.0) * 100.0,
                "rounds": ratios.len(),
            })
        );
    }
    Ok(())
}
