//! The options that all binaries share.

use std::{num::NonZeroUsize, path::PathBuf};

/// The command line of an experiment.
#[derive(Debug, Clone, clap::Parser)]
pub struct Options {
    /// Data set: digits (part of the program), fashion-mnist, cifar10
    #[arg(long, value_name = "NAME", default_value = "digits")]
    pub dataset: String,
    /// Folder with the data set's files; without it they come from the Hugging Face Hub
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Model [default: the data set's own, see --list]
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Optimizer, repeatable [default: see --list]
    #[arg(long, value_name = "NAME[:KEY=VALUE,..]")]
    pub opt: Vec<String>,
    /// Schedule of the learning rate
    #[arg(long, value_name = "NAME[:KEY=VALUE,..]", default_value = "cosine")]
    pub schedule: String,
    /// Train with each of the seeds 0..N
    #[arg(long, value_name = "N", default_value = "3")]
    pub seeds: NonZeroUsize,
    /// Passes over the training images [default: the data set's own, see --list]
    #[arg(long, value_name = "N", conflicts_with = "steps")]
    pub epochs: Option<NonZeroUsize>,
    /// Updates, in place of --epochs
    #[arg(long, value_name = "N")]
    pub steps: Option<NonZeroUsize>,
    /// Images per update [default: the data set's own, see --list]
    #[arg(long, value_name = "N")]
    pub batch_size: Option<NonZeroUsize>,
    /// Where to train: cpu, cuda, cuda:INDEX or metal
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub device: String,
    /// CPU threads, shared by the trials that run at a time [default: all cores]
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// Trials that run at a time; the results do not depend on it [default: a trial per thread on the CPU, 1 elsewhere]
    #[arg(long, value_name = "N")]
    pub jobs: Option<NonZeroUsize>,
    /// Folder for the results; must be empty or not exist [default: runs/EXPERIMENT-TIME]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// List data sets, models, optimizers and schedules with their defaults
    #[arg(long)]
    pub list: bool,
    /// Log more to stderr: -v for info, -vv for debug; RUST_LOG overrides it
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
}
