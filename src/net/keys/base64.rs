//! Base64 (RFC 4648), strict: no white space, no padding, one text for the same bytes.
//!
//! Private keys pass through it, so that no table is indexed by a secret.

use zeroize::Zeroizing;

/// The two characters behind letters and digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alphabet {
    /// `+` and `/`, as in PEM.
    Standard,
    /// `-` and `_`, as in URLs.
    Url,
}

impl Alphabet {
    const fn last(self) -> [u8; 2] {
        match self {
            Self::Standard => [b'+', b'/'],
            Self::Url => [b'-', b'_'],
        }
    }

    /// The character of six bits.
    fn character(self, value: u8) -> u8 {
        let [plus, slash] = self.last();
        // Exactly one of the five terms is not zero.
        let pick = |low: u8, high: u8, character: u8| inside(value, low, high) & character;
        pick(0, 25, b'A'.wrapping_add(value))
            | pick(26, 51, b'a'.wrapping_add(value.wrapping_sub(26)))
            | pick(52, 61, b'0'.wrapping_add(value.wrapping_sub(52)))
            | pick(62, 62, plus)
            | pick(63, 63, slash)
    }

    /// The six bits of a character, and 0xff where it is none.
    fn value(self, character: u8) -> u8 {
        let [plus, slash] = self.last();
        let pick = |low: u8, high: u8, value: u8| inside(character, low, high) & value.wrapping_add(1);
        let found = pick(b'A', b'Z', character.wrapping_sub(b'A'))
            | pick(b'a', b'z', character.wrapping_sub(b'a').wrapping_add(26))
            | pick(b'0', b'9', character.wrapping_sub(b'0').wrapping_add(52))
            | pick(plus, plus, 62)
            | pick(slash, slash, 63);
        found.wrapping_sub(1)
    }
}

/// 0xff where `low <= x <= high`, else 0, without a branch.
fn inside(x: u8, low: u8, high: u8) -> u8 {
    let (x, low, high) = (i16::from(x), i16::from(low), i16::from(high));
    // Both differences are negative inside, so that the sign bits are set.
    let signs = ((low - 1 - x) & (x - high - 1)) >> 15;
    signs.to_le_bytes()[0]
}

/// The text of `bytes`.
pub(super) fn encode(bytes: &[u8], alphabet: Alphabet) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::with_capacity(bytes.len().div_ceil(3) * 4));
    for chunk in bytes.chunks(3) {
        let mut word = [0; 4];
        word[1..=chunk.len()].copy_from_slice(chunk);
        let word = u32::from_be_bytes(word);
        for i in 0..=chunk.len() {
            let six = (word >> (18 - 6 * i)) & 63;
            out.push(char::from(alphabet.character(six.to_le_bytes()[0])));
        }
    }
    out
}

/// Bytes that [`encode`] makes of the same text.
///
/// # Errors
/// The place of the first character that cannot stand there: one of another alphabet, or the last where the length or
/// the bits that are left over fit no bytes.
pub(super) fn decode(text: &[u8], alphabet: Alphabet) -> Result<Zeroizing<Vec<u8>>, usize> {
    let mut out = Zeroizing::new(Vec::with_capacity(text.len() / 4 * 3 + 2));
    for (block, chunk) in text.chunks(4).enumerate() {
        let mut word = 0u32;
        for (i, &character) in chunk.iter().enumerate() {
            let value = alphabet.value(character);
            if value > 63 {
                return Err(4 * block + i);
            }
            word |= u32::from(value) << (18 - 6 * i);
        }
        let bytes = word.to_be_bytes();
        let (used, left) = bytes[1..].split_at(chunk.len() - 1);
        if chunk.len() == 1 || left.iter().any(|&b| b != 0) {
            return Err(4 * block + chunk.len() - 1);
        }
        out.extend_from_slice(used);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

    #[test]
    fn the_alphabets_are_those_of_the_rfc() {
        for (alphabet, last) in [(Alphabet::Standard, "+/"), (Alphabet::Url, "-_")] {
            let all = format!("{ALL}{last}").into_bytes();
            for (value, &character) in (0u8..).zip(&all) {
                assert_eq!(alphabet.character(value), character);
            }
            for character in 0..=255 {
                let expected = all.iter().position(|&c| c == character).map_or(255, |i| u8::try_from(i).unwrap());
                assert_eq!(alphabet.value(character), expected, "{character}");
            }
        }
    }

    /// RFC 4648, section 10, without its padding.
    #[test]
    fn the_vectors_of_the_rfc() {
        let vectors = [("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foob", "Zm9vYg"), ("foobar", "Zm9vYmFy")];
        for (plain, text) in vectors {
            assert_eq!(*encode(plain.as_bytes(), Alphabet::Url), text);
            assert_eq!(**decode(text.as_bytes(), Alphabet::Url).unwrap(), *plain.as_bytes());
        }
        assert_eq!(*encode(&[0xfb, 0xff], Alphabet::Url), "-_8");
        assert_eq!(*encode(&[0xfb, 0xff], Alphabet::Standard), "+/8");
    }

    #[test]
    fn one_text_for_the_same_bytes() {
        for (text, place) in [("Zh", 1), ("Zm9", 2), ("Z", 0), ("Zm9vZ", 4), ("Zg==", 2), ("Zm 8", 2), ("Zm9v\n", 4)] {
            assert_eq!(decode(text.as_bytes(), Alphabet::Url), Err(place), "{text}");
        }
        assert_eq!(decode(b"+/8", Alphabet::Url), Err(0));
    }
}
