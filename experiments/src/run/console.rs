//! What a run shows while it works: progress bars, messages and the log, all on stderr.

use anyhow::{Context, Result, bail};
use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressState, ProgressStyle};
use std::{
    fs::File,
    io::{self, IsTerminal, Write},
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{FilterExt, LevelFilter, filter_fn},
    fmt::{self, MakeWriter},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

/// Events of this target go to the log file alone: stderr is told in another way.
pub const FILE_ONLY: &str = "experiments::file_only";

/// The time between two lines of a trial where stderr is not a terminal and shows no bars.
const LINES_APART: Duration = Duration::from_secs(30);

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
            .with_ansi(io::stderr().is_terminal() && is_colour_wanted(std::env::var_os("NO_COLOR").as_deref()))
            .with_target(false)
            .without_time()
            .with_filter(filter()?.and(filter_fn(|metadata| metadata.target() != FILE_ONLY)));
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
        let bar = ProgressBar::new(trials).with_style(style("{elapsed:>7}")).with_message("all trials");
        OverallBar(self.bars.add(bar))
    }

    /// A bar for a trial of `steps` updates. Where stderr is not a terminal, a line every half minute takes its place.
    pub fn trial(&self, name: &str, steps: u64) -> TrialBar {
        let name_on_bar = shortened(name);
        let bar = ProgressBar::new(steps).with_style(style("{rate:>7}")).with_message(name_on_bar.clone());
        let bar = self.bars.insert_from_back(1, bar);
        let pace = Mutex::new(Pace::new(LINES_APART));
        TrialBar { bar, name: name.to_owned(), name_on_bar, evaluation: Mutex::default(), pace }
    }
}

/// A bar whose last part, the message, is cut where the terminal ends.
fn style(pace: &str) -> ProgressStyle {
    let template = format!("{{bar:8}} {{pos:>5}}/{{len:<5}} {pace} {{eta:>4}} {{wide_msg}}");
    let style = ProgressStyle::with_template(&template).expect("the template is right").progress_chars("━╸ ");
    // A key cannot tell that it could not write.
    style.with_key("rate", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        let _ = out.write_str(&rate(state.per_sec()));
    })
}

/// The characters of a name on a bar.
const NAME_WIDTH: usize = 24;

/// A name, without its middle where it is too long for a bar: its end tells trials of a group apart.
fn shortened(name: &str) -> String {
    let characters: Vec<char> = name.chars().collect();
    let [start, end] = [NAME_WIDTH / 2 - 4, NAME_WIDTH / 2 + 3];
    if characters.len() <= NAME_WIDTH {
        return name.to_owned();
    }
    characters[..start].iter().chain(&['…']).chain(&characters[characters.len() - end..]).collect()
}

/// So many a second, in three digits.
fn rate(per_second: f64) -> String {
    let digits = if per_second < 10.0 { 2 } else { usize::from(per_second < 100.0) };
    format!("{per_second:.digits$}/s")
}

/// Whether the variable NO_COLOR (no-color.org) allows colours.
fn is_colour_wanted(no_color: Option<&std::ffi::OsStr>) -> bool {
    no_color.is_none_or(std::ffi::OsStr::is_empty)
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

/// When the next line is due.
struct Pace {
    apart: Duration,
    latest: Instant,
    /// The updates that were made before this process, and when it began with the next.
    began: Option<(u64, Instant)>,
}

impl Pace {
    fn new(apart: Duration) -> Self {
        Self { apart, latest: Instant::now(), began: None }
    }

    /// At update `step`: the updates a second until `now`, if a line is due.
    fn due(&mut self, step: u64, now: Instant) -> Option<f64> {
        let (first, began) = *self.began.get_or_insert((step, now));
        if now.duration_since(self.latest) < self.apart || step == first {
            return None;
        }
        self.latest = now;
        Some((step - first) as f64 / now.duration_since(began).as_secs_f64())
    }
}

/// The progress bar of a trial. It goes when it is dropped.
pub struct TrialBar {
    bar: ProgressBar,
    name: String,
    name_on_bar: String,
    evaluation: Mutex<String>,
    pace: Mutex<Pace>,
}

impl TrialBar {
    /// Shows an update and its training loss.
    pub fn step(&self, step: u64, loss: f64) {
        self.bar.set_position(step);
        let evaluation = self.evaluation.lock().expect("no holder of the lock panics");
        if !self.bar.is_hidden() {
            self.bar.set_message(format!("{:<NAME_WIDTH$}  train loss {loss:7.4}{evaluation}", self.name_on_bar));
        } else if let Some(per_second) =
            self.pace.lock().expect("no holder of the lock panics").due(step, Instant::now())
        {
            let steps = self.bar.length().unwrap_or(step);
            // Without a stderr there is nobody to tell.
            let _ = writeln!(
                io::stderr(),
                "{}",
                progress_line(&self.name, (step, steps), &format!("train loss {loss:.4}{evaluation}"), per_second)
            );
        }
    }

    /// Shows an evaluation: loss and accuracy, and those with averaged weights where there are any.
    pub fn evaluated(&self, (loss, accuracy): (f64, f64), ema: Option<(f64, f64)>) {
        let ema = ema.map_or(String::new(), |(loss, accuracy)| format!("  EMA {loss:.4}  {:.2} %", accuracy * 100.0));
        let text = format!("  test loss {loss:.4}  accuracy {:.2} %{ema}", accuracy * 100.0);
        *self.evaluation.lock().expect("no holder of the lock panics") = text;
    }
}

impl Drop for TrialBar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Where a trial is, in a line.
fn progress_line(name: &str, (step, steps): (u64, u64), losses: &str, per_second: f64) -> String {
    let left = Duration::try_from_secs_f64((steps - step.min(steps)) as f64 / per_second).unwrap_or(Duration::MAX);
    format!("{name}: {step} of {steps} updates  {losses}  {}, {} left", rate(per_second), HumanDuration(left))
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

#[cfg(test)]
mod tests {
    use super::*;
    use indicatif::{ProgressDrawTarget, TermLike};

    #[test]
    fn a_name_that_is_too_long_for_a_bar_keeps_its_ends() {
        assert_eq!(shortened("adam, seed 0"), "adam, seed 0");
        let long = "sgd:momentum=0.9,nesterov=true, tuning 3 of 8";
        assert_eq!(shortened(long), "sgd:mome…, tuning 3 of 8");
        assert_eq!(shortened(long).chars().count(), NAME_WIDTH);
    }

    #[test]
    fn a_rate_has_three_digits() {
        for (per_second, text) in [
            (744.1526012104, "744/s"),
            (0.12345, "0.12/s"),
            (9.876, "9.88/s"),
            (12.345, "12.3/s"),
            (12345.6, "12346/s"),
        ] {
            assert_eq!(rate(per_second), text);
        }
    }

    #[test]
    fn a_line_comes_every_half_minute_and_tells_the_rate_of_this_process() {
        let mut pace = Pace::new(LINES_APART);
        let start = pace.latest;
        let at = |seconds| start + Duration::from_secs(seconds);
        // A trial that is gone on with from update 1000.
        assert_eq!(pace.due(1000, at(40)), None);
        assert_eq!(pace.due(1020, at(44)), Some(5.0));
        assert_eq!(pace.due(1040, at(48)), None);
        assert_eq!(pace.due(1200, at(74)), Some(200.0 / 34.0));
        assert_eq!(pace.due(1210, at(75)), None);
        let line = progress_line("adam, seed 0", (1200, 2000), "train loss 0.5000", 5.0);
        assert_eq!(line, "adam, seed 0: 1200 of 2000 updates  train loss 0.5000  5.00/s, 3 minutes left");
    }

    /// A terminal that keeps what is written to it.
    #[derive(Clone, Debug)]
    struct Term(u16, Arc<Mutex<String>>);

    impl TermLike for Term {
        fn width(&self) -> u16 {
            self.0
        }
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(text)
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            self.1.lock().unwrap().push_str(text);
            Ok(())
        }
        fn clear_line(&self) -> io::Result<()> {
            self.1.lock().unwrap().clear();
            Ok(())
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_bar_is_no_wider_than_the_terminal() {
        for (width, pace) in [(120, "{rate:>7}"), (80, "{rate:>7}"), (50, "{elapsed:>7}")] {
            let term = Term(width, Arc::default());
            let target = ProgressDrawTarget::term_like(Box::new(term.clone()));
            let bar = ProgressBar::with_draw_target(Some(1_234_567), target).with_style(style(pace));
            bar.set_message(format!(
                "train loss 0.1234  test loss 0.1234  accuracy 98.76 %  {}",
                "long name, ".repeat(9)
            ));
            bar.set_position(7);
            bar.tick();
            let line = term.1.lock().unwrap().clone();
            assert_eq!(line.trim_end().chars().count(), usize::from(width), "{line}");
        }
    }

    #[test]
    fn no_color_means_no_colour() {
        use std::ffi::OsStr;

        assert!(is_colour_wanted(None) && is_colour_wanted(Some(OsStr::new(""))));
        assert!(!is_colour_wanted(Some(OsStr::new("1"))) && !is_colour_wanted(Some(OsStr::new("0"))));
    }
}
