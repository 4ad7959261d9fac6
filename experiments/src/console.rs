//! What a run shows while it works: progress bars, messages and the log, all on stderr.

use anyhow::{Context, Result, bail};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::{
    fs::File,
    io::{self, IsTerminal, Write},
    path::Path,
    sync::{Arc, Mutex},
};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{FilterExt, LevelFilter},
    fmt::{self, MakeWriter},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

/// The progress bars and the log of a run.
#[derive(Clone)]
pub struct Console {
    bars: MultiProgress,
    log: LogFile,
}

impl Console {
    /// Starts the log: to stderr what `verbose` asks for (0 warnings, 1 info, 2 debug) or else what RUST_LOG says, and info
    /// or finer to the file that [`Self::log_to`] names later.
    ///
    /// # Errors
    /// When RUST_LOG cannot be understood.
    pub fn start(verbose: u8) -> Result<Self> {
        let console = Self { bars: MultiProgress::new(), log: LogFile::default() };
        let directives = match std::env::var("RUST_LOG") {
            Ok(directives) if !directives.is_empty() => directives,
            _ => ["warn", "info", "info,experiments=debug,optim=debug"][usize::from(verbose.min(2))].to_owned(),
        };
        let filter = || match EnvFilter::builder().parse(&directives) {
            Ok(filter) => Ok(filter),
            Err(error) => bail!("RUST_LOG `{directives}`: {error}"),
        };
        let bars = console.bars.clone();
        let stderr = fmt::layer()
            .with_writer(move || AboveBars(bars.clone()))
            .with_ansi(io::stderr().is_terminal())
            .with_target(false)
            .without_time()
            .with_filter(filter()?);
        let file =
            fmt::layer().with_writer(console.log.clone()).with_ansi(false).with_filter(filter()?.or(LevelFilter::INFO));
        // A process has one log; a second run in it logs to the first one's.
        let _ = Registry::default().with(stderr).with(file).try_init();
        Ok(console)
    }

    /// Appends the log, what was logged before included, to the file `path`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn log_to(&self, path: &Path) -> Result<()> {
        let open = || {
            let mut file = File::options().create(true).append(true).open(path)?;
            let mut target = self.log.lock();
            if let LogTarget::Memory(early) = &*target {
                file.write_all(early)?;
            }
            *target = LogTarget::File(file);
            io::Result::Ok(())
        };
        open().with_context(|| format!("cannot write `{}`", path.display()))
    }

    /// The bars, for a caller that adds its own.
    pub fn bars(&self) -> &MultiProgress {
        &self.bars
    }

    /// Prints a line on stderr, above the bars.
    pub fn line(&self, text: &str) {
        self.bars.suspend(|| {
            // Without a stderr there is nobody to tell.
            let _ = writeln!(io::stderr(), "{text}");
        });
    }

    /// A bar for `trials` trials, below theirs; hidden where stderr is not a terminal.
    pub fn overall(&self, trials: u64) -> OverallBar {
        let style = ProgressStyle::with_template("{prefix:<24!} {bar:24} {pos:>6}/{len} {elapsed:>10} {eta:>4}");
        let style = style.expect("the template is right").progress_chars("━╸ ");
        OverallBar(self.bars.add(ProgressBar::new(trials).with_style(style).with_prefix("all trials")))
    }

    /// A bar for a trial of `steps` updates; hidden where stderr is not a terminal.
    pub fn trial(&self, name: &str, steps: u64) -> TrialBar {
        let style = ProgressStyle::with_template("{prefix:<24!} {bar:24} {pos:>6}/{len} {msg} {per_sec:>10} {eta:>4}");
        let style = style.expect("the template is right").progress_chars("━╸ ");
        let bar = self.bars.insert_from_back(1, ProgressBar::new(steps).with_style(style).with_prefix(name.to_owned()));
        TrialBar { bar, evaluation: Mutex::default() }
    }
}

/// The bar that counts the trials of a run. It goes when it is dropped.
pub struct OverallBar(ProgressBar);

impl OverallBar {
    /// Another trial has ended.
    pub fn one_more(&self) {
        self.0.inc(1);
    }
}

impl Drop for OverallBar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// The progress bar of a trial. It goes when it is dropped.
pub struct TrialBar {
    bar: ProgressBar,
    evaluation: Mutex<String>,
}

impl TrialBar {
    /// Shows an update and its training loss.
    pub fn step(&self, step: u64, loss: f64) {
        self.bar.set_position(step);
        if !self.bar.is_hidden() {
            let evaluation = self.evaluation.lock().expect("no holder of the lock panics");
            self.bar.set_message(format!("train loss {loss:7.4}  {evaluation}"));
        }
    }

    /// Shows an evaluation.
    pub fn evaluated(&self, loss: f64, accuracy: f64) {
        let text = format!("test loss {loss:7.4}  accuracy {:6.2} %", accuracy * 100.0);
        *self.evaluation.lock().expect("no holder of the lock panics") = text;
    }
}

impl Drop for TrialBar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Writes to stderr with the bars out of the way.
struct AboveBars(MultiProgress);

impl Write for AboveBars {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// The log file, or what is kept in memory until there is one.
#[derive(Clone, Default)]
struct LogFile(Arc<Mutex<LogTarget>>);

enum LogTarget {
    Memory(Vec<u8>),
    File(File),
}

impl Default for LogTarget {
    fn default() -> Self {
        Self::Memory(Vec::new())
    }
}

impl LogFile {
    fn lock(&self) -> std::sync::MutexGuard<'_, LogTarget> {
        self.0.lock().expect("no holder of the lock panics")
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut *self.lock() {
            LogTarget::Memory(early) => early.write(bytes),
            LogTarget::File(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogFile {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
