//! Finds /etc/passwd in the layers of an image, from the top one down, as their tar streams in.
//! Nothing is stored, and what is read is bounded: the layers are whatever somebody pushed.

use std::io::{self, Read};

use flate2::read::MultiGzDecoder;
use futures::{Stream, StreamExt};
use oci_client::manifest::OciDescriptor;
use tokio::{
    sync::mpsc,
    time::{Duration, Instant, timeout_at},
};

use super::{ImageError, registry::Session};

const MAX_COMPRESSED: u64 = 256 << 20; // over all layers
const MAX_UNPACKED: u64 = 4 << 30; // of one layer: a small one can unpack without end
const MAX_PASSWD: u64 = 1 << 20;
const MAX_TIME: Duration = Duration::from_secs(60);
const MAX_LAYERS: usize = 500;

/// What came of the search through all layers.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Passwd {
    /// Its content, and whether a layer above could not be read.
    Found(Vec<u8>, Option<String>),
    /// Not there, or not to be read; and why.
    Missing(String),
    /// Another attempt may get further.
    TimedOut,
}

/// What came of the search through one layer.
#[derive(Debug, PartialEq, Eq)]
enum Layer {
    File(Vec<u8>),
    /// A whiteout or something that is no directory hides the file of the layers below.
    Hidden,
    Absent,
    Unreadable(&'static str),
    TimedOut,
}

pub(super) async fn read(session: &Session, layers: &[OciDescriptor]) -> Result<Passwd, ImageError> {
    let deadline = Instant::now() + MAX_TIME;
    let mut budget = MAX_COMPRESSED;
    let mut skipped = None;
    for layer in layers.iter().rev().take(MAX_LAYERS) {
        let Some(packing) = Packing::of(&layer.media_type) else {
            skipped = Some("a layer of the image is packed in a way that is not read here (zstd)".to_owned());
            continue;
        };
        match search_layer(session, &layer.digest, packing, &mut budget, deadline).await? {
            Layer::File(content) => return Ok(Passwd::Found(content, skipped)),
            Layer::Absent => {}
            Layer::Hidden => break,
            Layer::Unreadable(why) => return Ok(Passwd::Missing(why.to_owned())),
            Layer::TimedOut => return Ok(Passwd::TimedOut),
        }
    }
    Ok(Passwd::Missing(skipped.unwrap_or_else(|| "the image has no /etc/passwd".to_owned())))
}

async fn search_layer(
    session: &Session,
    digest: &str,
    packing: Packing,
    budget: &mut u64,
    deadline: Instant,
) -> Result<Layer, ImageError> {
    let stream = session.blob(digest).await?;
    let (sender, chunks) = mpsc::channel(4);
    let search = tokio::task::spawn_blocking(move || {
        find(packing.unpack(ChunkReader { chunks, chunk: None, at: 0 }, MAX_UNPACKED))
    });
    let pumped = timeout_at(deadline, pump(stream, sender, budget)).await;
    let found = search.await.unwrap_or(Layer::Unreadable("a layer of the image can't be read"));
    match (found, pumped) {
        (Layer::File(content), _) => Ok(Layer::File(content)), // the rest of the layer was not needed
        (_, Err(_elapsed)) => Ok(Layer::TimedOut),
        (_, Ok(Err(error))) => Err(session.unreachable(&format!("a layer of it breaks off: {error}"))),
        (_, Ok(Ok(Pumped::OverBudget))) => Ok(Layer::Unreadable("the image is too large to look for its user")),
        (found, Ok(Ok(Pumped::ToTheEnd))) => Ok(found),
    }
}

enum Pumped {
    /// Or as far as the search wanted it.
    ToTheEnd,
    OverBudget,
}

async fn pump<B: AsRef<[u8]>>(
    mut stream: impl Stream<Item = io::Result<B>> + Unpin,
    sender: mpsc::Sender<B>,
    budget: &mut u64,
) -> io::Result<Pumped> {
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        let Some(left) = budget.checked_sub(chunk.as_ref().len() as u64) else { return Ok(Pumped::OverBudget) };
        *budget = left;
        if sender.send(chunk).await.is_err() {
            break;
        }
    }
    Ok(Pumped::ToTheEnd)
}

#[derive(Clone, Copy)]
enum Packing {
    None,
    Gzip,
}

impl Packing {
    fn of(media_type: &str) -> Option<Self> {
        if media_type.ends_with("gzip") {
            Some(Self::Gzip)
        } else if media_type.ends_with(".tar") {
            Some(Self::None)
        } else {
            None
        }
    }

    fn unpack(self, layer: impl Read + 'static, at_most: u64) -> Box<dyn Read> {
        match self {
            Self::None => Box::new(layer.take(at_most)),
            Self::Gzip => Box::new(MultiGzDecoder::new(layer).take(at_most)),
        }
    }
}

/// The chunks of an asynchronous stream, for code that blocks.
struct ChunkReader<B> {
    chunks: mpsc::Receiver<B>,
    chunk: Option<B>,
    at: usize,
}

impl<B: AsRef<[u8]>> Read for ChunkReader<B> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(rest) = self.chunk.as_ref().and_then(|c| c.as_ref().get(self.at..)).filter(|r| !r.is_empty()) {
                let n = (&mut &*rest).read(to)?;
                self.at += n;
                return Ok(n);
            }
            self.at = 0;
            self.chunk = self.chunks.blocking_recv();
            if self.chunk.is_none() {
                return Ok(0);
            }
        }
    }
}

fn find(layer: impl Read) -> Layer {
    search_tar(layer).unwrap_or(Layer::Unreadable("a layer of the image is not a readable tar"))
}

/// Raw entries: else the tar crate would keep whole long-name records in memory, whatever their
/// size. The names looked for are short, so that they stand in the plain header.
fn search_tar(layer: impl Read) -> io::Result<Layer> {
    let mut hidden = false;
    for entry in tar::Archive::new(layer).entries()?.raw(true) {
        let entry = entry?;
        let kind = entry.header().entry_type();
        if kind.is_pax_local_extensions() || kind.is_pax_global_extensions() || kind.is_gnu_longname() {
            continue;
        }
        match bare(&entry.path_bytes()) {
            b"etc/passwd" if kind.is_file() => return passwd_content(entry),
            b"etc/passwd" => return Ok(Layer::Unreadable("the image's /etc/passwd is a link")),
            b"etc" => hidden |= !kind.is_dir(),
            b".wh.etc" | b".wh..wh..opq" | b"etc/.wh.passwd" | b"etc/.wh..wh..opq" => hidden = true,
            _ => {}
        }
    }
    Ok(if hidden { Layer::Hidden } else { Layer::Absent })
}

fn passwd_content(mut entry: impl Read) -> io::Result<Layer> {
    let mut content = Vec::new();
    entry.by_ref().take(MAX_PASSWD + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MAX_PASSWD {
        return Ok(Layer::Unreadable("the image's /etc/passwd is too large"));
    }
    Ok(Layer::File(content))
}

/// Without the `./`, `/` and trailing `/` that some builders write.
fn bare(path: &[u8]) -> &[u8] {
    let path = path.strip_prefix(b".").filter(|rest| rest.starts_with(b"/")).unwrap_or(path);
    let path = path.strip_prefix(b"/").unwrap_or(path);
    path.strip_suffix(b"/").unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::test_images::{gzip, tar_of};

    const PASSWD: &[u8] = b"app:x:1234:1234::/:/bin/sh\n";

    fn found(entries: &[(&str, &[u8])]) -> Layer {
        find(tar_of(entries).as_slice())
    }

    #[test]
    fn the_file_is_found_under_each_way_of_writing_its_path() {
        for path in ["etc/passwd", "./etc/passwd"] {
            assert_eq!(found(&[("etc/", b""), ("etc/hosts", b"x"), (path, PASSWD)]), Layer::File(PASSWD.to_vec()));
        }
        assert_eq!(bare(b"/etc/passwd"), b"etc/passwd");
        assert_eq!(bare(b".wh.etc"), b".wh.etc");
    }

    #[test]
    fn whiteouts_hide_what_is_below() {
        for path in ["etc/.wh.passwd", ".wh.etc", ".wh..wh..opq", "etc/.wh..wh..opq", "etc"] {
            assert_eq!(found(&[("a", b""), (path, b"")]), Layer::Hidden, "{path}");
        }
        assert_eq!(found(&[("etc/.wh.passwd", b""), ("etc/passwd", PASSWD)]), Layer::File(PASSWD.to_vec()));
    }

    #[test]
    fn a_layer_without_it_says_nothing() {
        assert_eq!(found(&[("usr/etc/passwd", PASSWD), ("etc/passwd-", PASSWD)]), Layer::Absent);
        assert_eq!(found(&[]), Layer::Absent);
    }

    #[test]
    fn a_file_that_is_too_large_is_not_read() {
        let large = vec![b'x'; 2 << 20];
        assert!(matches!(found(&[("etc/passwd", &large)]), Layer::Unreadable(_)));
    }

    #[test]
    fn what_is_no_tar_is_unreadable() {
        assert!(matches!(find([7_u8; 2000].as_slice()), Layer::Unreadable(_)));
        assert!(matches!(find(Packing::Gzip.unpack([7_u8; 2000].as_slice(), MAX_UNPACKED)), Layer::Unreadable(_)));
    }

    #[test]
    fn chunks_of_any_size_make_the_same_layer() {
        let packed = gzip(&tar_of(&[("etc/passwd", PASSWD)]));
        for size in [1, 7, 100_000] {
            let (sender, chunks) = mpsc::channel(packed.len() + 1);
            sender.try_send(Vec::new()).unwrap();
            for chunk in packed.chunks(size) {
                sender.try_send(chunk.to_vec()).unwrap();
            }
            drop(sender);
            let reader = ChunkReader { chunks, chunk: None, at: 0 };
            assert_eq!(find(Packing::Gzip.unpack(reader, MAX_UNPACKED)), Layer::File(PASSWD.to_vec()), "{size}");
        }
    }

    #[test]
    fn a_layer_that_unpacks_without_end_is_read_only_so_far() {
        let packed = gzip(&tar_of(&[("large", &vec![0; 2 << 20]), ("etc/passwd", PASSWD)]));
        let unpack = |at_most| find(Packing::Gzip.unpack(io::Cursor::new(packed.clone()), at_most));
        assert_eq!(unpack(3 << 20), Layer::File(PASSWD.to_vec()));
        assert!(matches!(unpack(1 << 20), Layer::Unreadable(_)));
    }

    #[tokio::test]
    async fn what_is_loaded_stays_within_the_budget() {
        let load = async |mut budget| {
            let (sender, mut chunks) = mpsc::channel(4);
            let stream = futures::stream::iter([Ok(vec![0; 6]), Ok(vec![0; 6])]);
            let end = pump(stream, sender, &mut budget).await.unwrap();
            (matches!(end, Pumped::OverBudget), std::iter::from_fn(|| chunks.try_recv().ok()).count(), budget)
        };
        assert_eq!(load(12).await, (false, 2, 0));
        assert_eq!(load(11).await, (true, 1, 5));
    }

    #[test]
    fn the_kinds_of_layers_are_told_by_their_media_type() {
        for (media_type, known) in [
            ("application/vnd.oci.image.layer.v1.tar", true),
            ("application/vnd.oci.image.layer.v1.tar+gzip", true),
            ("application/vnd.docker.image.rootfs.diff.tar.gzip", true),
            ("application/vnd.oci.image.layer.v1.tar+zstd", false),
        ] {
            assert_eq!(Packing::of(media_type).is_some(), known, "{media_type}");
        }
    }
}
