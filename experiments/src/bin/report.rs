//! Makes the report on a run again from its records, or compares several runs.

use anyhow::{Context, Result, bail};
use clap::Parser;
use experiments::{
    Targets,
    record::{Run, write_text},
    report,
};
use optim::files::is_replaced;
use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Make OUT/report.html and its pictures again from the records in OUT, or compare several runs in one page
#[derive(Debug, Parser)]
#[command(name = "report", version)]
struct Args {
    /// Folders of finished runs
    #[arg(value_name = "OUT")]
    runs: Vec<PathBuf>,
    /// Where to write the page, and no pictures [default: OUT/report.html for one run, report.html for several]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Measure the time to this test accuracy, a share such as 0.95 [default: what the runs were told]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    target_accuracy: Option<f64>,
    /// Measure the time to this test loss [default: what the runs were told, else the median of their results]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    target_loss: Option<f64>,
}

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return experiments::usage(&error),
    };
    match make(&args) {
        Err(error) => experiments::fail(&error, 2),
        Ok(files) => match write(&files) {
            Err(error) => experiments::fail(&error, 1),
            Ok(()) => ExitCode::SUCCESS,
        },
    }
}

/// The files with their contents, the page first.
fn make(args: &Args) -> Result<Vec<(PathBuf, String)>> {
    if args.runs.is_empty() {
        bail!("no run given: report OUT [OUT ..]");
    }
    let targets = Targets { accuracy: args.target_accuracy, loss: args.target_loss };
    targets.check()?;
    let runs = args.runs.iter().map(|out| Run::read(out)).collect::<Result<Vec<_>>>()?;
    check_distinct(&args.runs)?;
    let page = report::html(&runs, &targets, None)?;
    match (&args.out, runs.as_slice()) {
        (Some(file), _) => Ok(vec![(file.clone(), page)]),
        (None, [run]) => {
            let pictures = report::pictures(run)?.into_iter().map(|(name, svg)| (run.out.join(name), svg));
            Ok(std::iter::once((run.out.join("report.html"), page)).chain(pictures).collect())
        }
        (None, _) => Ok(vec![(Path::new("report.html").to_owned(), page)]),
    }
}

/// Checks that no folder is given twice, by whatever name: a run would be compared with itself.
fn check_distinct(runs: &[PathBuf]) -> Result<()> {
    let folders = runs.iter().map(|out| out.canonicalize().with_context(|| format!("`{}`", out.display())));
    let folders = folders.collect::<Result<Vec<_>>>()?;
    for (i, out) in runs.iter().enumerate() {
        if let Some(first) = folders[..i].iter().position(|folder| *folder == folders[i]) {
            bail!("`{}` is the same folder as `{}`: give each run once", out.display(), runs[first].display());
        }
    }
    Ok(())
}

fn write(files: &[(PathBuf, String)]) -> Result<()> {
    // A reader such as `head` may close the pipe when it has seen enough.
    let is_closed = |error: &anyhow::Error| {
        let cause = error.downcast_ref::<io::Error>();
        cause.is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
    };
    let written = files.iter().try_for_each(|(path, content)| write_text(path, content));
    let told = written.and_then(|()| match files.first() {
        // What is written into a pipe has no name to find it by, and the pipe may be this program's output.
        Some((page, _)) if is_replaced(page) => Ok(writeln!(io::stdout(), "{}", page.display())?),
        _ => Ok(()),
    });
    told.or_else(|error| if is_closed(&error) { Ok(()) } else { Err(error) })
}
