//! A queue between the callers and the threads of a store.
//!
//! [`Queue::push`] never waits: the call itself takes its place in the order, and waiting for room would give that place away.
//! The queue is therefore bounded by those who fill it: the server admits only so many bytes of changes at a time.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Jobs in the order in which they were pushed.
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    filled: Condvar,
}

struct State<T> {
    jobs: VecDeque<T>,
    open: bool,
}

impl<T> Queue<T> {
    /// An empty, open queue.
    pub(crate) fn new() -> Self {
        Self { state: Mutex::new(State { jobs: VecDeque::new(), open: true }), filled: Condvar::new() }
    }

    /// Puts `job` last. Returns false, and drops the job, if the queue is closed.
    pub(crate) fn push(&self, job: T) -> bool {
        self.push_and_keep_open(job, true)
    }

    /// Puts `job` last and closes the queue behind it. Returns false, and drops the job, if the queue was closed already.
    pub(crate) fn push_last(&self, job: T) -> bool {
        self.push_and_keep_open(job, false)
    }

    /// Refuses all jobs from now on. Those in the queue can still be taken.
    pub(crate) fn close(&self) {
        self.lock().open = false;
        self.filled.notify_all();
    }

    /// Waits for a job and takes the first one. `None` when the queue is closed and empty.
    pub(crate) fn take(&self) -> Option<T> {
        self.wait().jobs.pop_front()
    }

    /// Waits for a job and takes all there are. Empty when the queue is closed and empty.
    pub(crate) fn take_all(&self) -> VecDeque<T> {
        std::mem::take(&mut self.wait().jobs)
    }

    /// Takes all there are without waiting.
    pub(crate) fn take_all_now(&self) -> VecDeque<T> {
        std::mem::take(&mut self.lock().jobs)
    }

    /// Whether jobs are still taken in.
    pub(crate) fn is_open(&self) -> bool {
        self.lock().open
    }

    fn push_and_keep_open(&self, job: T, keep_open: bool) -> bool {
        let mut state = self.lock();
        if !state.open {
            return false;
        }
        state.jobs.push_back(job);
        state.open = keep_open;
        drop(state);
        if keep_open {
            self.filled.notify_one()
        } else {
            self.filled.notify_all()
        }
        true
    }

    fn wait(&self) -> MutexGuard<'_, State<T>> {
        self.filled
            .wait_while(self.lock(), |state| state.jobs.is_empty() && state.open)
            .unwrap_or_else(PoisonError::into_inner)
    }

    // Nothing under this lock panics, so a poisoned one holds a sound state.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_come_out_in_order_and_those_before_the_close_are_kept() {
        let queue = Queue::new();
        assert!(queue.push(1));
        assert!(queue.push(2));
        assert!(queue.push_last(3));
        assert!(!queue.push(4));
        assert!(!queue.push_last(5));
        assert_eq!(queue.take(), Some(1));
        assert_eq!(queue.take_all(), [2, 3]);
        assert_eq!(queue.take(), None);
        assert!(queue.take_all().is_empty());
    }

    #[test]
    fn a_waiting_thread_wakes_up_when_the_queue_is_closed() {
        let queue = Queue::<u8>::new();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| queue.take());
            queue.close();
            assert_eq!(waiting.join().unwrap(), None);
        });
    }
}
