//! Memory for state, in large pages where the system has them: every step passes over all of it, and with pages of 4 KiB a processor
//! looks up each on the way, on a virtual machine in two tables.

use rayon::iter::{IndexedParallelIterator, ParallelExtend, repeat_n};

/// What a thread writes at least.
const MIN_ELEMENTS: usize = 1 << 18;

/// Below this many bytes there is no large page (of 2 MiB) within.
#[cfg(target_os = "linux")]
const MIN_BYTES: usize = 4 << 20;

/// As many zeros, written by all threads: the system clears each page when it is first written. Not where a lock is held.
pub fn zeros<R: Copy + Default + Send + Sync>(len: usize) -> Vec<R> {
    let mut values = Vec::with_capacity(len);
    ask_for_large_pages(&mut values);
    values.par_extend(repeat_n(R::default(), len).with_min_len(MIN_ELEMENTS));
    values
}

/// A copy.
pub fn copy_of<R: Copy>(values: &[R]) -> Vec<R> {
    let mut copy = Vec::with_capacity(values.len());
    ask_for_large_pages(&mut copy);
    copy.extend_from_slice(values);
    copy
}

/// Large pages for memory that was not written yet.
#[cfg(target_os = "linux")]
fn ask_for_large_pages<R>(values: &mut Vec<R>) {
    let bytes = values.capacity() * size_of::<R>();
    if bytes < MIN_BYTES {
        return;
    }
    // Whole pages of any size that is in use.
    const PAGE: usize = 64 << 10;
    let (start, end) = (values.as_ptr().addr().next_multiple_of(PAGE), (values.as_ptr().addr() + bytes) / PAGE * PAGE);
    let first = values.as_mut_ptr().cast::<u8>().wrapping_add(start - values.as_ptr().addr());
    // SAFETY: the range lies within the vector's own memory; the advice changes neither what is there nor who may use it, and where
    // the system does not take it all stays as it was.
    unsafe { libc::madvise(first.cast(), end - start, libc::MADV_HUGEPAGE) };
}

#[cfg(not(target_os = "linux"))]
fn ask_for_large_pages<R>(_values: &mut Vec<R>) {}

#[cfg(test)]
mod tests {
    use super::{copy_of, zeros};

    #[test]
    fn values_are_as_without_advice() {
        for len in [0, 1, 1_000, 3_000_001] {
            let values: Vec<f32> = (0..len).map(|i| i as f32).collect();
            assert_eq!(copy_of(&values), values);
            assert_eq!(zeros::<f32>(len), vec![0.0; len]);
        }
    }
}
