//! The ops with arguments of many shapes.

use crate::naive::{self, Array};
use candle_core::{DType, Device, Result, Tensor};

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
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Images (n, c, h, w), output channels and kernel (o, kh, kw), stride and padding.
#[rustfmt::skip]
const CONVOLUTIONS: &[([usize; 4], [usize; 3], usize, usize)] = &[
    ([2, 3, 8, 8], [4, 3, 3], 1, 1),    // vectors fill rows and channels fill tiles
    ([2, 4, 8, 16], [8, 3, 3], 1, 1),
    ([1, 10, 3, 9], [16, 3, 3], 1, 1),  // tiles of both widths
    ([2, 3, 5, 7], [5, 3, 3], 1, 1),    // neither does
    ([1, 1, 1, 1], [1, 1, 1], 1, 0),
    ([1, 1, 1, 1], [1, 3, 3], 1, 1),    // the kernel is larger than the image
    ([3, 2, 2, 1], [3, 5, 4], 1, 2),
    ([2, 5, 6, 9], [3, 1, 1], 1, 0),    // a matrix product
    ([2, 5, 7, 9], [3, 1, 1], 2, 0),    // taps for a quarter of the pixels only
    ([2, 2, 3, 3], [2, 1, 1], 1, 1),
    ([2, 3, 8, 8], [4, 3, 3], 2, 1),
    ([2, 3, 7, 9], [4, 3, 3], 2, 1),    // a stride on odd sizes
    ([1, 2, 6, 8], [2, 3, 3], 2, 0),    // the last row and column are not read
    ([2, 2, 11, 10], [3, 2, 5], 3, 2),
    ([1, 2, 9, 9], [2, 2, 2], 4, 0),    // gaps between the windows
    ([1, 2, 5, 5], [2, 3, 3], 7, 3),    // a stride beyond the image
    ([1, 1, 4, 4], [1, 2, 2], 1, 3),    // more padding than kernel: windows of zeros
    ([1, 3, 2, 40], [2, 1, 7], 1, 3),
    ([19, 2, 4, 4], [2, 3, 3], 1, 1),   // parts of more than an image, and one that is shorter
    ([1, 1, 40, 40], [1, 3, 3], 1, 1),  // more pixels than a piece
];

pub fn convolution(images: [usize; 4], [o, kh, kw]: [usize; 3], stride: usize, padding: usize) -> Case {
    Case {
        name: format!("conv2d of {images:?} with {o} of {kh}x{kw}, stride {stride}, padding {padding}"),
        shapes: vec![images.to_vec(), vec![o, images[1], kh, kw]],
        op: Box::new(move |t| ops::conv2d(&t[0], &t[1], stride, padding)),
        definition: Box::new(move |a| naive::conv2d(&a[0], &a[1], stride, padding)),
    }
}

/// With a residual, or without.
pub fn conv2d_batch_norm(
    images: [usize; 4],
    [o, kh, kw]: [usize; 3],
    (stride, padding): (usize, usize),
    relu: bool,
    residual: bool,
) -> Case {
    let out = |axis: usize, kernel: usize| (images[axis] + 2 * padding - kernel) / stride + 1;
    let mut shapes = vec![images.to_vec(), vec![o, images[1], kh, kw], vec![o], vec![o]];
    if residual {
        shapes.push(vec![images[0], o, out(2, kh), out(3, kw)]);
    }
    let options = ops::ConvNorm { stride, padding, eps: 1e-3, relu };
    Case {
        name: format!("conv2d_batch_norm of {images:?} with {o} of {kh}x{kw}, {options:?}, residual {residual}"),
        shapes,
        op: Box::new(move |t| Ok(ops::conv2d_batch_norm(&t[0], &t[1], &t[2], &t[3], t.get(4), options)?.output)),
        definition: Box::new(move |a| {
            let y = naive::conv2d(&a[0], &a[1], stride, padding);
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

pub fn max_pool2(images: [usize; 4]) -> Case {
    Case {
        name: format!("max_pool2 of {images:?}"),
        shapes: vec![images.to_vec()],
        op: Box::new(|t| ops::max_pool2(&t[0])),
        definition: Box::new(|a| naive::max_pool2(&a[0])),
    }
}

pub fn cross_entropy(rows: usize, classes: usize) -> Case {
    let labels: Vec<u32> = (0..rows).map(|row| (row * row + 1) as u32 % classes as u32).collect();
    let tensor = Tensor::new(labels.as_slice(), &Device::Cpu).unwrap();
    Case {
        name: format!("cross_entropy of {rows} rows and {classes} classes"),
        shapes: vec![vec![rows, classes]],
        op: Box::new(move |t| ops::cross_entropy(&t[0], &tensor)),
        definition: Box::new(move |a| naive::cross_entropy(&a[0], &labels)),
    }
}

/// Small cases of every op.
pub fn all() -> Vec<Case> {
    let mut cases: Vec<Case> =
        CONVOLUTIONS.iter().map(|&(x, o, stride, padding)| convolution(x, o, stride, padding)).collect();
    for images in [[2, 3, 4, 5], [3, 1, 1, 1], [1, 2, 5, 7]] {
        for relu in [false, true] {
            cases.extend([batch_norm(images, relu), scale_shift(images, relu)]);
        }
    }
    for (relu, residual) in [(false, false), (false, true), (true, false), (true, true)] {
        cases.push(conv2d_batch_norm([2, 3, 6, 7], [4, 3, 3], (1, 1), relu, residual));
        cases.push(conv2d_batch_norm([3, 2, 5, 4], [3, 3, 2], (2, 1), relu, residual));
        cases.push(conv2d_batch_norm([1, 2, 4, 5], [3, 1, 1], (1, 0), relu, residual));
    }
    cases.extend([[2, 3, 4, 6], [1, 2, 5, 3], [1, 1, 2, 2]].map(max_pool2));
    cases.extend([(1, 1), (1, 7), (5, 3)].map(|(rows, classes)| cross_entropy(rows, classes)));
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
