//! A rule of one's own, found by its name, that trains.

use candle_core::{Device, Var};
use optim::rule::{Elementwise, OneKernelRule, Progress, Real, hyperparameters};
use optim::{AnyOptimizer, Optimizer};

hyperparameters! {
    /// Momentum, squashed to steps below the learning rate.
    pub struct SoftSign = "softsign" {
        /// Learning rate.
        lr: 1e-2 in NON_NEGATIVE,
        /// Decay rate of the mean of the gradient.
        beta1: 0.9 in FRACTION,
    }
    formula: "m = beta1 m + (1 - beta1) g; theta -= lr m / (1 + abs(m))"
    best_for: "an example"
    family: FirstOrder
}

impl Elementwise for SoftSign {
    const NAME: &'static str = "softsign";
    const SCALARS: &'static [&'static str] = &["one_minus_beta1"];
    const SLOTS: &'static [&'static str] = &["exp_avg"];
    type Scalars<R: Real> = [R; 1];
    type State<R: Real> = [R; 1];

    fn direction<R: Real>([rate]: [R; 1], grad: R, _param: R, [m]: [R; 1]) -> (R, [R; 1]) {
        let m = m.lerp(grad, rate);
        (m / (R::constant(1.0) + m.abs()), [m])
    }
}

impl OneKernelRule for SoftSign {
    fn scalars(&self, _: &mut Progress<'_>) -> [f64; 1] {
        [1.0 - self.beta1]
    }
}

fn main() -> optim::Result<()> {
    optim::rules::register::<SoftSign>()?;
    let w = Var::new(&[1f32, -2.0], &Device::Cpu)?;
    let mut optimizer = AnyOptimizer::new(vec![w.clone()], optim::by_name("softsign:lr=0.1")?)?;
    for _ in 0..200 {
        optimizer.backward_step(&w.sqr()?.sum_all()?)?;
    }
    println!("{w}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_descends_as_its_formula_says() -> optim::Result<()> {
        let w = Var::new(&[1f64, -2.0], &Device::Cpu)?;
        let mut optimizer = optim::FusedOptimizer::new(vec![w.clone()], SoftSign { lr: 0.1, beta1: 0.9 })?;
        let mut expected = [(1f64, 0f64), (-2.0, 0.0)];
        for _ in 0..200 {
            optimizer.backward_step(&w.sqr()?.sum_all()?)?;
            for (x, m) in &mut expected {
                *m += (1.0 - 0.9) * (2.0 * *x - *m);
                *x -= 0.1 * (*m / (1.0 + m.abs()));
            }
        }
        for (x, (expected, _)) in w.to_vec1::<f64>()?.into_iter().zip(expected) {
            assert!((x - expected).abs() < 1e-14 && x.abs() < 0.05, "{x} and {expected}");
        }
        main()
    }
}
