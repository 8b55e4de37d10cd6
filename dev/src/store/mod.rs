//! An API server in memory: what the controller, the gateway and the autoscaler need of one, so that
//! their code for a cluster runs unchanged. It keeps Functions, Revisions, Events and (shown, not
//! obeyed) Pods as JSON; anything else answers 404, as a server without that API does.
//!
//! ```text
//! kube::Client --.
//!                +-> service: path -> request -> objects -> state: resourceVersion, owners --> changes -> watch
//! unix socket  --'                 `-> patch, scale, defaults (pure)
//! ```

pub(crate) mod defaults;
mod kind;
mod objects;
mod patch;
mod refusal;
mod request;
mod scale;
mod selector;
mod service;
mod state;
mod watch;

pub use kind::Kind;
pub use objects::{Key, Store};
pub use refusal::Refusal;
pub(crate) use request::pairs;
pub(crate) use service::whole;
pub use service::{Answer, answer, client};
