//! A few values of one type: the scalars of a formula, and the state of an element.

/// A fixed number of values, so that a rule can take its scalars and its state apart by pattern.
pub trait Array<R>: Copy + AsRef<[R]> {
    /// How many.
    const LEN: usize;
    /// The array whose element `i` is `f(i)`.
    fn from_fn(f: impl FnMut(usize) -> R) -> Self;
}

impl<R: Copy, const N: usize> Array<R> for [R; N] {
    const LEN: usize = N;
    #[inline(always)]
    fn from_fn(f: impl FnMut(usize) -> R) -> Self {
        std::array::from_fn(f)
    }
}

/// The most state slots that a rule may have.
pub const MAX_SLOTS: usize = 4;

/// The state of one element: up to [`MAX_SLOTS`] values.
pub trait Slots<R>: Array<R> {
    /// Calls `f(i, state of element at + i)` for `i` in `0..N` and stores what it returns. Slot `k` of element `i` is `slots[k][i]`.
    fn update_block<const N: usize>(slots: &mut [&mut [R]; MAX_SLOTS], at: usize, f: impl FnMut(usize, Self) -> Self);

    /// Calls `f(i, state of element at + i)` for `i` in `0..N`.
    fn read_block<const N: usize>(slots: &[&mut [R]; MAX_SLOTS], at: usize, f: impl FnMut(usize, Self));
}

// A loop per number of slots over plain local arrays of known length: this is what the compiler vectorises; a loop over a slice of
// slices takes twice as long.
macro_rules! slots {
    ($n:literal: $($slot:ident $k:literal),*) => {
        impl<R: Copy> Slots<R> for [R; $n] {
            #[inline(always)]
            #[allow(unused_variables, reason = "for 0 slots")]
            fn update_block<const N: usize>(
                slots: &mut [&mut [R]; MAX_SLOTS],
                at: usize,
                mut f: impl FnMut(usize, Self) -> Self,
            ) {
                $(let mut $slot: [R; N] = std::array::from_fn(|i| slots[$k][at..at + N][i]);)*
                for i in 0..N {
                    let updated = f(i, [$($slot[i]),*]);
                    $($slot[i] = updated[$k];)*
                }
                $(slots[$k][at..at + N].copy_from_slice(&$slot);)*
            }

            #[inline(always)]
            #[allow(unused_variables, reason = "for 0 slots")]
            fn read_block<const N: usize>(slots: &[&mut [R]; MAX_SLOTS], at: usize, mut f: impl FnMut(usize, Self)) {
                $(let $slot: [R; N] = std::array::from_fn(|i| slots[$k][at..at + N][i]);)*
                for i in 0..N {
                    f(i, [$($slot[i]),*]);
                }
            }
        }
    };
}
slots!(0:);
slots!(1: a 0);
slots!(2: a 0, b 1);
slots!(3: a 0, b 1, c 2);
slots!(4: a 0, b 1, c 2, d 3);
