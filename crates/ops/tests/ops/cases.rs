//! The ops with arguments of many shapes.

use super::naive::{self, Array};
use candle_core::{DType, Device, Result, Tensor};
use ops::{Conv2dOptions, Pool2dOptions};

type Op = Box<dyn Fn(&[Tensor]) -> Result<Tensor> + Send + Sync>;
type Definition = Box<dyn Fn(&[Array]) -> Array + Send + Sync>;

/// An op with its options and the shapes of its arguments.
pub struct Case {
    pub name: String,
    pub shapes: Vec<Vec<usize>>,
    pub op: Op,
    pub definition: Definition,
}

impl Case {
    pub fn arguments(&self) -> Vec<Array> {
        (1..).zip(&self.shapes).map(|(seed, shape)| Array::noise(shape, seed)).collect()
    }
}

pub fn tensor(array: &Array, dtype: DType) -> Tensor {
    Tensor::from_slice(&array.values, array.shape.as_slice(), &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
}

pub fn values(tensor: &Tensor) -> Vec<f64> {
    let tensor = tensor.to_device(&Device::Cpu).unwrap();
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Images (n, c, h, w), output channels and kernel (o, kh, kw), stride, padding, dilation and groups.
#[rustfmt::skip]
const CONVOLUTIONS: &[([usize; 4], [usize; 3], [usize; 4])] = &[
    ([2, 3, 8, 8], [4, 3, 3], [1, 1, 1, 1]), // vectors fill rows and channels fill tiles
    ([2, 4, 8, 16], [8, 3, 3], [1, 1, 1, 1]),
    ([1, 10, 3, 9], [16, 3, 3], [1, 1, 1, 1]), // tiles of both widths
    ([2, 3, 5, 7], [5, 3, 3], [1, 1, 1, 1]), // neither does
    ([1, 1, 1, 1], [1, 1, 1], [1, 0, 1, 1]),
    ([1, 1, 1, 1], [1, 3, 3], [1, 1, 1, 1]), // the kernel is larger than the image
    ([3, 2, 2, 1], [3, 5, 4], [1, 2, 1, 1]),
    ([2, 5, 6, 9], [3, 1, 1], [1, 0, 1, 1]), // a matrix product
    ([2, 5, 7, 9], [3, 1, 1], [2, 0, 1, 1]), // taps for a quarter of the pixels only
    ([2, 2, 3, 3], [2, 1, 1], [1, 1, 1, 1]),
    ([2, 3, 8, 8], [4, 3, 3], [2, 1, 1, 1]),
    ([2, 3, 7, 9], [4, 3, 3], [2, 1, 1, 1]), // a stride on odd sizes
    ([1, 2, 6, 8], [2, 3, 3], [2, 0, 1, 1]), // the last row and column are not read
    ([2, 2, 11, 10], [3, 2, 5], [3, 2, 1, 1]),
    ([1, 2, 9, 9], [2, 2, 2], [4, 0, 1, 1]), // gaps between the windows
    ([1, 2, 5, 5], [2, 3, 3], [7, 3, 1, 1]), // a stride beyond the image
    ([1, 1, 4, 4], [1, 2, 2], [1, 3, 1, 1]), // more padding than kernel: windows of zeros
    ([1, 3, 2, 40], [2, 1, 7], [1, 3, 1, 1]),
    ([19, 2, 4, 4], [2, 3, 3], [1, 1, 1, 1]), // parts of more than an image, and one that is shorter
    ([1, 1, 40, 40], [1, 3, 3], [1, 1, 1, 1]), // more pixels than a piece
    ([2, 3, 9, 8], [4, 3, 3], [1, 2, 2, 1]), // a dilation, as many pixels as before
    ([1, 2, 11, 9], [3, 3, 2], [1, 0, 3, 1]),
    ([2, 2, 9, 12], [3, 3, 3], [2, 2, 2, 1]), // a stride and a dilation with a common factor: pixels that are not read
    ([1, 2, 10, 9], [2, 3, 2], [2, 3, 3, 1]), // and without one
    ([1, 2, 8, 17], [2, 2, 3], [3, 1, 4, 1]),
    ([2, 4, 5, 7], [6, 3, 3], [1, 1, 1, 2]), // groups
    ([1, 9, 6, 5], [9, 2, 3], [2, 1, 1, 3]),
    ([2, 8, 8, 16], [16, 3, 3], [1, 1, 1, 2]), // vectors fill rows and channels fill tiles
    ([2, 6, 4, 5], [4, 1, 1], [1, 0, 1, 2]), // a matrix product for each group
    ([2, 6, 7, 9], [6, 2, 2], [2, 2, 2, 3]), // all options
    ([2, 3, 6, 7], [3, 3, 3], [1, 1, 1, 3]), // depthwise
    ([3, 5, 4, 8], [5, 3, 3], [2, 1, 1, 5]),
    ([1, 2, 5, 40], [4, 3, 5], [1, 2, 1, 2]), // two kernels a channel, of more elements than a tile
    ([2, 2, 7, 5], [2, 3, 2], [1, 2, 2, 2]),
    ([2, 3, 3, 4], [3, 1, 1], [1, 0, 1, 3]),
    ([2, 16, 5, 3], [17, 3, 3], [1, 1, 1, 1]), // rows too short for vectors of pixels, and channels enough for vectors of them
    ([3, 18, 8, 7], [16, 3, 3], [2, 1, 1, 1]),
    ([1, 16, 9, 9], [20, 2, 3], [3, 2, 2, 1]),
    ([2, 17, 3, 3], [16, 1, 1], [2, 0, 1, 1]), // pixels that are not read
    ([1, 2, 4, 48], [2, 3, 5], [1, 1, 1, 2]),      // eight vectors at a time
];

pub fn convolution(
    images: [usize; 4],
    [o, kh, kw]: [usize; 3],
    [stride, padding, dilation, groups]: [usize; 4],
) -> Case {
    let options = Conv2dOptions { stride, padding, dilation, groups };
    Case {
        name: format!("conv2d of {images:?} with {o} of {kh}x{kw}, {options:?}"),
        shapes: vec![images.to_vec(), vec![o, images[1] / groups, kh, kw]],
        op: Box::new(move |t| ops::conv2d(&t[0], &t[1], options)),
        definition: Box::new(move |a| naive::conv2d(&a[0], &a[1], options)),
    }
}

pub fn conv2d_bias(
    images: [usize; 4],
    [o, kh, kw]: [usize; 3],
    [stride, padding, dilation, groups]: [usize; 4],
    relu: bool,
) -> Case {
    let options = Conv2dOptions { stride, padding, dilation, groups };
    Case {
        name: format!("conv2d_bias of {images:?} with {o} of {kh}x{kw}, {options:?}, relu {relu}"),
        shapes: vec![images.to_vec(), vec![o, images[1] / groups, kh, kw], vec![o]],
        op: Box::new(move |t| ops::conv2d_bias(&t[0], &t[1], &t[2], relu, options)),
        definition: Box::new(move |a| {
            let ones = Array { values: vec![1.0; o], ..a[2].clone() };
            naive::scale_shift(&naive::conv2d(&a[0], &a[1], options), &ones, &a[2], relu)
        }),
    }
}

/// With a residual, or without.
pub fn conv2d_batch_norm(
    images: [usize; 4],
    [o, kh, kw]: [usize; 3],
    [stride, padding, dilation, groups]: [usize; 4],
    relu: bool,
    residual: bool,
) -> Case {
    let out = |axis: usize, kernel: usize| (images[axis] + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1;
    let mut shapes = vec![images.to_vec(), vec![o, images[1] / groups, kh, kw], vec![o], vec![o]];
    if residual {
        shapes.push(vec![images[0], o, out(2, kh), out(3, kw)]);
    }
    let conv = Conv2dOptions { stride, padding, dilation, groups };
    let options = ops::Conv2dBatchNormOptions { conv, eps: 1e-3, relu };
    Case {
        name: format!("conv2d_batch_norm of {images:?} with {o} of {kh}x{kw}, {options:?}, residual {residual}"),
        shapes,
        op: Box::new(move |t| Ok(ops::conv2d_batch_norm(&t[0], &t[1], &t[2], &t[3], t.get(4), options)?.output)),
        definition: Box::new(move |a| {
            let y = naive::conv2d(&a[0], &a[1], conv);
            let y = naive::batch_norm(&y, &a[2], &a[3], 1e-3, relu && !residual);
            match a.get(4) {
                None => y,
                Some(residual) if relu => naive::add_relu(&y, residual),
                Some(residual) => naive::add(&y, residual),
            }
        }),
    }
}

pub fn batch_norm(images: [usize; 4], relu: bool) -> Case {
    Case {
        name: format!("batch_norm of {images:?}, relu {relu}"),
        shapes: vec![images.to_vec(), vec![images[1]], vec![images[1]]],
        op: Box::new(move |t| Ok(ops::batch_norm(&t[0], &t[1], &t[2], 1e-3, relu)?.output)),
        definition: Box::new(move |a| naive::batch_norm(&a[0], &a[1], &a[2], 1e-3, relu)),
    }
}

fn scale_shift(images: [usize; 4], relu: bool) -> Case {
    Case {
        name: format!("scale_shift of {images:?}, relu {relu}"),
        shapes: vec![images.to_vec(), vec![images[1]], vec![images[1]]],
        op: Box::new(move |t| ops::scale_shift(&t[0], &t[1], &t[2], relu)),
        definition: Box::new(move |a| naive::scale_shift(&a[0], &a[1], &a[2], relu)),
    }
}

/// Its values are held to its unfused form in f64, by tests beside it.
fn undefined(_: &[Array]) -> Array {
    unreachable!("larger cases are compared with themselves")
}

pub fn fused_linear(n: usize, [outputs, inputs]: [usize; 2], before: &'static str, residual: bool) -> Case {
    let mut shapes = vec![vec![n, inputs], vec![outputs, inputs]];
    shapes.extend((before == "layer_norm").then(|| vec![inputs]));
    shapes.extend(residual.then(|| vec![n, outputs]));
    let op = move |t: &[Tensor]| {
        let before = match before {
            "layer_norm" => ops::Prologue::LayerNorm { weight: &t[2], eps: 1e-3 },
            "gelu" => ops::Prologue::Gelu,
            _ => ops::Prologue::Nothing,
        };
        ops::fused_linear(&t[0], &t[1], before, residual.then(|| &t[t.len() - 1]))
    };
    Case {
        name: format!("fused_linear of {n} rows of {inputs} to {outputs}, {before} before, residual {residual}"),
        shapes,
        op: Box::new(op),
        definition: Box::new(undefined),
    }
}

pub fn causal_attention(windows: usize, heads: ops::Heads, head_width: usize) -> Case {
    Case {
        name: format!("causal_attention of {windows} windows, {heads:?} of {head_width}"),
        shapes: vec![vec![windows * heads.context, 3 * heads.heads * head_width]],
        op: Box::new(move |t| ops::causal_attention(&t[0], heads, None)),
        definition: Box::new(undefined),
    }
}

/// A kernel of (kh, kw), stride and padding.
fn pool([height, width, stride, padding]: [usize; 4]) -> Pool2dOptions {
    Pool2dOptions { kernel: (height, width), stride, padding }
}

pub fn max_pool2d(images: [usize; 4], options: [usize; 4]) -> Case {
    let pool = pool(options);
    Case {
        name: format!("max_pool2d of {images:?}, {pool:?}"),
        shapes: vec![images.to_vec()],
        op: Box::new(move |t| ops::max_pool2d(&t[0], pool)),
        definition: Box::new(move |a| naive::max_pool2d(&a[0], pool)),
    }
}

pub fn avg_pool2d(images: [usize; 4], options: [usize; 4], count_padding: bool) -> Case {
    let pool = pool(options);
    Case {
        name: format!("avg_pool2d of {images:?}, {pool:?}, count_padding {count_padding}"),
        shapes: vec![images.to_vec()],
        op: Box::new(move |t| ops::avg_pool2d(&t[0], pool, count_padding)),
        definition: Box::new(move |a| naive::avg_pool2d(&a[0], pool, count_padding)),
    }
}

pub fn shortcut(images: [usize; 4], stride: usize, channels: usize) -> Case {
    Case {
        name: format!("shortcut of {images:?}, stride {stride}, {channels} channels"),
        shapes: vec![images.to_vec()],
        op: Box::new(move |t| ops::shortcut(&t[0], stride, channels)),
        definition: Box::new(move |a| naive::shortcut(&a[0], stride, channels)),
    }
}

pub fn rms_norm(shape: &[usize]) -> Case {
    Case {
        name: format!("rms_norm of {shape:?}"),
        shapes: vec![shape.to_vec(), vec![shape[shape.len() - 1]]],
        op: Box::new(|t| ops::rms_norm(&t[0], &t[1], 1e-3)),
        definition: Box::new(|a| naive::rms_norm(&a[0], &a[1], 1e-3)),
    }
}

/// Some rows are named often, and the last is not.
pub fn embedding(rows: usize, width: usize, places: usize) -> Case {
    let indices: Vec<u32> = (0..places).map(|i| (i * i % (rows - 1)) as u32).collect();
    let tensor = Tensor::new(indices.as_slice(), &Device::Cpu).unwrap();
    Case {
        name: format!("embedding of {places} places in {rows} rows of {width}"),
        shapes: vec![vec![rows, width]],
        op: Box::new(move |t| ops::embedding(&t[0], &tensor.to_device(t[0].device())?)),
        definition: Box::new(move |a| naive::embedding(&a[0], &indices)),
    }
}

pub fn cross_entropy(rows: usize, classes: usize, smoothing: f64) -> Case {
    let labels: Vec<u32> = (0..rows).map(|row| (row * row + 1) as u32 % classes as u32).collect();
    let tensor = Tensor::new(labels.as_slice(), &Device::Cpu).unwrap();
    Case {
        name: format!("cross_entropy of {rows} rows and {classes} classes, smoothing {smoothing}"),
        shapes: vec![vec![rows, classes]],
        op: Box::new(move |t| ops::cross_entropy(&t[0], &tensor.to_device(t[0].device())?, smoothing)),
        definition: Box::new(move |a| naive::cross_entropy(&a[0], &labels, smoothing)),
    }
}

/// Images, and the kernel (kh, kw), stride and padding.
const POOLS: &[([usize; 4], [usize; 4])] = &[
    ([2, 3, 4, 6], [2, 2, 2, 0]),
    ([1, 2, 5, 3], [2, 2, 2, 0]),
    ([1, 1, 2, 2], [2, 2, 2, 0]),
    ([1, 2, 4, 35], [2, 2, 2, 0]),
    ([2, 3, 7, 6], [3, 3, 2, 1]),
    ([1, 2, 6, 5], [3, 2, 1, 1]),
    ([2, 1, 5, 5], [2, 2, 2, 1]),
    ([1, 2, 7, 8], [1, 1, 3, 0]),
    ([2, 2, 9, 20], [5, 4, 3, 2]),
    ([1, 1, 1, 1], [3, 3, 1, 1]),
    ([2, 3, 4, 5], [4, 5, 1, 0]),
    ([1, 2, 8, 8], [2, 2, 3, 0]),
];

/// Small cases of every op.
pub fn all() -> Vec<Case> {
    let mut cases: Vec<Case> = CONVOLUTIONS.iter().map(|&(x, o, options)| convolution(x, o, options)).collect();
    for images in [[2, 3, 4, 5], [3, 1, 1, 1], [1, 2, 5, 7]] {
        for relu in [false, true] {
            cases.extend([batch_norm(images, relu), scale_shift(images, relu)]);
        }
    }
    for relu in [false, true] {
        cases.push(conv2d_bias([2, 3, 6, 7], [4, 3, 3], [1, 1, 1, 1], relu));
        cases.push(conv2d_bias([3, 2, 5, 4], [3, 1, 1], [1, 0, 1, 1], relu));
        cases.push(conv2d_bias([2, 4, 6, 5], [6, 3, 3], [2, 2, 2, 2], relu));
        cases.push(conv2d_bias([2, 3, 6, 5], [3, 3, 3], [1, 1, 1, 3], relu));
    }
    for (relu, residual) in [(false, false), (false, true), (true, false), (true, true)] {
        cases.push(conv2d_batch_norm([2, 3, 6, 7], [4, 3, 3], [1, 1, 1, 1], relu, residual));
        cases.push(conv2d_batch_norm([3, 2, 5, 4], [3, 3, 2], [2, 1, 1, 1], relu, residual));
        cases.push(conv2d_batch_norm([1, 2, 4, 5], [3, 1, 1], [1, 0, 1, 1], relu, residual));
        cases.push(conv2d_batch_norm([2, 4, 6, 5], [6, 3, 3], [1, 2, 2, 2], relu, residual));
        cases.push(conv2d_batch_norm([2, 3, 6, 5], [3, 3, 3], [2, 1, 1, 3], relu, residual));
    }
    for &(images, options) in POOLS {
        cases.push(max_pool2d(images, options));
        cases.extend([true, false].map(|count_padding| avg_pool2d(images, options, count_padding)));
    }
    cases.push(shortcut([2, 3, 4, 6], 2, 6));
    cases.push(shortcut([2, 2, 5, 7], 2, 5));
    cases.push(shortcut([1, 3, 7, 1], 3, 3));
    cases.push(shortcut([1, 1, 2, 3], 1, 2));
    cases.extend([&[5, 3][..], &[2, 3, 17], &[1, 1], &[7]].map(rms_norm));
    cases.extend([(2, 1, 1), (5, 3, 11), (4, 20, 7)].map(|(rows, width, places)| embedding(rows, width, places)));
    for (rows, classes) in [(1, 1), (1, 7), (5, 3), (3, 20)] {
        cases.extend([0.0, 0.1, 1.0].map(|smoothing| cross_entropy(rows, classes, smoothing)));
    }
    cases.push(Case {
        name: "relu".to_owned(),
        shapes: vec![vec![3, 7]],
        op: Box::new(|t| ops::relu(&t[0])),
        definition: Box::new(|a| naive::relu(&a[0])),
    });
    cases.push(Case {
        name: "add_relu".to_owned(),
        shapes: vec![vec![3, 7], vec![3, 7]],
        op: Box::new(|t| ops::add_relu(&t[0], &t[1])),
        definition: Box::new(|a| naive::add_relu(&a[0], &a[1])),
    });
    cases
}
