//! What keeps thousands of Functions that sleep from taking memory: texts that resemble each other are
//! kept as what differs from a sample of them, and tables take little for what they have room for.
#![warn(missing_docs)]

mod table;

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, Hash},
    sync::Arc,
};

use lz4_flex::block::{compress_prepend_size_with_dict, decompress_size_prepended_with_dict};
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

pub use table::Table;

/// Packs texts of one kind, such as all Functions as JSON: a text of 1,500 bytes takes some 150.
#[derive(Clone, Debug, Default)]
pub struct Packer {
    sample: Sample,
    packed: usize,
}

/// Texts that are packed with one sample. It takes as much itself as ten of them.
const SAMPLED: usize = 512;

/// Shared by all that were packed with it, and gone with the last of them.
type Sample = Arc<str>;

/// A text, packed.
#[derive(Clone, Debug)]
pub struct Packed {
    sample: Sample,
    differs: Box<[u8]>,
}

/// Why there is no packed text of a value, or no value in it.
#[derive(Debug, Error)]
pub enum PackError {
    /// Never of what was packed by a [`Packer`].
    #[error("a packed text is damaged: {0}")]
    Damaged(#[from] lz4_flex::block::DecompressError),
    /// The same.
    #[error("a packed text is damaged: {0}")]
    NoText(#[from] std::string::FromUtf8Error),
    /// It is another type's.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

impl Packer {
    /// Packs a text. Now and then the newest becomes the sample, as objects that change at the same time, all of
    /// them being scaled down for example, resemble each other most; those that are there keep theirs until they
    /// are packed again.
    pub fn pack(&mut self, text: &str) -> Packed {
        if self.packed.is_multiple_of(SAMPLED) {
            self.sample = text.into();
        }
        self.packed += 1;
        let differs = compress_prepend_size_with_dict(text.as_bytes(), self.sample.as_bytes()).into_boxed_slice();
        Packed { sample: self.sample.clone(), differs }
    }

    /// Packs a value as JSON.
    ///
    /// # Errors
    /// If it can't be written as JSON.
    pub fn pack_value(&mut self, value: &impl Serialize) -> Result<Packed, PackError> {
        Ok(self.pack(&serde_json::to_string(value)?))
    }
}

impl Packed {
    /// Packs a text that has no others of its kind.
    pub fn alone(text: &str) -> Self {
        let differs = compress_prepend_size_with_dict(text.as_bytes(), &[]).into_boxed_slice();
        Self { sample: "".into(), differs }
    }

    /// The text.
    ///
    /// # Errors
    /// If it is damaged.
    pub fn text(&self) -> Result<String, PackError> {
        Ok(String::from_utf8(decompress_size_prepended_with_dict(&self.differs, self.sample.as_bytes())?)?)
    }

    /// The value whose JSON it is.
    ///
    /// # Errors
    /// If it is damaged, or another type's.
    pub fn value<T: DeserializeOwned>(&self) -> Result<T, PackError> {
        Ok(serde_json::from_str(&self.text()?)?)
    }
}

/// Values of which many are equal, such as the settings of Functions, each kept once.
#[derive(Debug)]
pub struct Shared<T>(HashSet<Arc<T>>);

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self(HashSet::new())
    }
}

impl<T: Eq + Hash> Shared<T> {
    /// The value as all have it that are equal.
    pub fn share(&mut self, value: T) -> Arc<T> {
        if let Some(known) = self.0.get(&value) {
            return known.clone();
        }
        if self.0.len() == self.0.capacity() {
            // Before the table grows: nobody else has these any more.
            self.0.retain(|known| Arc::strong_count(known) > 1);
        }
        let value = Arc::new(value);
        self.0.insert(value.clone());
        value
    }
}

/// A table keeps the size that a crowd has given it; this makes it as small as what is left.
/// Cheap enough for each removal: something happens only after three quarters are gone.
pub fn give_back<K: Eq + Hash, V, S: BuildHasher>(table: &mut HashMap<K, V, S>) {
    if let Some(room) = enough_room(table.len(), table.capacity()) {
        table.shrink_to(room);
    }
}

/// Room for fewer entries is not worth an allocation.
const SMALL: usize = 32;

/// What a table may be shrunk to that has so many entries and room for so many; none if it is not nearly empty.
fn enough_room(entries: usize, room: usize) -> Option<usize> {
    (room > SMALL && entries < room / 4).then_some(entries * 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_packed_is_unpacked(texts in prop::collection::vec(".{0,300}", 1..20)) {
            let mut packer = Packer::default();
            let packed: Vec<Packed> = texts.iter().map(|text| packer.pack(text)).collect();
            for (packed, text) in packed.iter().zip(&texts) {
                prop_assert_eq!(&packed.text().unwrap(), text);
                prop_assert_eq!(&Packed::alone(text).text().unwrap(), text);
            }
        }
    }

    #[test]
    fn what_resembles_the_others_takes_little() {
        let text = |number: usize| {
            format!(r#"{{"name": "hello-{number}", "image": "registry.example.org/hello", "status": "well"}}"#)
                .repeat(9)
        };
        let mut packer = Packer::default();
        packer.pack("{}");
        let packed: Vec<Packed> = (0..200).map(|number| packer.pack(&text(number))).collect();
        let last = &packed[199];
        assert!(last.differs.len() < text(199).len() / 5, "{} of {}", last.differs.len(), text(199).len());
        assert_eq!(last.text().unwrap(), text(199));
    }

    #[test]
    fn values_are_kept_as_json() {
        let mut packer = Packer::default();
        let packed = packer.pack_value(&vec![1, 2, 3]).unwrap();
        assert_eq!(packed.value::<Vec<u32>>().unwrap(), [1, 2, 3]);
        assert!(matches!(packed.value::<String>(), Err(PackError::Json(_))));
    }

    #[test]
    fn what_is_equal_is_one_and_goes_when_nobody_has_it() {
        let mut shared = Shared::default();
        let one = shared.share(1);
        assert!(Arc::ptr_eq(&one, &shared.share(1)));
        for other in 2..1000 {
            shared.share(other);
        }
        assert!(shared.0.capacity() < 16 && shared.0.contains(&1), "{}", shared.0.capacity());
    }

    #[test]
    fn a_table_is_made_small_once_most_are_gone() {
        let mut table: HashMap<usize, ()> = (0..1000).map(|key| (key, ())).collect();
        table.retain(|key, ()| *key < 900);
        give_back(&mut table);
        assert!(table.capacity() > 900);
        table.retain(|key, ()| *key < 10);
        give_back(&mut table);
        assert!(table.capacity() < 64 && table.len() == 10);
    }
}
