//! Generated input for everything that reads what others write. The targets are in `tests/fuzz`;
//! `docs/testing.md` says how they run.
#![warn(missing_docs)]

/// From here on a byte is no word.
const LITERAL: u8 = 0xf0;

/// Makes a text of these words: a byte chooses a word, or, from 0xf0 on, says that the next byte
/// stands for itself. So random bytes make much that is nearly right, and anything can be made.
///
/// ```text
/// [0, 1, 0xf0, b'x'] with ["a", "b"] -> "abx"
/// ```
pub fn spell(bytes: &[u8], words: &[&str]) -> Vec<u8> {
    let mut text = Vec::new();
    let mut bytes = bytes.iter();
    while let Some(byte) = bytes.next() {
        match (*byte < LITERAL).then(|| words.get(usize::from(*byte) % words.len().max(1))) {
            Some(word) => text.extend_from_slice(word.copied().unwrap_or_default().as_bytes()),
            None => text.extend(bytes.next()),
        }
    }
    text
}

/// As [`spell`], as far as it is text.
pub fn spell_text(bytes: &[u8], words: &[&str]) -> String {
    String::from_utf8_lossy(&spell(bytes, words)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_literal_bytes_make_a_text() {
        assert_eq!(spell(&[0, 1, 2, 0xf0, b'x', 0xff], &["a", "bc"]), b"abcax");
        assert_eq!(spell(&[7], &[]), b"");
    }
}
