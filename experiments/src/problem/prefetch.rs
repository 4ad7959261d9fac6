//! What is needed next, made while something else is computed.

use anyhow::{Result, anyhow};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Items by number, each made while the one before it is used: by a thread of rayon's current pool that has nothing else to do, so
/// that no more threads work than the pool has. In a pool of one, that is after the use.
pub struct Prefetcher<T, F> {
    what: &'static str,
    make: F,
    ready: Option<(u64, T)>,
}

impl<T: Send, F: FnMut(u64) -> T + Send> Prefetcher<T, F> {
    /// Items that `make` makes; `what` names one in errors.
    pub fn new(what: &'static str, make: F) -> Self {
        Self { what, make, ready: None }
    }

    /// What `use_it` returns for item `index`. Meanwhile item `next` is made, if there is to be another.
    ///
    /// # Errors
    /// That of `use_it`; or an item cannot be made, this one or the next.
    pub fn use_and_make_next<R>(
        &mut self,
        index: u64,
        next: Option<u64>,
        use_it: impl FnOnce(T) -> Result<R>,
    ) -> Result<R> {
        let item = match self.ready.take() {
            Some((of, item)) if of == index => item,
            _ => self.make(index)?,
        };
        let mut made = None;
        let used = rayon::in_place_scope(|scope| {
            if let Some(next) = next {
                let (prefetcher, made) = (&mut *self, &mut made);
                scope.spawn(move |_| *made = Some(prefetcher.make(next).map(|item| (next, item))));
            }
            use_it(item)
        })?;
        self.ready = made.transpose()?;
        Ok(used)
    }

    /// A panic on another thread would end the process without a word of what was done.
    fn make(&mut self, index: u64) -> Result<T> {
        catch_unwind(AssertUnwindSafe(|| (self.make)(index))).map_err(|panic| {
            let texts = (panic.downcast_ref::<&str>().copied(), panic.downcast_ref::<String>());
            let why = texts.0.or(texts.1.map(String::as_str)).unwrap_or("no reason is known");
            anyhow!("{} {index} cannot be made: {why}", self.what)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;
    use std::{
        sync::{
            Mutex,
            atomic::{AtomicU64, Ordering::SeqCst},
        },
        time::{Duration, Instant},
    };

    fn in_pool<R: Send>(threads: usize, run: impl FnOnce() -> R + Send) -> R {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(run)
    }

    #[test]
    fn items_come_in_the_order_that_they_are_asked_for_and_are_made_once() {
        for threads in [1, 2, 3] {
            let made = Mutex::new(Vec::new());
            let used = in_pool(threads, || {
                let mut prefetcher = Prefetcher::new("number", |index| {
                    made.lock().unwrap().push(index);
                    index * index
                });
                // Goes on from 3, jumps to 9, and ends there.
                let asked = [(3, Some(4)), (4, Some(5)), (5, Some(6)), (9, None)];
                asked.map(|(index, next)| prefetcher.use_and_make_next(index, next, Ok).unwrap())
            });
            assert_eq!(used, [9, 16, 25, 81]);
            assert_eq!(made.into_inner().unwrap(), [3, 4, 5, 6, 9]);
        }
    }

    /// Waits in the use for what makes the next, which another thread has to do.
    #[test]
    fn the_next_is_made_during_the_use() {
        in_pool(2, || {
            let made = AtomicU64::new(0);
            let mut prefetcher = Prefetcher::new("number", |index| made.fetch_max(index, SeqCst));
            for index in 1..20 {
                let start = Instant::now();
                let wait = |_| {
                    while made.load(SeqCst) <= index {
                        assert!(start.elapsed() < Duration::from_secs(60), "{} is not made", index + 1);
                        std::thread::yield_now();
                    }
                    Ok(())
                };
                prefetcher.use_and_make_next(index, Some(index + 1), wait).unwrap();
            }
        });
    }

    #[test]
    fn what_cannot_be_made_or_used_is_an_error() {
        for threads in [1, 2] {
            in_pool(threads, || {
                let mut prefetcher = Prefetcher::new("the batch of update", |index| {
                    assert!(index != 3, "label {index} is missing");
                    index
                });
                assert_eq!(prefetcher.use_and_make_next(1, Some(2), Ok).unwrap(), 1);
                let message = |result: Result<u64>| result.unwrap_err().to_string();
                let expected = "the batch of update 3 cannot be made: label 3 is missing";
                assert_eq!(message(prefetcher.use_and_make_next(2, Some(3), Ok)), expected);
                assert_eq!(message(prefetcher.use_and_make_next(3, None, Ok)), expected);
                assert_eq!(
                    message(prefetcher.use_and_make_next(4, Some(3), |_| bail!("candle fails"))),
                    "candle fails"
                );
                assert_eq!(prefetcher.use_and_make_next(5, Some(6), Ok).unwrap(), 5);
            });
        }
    }
}
