//! Does warmup matter, and why? Trains a transformer with and without it at several peak learning rates, and watches every step.

use anyhow::{Context, Result, bail};
use experiments::{
    Choice, Compared, GroupConfig, Norm, Study,
    run::{optimizer::parse, space::gives},
};
use optim::{Rule, text::SpecText};
use std::process::ExitCode;

fn main() -> ExitCode {
    experiments::main(Study {
        name: "warmup",
        about: "Train a transformer with and without warmup at several peak learning rates, and watch every step",
        examples: &[
            ("", "a small transformer at four peak learning rates, in minutes"),
            ("--norm post --lr 1e-3,4e-3", "norms after each block, at two peaks"),
            ("--lr 2e-3,8e-3 --clip 0,1", "does clipping take the place of warmup?"),
            ("--text FILE --steps 1000", "learn from a text of yours"),
            ("--out runs/a --resume", "finish a run that was stopped"),
        ],
        dataset: "language",
        // The smallest that shows what is known of larger ones (Xiong et al. 2020, arXiv:2002.04745): without warmup, a deep post-norm
        // transformer stalls at learning rates that it can use with it. No clipping, which hides that.
        model: Some("gpt:layers=6,width=64,context=32"),
        optimizers: &["adamw:beta2=0.99"],
        first: None,
        schedules: &["warmup_cosine:warmup=150"],
        norm: Some(Norm::Both),
        peaks: &[1e-3, 2e-3, 4e-3, 8e-3],
        steps: Some(400),
        own: &["--lr", "--norm"],
        probe: true,
        groups,
    })
}

fn groups(compared: &Compared) -> Result<Vec<GroupConfig>> {
    let Compared { settings, model, .. } = *compared;
    if let Some(recipe) = &settings.recipe {
        bail!(
            "--recipe {recipe} has a learning rate of its own, and warmup compares peaks: give --opt, --schedule and --lr"
        );
    }
    let [schedule] = compared.schedules else {
        bail!("warmup compares one schedule with and without its warmup: give one --schedule");
    };
    if let Some(Choice { text, .. }) = compared.optimizers.iter().find(|optimizer| gives(&optimizer.text, "lr")) {
        bail!("--opt {text}: warmup compares peak learning rates: give them by --lr, and leave `lr` out here");
    }
    let models = match settings.norm {
        None => vec![(None, model.to_owned())],
        Some(norm) if gives(model, "norm") => {
            bail!("--norm {norm} and --model {model} both say where it normalises: leave one out");
        }
        Some(norm) => {
            let each = |norm: &'static str| (Some(norm), with_key(model, "norm", norm));
            match norm {
                Norm::Pre => vec![each("pre")],
                Norm::Post => vec![each("post")],
                Norm::Both => vec![each("pre"), each("post")],
            }
        }
    };
    let mut groups = Vec::new();
    for (norm, model) in &models {
        for optimizer in compared.optimizers {
            for peak in &settings.lr {
                let mut rule = parse(&optimizer.text)?;
                if rule.sharpness().is_some() {
                    bail!("`{}`: sam takes two gradients a step, and warmup watches one", optimizer.text);
                }
                rule.set("lr", (*peak).into())?;
                for warmup in [true, false] {
                    let schedule = if warmup { schedule.text.clone() } else { with_key(&schedule.text, "warmup", "0") };
                    // Whether its numbers fit the length of the run is checked where that is known; this is any length.
                    let defaults = optim::schedule::Defaults { lr: Some(*peak), steps: Some(1_000) };
                    match optim::Schedule::parse(&schedule, &defaults) {
                        Ok(_) | Err(optim::Error::ScheduleOutOfRange { .. }) => {}
                        Err(error) => {
                            let need =
                                "warmup needs a schedule that can go without its warmup, such as warmup_cosine or wsd";
                            return Err(error).context(need);
                        }
                    }
                    let mut group = compared.group(&rule.to_string(), &schedule);
                    group.model.clone_from(model);
                    if let Some(norm) = norm {
                        group.vary("norm", *norm, &format!("{norm}-norm"))?;
                    }
                    group.choose(compared.optimizer_factor(), optimizer)?;
                    group.vary("peak", format!("{peak:?}"), &format!("lr {peak:?}"))?;
                    let (value, words) = if warmup { ("yes", "warmup") } else { ("no", "no warmup") };
                    group.vary("warmup", value, words)?;
                    groups.push(group);
                }
            }
        }
    }
    Ok(groups)
}

/// The text `NAME[:KEY=VALUE,..]` with `key` set to `value`.
fn with_key(text: &str, key: &str, value: &str) -> String {
    let mut text = SpecText::of(text);
    text.set(key, value);
    text.to_string()
}
