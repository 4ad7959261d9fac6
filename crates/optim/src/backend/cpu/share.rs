//! Work shared among the threads of rayon's pool by a thread that holds locks.
//!
//! rayon's own loops wait by running whatever task they find. While the storages of parameters are locked that could be a task
//! that wants to read one of them, on this thread or on all others: it would wait for ever. Here the calling thread depends on no
//! other: it takes items until none is left, then waits for those helpers alone that have one in hand.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Which helpers are at work.
#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    left: Condvar,
}

#[derive(Default)]
struct GateState {
    is_closed: bool,
    inside: usize,
    panic: Option<Box<dyn Any + Send>>,
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work`, unless the gate is closed.
    fn pass(&self, work: impl FnOnce()) {
        {
            let mut state = self.state();
            if state.is_closed {
                return;
            }
            state.inside += 1;
        }
        let result = catch_unwind(AssertUnwindSafe(work));
        let mut state = self.state();
        state.inside -= 1;
        state.panic = state.panic.take().or(result.err());
        self.left.notify_all();
    }
}

/// When it is dropped no one is let in any more, and those inside are waited for.
struct Closing<'a>(&'a Gate);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.is_closed = true;
        while state.inside > 0 {
            state = self.0.left.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// In how many turns each thread would take its part, if none took longer than another.
const SHARES: usize = 4;

/// Calls `f` on every item, on as many threads as the present pool has; the results are in order.
pub fn map<T: Send, O: Send>(items: Vec<T>, f: impl Fn(T) -> O + Sync) -> Vec<O> {
    let count = items.len();
    let helpers = rayon::current_num_threads().min(count).saturating_sub(1);
    if helpers == 0 {
        return items.into_iter().map(f).collect();
    }
    let (items, results) = (Mutex::new(items.into_iter().enumerate()), Mutex::new(Vec::with_capacity(count)));
    let work = || {
        let (mut own, mut taken) = (Vec::new(), Vec::new());
        loop {
            {
                // A share of what is left, so that neighbours stay together and threads seldom meet here; in the end one by one.
                let mut items = items.lock().unwrap_or_else(PoisonError::into_inner);
                let share = items.len().div_ceil(SHARES * (helpers + 1));
                taken.extend(items.by_ref().take(share));
            }
            if taken.is_empty() {
                break;
            }
            own.extend(taken.drain(..).map(|(index, item)| (index, f(item))));
        }
        results.lock().unwrap_or_else(PoisonError::into_inner).append(&mut own);
    };
    let gate = Arc::new(Gate::default());
    let closing = Closing(&gate);
    {
        let work: &(dyn Fn() + Sync) = &work;
        // SAFETY: helpers call `work` only inside of the gate, and `closing`, which is dropped before `work` and what it borrows,
        // also where something here panics, lets no one in any more and waits until all have left.
        let work: &'static (dyn Fn() + Sync) = unsafe { std::mem::transmute(work) };
        for _ in 0..helpers {
            let gate = gate.clone();
            rayon::spawn(move || gate.pass(work));
        }
    }
    work();
    drop(closing);
    if let Some(panic) = gate.state().panic.take() {
        resume_unwind(panic);
    }
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_unstable_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::map;

    #[test]
    fn results_are_in_order_and_each_item_is_taken_once() {
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            for count in [0, 1, 2, 1_000] {
                let squares = pool.install(|| map((0..count).collect(), |i: u64| i * i));
                assert_eq!(squares, (0..count).map(|i| i * i).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn a_panic_reaches_the_caller() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        for at in [0, 500, 999] {
            let run = || pool.install(|| map((0..1_000).collect(), |i: u64| assert_ne!(i, at)));
            assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err(), "{at}");
        }
    }
}
