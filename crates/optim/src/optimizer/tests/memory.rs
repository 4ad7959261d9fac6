//! A device without memory leaves everything as it was.

use super::*;
use crate::backend::{allocations, emulated};

#[test]
fn a_gpu_without_memory_leaves_everything_as_it_was() {
    let mut failures = 0;
    for text in
        ["sgd:momentum=0.9,dampening=0.4", "rmsprop:centered=true,momentum=0.9", "adamw", "lamb", "sam:base=lamb"]
    {
        for dtype in [DType::F32, DType::BF16] {
            for phase in PHASES.into_iter().filter(|phase| *phase != Phase::Evaluating) {
                failures += without_memory(text, dtype, phase, 0);
            }
        }
    }
    // More tensors than one launch takes.
    failures += without_memory("adamw", DType::BF16, Phase::Idle, 270);
    assert!(failures > 400, "{failures} allocations failed");
}

/// Steps on a GPU in which each allocation fails once; returns how many did. `more`: tensors beside the few.
fn without_memory(text: &str, dtype: DType, phase: Phase, more: usize) -> usize {
    let make = || {
        let mut params = params(dtype);
        params.extend((0..more).map(|i| {
            let value = Tensor::full(i as f32 / 300.0, 1 + i % 3, &Device::Cpu).unwrap();
            (format!("d{i}"), Var::from_tensor(&value.to_dtype(dtype).unwrap()).unwrap())
        }));
        let mut optimizer = optimizer(text, &params);
        if more > 0 {
            // A norm over many tensors takes long where a GPU is emulated.
            optimizer.set_clip(None).unwrap();
        }
        enter(&mut optimizer, &params, phase).then_some((optimizer, params))
    };
    let mut failures = 0;
    emulated::with(emulated::Source::Cuda, || {
        let (Some((mut optimizer, params)), Some((mut whole, whole_params))) = (make(), make()) else { return };
        for n in 20..22 {
            let (mut twin, twin_params) = make().unwrap();
            (20..n).for_each(|n| complete(&mut twin, &twin_params, n).unwrap());
            let count = allocations::of(|| complete(&mut twin, &twin_params, n).unwrap());
            // Of many that are alike some. Tables that a call before the failing one left make the step need fewer.
            let mut is_complete = false;
            for at in (0..count).filter(|at| *at < 16 || at % 37 == 0 || at + 16 >= count) {
                let (before, phase) = (snapshot(&optimizer, &params), optimizer.phase());
                let Err(error) = allocations::fail_at(at, || complete(&mut optimizer, &params, n)) else {
                    is_complete = true;
                    break;
                };
                assert!(error.to_string().contains("out of memory"), "{error}");
                // The first of two steps succeeded: it is taken back by hand.
                if optimizer.phase() != phase {
                    optimizer.cancel_first_step().unwrap();
                    if phase == Phase::Accumulating {
                        optimizer.accumulate(&grads(&params, 3)).unwrap();
                        optimizer.accumulate(&grads(&params, 4)).unwrap();
                    }
                }
                failures += 1;
                same(&snapshot(&optimizer, &params), &before, &format!("{text} {dtype:?} {phase:?}: allocation {at}"));
            }
            if !is_complete {
                complete(&mut optimizer, &params, n).unwrap();
            }
            complete(&mut whole, &whole_params, n).unwrap();
            // What is evaluated takes memory too; after it, and after failing, the parameters are as before.
            if optimizer.phase() == Phase::Idle {
                let before = snapshot(&optimizer, &params);
                for at in 0.. {
                    match allocations::fail_at(at, || optimizer.eval()) {
                        Ok(()) => break,
                        Err(error) => assert!(error.to_string().contains("out of memory"), "{error}"),
                    }
                    failures += 1;
                    same(&snapshot(&optimizer, &params), &before, &format!("{text} {dtype:?}: eval, allocation {at}"));
                }
                optimizer.train().unwrap();
                same(&snapshot(&optimizer, &params), &before, &format!("{text} {dtype:?}: train"));
            }
            same(&snapshot(&optimizer, &params), &snapshot(&whole, &whole_params), &format!("{text} {phase:?}"));
        }
    });
    failures
}
