//! A hold on connections that may turn out to lead to the wrong place, so that they can be cut off whoever
//! uses them by then.

use std::{
    io,
    net::Shutdown,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Weak},
};

use socket2::SockRef;
use tokio::net::TcpStream;

/// Kept with a connection. Its second descriptor closes with it.
#[derive(Debug)]
pub struct Leash(OwnedFd);

/// The leashes of all such connections to one place that are still open.
#[derive(Debug, Default)]
pub struct Leashes(Vec<Weak<Leash>>);

impl Leashes {
    /// Takes hold of a connection, for as long as what is returned is kept.
    ///
    /// # Errors
    /// If the process has no descriptor left.
    pub fn add(&mut self, stream: &TcpStream) -> io::Result<Arc<Leash>> {
        let leash = Arc::new(Leash(stream.as_fd().try_clone_to_owned()?));
        self.0.retain(|other| other.strong_count() > 0);
        self.0.push(Arc::downgrade(&leash));
        Ok(leash)
    }

    /// Ends all of them, in both directions.
    pub fn cut(&self) {
        for leash in self.0.iter().filter_map(Weak::upgrade) {
            // One that has ended by itself is no error.
            let _ = SockRef::from(&leash.0).shutdown(Shutdown::Both);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt, net::TcpListener};

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
        (ours.unwrap(), theirs.unwrap().0)
    }

    #[tokio::test]
    async fn what_is_on_a_leash_ends_when_it_is_cut() {
        let (mut leashes, (mut ours, mut theirs)) = (Leashes::default(), pair().await);
        let _kept = leashes.add(&ours).unwrap();
        leashes.cut();
        assert_eq!((ours.read(&mut [0]).await.unwrap(), theirs.read(&mut [0]).await.unwrap()), (0, 0));
    }

    #[tokio::test]
    async fn a_connection_closes_for_the_other_side_with_its_leash_and_is_forgotten() {
        let mut leashes = Leashes::default();
        let (ours, mut theirs) = pair().await;
        let leash = leashes.add(&ours).unwrap();
        drop((ours, leash));
        assert_eq!(theirs.read(&mut [0]).await.unwrap(), 0);
        let (other, _there) = pair().await;
        let _kept = leashes.add(&other).unwrap();
        assert_eq!(leashes.0.len(), 1);
    }
}
