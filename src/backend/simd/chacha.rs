//! ChaCha on registers: one block a lane, word w of the blocks in register w.
//!
//! RFC 8439, section 2.3; all lanes do the same rounds on their own counter, so that a round needs no
//! shuffle. What leaves the registers is either *vertical* ([`Vertical`]: for samplers, which work on words
//! of many blocks at once) or *linear* (transposed to the byte order of the RFC).

use zeroize::optimization_barrier;

use super::lanes::{Machine, NativeU32};
use crate::math::prg::{Cipher, StreamKey};

/// "expand 32-byte k".
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];
/// The word that counts blocks.
const COUNTER: usize = 12;
/// Blocks of a [`Vertical`].
pub(super) const BLOCKS: usize = 16;
/// Bytes of a block.
pub(super) const BLOCK_BYTES: usize = 64;

/// What a block function starts from: constants, key, counter (not used), nonce; and how many double rounds
/// follow. Wiped on drop.
pub(super) struct State {
    words: [u32; 16],
    double_rounds: u32,
}

impl State {
    /// The stream of a key: zero nonce.
    pub(super) fn new(key: &StreamKey) -> Self {
        let mut words = [0; 16];
        words[..4].copy_from_slice(&CONSTANTS);
        key.write_words((&mut words[4..12]).try_into().expect("8 words"));
        Self { words, double_rounds: if key.cipher() == Cipher::ChaCha8 { 4 } else { 10 } }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        wipe(&mut self.words);
    }
}

/// Overwrites secrets with zeros that the compiler may not drop: plain stores and a barrier, since the
/// volatile stores of `zeroize` go word by word.
#[inline(always)]
pub(super) fn wipe(secret: &mut [u32]) {
    secret.fill(0);
    optimization_barrier(secret);
}

/// Sixteen blocks word by word: `words[w][l]` is word w of the block of lane l. Wiped on drop.
#[repr(C, align(64))]
pub(super) struct Vertical(pub(super) [[u32; BLOCKS]; 16]);

impl Vertical {
    /// Zeros.
    #[inline(always)]
    pub(super) const fn new() -> Self {
        Self([[0; BLOCKS]; 16])
    }

    /// Makes the sixteen blocks `first + step l`.
    #[inline(always)]
    pub(super) fn fill<M: Machine>(&mut self, state: &State, first: u32, step: u32) {
        let lanes = if M::REGISTERS { M::NativeU32::LANES } else { 1 };
        for l in (0..BLOCKS).step_by(lanes) {
            if M::REGISTERS {
                let words = blocks(state, counters::<M>(first, step, l));
                for (row, word) in self.0.iter_mut().zip(words) {
                    // SAFETY: LANES divides 16, so that the stores stay within arrays of 16.
                    unsafe { word.store(row.as_mut_ptr().add(l)) };
                }
            } else {
                let words = blocks(state, first.wrapping_add(step.wrapping_mul(l as u32)));
                self.0.iter_mut().zip(words).for_each(|(row, word)| row[l] = word);
            }
        }
    }
}

impl Vertical {
    /// Adds the sixteen blocks from `first` on, every part of W bits for itself, mod 2^W.
    #[inline(always)]
    pub(super) fn add<M: Machine, const W: u32>(&mut self, state: &State, first: u32) {
        if M::REGISTERS {
            for l in (0..BLOCKS).step_by(M::NativeU32::LANES) {
                let words = blocks(state, counters::<M>(first, 1, l));
                for (row, word) in self.0.iter_mut().zip(words) {
                    // SAFETY: LANES divides 16, so that loads and stores stay within arrays of 16.
                    unsafe {
                        let at = row.as_mut_ptr().add(l);
                        M::add_parts::<W>(M::NativeU32::load(at), word).store(at);
                    }
                }
            }
            return;
        }
        let mut other = Self::new();
        other.fill::<M>(state, first, 1);
        for (row, other) in self.0.iter_mut().zip(&other.0) {
            for l in (0..BLOCKS).step_by(M::NativeU32::LANES) {
                // SAFETY: as above.
                unsafe {
                    let at = row.as_mut_ptr().add(l);
                    M::add_parts::<W>(M::NativeU32::load(at), M::NativeU32::load(other.as_ptr().add(l))).store(at);
                }
            }
        }
    }

    /// Word w of lane l becomes word `16 l + w`: the order of the RFC, each word in its four bytes, the lowest first.
    #[inline(always)]
    pub(super) fn transpose<M: Machine>(&self, out: &mut [u32; 16 * BLOCKS]) {
        for l in (0..BLOCKS).step_by(M::NativeU32::LANES) {
            // SAFETY: LANES divides 16; LANES lanes are written as 16 words each from `16 l` on, within 256.
            unsafe {
                let mut words = [M::NativeU32::splat(0); 16];
                for (word, row) in words.iter_mut().zip(&self.0) {
                    *word = M::NativeU32::load(row.as_ptr().add(l));
                }
                M::NativeU32::store_transposed(words, out.as_mut_ptr().add(16 * l).cast());
            }
        }
    }
}

impl Drop for Vertical {
    fn drop(&mut self) {
        wipe(self.0.as_flattened_mut());
    }
}

/// Writes four words of the lanes from l on in the order of 16-byte coordinates: `out[4 (l + i) + g]` is lane i of
/// word g.
#[inline(always)]
pub(super) fn store_coordinates<N: NativeU32>(words: [N; 4], l: usize, out: &mut [u32; 4 * BLOCKS]) {
    assert!(l + N::LANES <= BLOCKS);
    let (a, b) = words[0].interleave(words[2]);
    let (c, d) = words[1].interleave(words[3]);
    let ((a, b), (c, d)) = (a.interleave(c), b.interleave(d));
    let at = out.as_mut_ptr();
    // SAFETY: 4 LANES words from `4 l` on, within 64 by the assertion.
    unsafe {
        a.store(at.add(4 * l));
        b.store(at.add(4 * l + N::LANES));
        c.store(at.add(4 * l + 2 * N::LANES));
        d.store(at.add(4 * l + 3 * N::LANES));
    }
}

/// `first + step (l + i)` in lane i, for `l + LANES <= 16`.
#[inline(always)]
fn counters<M: Machine>(first: u32, step: u32, l: usize) -> M::NativeU32 {
    const LANE: [u32; BLOCKS] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
    assert!(l + M::NativeU32::LANES <= BLOCKS);
    // SAFETY: just checked.
    let lane = unsafe { M::NativeU32::load(LANE.as_ptr().add(l)) };
    M::NativeU32::splat(first).add(lane.mul_lo(M::NativeU32::splat(step)))
}

/// Writes `LANES` consecutive blocks from `first` on, each 64 bytes in the order of the RFC, to `out`.
#[inline(always)]
pub(super) fn linear<M: Machine>(state: &State, first: u32, out: &mut [u8]) {
    assert!(out.len() == BLOCK_BYTES * M::NativeU32::LANES);
    if M::REGISTERS {
        let words = blocks(state, counters::<M>(first, 1, 0));
        // SAFETY: `out` has 64 bytes for each of the LANES blocks.
        unsafe { M::NativeU32::store_transposed(words, out.as_mut_ptr()) };
    } else {
        for (l, out) in out.as_chunks_mut::<BLOCK_BYTES>().0.iter_mut().enumerate() {
            let words = blocks(state, first.wrapping_add(l as u32));
            for (out, word) in out.as_chunks_mut::<4>().0.iter_mut().zip(words) {
                *out = word.to_le_bytes();
            }
        }
    }
}

/// What the block function needs of a register, or of a single word.
trait Lane: Copy {
    fn all(x: u32) -> Self;
    fn plus(self, other: Self) -> Self;
    /// `(self ^ other) <<< N`.
    fn mix<const N: i32>(self, other: Self) -> Self;
}

impl<R: NativeU32> Lane for R {
    #[inline(always)]
    fn all(x: u32) -> Self {
        Self::splat(x)
    }

    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        self.add(other)
    }

    #[inline(always)]
    fn mix<const N: i32>(self, other: Self) -> Self {
        self.xor(other).rotl::<N>()
    }
}

impl Lane for u32 {
    #[inline(always)]
    fn all(x: u32) -> Self {
        x
    }

    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        self.wrapping_add(other)
    }

    #[inline(always)]
    fn mix<const N: i32>(self, other: Self) -> Self {
        (self ^ other).rotate_left(N as u32)
    }
}

/// The block function, one block a lane.
#[inline(always)]
fn blocks<L: Lane>(state: &State, counters: L) -> [L; 16] {
    let mut x = [counters; 16];
    for (w, x) in x.iter_mut().enumerate() {
        if w != COUNTER {
            *x = L::all(state.words[w]);
        }
    }
    for _ in 0..state.double_rounds {
        for [a, b, c, d] in [[0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15]] {
            quarter_round(&mut x, a, b, c, d);
        }
        for [a, b, c, d] in [[0, 5, 10, 15], [1, 6, 11, 12], [2, 7, 8, 13], [3, 4, 9, 14]] {
            quarter_round(&mut x, a, b, c, d);
        }
    }
    for (w, x) in x.iter_mut().enumerate() {
        *x = x.plus(if w == COUNTER { counters } else { L::all(state.words[w]) });
    }
    x
}

/// Section 2.1 of the RFC.
#[inline(always)]
fn quarter_round<L: Lane>(x: &mut [L; 16], a: usize, b: usize, c: usize, d: usize) {
    x[a] = x[a].plus(x[b]);
    x[d] = x[d].mix::<16>(x[a]);
    x[c] = x[c].plus(x[d]);
    x[b] = x[b].mix::<12>(x[c]);
    x[a] = x[a].plus(x[b]);
    x[d] = x[d].mix::<8>(x[a]);
    x[c] = x[c].plus(x[d]);
    x[b] = x[b].mix::<7>(x[c]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::simd::isa::{Dispatch, Isa, Kernel};

    /// Sixteen blocks of a stated state, vertical and linear.
    struct Both<'a>(&'a State, u32);

    impl Kernel for Both<'_> {
        type Output = ([[u32; 16]; 16], Vec<u8>);

        #[inline(always)]
        fn run<M: Machine>(self) -> Self::Output {
            let mut vertical = Vertical::new();
            vertical.fill::<M>(self.0, self.1, 1);
            let mut bytes = vec![0; BLOCKS * BLOCK_BYTES];
            let size = BLOCK_BYTES * M::NativeU32::LANES;
            for (i, out) in bytes.chunks_exact_mut(size).enumerate() {
                linear::<M>(self.0, self.1.wrapping_add((i * M::NativeU32::LANES) as u32), out);
            }
            (vertical.0, bytes)
        }
    }

    /// RFC 8439, section 2.3.2: key 00..1f, nonce 000000090000004a00000000, counter 1. Our streams have the zero
    /// nonce, so the vector is stated as a whole initial state.
    #[test]
    fn the_block_function_of_rfc_8439_on_every_instruction_set() {
        let mut words = [0u32; 16];
        words[..4].copy_from_slice(&CONSTANTS);
        for (i, word) in words[4..12].iter_mut().enumerate() {
            *word = u32::from_le_bytes(std::array::from_fn(|j| (4 * i + j) as u8));
        }
        words[13..].copy_from_slice(&[0x0900_0000, 0x4a00_0000, 0]);
        let state = State { words, double_rounds: 10 };
        let expected = "10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4e\
                        d2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e";
        for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
            for lane in 0..16 {
                let (vertical, bytes) = Dispatch::new(isa).run(Both(&state, 1u32.wrapping_sub(lane)));
                let lane = lane as usize;
                assert_eq!(hex::encode(&bytes[64 * lane..64 * (lane + 1)]), expected, "{isa} lane {lane}");
                let words: Vec<u8> = vertical.iter().flat_map(|row| row[lane].to_le_bytes()).collect();
                assert_eq!(hex::encode(words), expected, "{isa} lane {lane}");
            }
        }
    }

    #[test]
    fn secrets_are_wiped() {
        let mut secret = [7u32; 40];
        wipe(&mut secret);
        assert_eq!(secret, [0; 40]);
    }
}
