//! The lab with a rule of one's own: `cargo run --release --example own_rule -- --opt softsign:lr=3e-3 --opt adamw`.
//!
//! The rule is known to every option: `--list softsign`, `--opt sam:base=softsign`, `--tune 8`, `--space softsign:lr=1e-3..1e-1`.

use anyhow::{Result, bail};
use experiments::{Choice, Compared, GroupConfig, Study};
use optim::rule::{Elementwise, OneKernelRule, Progress, Real, hyperparameters};
use std::process::ExitCode;

hyperparameters! {
    /// Momentum, squashed to steps below the learning rate.
    pub struct SoftSign = "softsign" {
        /// Learning rate.
        lr: 1e-2 in NON_NEGATIVE,
        /// Decay rate of the mean of the gradient.
        beta1: 0.9 in FRACTION,
        /// A gradient of this size moves half of the learning rate.
        softness: 1e-3 in NON_NEGATIVE,
        /// Decoupled weight decay.
        weight_decay: 1e-2 in NON_NEGATIVE,
    }
    formula: "m = beta1 m + (1 - beta1) g; u = m / (abs(m) + softness); theta -= lr (u + wd theta)"
    best_for: "an example"
    family: FirstOrder
}

impl Elementwise for SoftSign {
    const NAME: &'static str = "softsign";
    const SCALARS: &'static [&'static str] = &["one_minus_beta1", "softness"];
    const SLOTS: &'static [&'static str] = &["exp_avg"];
    type Scalars<R: Real> = [R; 2];
    type State<R: Real> = [R; 1];

    fn direction<R: Real>([rate, softness]: [R; 2], grad: R, _param: R, [m]: [R; 1]) -> (R, [R; 1]) {
        let m = m.lerp(grad, rate);
        (m / (m.abs() + softness), [m])
    }
}

impl OneKernelRule for SoftSign {
    fn scalars(&self, _: &mut Progress<'_>) -> [f64; 2] {
        [1.0 - self.beta1, self.softness]
    }
}

fn main() -> ExitCode {
    if let Err(error) = optim::rules::register::<SoftSign>() {
        return experiments::fail(&error.into(), 2);
    }
    experiments::main(Study {
        name: "own_rule",
        about: "Compare a rule of one's own with AdamW",
        examples: &[
            ("", "compare them on digits"),
            ("--tune 8 --opt softsign --opt adamw", "find learning rates first"),
        ],
        dataset: "digits",
        model: None,
        optimizers: &["softsign:lr=3e-3", "adamw:lr=2e-3"],
        first: None,
        schedules: &["cosine"],
        norm: None,
        peaks: &[],
        steps: None,
        own: &["--tune", "--space"],
        probe: false,
        groups,
    })
}

fn groups(compared: &Compared) -> Result<Vec<GroupConfig>> {
    let [schedule] = compared.schedules else {
        bail!("own_rule compares optimizers: give one --schedule");
    };
    let group = |optimizer: &Choice| {
        let mut group = compared.group(&optimizer.text, &schedule.text);
        group.choose(Some("optimizer"), optimizer)?;
        Ok(group)
    };
    compared.optimizers.iter().map(group).collect()
}
