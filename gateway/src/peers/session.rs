//! One connection between two gateways, from either end: lines in, lines out, signs of life.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc::UnboundedReceiver,
    time::{Instant, interval, sleep_until, timeout},
};
use tokio_util::codec::{Framed, LinesCodec, LinesCodecError};

use super::message::Message;

/// How often a sign of life is sent.
const ALIVE: Duration = Duration::from_millis(500);
/// A gateway that is silent for so long is taken for lost.
const SILENCE: Duration = Duration::from_secs(3);
/// No message is longer: a few thousand busy instances of one Function.
const MAX_LINE: usize = 4 << 20;
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

/// Passes messages both ways until one side ends it. Ends by itself when the other side is silent.
///
/// # Errors
/// Why it ended, unless one side has ended it on purpose.
pub async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    outgoing: &mut UnboundedReceiver<Message>,
    mut take: impl FnMut(Message),
) -> Result<(), SessionError> {
    let mut lines = Framed::new(stream, LinesCodec::new_with_max_length(MAX_LINE));
    let mut alive = interval(ALIVE);
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
            _ = alive.tick() => {
                let send = lines.send(serde_json::to_string(&Message::Alive)?);
                timeout(SILENCE, send).await.map_err(|_| SessionError::Silent)??;
            }
            () = sleep_until(heard + SILENCE) => return Err(SessionError::Silent),
        }
    }
}
