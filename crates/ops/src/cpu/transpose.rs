//! Transposition of matrices.

use std::mem::MaybeUninit;

/// Rows and columns of the squares that are taken at a time.
const SIDE: usize = 8;

/// A place that takes a number.
pub(crate) trait Place {
    fn put(&mut self, value: f32);
}

impl Place for f32 {
    #[inline(always)]
    fn put(&mut self, value: f32) {
        *self = value;
    }
}

impl Place for MaybeUninit<f32> {
    #[inline(always)]
    fn put(&mut self, value: f32) {
        self.write(value);
    }
}

/// Matrices of one size, which lie one after another.
#[derive(Clone, Copy)]
pub(crate) struct Transpose {
    pub count: usize,
    pub rows: usize,
    pub columns: usize,
    /// How far apart two rows are, and two matrices.
    pub from: [usize; 2],
    /// The same of the transposed matrices.
    pub to: [usize; 2],
}

impl Transpose {
    /// Writes the transposed matrices to `to`, and nothing between their rows.
    pub fn run<P: Place>(self, from: &[f32], to: &mut [P]) {
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = pulp::x86::V3::try_new() {
            return simd.vectorize(
                #[inline(always)]
                || self.by_squares(simd, from, to),
            );
        }
        self.by_squares(Plain, from, to);
    }

    #[inline(always)]
    fn by_squares<S: Square, P: Place>(self, simd: S, from: &[f32], to: &mut [P]) {
        let (rows, columns) = (self.rows / SIDE * SIDE, self.columns / SIDE * SIDE);
        for at in 0..self.count {
            let (from, to) = (&from[at * self.from[1]..], &mut to[at * self.to[1]..]);
            for i in (0..rows).step_by(SIDE) {
                for j in (0..columns).step_by(SIDE) {
                    let from = &from[i * self.from[0] + j..];
                    let row = |row: usize| -> [f32; SIDE] {
                        from[row * self.from[0]..][..SIDE].try_into().expect("a side of the square")
                    };
                    let square = [row(0), row(1), row(2), row(3), row(4), row(5), row(6), row(7)];
                    for (column, numbers) in simd.transposed(square).iter().enumerate() {
                        let to = &mut to[(j + column) * self.to[0] + i..][..SIDE];
                        to.iter_mut().zip(numbers).for_each(|(to, number)| to.put(*number));
                    }
                }
            }
            let rest = (0..rows).flat_map(|i| (columns..self.columns).map(move |j| (i, j)));
            for (i, j) in rest.chain((rows..self.rows).flat_map(|i| (0..self.columns).map(move |j| (i, j)))) {
                to[j * self.to[0] + i].put(from[i * self.from[0] + j]);
            }
        }
    }
}

/// Transposes a square by the instructions at hand.
trait Square: Copy {
    fn transposed(self, square: [[f32; SIDE]; SIDE]) -> [[f32; SIDE]; SIDE];
}

#[derive(Clone, Copy)]
struct Plain;

impl Square for Plain {
    #[inline(always)]
    fn transposed(self, square: [[f32; SIDE]; SIDE]) -> [[f32; SIDE]; SIDE] {
        std::array::from_fn(|j| std::array::from_fn(|i| square[i][j]))
    }
}

#[cfg(target_arch = "x86_64")]
impl Square for pulp::x86::V3 {
    #[inline(always)]
    fn transposed(self, square: [[f32; SIDE]; SIDE]) -> [[f32; SIDE]; SIDE] {
        let rows: [std::arch::x86_64::__m256; SIDE] = pulp::cast(square);
        let avx = self.avx;
        // Pairs of rows, then fours, then eights; the halves of a vector go their own way until the last step.
        let pairs =
            |i: usize| (avx._mm256_unpacklo_ps(rows[i], rows[i + 1]), avx._mm256_unpackhi_ps(rows[i], rows[i + 1]));
        let ((a0, a1), (b0, b1), (c0, c1), (d0, d1)) = (pairs(0), pairs(2), pairs(4), pairs(6));
        let fours = |a, b| (avx._mm256_shuffle_ps::<0b01_00_01_00>(a, b), avx._mm256_shuffle_ps::<0b11_10_11_10>(a, b));
        let ((e0, e1), (e2, e3), (f0, f1), (f2, f3)) = (fours(a0, b0), fours(a1, b1), fours(c0, d0), fours(c1, d1));
        let low = |e, f| pulp::cast(avx._mm256_permute2f128_ps::<0x20>(e, f));
        let high = |e, f| pulp::cast(avx._mm256_permute2f128_ps::<0x31>(e, f));
        [low(e0, f0), low(e1, f1), low(e2, f2), low(e3, f3), high(e0, f0), high(e1, f1), high(e2, f2), high(e3, f3)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_instructions_and_any_size() {
        for (rows, columns) in [(8, 8), (1, 1), (7, 9), (24, 16), (19, 13), (3, 40)] {
            let (from, to) = ([columns + 3, rows * (columns + 3) + 1], [rows + 2, columns * (rows + 2) + 5]);
            let transpose = Transpose { count: 2, rows, columns, from, to };
            let numbers: Vec<f32> = (0..2 * from[1]).map(|i| i as f32).collect();
            let mut results = [vec![-1f32; 2 * to[1]], vec![-1f32; 2 * to[1]]];
            transpose.run(&numbers, &mut results[0]);
            transpose.by_squares(Plain, &numbers, &mut results[1]);
            for result in results {
                for (at, &number) in result.iter().enumerate() {
                    let (matrix, j, i) = (at / to[1], at % to[1] / to[0], at % to[1] % to[0]);
                    let is_inside = i < rows && j < columns;
                    let expected = if is_inside { numbers[matrix * from[1] + i * from[0] + j] } else { -1.0 };
                    assert_eq!(number, expected, "{rows}x{columns}, matrix {matrix}: {i}, {j}");
                }
            }
        }
    }
}
