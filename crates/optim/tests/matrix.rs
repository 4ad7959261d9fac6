//! Stacks of matrices against numpy and plain loops, and what holds of them all: bits for any number of threads, one matrix as in a
//! stack, transposed, `f32` beside `f64`.

use candle_core::{DType, Device, Tensor};
use optim::Result;
use optim::matrix::{Coefficients, Factor, Product, eigenvectors, inverse_root, orthogonalise, qr, weighted_sum};

const SETS: [(&str, Coefficients); 3] = [
    ("jordan", Coefficients::Jordan),
    ("quintic", Coefficients::Quintic),
    ("polar_express", Coefficients::PolarExpress),
];

fn fixture() -> serde_json::Value {
    serde_json::from_str(include_str!("fixtures/matrix.json")).unwrap()
}

fn numbers(value: &serde_json::Value) -> Vec<f64> {
    serde_json::from_value(value.clone()).unwrap()
}

fn stack_of(case: &serde_json::Value) -> Tensor {
    let shape: Vec<usize> = serde_json::from_value(case["shape"].clone()).unwrap();
    Tensor::from_vec(numbers(&case["stack"]), shape, &Device::Cpu).unwrap()
}

/// Numbers between -1 and 1 that differ from place to place.
fn noise(shape: [usize; 3], seed: u64, dtype: DType) -> Tensor {
    let number = |i: u64| {
        let mixed = (i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(seed.wrapping_mul(0xBF58_476D_1CE4_E5B9));
        ((mixed ^ (mixed >> 29)).wrapping_mul(0x94D0_49BB_1331_11EB) >> 40) as f64 / f64::from(1 << 23) - 1.0
    };
    let values: Vec<f64> = (0..shape.iter().product::<usize>() as u64).map(number).collect();
    Tensor::from_vec(values, &shape[..], &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn apart(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let apart = a.iter().zip(b).fold(0.0f64, |most, (a, b)| most.max((a - b).abs()));
    if a.iter().any(|a| a.is_nan()) { f64::INFINITY } else { apart }
}

fn bits(tensor: &Tensor) -> Vec<u64> {
    values(tensor).into_iter().map(f64::to_bits).collect()
}

/// The same bits on 1, 2, 3 and 7 threads.
fn on_any_threads(f: impl Fn() -> Result<Tensor> + Sync) -> Tensor {
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(&f).unwrap()
    };
    let one = on(1);
    for threads in [2, 3, 7] {
        assert_eq!(bits(&one), bits(&on(threads)), "{threads} threads");
    }
    one
}

/// `alpha a b + beta c + shift I` by loops.
fn by_loops(a: &Tensor, b: &Tensor, c: &Tensor, alpha: f64, beta: f64, shift: f64) -> Vec<f64> {
    let ((count, rows, inner), columns) = (a.dims3().unwrap(), b.dim(2).unwrap());
    let (a, b, mut out) = (values(a), values(b), values(c));
    for n in 0..count {
        for i in 0..rows {
            for j in 0..columns {
                let mut sum = 0.0;
                for k in 0..inner {
                    sum += a[(n * rows + i) * inner + k] * b[(n * inner + k) * columns + j];
                }
                let out = &mut out[(n * rows + i) * columns + j];
                *out = alpha * sum + beta * *out + if i == j { shift } else { 0.0 };
            }
        }
    }
    out
}

#[test]
fn products_agree_with_loops() {
    // Below, at and above the edges of tiles.
    for (count, rows, inner, columns) in
        [(1, 1, 1, 1), (3, 2, 5, 7), (2, 64, 3, 65), (1, 257, 20, 300), (1, 17, 300, 260), (5, 16, 16, 16)]
    {
        // In f16 the CPU takes the way of other devices, candle's own operations.
        for (dtype, exact) in [(DType::F64, 1e-15), (DType::F32, 1e-6), (DType::F16, 4e-3)] {
            let (a, b) = (noise([count, rows, inner], 1, dtype), noise([count, inner, columns], 2, dtype));
            let c = noise([count, rows, columns], 3, dtype);
            let (a_turned, b_turned) = (a.t().unwrap().contiguous().unwrap(), b.t().unwrap().contiguous().unwrap());
            let bar = (inner as f64).max(4.0) * exact;
            let shift = if rows == columns { 0.5 } else { 0.0 };
            let expected = by_loops(&a, &b, &c, 1.5, -0.25, shift);
            for (a, b) in [
                (Factor::from(&a), Factor::from(&b)),
                (Factor::transposed(&a_turned), Factor::from(&b)),
                (Factor::from(&a), Factor::transposed(&b_turned)),
                (Factor::transposed(&a_turned), Factor::transposed(&b_turned)),
            ] {
                let product = Product::of(a, b).times(1.5).plus(-0.25, &c).plus_identity(shift);
                let result = on_any_threads(|| product.compute());
                assert!(apart(&values(&result), &expected) <= bar, "{count} {rows} {inner} {columns} {dtype:?}");
            }
            let plain = on_any_threads(|| Product::of(&a, &b).compute());
            assert!(apart(&values(&plain), &by_loops(&a, &b, &c, 1.0, 0.0, 0.0)) <= bar);
        }
    }
}

#[test]
fn symmetric_products_are_computed_by_halves() {
    for (count, side, inner) in [(1, 1, 1), (2, 5, 9), (3, 64, 10), (2, 65, 10), (1, 130, 7), (1, 256, 9), (1, 300, 40)]
    {
        for dtype in [DType::F64, DType::F32] {
            let a = noise([count, side, inner], 1, dtype);
            let c = Product::of(&a, Factor::transposed(&a)).symmetric().compute().unwrap();
            let product = Product::of(&a, Factor::transposed(&a)).times(-2.0).plus(0.5, &c).plus_identity(3.0);
            let (whole, half) = (product.compute().unwrap(), on_any_threads(|| product.symmetric().compute()));
            let bar = inner as f64 * if dtype == DType::F64 { 1e-14 } else { 1e-5 };
            assert!(apart(&values(&whole), &values(&half)) <= bar, "{count} {side} {inner} {dtype:?}");
            assert_eq!(bits(&half), bits(&half.t().unwrap()), "{count} {side} {inner} {dtype:?}");
        }
    }
}

#[test]
fn products_without_numbers_are_zero_or_empty() {
    let zeros = |shape: [usize; 3]| noise(shape, 1, DType::F32);
    for (rows, inner, columns) in [(0, 3, 2), (2, 3, 0), (2, 0, 2)] {
        let (a, b) = (zeros([2, rows, inner]), zeros([2, inner, columns]));
        let product = Product::of(&a, &b).compute().unwrap();
        assert_eq!(product.dims(), [2, rows, columns]);
        assert!(values(&product).iter().all(|x| *x == 0.0));
    }
    assert_eq!(Product::of(&zeros([0, 2, 2]), &zeros([0, 2, 2])).symmetric().compute().unwrap().dims(), [0, 2, 2]);
}

#[test]
fn what_does_not_fit_is_an_error() {
    let of = |shape| noise(shape, 1, DType::F32);
    let (wide, square) = (of([1, 2, 3]), of([1, 2, 2]));
    for product in [
        Product::of(&wide, &wide),
        Product::of(&of([2, 2, 2]), &square),
        Product::of(&square, &wide).symmetric(),
        Product::of(&square, &wide).plus_identity(1.0),
        Product::of(&square, &wide).plus(1.0, &square),
    ] {
        let error = product.compute().unwrap_err().to_string();
        assert!(error.contains("do not fit"), "{error}");
    }
    assert!(Product::of(&square, &noise([1, 2, 2], 1, DType::F64)).compute().is_err());
    assert!(orthogonalise(&of([1, 2, 2]).squeeze(0).unwrap(), Coefficients::Jordan, DType::F32, 1.0).is_err());
    for error in [eigenvectors(&wide).unwrap_err(), qr(&wide).unwrap_err(), inverse_root(&wide, 2.0, 1e-6).unwrap_err()]
    {
        assert!(error.to_string().contains("[n, side, side]"), "{error}");
    }
    let nan = (square * f64::NAN).unwrap();
    for result in [eigenvectors(&nan), inverse_root(&nan, 2.0, 1e-6), qr(&nan)] {
        assert!(values(&result.unwrap()).iter().all(|x| x.is_nan()));
    }
    assert!(values(&orthogonalise(&nan, Coefficients::Jordan, DType::F32, 1.0).unwrap()).iter().all(|x| x.is_nan()));
}

#[test]
fn orthogonalisation_agrees_with_numpy() {
    for case in fixture()["orthogonalised"].as_array().unwrap() {
        let (_, set) = SETS.into_iter().find(|(name, _)| case["coefficients"] == *name).unwrap();
        let stack = stack_of(case);
        for (dtype, bar) in [(DType::F64, 1e-11), (DType::F32, 2e-4)] {
            let result = orthogonalise(&stack.to_dtype(dtype).unwrap(), set, dtype, 1.0).unwrap();
            let worst = apart(&values(&result), &numbers(&case["result"]));
            assert!(worst <= bar, "{} {:?} {dtype:?}: {worst:e}", case["coefficients"], stack.shape());
        }
    }
}

#[test]
fn orthogonalisation_does_not_depend_on_threads_or_neighbours() {
    for shape in [[3, 40, 40], [2, 20, 70], [2, 70, 20], [1, 130, 300], [1, 300, 290]] {
        for (name, set) in SETS {
            let stack = noise(shape, 5, DType::F32);
            let together = on_any_threads(|| orthogonalise(&stack, set, DType::F32, 1.0));
            for i in 0..shape[0] {
                // Not at the beginning of its storage.
                let alone = orthogonalise(&stack.narrow(0, i, 1).unwrap(), set, DType::F32, 1.0).unwrap();
                assert_eq!(bits(&alone), bits(&together.narrow(0, i, 1).unwrap()), "{name} {shape:?}");
            }
        }
    }
}

#[test]
fn orthogonalisation_of_transposed_matrices_is_transposed() {
    for shape in [[2, 40, 40], [2, 20, 70], [1, 130, 300]] {
        for (name, set) in SETS {
            let stack = noise(shape, 6, DType::F64);
            let result = orthogonalise(&stack, set, DType::F64, 1.0).unwrap();
            let turned = orthogonalise(&stack.t().unwrap(), set, DType::F64, 1.0).unwrap().t().unwrap();
            assert!(apart(&values(&result), &values(&turned)) <= 1e-11, "{name} {shape:?}");
        }
    }
}

/// `f32` beside `f64`, also of matrices of low rank, of which the Gram matrix sees small singular values worst.
#[test]
fn orthogonalisation_in_f32_is_near_that_in_f64() {
    for shape in [[2, 40, 40], [2, 20, 70], [1, 60, 500]] {
        for rank in [2, shape[1]] {
            let (a, b) =
                (noise([shape[0], shape[1], rank], 1, DType::F64), noise([shape[0], rank, shape[2]], 2, DType::F64));
            let stack = Product::of(&a, &b).compute().unwrap();
            for (name, set) in SETS {
                let exact = orthogonalise(&stack, set, DType::F64, 1.0).unwrap();
                let result = orthogonalise(&stack.to_dtype(DType::F32).unwrap(), set, DType::F32, 1.0).unwrap();
                let worst = apart(&values(&exact), &values(&result));
                assert!(worst <= 2e-3, "{name} {shape:?} of rank {rank}: {worst:e}");
            }
        }
    }
}

/// Singular values end where the polynomials bring them, whatever the scale of the matrix.
#[test]
fn scale_does_not_matter_and_zero_stays_zero() {
    let stack = noise([1, 20, 50], 3, DType::F32);
    let result = orthogonalise(&stack, Coefficients::PolarExpress, DType::F32, 1.0).unwrap();
    for scale in [1e-2, 1e10, 1e20, 1e30] {
        let scaled = orthogonalise(&(&stack * scale).unwrap(), Coefficients::PolarExpress, DType::F32, 1.0).unwrap();
        assert!(apart(&values(&result), &values(&scaled)) <= 1e-4, "{scale}");
    }
    let halved = orthogonalise(&stack, Coefficients::PolarExpress, DType::F32, 0.5).unwrap();
    assert!(apart(&values(&(result * 0.5).unwrap()), &values(&halved)) <= 1e-6);
    let zero = orthogonalise(&stack.zeros_like().unwrap(), Coefficients::Jordan, DType::F32, 1.0).unwrap();
    assert!(values(&zero).iter().all(|x| *x == 0.0));
}

/// The columns of a stack of matrices, each with the sign of its largest number made positive.
fn with_signs(stack: &[f64], side: usize) -> Vec<f64> {
    let mut out = stack.to_vec();
    for matrix in out.chunks_mut(side * side) {
        for j in 0..side {
            let column = || (0..side).map(|i| i * side + j);
            let largest = column().map(|at| matrix[at]).fold(0.0, |a: f64, b| if b.abs() > a.abs() { b } else { a });
            column().for_each(|at| matrix[at] *= largest.signum());
        }
    }
    out
}

#[test]
fn decompositions_agree_with_numpy() {
    let fixture = fixture();
    for case in fixture["symmetric"].as_array().unwrap() {
        let stack = stack_of(case);
        let side = stack.dim(1).unwrap();
        for (dtype, bar) in [(DType::F64, 1e-11), (DType::F32, 1e-4)] {
            let stack = stack.to_dtype(dtype).unwrap();
            let vectors = values(&on_any_threads(|| eigenvectors(&stack)));
            let worst = apart(&with_signs(&vectors, side), &with_signs(&numbers(&case["vectors"]), side));
            assert!(worst <= bar, "eigenvectors {side} {dtype:?}: {worst:e}");
            for p in ["2", "4"] {
                let root = values(&on_any_threads(|| inverse_root(&stack, p.parse().unwrap(), 1e-6)));
                let expected = numbers(&case["inverse_roots"][p]);
                let largest = expected.iter().fold(1.0f64, |most, x| most.max(x.abs()));
                let worst = apart(&root, &expected) / largest;
                assert!(worst <= 10.0 * bar, "root {p} {side} {dtype:?}: {worst:e}");
            }
        }
    }
    for case in fixture["qr"].as_array().unwrap() {
        let stack = stack_of(case);
        let side = stack.dim(1).unwrap();
        for (dtype, bar) in [(DType::F64, 1e-12), (DType::F32, 1e-5)] {
            let stack = stack.to_dtype(dtype).unwrap();
            let q = values(&on_any_threads(|| qr(&stack)));
            let worst = apart(&with_signs(&q, side), &with_signs(&numbers(&case["q"]), side));
            assert!(worst <= bar, "qr {side} {dtype:?}: {worst:e}");
        }
    }
}

#[test]
fn large_decompositions_are_orthogonal() {
    let stack = noise([2, 100, 100], 8, DType::F64);
    let gram = Product::of(&stack, Factor::transposed(&stack)).symmetric().compute().unwrap();
    let identity = Tensor::eye(100, DType::F64, &Device::Cpu).unwrap().broadcast_as((2, 100, 100)).unwrap();
    let orthogonal =
        |q: &Tensor| apart(&values(&Product::of(Factor::transposed(q), q).compute().unwrap()), &values(&identity));
    let (q, vectors) = (on_any_threads(|| qr(&stack)), on_any_threads(|| eigenvectors(&gram)));
    assert!(orthogonal(&q) <= 1e-12 && orthogonal(&vectors) <= 1e-12);
    // eps is what the rounding of the smallest eigenvalue needs.
    let root = inverse_root(&gram, 2.0, 1e-12).unwrap();
    let back = Product::of(&Product::of(&root, &gram).compute().unwrap(), &root).compute().unwrap();
    assert!(apart(&values(&back), &values(&identity)) <= 1e-5);
    let of_zeros = inverse_root(&gram.zeros_like().unwrap(), 4.0, 1e-6).unwrap();
    assert!(apart(&values(&of_zeros), &values(&identity)) <= 1e-14);
}

#[test]
fn weighted_sums_agree_with_candle() {
    for shape in [[1, 2, 3], [3, 200, 100], [0, 2, 2]] {
        for dtype in [DType::F64, DType::F32] {
            let (x, y) = (noise(shape, 1, dtype), noise(shape, 2, dtype));
            let sum = on_any_threads(|| weighted_sum(0.3, &x, -1.7, &y));
            let expected = ((&x * 0.3).unwrap() + (&y * -1.7).unwrap()).unwrap();
            assert!(apart(&values(&sum), &values(&expected)) <= 1e-6);
            let tiny = weighted_sum(0.5, &(&x * 1e-38).unwrap(), 0.5, &(&y * 1e-38).unwrap()).unwrap();
            assert!(dtype == DType::F64 || values(&tiny).iter().all(|x| *x == 0.0));
        }
    }
}
