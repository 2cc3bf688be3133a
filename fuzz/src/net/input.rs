//! An input taken apart: whatever is missing is zero, so that every input means something.

/// The bytes of an input that are left.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// True once all of it is used.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    /// The next two bytes.
    pub fn short(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// A number: small ones, those around a power of two, and any.
    pub fn number(&mut self) -> u64 {
        match self.byte() {
            small @ 0..128 => small.into(),
            power @ 128..192 => (1u64 << (power - 128)).wrapping_add(u64::from(self.byte() % 3)).wrapping_sub(1),
            _ => (0..8).fold(0, |n, _| n << 8 | u64::from(self.byte())),
        }
    }

    /// Up to so many bytes, with their length before them.
    pub fn bytes(&mut self, most: usize) -> &'a [u8] {
        let len = usize::from(self.short()).min(most).min(self.0.len());
        let (first, rest) = self.0.split_at(len);
        self.0 = rest;
        first
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// `text` with a few places changed: bytes overwritten, cut out, doubled, or put in. With no byte left it stays as it is.
    pub fn mutated(&mut self, honest: &[u8]) -> Vec<u8> {
        let mut bytes = honest.to_vec();
        for _ in 0..self.byte() % 8 {
            let at = usize::from(self.short()) % (bytes.len() + 1);
            match self.byte() % 6 {
                0 if at < bytes.len() => bytes[at] ^= self.byte() | 1,
                1 => bytes.truncate(at),
                2 => drop(bytes.splice(at..at, self.bytes(64).to_vec())),
                3 => {
                    let end = (at + usize::from(self.byte())).min(bytes.len());
                    let piece = bytes[at..end].to_vec();
                    drop(bytes.splice(at..at, piece));
                }
                4 => {
                    let end = (at + usize::from(self.byte())).min(bytes.len());
                    bytes.drain(at..end);
                }
                _ => {
                    let new = self.bytes(64);
                    let end = (at + new.len()).min(bytes.len());
                    drop(bytes.splice(at..end, new.to_vec()));
                }
            }
        }
        bytes
    }

    /// JSON with numbers replaced: what a parser lets through, and what comes after has to refuse.
    pub fn renumbered(&mut self, honest: &[u8]) -> Vec<u8> {
        let mut text = honest.to_vec();
        for _ in 0..1 + self.byte() % 3 {
            let starts: Vec<usize> = (0..text.len())
                .filter(|&at| text[at].is_ascii_digit() && (at == 0 || !text[at - 1].is_ascii_alphanumeric()))
                .collect();
            if starts.is_empty() {
                return text;
            }
            let start = starts[usize::from(self.byte()) % starts.len()];
            let len = text[start..].iter().take_while(|byte| byte.is_ascii_digit() || **byte == b'.').count();
            let new = match self.byte() % 4 {
                0 => format!("-{}", self.number()),
                1 => format!("{}e{}", self.byte(), i16::from(self.byte()) - 128),
                _ => self.number().to_string(),
            };
            drop(text.splice(start..start + len, new.into_bytes()));
        }
        text
    }
}
