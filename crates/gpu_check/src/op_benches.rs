//! The benches of the ops, at sizes of ResNet-18 on images of 32 x 32 and of GPT-2 small.

use crate::timing::{Call, medians};
use candle_core::{DType, Device, Result, Tensor, Var};

type Op = Box<dyn Fn(&[Tensor]) -> Result<Tensor>>;

/// An op with the shapes of its arguments.
struct Bench {
    name: &'static str,
    size: String,
    shapes: Vec<Vec<usize>>,
    op: Op,
}

/// Batches of 512 images and of 8 windows of 1024; small ones have less of everything.
fn all(device: &Device, is_small: bool) -> Result<Vec<Bench>> {
    let (images, channels, side) = if is_small { (2, 8, 8) } else { (512, 64, 32) };
    let (windows, context, heads, width, classes) =
        if is_small { (2, 16, 2, 16, 50) } else { (8, 1024, 12, 64, 50_257) };
    let (rows, n) = (windows * context, heads * width);
    let (x, weight) = (vec![images, channels, side, side], vec![channels, channels, 3, 3]);
    let size = format!("{images} images of {channels} x {side} x {side}");
    let conv = ops::Conv2dOptions { stride: 1, padding: 1, dilation: 1, groups: 1 };
    let norm = ops::Conv2dBatchNormOptions { conv, eps: 1e-5, relu: true };
    let labels = Tensor::from_iter((0..rows).map(|row| (row % classes) as u32), device)?;
    let heads = ops::Heads { heads, context };
    Ok(vec![
        Bench {
            name: "conv2d",
            size: size.clone(),
            shapes: vec![x.clone(), weight.clone()],
            op: Box::new(move |t| ops::conv2d(&t[0], &t[1], conv)),
        },
        Bench {
            name: "conv2d_batch_norm",
            size,
            shapes: vec![x, weight, vec![channels], vec![channels]],
            op: Box::new(move |t| Ok(ops::conv2d_batch_norm(&t[0], &t[1], &t[2], &t[3], None, norm)?.output)),
        },
        Bench {
            name: "layer_norm",
            size: format!("{rows} rows of {n}"),
            shapes: vec![vec![rows, n], vec![n]],
            op: Box::new(|t| ops::layer_norm(&t[0], &t[1], 1e-5)),
        },
        Bench {
            name: "cross_entropy",
            size: format!("{rows} rows of {classes}"),
            shapes: vec![vec![rows, classes]],
            op: Box::new(move |t| ops::cross_entropy(&t[0], &labels, 0.0)),
        },
        Bench {
            name: "causal_attention",
            size: format!("{windows} windows of {context}, {} heads of {width}", heads.heads),
            shapes: vec![vec![rows, 3 * n]],
            op: Box::new(move |t| ops::causal_attention(&t[0], heads, None)),
        },
    ])
}

/// Prints the table.
pub fn benches(device: &Device, is_small: bool) -> Result<()> {
    println!("\n| op | size | dtype | forward, ms | forward and backward, ms |\n| --- | --- | --- | --- | --- |");
    for Bench { name, size, shapes, op } in all(device, is_small)? {
        for dtype in [DType::F32, DType::BF16] {
            let arguments = shapes.iter().map(|shape| {
                let values = Tensor::rand(-1f32, 1f32, shape.as_slice(), device)?.to_dtype(dtype)?;
                Ok(Var::from_tensor(&values)?.as_tensor().clone())
            });
            let arguments = arguments.collect::<Result<Vec<_>>>()?;
            let forward: Call<'_> = Box::new(|| op(&arguments).map(drop));
            let both: Call<'_> = Box::new(|| ops::backward(&op(&arguments)?).map(drop));
            let times = medians(device, vec![forward, both]);
            // On some devices an op is candle's, which does not have all types.
            let cells = times.map(|times| times.iter().map(|time| format!("{:.4}", 1e3 * time)).collect::<Vec<_>>());
            let cells = cells.map_or_else(
                |error| format!("{} | ", error.to_string().lines().next().unwrap_or_default()),
                |cells| cells.join(" | "),
            );
            println!("| {name} | {size} | {} | {cells} |", dtype.as_str());
        }
    }
    Ok(())
}
