//! From an image's name to what runs: the digest it stands for at this moment, asked of its
//! registry with the Function's pull secrets, and the numeric user its instances run as.
//!
//! ```text
//! name -> reference -> registry (each matching pull secret in turn) -> manifest -> digest
//!                                   its configuration -> user, or its /etc/passwd for a name
//! ```

mod auth;
mod error;
mod name;
mod passwd;
mod registry;
mod user;

#[cfg(test)]
mod registry_tests;
#[cfg(test)]
mod test_images;

use std::time::Duration;

use oci_client::{Reference, manifest::OciManifest, secrets::RegistryAuth};
use parking_lot::Mutex;
use tokio::{sync::Semaphore, time::timeout};

pub use auth::{PullSecret, PullSecretError};
pub use error::ImageError;
pub use user::FALLBACK as FALLBACK_USER;

use passwd::Passwd;
use registry::Session;
use user::{Cache, Chosen, Wanted};

const AT_ONCE: usize = 8;
const TOTAL: Duration = Duration::from_secs(120); // waiting for a place included

/// What an image's name stood for when it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedImage {
    /// `repository@sha256:...`, of the index where the image has several architectures.
    pub reference: String,
    /// What instances run as; never 0.
    pub user: i64,
    /// Where the user is not plainly the image's own: why.
    pub note: Option<String>,
}

/// Resolves image names. Needs a process-wide default rustls provider.
pub struct Resolver {
    plain_http: Vec<String>,
    users: Mutex<Cache>,
    places: Semaphore,
}

impl Resolver {
    /// `plain_http`: registries, as `host` or `host:port`, that are asked without TLS.
    pub fn new(plain_http: Vec<String>) -> Self {
        Self { plain_http, users: Mutex::default(), places: Semaphore::new(AT_ONCE) }
    }

    /// Asks the image's registry, with each of the secrets that match it in turn. A name that has a
    /// digest is taken at its word; only its user is looked up, once.
    ///
    /// # Errors
    /// See [`ImageError`]; only `Unreachable` is worth another attempt by itself.
    pub async fn resolve(&self, image: &str, secrets: &[PullSecret]) -> Result<ResolvedImage, ImageError> {
        let image = parse(image)?;
        timeout(TOTAL, Box::pin(self.resolve_reference(&image, secrets)))
            .await
            .unwrap_or_else(|_| Err(ImageError::unreachable(&image, "it takes too long")))
    }

    async fn resolve_reference(&self, image: &Reference, secrets: &[PullSecret]) -> Result<ResolvedImage, ImageError> {
        if let Some(known) = image.digest().and_then(|digest| self.known(image, digest)) {
            return Ok(known);
        }
        let _place =
            self.places.acquire().await.map_err(|_| ImageError::unreachable(image, "the resolver is closed"))?;
        let mut denied = None;
        for auth in auth::candidates(image, secrets) {
            match self.resolve_as(image, auth).await {
                Err(error @ ImageError::Denied { .. }) => denied = Some(error),
                other => return other,
            }
        }
        Err(denied.unwrap_or_else(|| ImageError::unreachable(image, "there are no credentials to try")))
    }

    async fn resolve_as(&self, image: &Reference, auth: RegistryAuth) -> Result<ResolvedImage, ImageError> {
        let session = Session::open(image, auth, &self.plain_http).await?;
        let (manifest, digest) = session.manifest(None).await?;
        if let Some(known) = self.known(image, &digest) {
            return Ok(known);
        }
        let chosen = match user_of(&session, manifest).await? {
            Lookup::Lasting(chosen) => {
                self.users.lock().put(&digest, &chosen);
                chosen
            }
            Lookup::ForNow(chosen) => chosen,
        };
        Ok(resolved(image, &digest, chosen))
    }

    fn known(&self, image: &Reference, digest: &str) -> Option<ResolvedImage> {
        self.users.lock().get(digest).map(|chosen| resolved(image, digest, chosen))
    }
}

fn parse(image: &str) -> Result<Reference, ImageError> {
    name::parse(image).map_err(|why| ImageError::Invalid { image: image.to_owned(), why: why.to_owned() })
}

fn resolved(image: &Reference, digest: &str, chosen: Chosen) -> ResolvedImage {
    let reference = format!("{}/{}@{digest}", image.registry(), image.repository());
    ResolvedImage { reference, user: chosen.user, note: chosen.note }
}

enum Lookup {
    Lasting(Chosen),
    /// Not to be remembered: the next attempt may find more.
    ForNow(Chosen),
}

async fn user_of(session: &Session, manifest: OciManifest) -> Result<Lookup, ImageError> {
    let (manifest, variant) = session.for_this_machine(manifest).await?;
    let field = session.user_field(&manifest.config).await?;
    let name = match user::wanted(&field) {
        Wanted::Decided(chosen) => return Ok(Lookup::Lasting(chosen.and_note(variant))),
        Wanted::Named(name) => name,
    };
    let unknown = |why: &str| Chosen::fallback(&format!("the number of the image's user {name} is not known: {why}"));
    Ok(match passwd::read(session, &manifest.layers).await? {
        Passwd::Found(content, note) => {
            Lookup::Lasting(user::from_passwd(&name, &content).and_note(note).and_note(variant))
        }
        Passwd::Missing(why) => Lookup::Lasting(unknown(&why).and_note(variant)),
        Passwd::TimedOut => Lookup::ForNow(unknown("its layers load too slowly")),
    })
}
