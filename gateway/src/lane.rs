//! An HTTP/1 connection to an instance, driven by the request that uses it. A task of its own for each
//! connection would have to be woken, often on another thread, for each step of each request.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures::task::AtomicWaker;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::coop::unconstrained};

use crate::{body::RequestBody, leash::Leash, workers::Home};

type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// A connection that takes one request at a time.
pub struct Lane {
    /// Takes the request.
    pub sender: SendRequest<RequestBody>,
    /// Where it was opened: there the next request costs least.
    pub home: Home,
    /// Moves the bytes; none when the connection has ended.
    driver: Option<Driver>,
    signal: Arc<Signal>,
    waker: Waker,
    leash: Option<Arc<Leash>>,
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane").field("open", &self.driver.is_some()).finish_non_exhaustive()
    }
}

impl Lane {
    /// Speaks HTTP/1 on a connection.
    ///
    /// # Errors
    /// Never so far: nothing is sent before the first request.
    pub async fn open(stream: TcpStream, leash: Option<Arc<Leash>>) -> Result<Self, hyper::Error> {
        // As to callers: most requests are short.
        let (sender, connection) = http1::Builder::new().writev(false).handshake(TokioIo::new(stream)).await?;
        let signal = Arc::new(Signal::default());
        let waker = Waker::from(signal.clone());
        let driver: Driver = Box::pin(connection.with_upgrades());
        Ok(Self { sender, home: Home::here(), driver: Some(driver), signal, waker, leash })
    }

    /// Asks `outcome`, and if it has none moves bytes and asks again. Whoever polls is woken when there is
    /// more to do.
    pub fn poll_with<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut outcome: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.signal.task.register(cx.waker());
        let mut own = Context::from_waker(&self.waker);
        // The body of a short answer has come with its head.
        self.signal.begin();
        let at_once = outcome(&mut own);
        self.signal.end();
        if at_once.is_ready() {
            return at_once;
        }
        // Parts of the connection wake each other: once more is enough for that. What still wakes
        // then asks for a pause.
        for _ in 0..2 {
            self.signal.forget();
            self.signal.begin();
            drive(&mut self.driver, &mut own);
            let outcome = outcome(&mut own);
            let again = self.signal.end();
            if outcome.is_ready() || !again {
                return outcome;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether it can take a request now. Looks at what has come meanwhile, if something has, and wakes
    /// nobody later.
    pub fn is_free(&mut self) -> bool {
        self.signal.task.take();
        if self.signal.forget() || !self.sender.is_ready() {
            let (driver, mut own) = (&mut self.driver, Context::from_waker(&self.waker));
            // Nobody polls it again soon, so a pause for fairness must not be what ends it.
            let look = unconstrained(poll_fn(|cx| {
                drive(driver, cx);
                Poll::Ready(())
            }));
            let _ = std::pin::pin!(look).poll(&mut own);
        }
        self.driver.is_some() && self.sender.is_ready()
    }

    /// Ends when it can take a request, or can't any more: which of them.
    pub async fn until_free(&mut self) -> bool {
        poll_fn(|cx| {
            let Self { sender, driver, signal, .. } = self;
            drive(driver, cx);
            // The next event wakes whoever waits here, and nobody else learns of it.
            signal.again.store(true, Ordering::SeqCst);
            match sender.poll_ready(cx) {
                Poll::Ready(ready) => Poll::Ready(ready.is_ok() && driver.is_some()),
                Poll::Pending if driver.is_none() => Poll::Ready(false),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// Ends when the connection does, or has changed its protocol. Its leash, if it is on one.
    pub async fn until_ended(mut self) -> Option<Arc<Leash>> {
        poll_fn(|cx| {
            drive(&mut self.driver, cx);
            if self.driver.is_none() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        self.leash
    }
}

fn drive(driver: &mut Option<Driver>, cx: &mut Context<'_>) {
    // How it ended is told to the request.
    if driver.as_mut().is_some_and(|driver| driver.as_mut().poll(cx).is_ready()) {
        *driver = None;
    }
}

/// Wakes the request that drives a connection, but not while it does so: the runtime would poll it once
/// more for nothing, and wake another thread to share that work.
#[derive(Default)]
struct Signal {
    task: AtomicWaker,
    /// Whether that is going on.
    polled: AtomicBool,
    /// Something has come that nobody has looked at.
    again: AtomicBool,
}

impl Signal {
    fn begin(&self) {
        self.polled.store(true, Ordering::SeqCst);
    }

    /// Whether it was woken since that was last forgotten.
    fn end(&self) -> bool {
        self.polled.store(false, Ordering::SeqCst);
        self.again.load(Ordering::SeqCst)
    }

    /// Whether it was woken since the last time: what is polled next sees why.
    fn forget(&self) -> bool {
        self.again.swap(false, Ordering::SeqCst)
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.again.store(true, Ordering::SeqCst);
        if !self.polled.load(Ordering::SeqCst) {
            self.task.wake();
        }
    }
}
