//! One connection between two gateways, from either end.

use lambent_wire::session;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc::UnboundedReceiver,
};

pub use lambent_wire::session::SessionError;

use super::message::Message;

/// No message is longer: a few thousand busy instances of one Function.
const MAX_LINE: usize = 4 << 20;

/// Passes messages both ways until one side ends it. Ends by itself when the other side is silent.
///
/// # Errors
/// Why it ended, unless one side has ended it on purpose.
pub async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    outgoing: &mut UnboundedReceiver<Message>,
    take: impl FnMut(Message),
) -> Result<(), SessionError> {
    session::run(stream, MAX_LINE, &Message::Alive, outgoing, take).await
}
