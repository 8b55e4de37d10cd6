//! Connections between Lambent's own parts: asked for over HTTP at a gateway's internal port with a service
//! account token, then upgraded to lines of JSON both ways, with signs of life.
//!
//! ```text
//! connect::upgrade(address, token, path, protocol) -> stream -> session::run(stream, ...) -> why it ended
//! ```
#![warn(missing_docs)]

pub mod connect;
pub mod session;
