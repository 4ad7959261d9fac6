//! What records cost: the same trials with their records, checkpoints and event files written as an experiment writes them, and with
//! none of it, in turn.
//!
//! `cargo bench --bench records -- --rounds 9` prints a line of JSON for each model: the median of the rounds' ratios of the
//! whole wall time, less 1, the range of the middle half, and the ratio of the fastest runs, which
//! other programs disturb least. Checkpoints are as frequent as by default.

use anyhow::{Context, Result};
use candle_core::Device;
use clap::Parser;
use experiments::{
    config::operations::Operations,
    problem::{
        data::{Dataset, Hub},
        models,
    },
    record::{MetricsWriter, Phase, TrialConfig, TrialRecord, hyperparameters, tensorboard::Events, write_json},
    run::{
        console::Console,
        jobs::{CHECKPOINT_EVERY, CHECKPOINTS_APART},
        optimizer,
        train::{Saving, Training},
        write_queue::WriteQueue,
    },
};
use optim::Rule;
use std::{
    fs,
    sync::{Arc, atomic::AtomicBool},
    time::Instant,
};

#[derive(Parser)]
struct Options {
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Data set, model, batch size, updates, trials (as many as the default shootout of three optimizers has, but where they are long), and whether every update is probed (which is not part of either side's cost here: the
/// probe computes, and its lines are records).
const WORKLOADS: [(Dataset, &str, usize, u64, usize, bool); 3] = [
    (Dataset::Digits, "mlp", 32, 1_760, 9, false),
    (Dataset::Digits, "cnn", 32, 440, 3, false),
    (Dataset::Language, "gpt:layers=2,width=64", 12, 200, 3, true),
];

fn main() -> Result<()> {
    let options = Options::parse();
    let console = Console::start(0)?;
    for (dataset, model, batch_size, steps, trials, probe) in WORKLOADS {
        let data = dataset.load(None, None, &Hub::new(console.bars()))?;
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
            ema: None,
            lookahead: None,
            clip: None,
            decay_matrices_only: false,
            batch_size,
            steps,
            evaluate_every: steps,
            evaluate_on: None,
            augment: Default::default(),
            max_loss: 1e3,
            probe,
            device: "cpu".to_owned(),
            ops: Operations::Descent,
            precision: Default::default(),
            seed: 0,
            repeat: None,
        };
        let training = Training { data: &data, model: &model, shape, rule, schedule, config: &config };
        let run = |with_records: bool| -> Result<f64> {
            let folder = tempfile::tempdir()?;
            let start = Instant::now();
            let queue = WriteQueue::start(Arc::default());
            for trial in 0..trials {
                let id = format!("{}-{trial}", config.id());
                let file = |name: &str| folder.path().join("trials").join(&id).join(name);
                let record = TrialRecord {
                    id: id.clone(),
                    group: "bench".to_owned(),
                    config: config.clone(),
                    outcome: None,
                    metrics_sha256: None,
                };
                let mut metrics = MetricsWriter::nowhere();
                if with_records {
                    fs::create_dir_all(file(""))?;
                    let folder = folder.path().join("tensorboard").join(&id);
                    let events = Events::new(
                        folder,
                        &record,
                        &training.rule.qualified_name(),
                        hyperparameters::of(&training.rule),
                    );
                    let (path, record) = (file("trial.json"), record.clone());
                    queue.push(move || write_json(&path, &record))?;
                    metrics = MetricsWriter::open(file("metrics.jsonl"))?.with_events(events);
                }
                let (every, apart) = (CHECKPOINT_EVERY, CHECKPOINTS_APART);
                let saving = Saving { path: file("checkpoint.safetensors"), every, apart, until: None };
                let stop = AtomicBool::new(false);
                let saving = with_records.then_some(&saving);
                let outcome =
                    training.run(&Device::Cpu, &mut metrics, saving, &console.trial("bench", steps), &stop)?;
                if with_records {
                    let (metrics_sha256, path) = (Some(metrics.sha256()), file("trial.json"));
                    let record = TrialRecord { outcome: outcome.clone(), metrics_sha256, ..record };
                    queue.push(move || {
                        metrics.end(&outcome.unwrap_or_default())?;
                        write_json(&path, &record)
                    })?;
                }
            }
            queue.finish()?;
            Ok(start.elapsed().as_secs_f64())
        };
        run(true)?;
        let (mut ratios, mut fastest) = (Vec::new(), [f64::INFINITY; 2]);
        for round in 0..options.rounds {
            // Each side is the first in every second round.
            let first = run(round % 2 == 0)?;
            let second = run(round % 2 == 1)?;
            let [with, without] = if round % 2 == 0 { [first, second] } else { [second, first] };
            ratios.push(with / without);
            fastest = [fastest[0].min(with), fastest[1].min(without)];
        }
        ratios.sort_by(f64::total_cmp);
        let median = ratios.get(ratios.len() / 2).context("--rounds must be at least 1")?;
        let quartile = |q: f64| (ratios[((ratios.len() - 1) as f64 * q).round() as usize] - 1.0) * 100.0;
        let middle_half = [0.25, 0.75].map(quartile);
        println!(
            "{}",
            serde_json::json!({
                "dataset": dataset.to_string(),
                "model": model.to_string(),
                "steps": steps,
                "trials": trials,
                "records_cost_percent": (median - 1.0) * 100.0,
                "middle_half_percent": middle_half,
                "of_the_fastest_percent": (fastest[0] / fastest[1] - 1.0) * 100.0,
                "rounds": ratios.len(),
            })
        );
    }
    Ok(())
}
