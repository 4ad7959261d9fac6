//! The ops as their definitions say, in f64 and in as many loops as it takes.

use ops::{Conv2dOptions, Pool2dOptions};

/// Numbers with a shape, row after row.
#[derive(Clone, Debug)]
pub struct Array {
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
}

impl Array {
    /// Numbers between -1 and 1 without a pattern.
    pub fn noise(shape: &[usize], seed: u64) -> Self {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
        };
        (0..20).for_each(|_| _ = next());
        let values = (0..shape.iter().product()).map(|_| f64::from(next() as f32)).collect();
        Self { shape: shape.to_vec(), values }
    }

    fn zeros(shape: &[usize]) -> Self {
        Self { shape: shape.to_vec(), values: vec![0.0; shape.iter().product()] }
    }

    fn at(&self, index: [usize; 4]) -> usize {
        index.iter().zip(&self.shape).fold(0, |at, (i, size)| at * size + i)
    }

    /// Calls `f` with each index of four.
    fn each(&self, mut f: impl FnMut([usize; 4])) {
        let [n, c, h, w] = self.shape[..].try_into().unwrap();
        for index in 0..n * c * h * w {
            f([index / (c * h * w), index / (h * w) % c, index / w % h, index % w]);
        }
    }
}

pub fn conv2d(x: &Array, weight: &Array, options: Conv2dOptions) -> Array {
    let Conv2dOptions { stride, padding, dilation, groups } = options;
    let out = |axis: usize| (x.shape[axis] + 2 * padding - dilation * (weight.shape[axis] - 1) - 1) / stride + 1;
    let (channels, outputs) = (weight.shape[1], weight.shape[0] / groups);
    let mut y = Array::zeros(&[x.shape[0], weight.shape[0], out(2), out(3)]);
    y.clone().each(|[n, o, i, j]| {
        let at = y.at([n, o, i, j]);
        for c in 0..channels {
            for a in 0..weight.shape[2] {
                for b in 0..weight.shape[3] {
                    let (row, column) = (i * stride + a * dilation, j * stride + b * dilation);
                    let inside = |k: usize, size: usize| (padding..padding + size).contains(&k);
                    if inside(row, x.shape[2]) && inside(column, x.shape[3]) {
                        let pixel = [n, o / outputs * channels + c, row - padding, column - padding];
                        y.values[at] += x.values[x.at(pixel)] * weight.values[weight.at([o, c, a, b])];
                    }
                }
            }
        }
    });
    y
}

fn rectified(y: f64, relu: bool) -> f64 {
    if relu && y < 0.0 { 0.0 } else { y }
}

pub fn batch_norm(x: &Array, weight: &Array, bias: &Array, eps: f64, relu: bool) -> Array {
    let mut y = x.clone();
    for c in 0..x.shape[1] {
        let mut pixels = Vec::new();
        x.each(|index| {
            if index[1] == c {
                pixels.push(x.values[x.at(index)]);
            }
        });
        let mean = pixels.iter().sum::<f64>() / pixels.len() as f64;
        let variance = pixels.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / pixels.len() as f64;
        x.each(|index| {
            if index[1] == c {
                let normal = (x.values[x.at(index)] - mean) / (variance + eps).sqrt();
                y.values[x.at(index)] = rectified(normal * weight.values[c] + bias.values[c], relu);
            }
        });
    }
    y
}

pub fn scale_shift(x: &Array, scale: &Array, shift: &Array, relu: bool) -> Array {
    let mut y = x.clone();
    x.each(|index| {
        let at = x.at(index);
        y.values[at] = rectified(x.values[at] * scale.values[index[1]] + shift.values[index[1]], relu);
    });
    y
}

pub fn relu(x: &Array) -> Array {
    Array { shape: x.shape.clone(), values: x.values.iter().map(|&x| rectified(x, true)).collect() }
}

pub fn add(a: &Array, b: &Array) -> Array {
    let sum = a.values.iter().zip(&b.values).map(|(a, b)| a + b).collect();
    Array { shape: a.shape.clone(), values: sum }
}

pub fn add_relu(a: &Array, b: &Array) -> Array {
    relu(&add(a, b))
}

/// What `of` returns for the pixels of the image in each window.
fn pool2d(x: &Array, pool: Pool2dOptions, of: impl Fn(&[f64]) -> f64) -> Array {
    let Pool2dOptions { kernel: (height, width), stride, padding } = pool;
    let out = |axis: usize, kernel: usize| (x.shape[axis] + 2 * padding - kernel) / stride + 1;
    let mut y = Array::zeros(&[x.shape[0], x.shape[1], out(2, height), out(3, width)]);
    y.clone().each(|[n, c, i, j]| {
        let mut window = Vec::new();
        for (row, column) in (0..height).flat_map(|a| (0..width).map(move |b| (i * stride + a, j * stride + b))) {
            let inside = |k: usize, size: usize| (padding..padding + size).contains(&k);
            if inside(row, x.shape[2]) && inside(column, x.shape[3]) {
                window.push(x.values[x.at([n, c, row - padding, column - padding])]);
            }
        }
        let at = y.at([n, c, i, j]);
        y.values[at] = of(&window);
    });
    y
}

pub fn max_pool2d(x: &Array, pool: Pool2dOptions) -> Array {
    pool2d(x, pool, |window| window.iter().copied().fold(f64::NEG_INFINITY, f64::max))
}

pub fn avg_pool2d(x: &Array, pool: Pool2dOptions, count_padding: bool) -> Array {
    let count = |window: &[f64]| if count_padding { pool.kernel.0 * pool.kernel.1 } else { window.len() };
    pool2d(x, pool, |window| window.iter().sum::<f64>() / count(window) as f64)
}

pub fn shortcut(x: &Array, stride: usize, channels: usize) -> Array {
    let before = (channels - x.shape[1]) / 2;
    let sizes = [x.shape[0], channels, x.shape[2].div_ceil(stride), x.shape[3].div_ceil(stride)];
    let mut y = Array::zeros(&sizes);
    y.clone().each(|[n, c, i, j]| {
        if (before..before + x.shape[1]).contains(&c) {
            let at = y.at([n, c, i, j]);
            y.values[at] = x.values[x.at([n, c - before, i * stride, j * stride])];
        }
    });
    y
}

pub fn rms_norm(x: &Array, weight: &Array, eps: f64) -> Array {
    let mut y = x.clone();
    for row in y.values.chunks_mut(weight.values.len()) {
        let square = row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64;
        row.iter_mut().zip(&weight.values).for_each(|(x, weight)| *x *= weight / (square + eps).sqrt());
    }
    y
}

pub fn embedding(weight: &Array, indices: &[u32]) -> Array {
    let row = |&index: &u32| weight.values.chunks(weight.shape[1]).nth(index as usize).unwrap().to_vec();
    Array { shape: vec![indices.len(), weight.shape[1]], values: indices.iter().flat_map(row).collect() }
}

pub fn cross_entropy(logits: &Array, labels: &[u32], smoothing: f64) -> Array {
    let classes = logits.shape[1];
    let losses = logits.values.chunks(classes).zip(labels).map(|(row, &label)| {
        let sum: f64 = row.iter().map(|x| x.exp()).sum();
        let target = |k: usize| if k == label as usize { 1.0 - smoothing } else { 0.0 } + smoothing / classes as f64;
        (0..classes).map(|k| -target(k) * (row[k].exp() / sum).ln()).sum::<f64>()
    });
    Array { shape: vec![], values: vec![losses.sum::<f64>() / labels.len() as f64] }
}
