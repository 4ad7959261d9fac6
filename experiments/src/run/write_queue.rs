//! What waits for the disk, done aside while training goes on.

use anyhow::{Result, bail};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{Sender, channel},
    },
    thread::{self, JoinHandle},
};

type Job = Box<dyn FnOnce() -> Result<()> + Send>;

/// A thread that does jobs one after another, in the order in which they came.
pub struct WriteQueue {
    jobs: Sender<Job>,
    worker: JoinHandle<Result<()>>,
}

impl WriteQueue {
    /// Starts the thread, which sets `stop` when a job fails: what could not be written is no reason to train for hours more.
    pub fn start(stop: Arc<AtomicBool>) -> Self {
        let (jobs, queue) = channel::<Job>();
        let work = move || queue.into_iter().try_for_each(|job| job()).inspect_err(|_| stop.store(true, Relaxed));
        Self { jobs, worker: thread::spawn(work) }
    }

    /// Has `job` done after those before it.
    ///
    /// # Errors
    /// When one before it failed, after which none is done; [`WriteQueue::finish`] tells why.
    pub fn push(&self, job: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
        if self.jobs.send(Box::new(job)).is_err() {
            bail!("a record could not be written");
        }
        Ok(())
    }

    /// Waits for all jobs.
    ///
    /// # Errors
    /// That of the job that failed.
    pub fn finish(self) -> Result<()> {
        drop(self.jobs);
        self.worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn jobs_are_done_in_order_until_one_fails() {
        let done = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let queue = WriteQueue::start(Arc::clone(&stop));
        for i in 0..5 {
            let done = Arc::clone(&done);
            // Refused or not: that depends on how far the thread is.
            let _ = queue.push(move || {
                if i == 3 {
                    bail!("the disk is full");
                }
                done.lock().unwrap().push(i);
                Ok(())
            });
        }
        assert_eq!(queue.finish().unwrap_err().to_string(), "the disk is full");
        assert_eq!(*done.lock().unwrap(), [0, 1, 2]);
        assert!(stop.load(Relaxed));
    }
}
