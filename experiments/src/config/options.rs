//! What an experiment is told: the command line, and the same as a TOML file.

use super::{augmentation::Augmentation, names, one_or_more, operations::Operations, precision::Precision};
use anyhow::{Context, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};
use std::{
    ffi::OsString,
    fmt, fs,
    num::{NonZeroU64, NonZeroUsize},
    path::{Path, PathBuf},
};

/// The headings of `--help`.
const PROBLEM: &str = "Problem";
const OPTIMIZERS: &str = "Optimizers";
const SEARCH: &str = "Search";
const LENGTH: &str = "Length";
const MACHINE: &str = "Machine";
const OUTPUT: &str = "Output";
/// In the order that they are printed.
pub const HEADINGS: [&str; 6] = [PROBLEM, OPTIMIZERS, SEARCH, LENGTH, MACHINE, OUTPUT];

/// The command line of an experiment.
#[derive(Debug, Clone, clap::Parser)]
pub struct Options {
    #[command(flatten)]
    /// What `--config` can hold too.
    pub settings: Settings,
    /// TOML file with any of these options. An option on the command line goes before it
    ///
    /// The keys are the options' names, with `_` for `-`. Paths in the file are relative to its folder
    #[arg(long, value_name = "FILE.toml", help_heading = OUTPUT)]
    pub config: Option<PathBuf>,
    /// Folder for the results; must be empty or not exist [default: runs/EXPERIMENT-TIME]
    #[arg(long, value_name = "DIR", help_heading = OUTPUT)]
    pub out: Option<PathBuf>,
    /// Finish the run in OUT, with the config that is stored there
    ///
    /// A larger --seeds adds trials; --threads, --jobs, --data-dir and --text can be others than before
    #[arg(long, requires = "out", conflicts_with = "config", help_heading = OUTPUT)]
    pub resume: bool,
    /// Run this command line when a trial has diverged, by `sh -c`, on Windows `cmd /C`
    ///
    /// Its environment has DESCENT_OUT, DESCENT_TRIAL, DESCENT_GROUP and DESCENT_CAUSE. What it prints goes to stderr; where it fails, that is a
    /// warning. The run does not wait for it. No file keeps it: a resumed run has the commands that --resume is given
    #[arg(long, value_name = "CMD", help_heading = OUTPUT)]
    pub on_diverge: Option<OsString>,
    /// Run this command line when the run has ended, finished or not
    ///
    /// Its environment has DESCENT_OUT; DESCENT_STATUS, which is finished, interrupted or failed; and, of a finished run, DESCENT_SUMMARY, the
    /// path of summary.json. The program waits for it for 10 seconds. All else is as for --on-diverge
    #[arg(long, value_name = "CMD", help_heading = OUTPUT)]
    pub on_end: Option<OsString>,
    /// List what options can name: data sets, models, optimizers, schedules, recipes. With NAME, all about one of them
    ///
    /// With --model, `--list` of an optimizer on matrices says which parameters of the model it takes as such
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "", help_heading = OUTPUT)]
    pub list: Option<String>,
    /// Print what makes SHELL complete this command: bash, elvish, fish, powershell or zsh
    #[arg(long, value_name = "SHELL", hide_possible_values = true, help_heading = OUTPUT)]
    pub completions: Option<clap_complete::Shell>,
    /// Print the manual page, to be read with `man -l`
    #[arg(long, help_heading = OUTPUT)]
    pub man: bool,
    /// Log more to stderr: -v for info, -vv for debug; RUST_LOG overrides it
    #[arg(short, long, action = clap::ArgAction::Count, help_heading = OUTPUT)]
    pub verbose: u8,
}

/// Everything that an experiment can be told, from the command line or from a TOML file; what is not told is absent.
#[derive(Debug, Clone, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Data set, repeatable: digits, language, fashion-mnist, cifar10 or tinyshakespeare [default: see --list]
    #[arg(long, value_name = "NAME", help_heading = PROBLEM)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dataset: Vec<String>,
    /// Folder with the files of the data set; without it they come from the Hugging Face Hub
    #[arg(long, value_name = "DIR", help_heading = PROBLEM)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
    /// A text file in UTF-8 to learn from, in place of --dataset. Beside other data sets it is named `text`
    #[arg(long, value_name = "FILE", help_heading = PROBLEM)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<PathBuf>,
    /// Model, repeatable [default: the data set's own, see --list]
    ///
    /// KEY=VALUE|VALUE.. stands for a model with each of these values, as it does in --opt
    #[arg(long, value_name = "NAME[:KEY=VALUE,..]", help_heading = PROBLEM)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub model: Vec<String>,
    /// Optimizer, repeatable [default: see --list]
    ///
    /// KEY=VALUE|VALUE.. stands for an optimizer with each of these values: 'adamw:lr=1e-3|3e-3,weight_decay=0.1|0.5' are four
    #[arg(long, value_name = "NAME[:KEY=VALUE,..]", help_heading = OPTIMIZERS)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub opt: Vec<String>,
    /// Schedule of the learning rate, repeatable where schedules are compared [default: see --list]
    ///
    /// There KEY=VALUE|VALUE.. stands for a schedule with each of these values
    #[arg(long, value_name = "NAME[:KEY=VALUE,..]", help_heading = OPTIMIZERS)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub schedule: Vec<String>,
    /// A known recipe of optimizer, schedule and length, in place of --opt and --schedule: vision or llm
    #[arg(long, value_name = "NAME", help_heading = OPTIMIZERS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipe: Option<String>,
    /// Shrink or stretch the recipe to the length of the run
    #[arg(long, requires = "recipe", help_heading = OPTIMIZERS)]
    #[serde(skip_serializing_if = "is_false")]
    pub scale_recipe: bool,
    /// warmup: the peak learning rates, separated by commas [default: see --list]
    #[arg(long, value_name = "LR,..", value_delimiter = ',', allow_negative_numbers = true, help_heading = OPTIMIZERS)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lr: Vec<f64>,
    /// warmup: where the transformer normalises: pre, post or both [default: that of --model, else see --list]
    #[arg(long, value_name = "WHERE", help_heading = PROBLEM)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub norm: Option<Norm>,
    /// Choose each optimizer's (or schedule's) learning rate and weight decay by N trials
    ///
    /// The trials come before the comparison. What --opt gives a value keeps it
    #[arg(long, value_name = "N", help_heading = SEARCH)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tune: Option<NonZeroUsize>,
    /// As --tune, by trials that make N updates together for each group: bad ones are stopped early
    ///
    /// Successive halving: of the trials that are spread over the space the better half is run on after an eighth of their updates, a quarter and
    /// a half; then whole trials follow around the best
    #[arg(long, value_name = "N", conflicts_with = "tune", help_heading = SEARCH)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tune_steps: Option<NonZeroU64>,
    /// What --tune searches for an optimizer, repeatable, as in adamw:lr=1e-4..1e-2 [default: see --list]
    #[arg(long, value_name = "NAME:KEY=LOW..HIGH,..", help_heading = SEARCH)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub space: Vec<String>,
    /// Report the steps and the time to this test accuracy, 0 to 1
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true, help_heading = OUTPUT)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_accuracy: Option<f64>,
    /// Report the steps and the time to this test loss
    #[arg(long, value_name = "LOSS", allow_negative_numbers = true, help_heading = OUTPUT)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_loss: Option<f64>,
    /// Train with N seeds, from 0 to N - 1 [default: 3]
    #[arg(long, value_name = "N", help_heading = LENGTH)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seeds: Option<NonZeroUsize>,
    /// Passes over the training data [default: the data set's own, see --list]
    #[arg(long, value_name = "N", conflicts_with = "steps", help_heading = LENGTH)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<NonZeroU64>,
    /// Updates, in place of --epochs
    #[arg(long, value_name = "N", help_heading = LENGTH)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<NonZeroU64>,
    /// Examples per update; several, separated by commas, are compared [default: the data set's own, see --list]
    ///
    /// With --epochs each batch size sees the same number of examples, and with --steps it makes the same number of updates
    #[arg(long, value_name = "N,..", value_delimiter = ',', help_heading = LENGTH)]
    #[serde(skip_serializing_if = "Vec::is_empty", with = "one_or_more")]
    pub batch_size: Vec<NonZeroUsize>,
    /// How training images are moved and mirrored [default: the data set's own, see --list]
    ///
    /// none; random: by up to 4 pixels, black around them, mirrored by chance; alternating: by up to 2 pixels, their mirror image around
    /// them, mirrored in every second pass
    #[arg(long, value_name = "HOW", help_heading = PROBLEM)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub augment: Option<Augmentation>,
    /// Clip the global gradient norm; 0 for no clipping; several, separated by commas, are compared [default: no clipping]
    #[arg(long, value_name = "NORM,..", value_delimiter = ',', allow_negative_numbers = true, help_heading = OPTIMIZERS)]
    #[serde(skip_serializing_if = "Vec::is_empty", with = "one_or_more")]
    pub clip: Vec<f64>,
    /// Evaluate the exponential moving average of the weights beside them, with this decay, as 0.999
    ///
    /// After n updates the decay is at most (1 + n) / (10 + n). Training does not see the average
    #[arg(long, value_name = "DECAY", allow_negative_numbers = true, help_heading = OPTIMIZERS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ema: Option<f64>,
    /// Lookahead around every optimizer: after each N updates, go half way back to where the last N began
    #[arg(long, value_name = "N", help_heading = OPTIMIZERS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lookahead: Option<NonZeroU64>,
    /// End a trial as diverged where its training loss is above this [default: 1000]
    #[arg(long, value_name = "LOSS", allow_negative_numbers = true, help_heading = LENGTH)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_loss: Option<f64>,
    /// Save every trial after N updates, for --resume [default: 200, at most once in 5 seconds]
    #[arg(long, value_name = "N", help_heading = OUTPUT)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint_every: Option<NonZeroU64>,
    /// Where to train: cpu, cuda, cuda:INDEX or metal [default: cpu]
    #[arg(long, value_name = "DEVICE", help_heading = MACHINE)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Whose operations the models run on: this project's, or candle's own [default: descent]
    #[arg(long, value_name = "WHOSE", help_heading = MACHINE)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ops: Option<Operations>,
    /// The numbers that models compute in [default: f32]
    ///
    /// f32; bf16, with parameters in f32; or tf32, which is f32 with products of shorter factors, on NVIDIA's GPUs
    #[arg(long, value_name = "FORMAT", help_heading = MACHINE)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<Precision>,
    /// CPU threads of all trials together [default: all cores]
    #[arg(long, value_name = "N", help_heading = MACHINE)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<NonZeroUsize>,
    /// Trials that run at a time [default: a trial per thread on the CPU, 1 elsewhere]
    ///
    /// The results do not depend on it
    #[arg(long, value_name = "N", help_heading = MACHINE)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jobs: Option<NonZeroUsize>,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// Where the transformers of a comparison normalise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Norm {
    /// Before attention and MLP.
    Pre,
    /// After the residual addition.
    Post,
    /// One of each.
    Both,
}

impl fmt::Display for Norm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pre => "pre",
            Self::Post => "post",
            Self::Both => "both",
        })
    }
}

/// Options that cannot both be given: one on the command line replaces the other in the file.
const EXCLUSIVE: [[&str; 2]; 2] = [["epochs", "steps"], ["tune", "tune_steps"]];

/// The option `--text`, and the data set that it names.
const TEXT: &str = "text";

impl Settings {
    /// The settings of the file that the options name, overridden by the options. Paths in the file are relative to its folder.
    ///
    /// # Errors
    /// A file that cannot be read or is no TOML; an unknown key (with the nearest known one); a value of the wrong kind, or one
    /// that no record could hold.
    pub fn of(options: &Options) -> Result<Self> {
        options.settings.check_storable()?;
        let Some(path) = &options.config else { return Ok(options.settings.clone()) };
        let text = fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let parsed = Self::parse(&text, folder, &options.settings).and_then(|settings| {
            settings.check_storable()?;
            Ok(settings)
        });
        parsed.with_context(|| format!("`{}`", path.display()))
    }

    fn parse(text: &str, folder: &Path, options: &Self) -> Result<Self> {
        let mut table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            let Some(span) = error.span() else { return anyhow::anyhow!("{}", error.message()) };
            let line = 1 + text[..span.start].matches('\n').count();
            // Which key it is about is not in the message; and of whole numbers that it cannot hold the parser speaks in types.
            let key =
                text.lines().nth(line - 1).and_then(|line| line.split_once('=')).map_or("", |(key, _)| key.trim());
            match error.message() {
                "duplicate key" => anyhow::anyhow!("line {line}: duplicate key `{}`", text[span].trim()),
                message if message.contains("too large") || message.contains("i128") => {
                    anyhow::anyhow!("line {line}: `{key}`: a whole number must be at most {}", i64::MAX)
                }
                message => anyhow::anyhow!("line {line}: {message}"),
            }
        })?;
        for (key, value) in &mut table {
            if !Self::keys().iter().any(|known| known == key) {
                return Err(names::unknown("key", key, Self::keys().iter().map(String::as_str)));
            }
            if key == TEXT && value.as_str() == Some("") {
                bail!("`{key}` is empty: it must name a file");
            }
            if let (true, Some(path)) = (Self::PATHS.contains(&key.as_str()), value.as_str()) {
                let path = folder.join(path);
                let path = path.to_str().with_context(|| format!("`{key}`: the file's folder must be UTF-8"))?;
                *value = path.into();
            }
            check_kind(key, value)?;
        }
        let given = toml::Table::try_from(options)?;
        for [one, other] in EXCLUSIVE {
            for (one, other) in [(one, other), (other, one)] {
                if given.contains_key(one) {
                    table.remove(other);
                }
            }
            if table.contains_key(one) && table.contains_key(other) {
                bail!("`{one}` and `{other}` cannot both be given");
            }
        }
        let names_text = |table: &toml::Table| {
            let datasets = table.get("dataset").and_then(toml::Value::as_array);
            datasets.is_some_and(|datasets| datasets.iter().any(|dataset| dataset.as_str() == Some(TEXT)))
        };
        match (given.contains_key("text"), given.contains_key("dataset")) {
            (true, false) if !names_text(&table) => table.remove("dataset"),
            (false, true) if !names_text(&given) => table.remove("text"),
            _ => None,
        };
        table.extend(given);
        Ok(table.try_into()?)
    }

    /// The options that are paths.
    const PATHS: [&str; 2] = ["data_dir", "text"];

    /// Checks that records can hold every value: JSON has no infinite numbers, TOML no whole numbers from 2^63 on, and text no
    /// path that is not UTF-8.
    ///
    /// # Errors
    /// The first option that they could not hold.
    pub fn check_storable(&self) -> Result<()> {
        for (name, path) in [("--data-dir", &self.data_dir), ("--text", &self.text)] {
            if let Some(path) = path.as_deref().filter(|path| path.to_str().is_none()) {
                bail!("{name} `{}`: it must be UTF-8, since records hold it as text", path.display());
            }
        }
        let option = |key: &str| format!("--{}", key.replace('_', "-"));
        let fields = serde_json::to_value(self)?;
        for (key, value) in fields.as_object().into_iter().flatten() {
            let mut wholes = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice).iter();
            if let Some(whole) = wholes.find_map(|whole| whole.as_u64().filter(|whole| i64::try_from(*whole).is_err()))
            {
                bail!("{} {whole}: it must be at most {}", option(key), i64::MAX);
            }
        }
        for (key, value) in toml::Table::try_from(self)? {
            let numbers = value.as_array().map_or(std::slice::from_ref(&value), Vec::as_slice);
            if let Some(number) = numbers.iter().filter_map(toml::Value::as_float).find(|number| !number.is_finite()) {
                bail!("{} {number}: it must be a finite number", option(&key));
            }
        }
        Ok(())
    }

    /// The keys of the file.
    pub fn keys() -> Vec<String> {
        let command = Self::augment_args(clap::Command::new("settings"));
        command.get_arguments().map(|argument| argument.get_id().to_string()).collect()
    }

    /// The names, as on the command line, of what is told.
    ///
    /// # Errors
    /// Never: settings are plain data.
    pub fn given(&self) -> Result<Vec<String>> {
        let table = toml::Table::try_from(self)?;
        Ok(table.keys().map(|key| format!("--{}", key.replace('_', "-"))).collect())
    }

    /// Whether hyperparameters are chosen by trials.
    pub fn tunes(&self) -> bool {
        self.tune.is_some() || self.tune_steps.is_some()
    }

    /// Whether nothing is told but where it runs and what it writes.
    pub fn asks_nothing(&self) -> bool {
        let Self { threads, jobs, device, checkpoint_every, data_dir, .. } = self.clone();
        *self == Self { threads, jobs, device, checkpoint_every, data_dir, ..Self::default() }
    }

    /// As a TOML file.
    ///
    /// # Errors
    /// A path that is not UTF-8.
    pub fn to_toml(&self) -> Result<String> {
        Ok(toml::to_string(self)?)
    }

    /// Makes paths independent of the current folder.
    ///
    /// # Errors
    /// The current folder is gone.
    pub fn absolute(mut self) -> Result<Self> {
        let absolute = |path: &Path| std::path::absolute(path).with_context(|| format!("`{}`", path.display()));
        self.data_dir = self.data_dir.as_deref().map(absolute).transpose()?;
        self.text = self.text.as_deref().map(absolute).transpose()?;
        Ok(self)
    }
}

/// Checks that a value of the file can be that of the option `key`.
fn check_kind(key: &str, value: &toml::Value) -> Result<()> {
    let alone = toml::Table::from_iter([(key.to_owned(), value.clone())]);
    let Err(error) = alone.try_into::<Settings>() else { return Ok(()) };
    let message = error.message().lines().next().unwrap_or_default();
    let command = Settings::augment_args(clap::Command::new("settings"));
    let argument =
        command.get_arguments().find(|argument| argument.get_id() == key && argument.get_action().takes_values());
    let words = argument.map(|argument| argument.get_possible_values()).unwrap_or_default();
    if words.is_empty() || value.is_str() {
        bail!("`{key}`: {message}");
    }
    // Of a value that is no text, serde tells nothing about the words that are allowed.
    let words: Vec<&str> = words.iter().map(clap::builder::PossibleValue::get_name).collect();
    bail!("`{key}` is {value}: it must be one of {}, as text", words.join(", "))
}

#[cfg(test)]
mod tests;
