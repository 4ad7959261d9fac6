//! A candle model trained with groups, a schedule, clipping and a checkpoint: `cargo run --release --example train`.

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{Module, VarBuilder, VarMap, linear, loss::mse, seq};
use optim::{AdamW, Clip, Optimizer, Schedule, StateDict, exclude_from_decay, named_params, rules};

fn main() -> Result<()> {
    let device = Device::Cpu;
    let varmap = VarMap::new();
    let vb = VarBuilder::from_varmap(&varmap, DType::F32, &device);
    let model = seq().add(linear(1, 32, vb.pp("hidden"))?).add_fn(|x| x.tanh()).add(linear(32, 1, vb.pp("out"))?);

    let x = (Tensor::arange(0f32, 256f32, &device)?.reshape((256, 1))? / 40.0)?;
    let y = x.sin()?;

    const STEPS: u64 = 600;
    let make = || -> optim::Result<AdamW> {
        // Weights decay, biases do not; the learning rate warms up and falls along a cosine.
        let rule = rules::AdamW { weight_decay: 1e-3, ..Default::default() };
        let schedule: Schedule = format!("warmup_cosine:lr=0.02,warmup=50,min_lr=1e-4,steps={STEPS}").parse()?;
        let mut optimizer = AdamW::from_groups(exclude_from_decay(named_params(&varmap), &rule).into())?;
        optimizer.set_schedule("lr", &schedule)?;
        optimizer.set_clip(Some(Clip::GlobalNorm(1.0)))?;
        Ok(optimizer)
    };

    let mut optimizer = make()?;
    let folder = std::env::temp_dir();
    let (weights, state) = (folder.join("train-weights.safetensors"), folder.join("train-state.safetensors"));
    while optimizer.steps() < STEPS {
        let loss = mse(&model.forward(&x)?, &y)?;
        optimizer.backward_step(&loss)?;
        if optimizer.steps() % 100 == 0 {
            println!(
                "step {:3}  lr {:.5}  loss {:.6}",
                optimizer.steps(),
                optimizer.learning_rate(),
                loss.to_scalar::<f32>()?
            );
        }
        if optimizer.steps() == STEPS / 2 {
            // A checkpoint is the model's weights and the optimizer's state; a fresh optimizer goes on from it.
            varmap.save(&weights)?;
            optimizer.state_dict()?.save(&state)?;
            optimizer = make()?;
            optimizer.load_state_dict(&StateDict::load(&state)?)?;
        }
    }
    std::fs::remove_file(weights)?;
    std::fs::remove_file(state)?;
    Ok(())
}
