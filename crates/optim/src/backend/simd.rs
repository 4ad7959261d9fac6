//! The instruction sets that loops are compiled for.

/// Compiles a function for each set of instructions that processors may have, of which the best is chosen where it is called.
macro_rules! simd {
    ($($function:tt)*) => {
        #[multiversion::multiversion(targets(
            "x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma",
            "x86_64+avx2+fma",
            "aarch64+neon"
        ))]
        $($function)*
    };
}
pub(crate) use simd;

/// As [`simd`], without the vectors of 512 bits.
macro_rules! simd_up_to_256_bits {
    ($($function:tt)*) => {
        #[multiversion::multiversion(targets("x86_64+avx2+fma", "aarch64+neon"))]
        $($function)*
    };
}
pub(crate) use simd_up_to_256_bits;
