//! One connection between two parts, from either end: lines in, lines out, signs of life.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc::UnboundedReceiver,
    time::{Instant, interval, sleep_until, timeout},
};
use tokio_util::codec::{Framed, LinesCodec, LinesCodecError};

/// How often a sign of life is sent.
const ALIVE: Duration = Duration::from_millis(500);
/// A side that is silent for so long is taken for lost.
const SILENCE: Duration = Duration::from_secs(3);
/// So many messages go out in one write.
const TOGETHER: usize = 256;

/// Why a session ended.
#[derive(Debug, Error)]
pub enum SessionError {
    /// The connection broke.
    #[error(transparent)]
    Lines(#[from] LinesCodecError),
    /// What came is no message.
    #[error("not understood: {0}")]
    Json(#[from] serde_json::Error),
    /// Nothing came, or could be sent, for too long.
    #[error("silent for {} s", SILENCE.as_secs())]
    Silent,
}

/// Passes messages both ways, no line longer than `max_line`, until one side ends it: this one by dropping
/// all senders of `outgoing`. `alive` is the sign of life. Ends by itself when the other side is silent.
///
/// # Errors
/// Why it ended, unless one side has ended it on purpose.
pub async fn run<S, In, Out>(
    stream: S,
    max_line: usize,
    alive: &Out,
    outgoing: &mut UnboundedReceiver<Out>,
    mut take: impl FnMut(In),
) -> Result<(), SessionError>
where
    S: AsyncRead + AsyncWrite + Unpin,
    In: DeserializeOwned,
    Out: Serialize,
{
    let mut lines = Framed::new(stream, LinesCodec::new_with_max_length(max_line));
    let mut tick = interval(ALIVE);
    let mut batch = Vec::new();
    let mut heard = Instant::now();
    loop {
        tokio::select! {
            line = lines.next() => match line {
                Some(line) => {
                    heard = Instant::now();
                    take(serde_json::from_str(&line?)?);
                }
                None => return Ok(()),
            },
            count = outgoing.recv_many(&mut batch, TOGETHER) => {
                if count == 0 {
                    return Ok(());
                }
                let send = async {
                    for message in batch.drain(..) {
                        lines.feed(serde_json::to_string(&message)?).await?;
                    }
                    SinkExt::<String>::flush(&mut lines).await?;
                    Ok::<_, SessionError>(())
                };
                timeout(SILENCE, send).await.map_err(|_| SessionError::Silent)??;
            }
            _ = tick.tick() => {
                let send = lines.send(serde_json::to_string(alive)?);
                timeout(SILENCE, send).await.map_err(|_| SessionError::Silent)??;
            }
            () = sleep_until(heard + SILENCE) => return Err(SessionError::Silent),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::duplex, sync::mpsc};

    use super::*;

    const MAX_LINE: usize = 100;

    #[tokio::test(start_paused = true)]
    async fn what_one_side_says_the_other_hears_in_order_until_one_of_them_ends_it() {
        let (here, there) = duplex(1 << 16);
        let (to, mut outgoing) = mpsc::unbounded_channel();
        for number in 1..=1000_u32 {
            to.send(number).unwrap();
        }
        let (heard, mut numbers) = mpsc::unbounded_channel();
        let (_nothing, mut silent) = mpsc::unbounded_channel::<u32>();
        let says = run(here, MAX_LINE, &0, &mut outgoing, |_: u32| {});
        let hears = run(there, MAX_LINE, &0, &mut silent, |number: u32| heard.send(number).unwrap());
        let listens = async {
            for expected in 1..=1000 {
                while numbers.recv().await.unwrap() != expected {}
            }
            drop(to);
        };
        let (said, _, ()) = tokio::join!(says, hears, listens);
        assert!(said.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_side_is_taken_for_lost_and_a_living_one_is_not() {
        let (here, _there) = duplex(1 << 16);
        let (_to, mut outgoing) = mpsc::unbounded_channel();
        let ended = run(here, MAX_LINE, &0, &mut outgoing, |_: u32| {}).await;
        assert!(matches!(ended, Err(SessionError::Silent)));
        let (here, there) = duplex(1 << 16);
        let (_other, mut others) = mpsc::unbounded_channel();
        let both = async {
            tokio::join!(
                run(here, MAX_LINE, &0, &mut outgoing, |_: u32| {}),
                run(there, MAX_LINE, &0, &mut others, |_: u32| {})
            )
        };
        assert!(timeout(SILENCE * 10, both).await.is_err(), "neither ends");
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_that_is_too_long_or_no_message_ends_it() {
        let long = format!("{}\n", "1".repeat(MAX_LINE + 1));
        for (bytes, is_json) in [("x\n", true), (&*long, false)] {
            let (here, mut there) = duplex(1 << 16);
            let (_to, mut outgoing) = mpsc::unbounded_channel();
            tokio::io::AsyncWriteExt::write_all(&mut there, bytes.as_bytes()).await.unwrap();
            let ended = run(here, MAX_LINE, &0, &mut outgoing, |_: u32| {}).await;
            assert_eq!(matches!(ended, Err(SessionError::Json(_))), is_json, "{ended:?}");
            assert_eq!(matches!(ended, Err(SessionError::Lines(_))), !is_json, "{ended:?}");
        }
    }
}
