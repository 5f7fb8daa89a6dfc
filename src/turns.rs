//! Calls are begun in the task that reads their connection, by turns: what has come in
//! is read, all of it is answered as far as that takes no waiting, the answers are
//! written together.
//!
//! So a call that is answered at once costs no task, no wake-up of another thread and,
//! among others, no write of its own.

use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use hyper::rt::Executor;

/// How many turns a connection has before others have theirs.
const TURNS: usize = 8;

type Call = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Takes the calls that a connection gives to be run, until their turn.
#[derive(Clone, Default)]
pub(crate) struct Calls(Arc<Shared>);

#[derive(Default)]
struct Shared {
    begun: Mutex<Vec<Call>>,
    /// Of [`POLLING`] and [`WOKEN`].
    state: AtomicU8,
    task: Mutex<Option<Waker>>,
}

/// The connection is being polled, and will look itself whether it was woken.
const POLLING: u8 = 1;

/// It was woken since its last turn began.
const WOKEN: u8 = 2;

impl<F> Executor<F> for Calls
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, call: F) {
        lock(&self.0.begun).push(Box::pin(call));
        self.0.wake_by_ref();
    }
}

/// An answer wakes its connection to be written. In the connection's own task that is a
/// note: tokio would put the task in its queue once more and wake a thread to look there.
impl Wake for Shared {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Whoever finds one of them set leaves it to the one who polls, or who set it.
        if self.state.fetch_or(WOKEN, Ordering::AcqRel) == 0
            && let Some(task) = &*lock(&self.task)
        {
            task.wake_by_ref();
        }
    }
}

impl Shared {
    /// Polls each call that was begun, once, and gives a task of its own to each that
    /// then has to wait.
    ///
    /// A wake-up from this first poll goes nowhere, and nothing is lost with it: the
    /// task polls the call anew before it waits, and with that all that the call waits
    /// for looks again whether it is there, and takes the task's waker.
    fn begin(&self) {
        let mut context = Context::from_waker(Waker::noop());
        let mut begun = mem::take(&mut *lock(&self.begun));
        for mut call in begun.drain(..) {
            // As a task of its own would, so that a panic ends one call. What is left of it
            // is dropped, which resets its stream.
            match catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(&mut context))) {
                Ok(Poll::Ready(())) => {}
                Ok(Poll::Pending) => drop(tokio::spawn(call)),
                Err(_) => tracing::error!("a call panicked"),
            }
        }
        let mut next = lock(&self.begun);
        if next.is_empty() {
            // Its place is used again.
            *next = begun;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection, and the calls that it gives to its [`Calls`].
pub(crate) struct Turns<C> {
    connection: C,
    calls: Arc<Shared>,
    waker: Waker,
}

impl<C> Turns<C> {
    /// `connection` runs its calls by `calls`.
    pub(crate) fn new(connection: C, calls: Calls) -> Self {
        let calls = calls.0;
        Self { connection, waker: Waker::from(Arc::clone(&calls)), calls }
    }

    pub(crate) fn connection(&mut self) -> Pin<&mut C>
    where
        C: Unpin,
    {
        Pin::new(&mut self.connection)
    }
}

impl<C: Future + Unpin> Future for Turns<C> {
    type Output = C::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<C::Output> {
        let Self { connection, calls, waker } = &mut *self;
        {
            let mut task = lock(&calls.task);
            if task.as_ref().is_none_or(|task| !task.will_wake(context.waker())) {
                *task = Some(context.waker().clone());
            }
        }
        for _ in 0..TURNS {
            calls.state.swap(POLLING, Ordering::AcqRel);
            let polled = Pin::new(&mut *connection).poll(&mut Context::from_waker(waker));
            calls.begin();
            if polled.is_ready() {
                return polled;
            }
            let quiet =
                calls.state.compare_exchange(POLLING, 0, Ordering::AcqRel, Ordering::Acquire);
            if quiet.is_ok() {
                return Poll::Pending;
            }
        }
        // What is left is WOKEN, whatever comes: the next poll is certain.
        calls.state.swap(WOKEN, Ordering::AcqRel);
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<C> Drop for Turns<C> {
    fn drop(&mut self) {
        // They hold what holds them.
        drop(mem::take(&mut *lock(&self.calls.begun)));
    }
}
