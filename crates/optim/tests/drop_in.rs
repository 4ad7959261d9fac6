//! In place of candle's optimizers: the same updates from the same calls.

use candle_core::{DType, Device, Result, Tensor, Var};
use optim::{Optimizer, rules};

fn losses<O: Optimizer>(make: impl Fn(Vec<Var>) -> Result<O>) -> Result<Vec<f32>> {
    let x = Var::from_tensor(&(Tensor::arange(0f32, 50f32, &Device::Cpu)?.sin()? * 3.0)?)?;
    let mut optimizer = make(vec![x.clone(), Var::zeros(3, DType::U32, &Device::Cpu)?])?;
    let steps = (0..60).map(|step| {
        let loss = x.sin()?.sqr()?.sum_all()?;
        optimizer.backward_step(&loss)?;
        optimizer.set_learning_rate(0.05 / f64::from(step + 2));
        loss.to_scalar()
    });
    steps.collect()
}

#[test]
fn adamw_and_sgd_follow_candles() -> Result<()> {
    let params = optim::ParamsAdamW { lr: 0.05, beta1: 0.8, beta2: 0.95, eps: 1e-6, weight_decay: 0.1 };
    let theirs = candle_nn::ParamsAdamW { lr: 0.05, beta1: 0.8, beta2: 0.95, eps: 1e-6, weight_decay: 0.1 };
    let sgd = || rules::Sgd { lr: 0.05, ..Default::default() };
    let pairs = [
        (losses(|v| optim::AdamW::new(v, params.clone()))?, losses(|v| candle_nn::AdamW::new(v, theirs.clone()))?),
        (losses(|v| optim::AdamW::new_lr(v, 0.02))?, losses(|v| candle_nn::AdamW::new_lr(v, 0.02))?),
        (losses(|v| optim::Sgd::new(v, sgd()))?, losses(|v| candle_nn::SGD::new(v, 0.05))?),
    ];
    for (ours, theirs) in pairs {
        assert!(ours[59] < 0.9 * ours[0]);
        for (step, (a, b)) in ours.iter().zip(&theirs).enumerate() {
            assert!((a - b).abs() <= 2e-5 * b.abs(), "step {step}: {a} and candle's {b}");
        }
    }
    Ok(())
}

#[test]
fn params_can_be_read_and_set() -> Result<()> {
    let w = candle_core::Var::zeros(2, candle_core::DType::F32, &candle_core::Device::Cpu)?;
    let mut optimizer = optim::AdamW::new_lr(vec![w], 0.5)?;
    assert_eq!(optimizer.params().lr, 0.5);
    optimizer.set_params(optim::ParamsAdamW { lr: 0.25, ..Default::default() });
    assert_eq!(optimizer.learning_rate(), 0.25);
    let defaults = candle_nn::ParamsAdamW::default();
    let ours = optim::ParamsAdamW::default();
    assert_eq!(
        (ours.lr, ours.beta1, ours.beta2, ours.eps, ours.weight_decay),
        (defaults.lr, defaults.beta1, defaults.beta2, defaults.eps, defaults.weight_decay)
    );
    Ok(())
}
