//! For which instructions the loops are compiled.

/// Compiles each function for several sets of instructions. A call runs the widest that the processor has. (rustfmt leaves what is in
/// the braces as it is.)
macro_rules! simd {
    ($($function:item)*) => {
        $(
            #[multiversion::multiversion(targets(
                "x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma",
                "x86_64+avx2+fma",
                "aarch64+neon"
            ))]
            $function
        )*
    };
}
pub(crate) use simd;
