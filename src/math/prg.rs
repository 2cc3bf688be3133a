//! Addressed randomness: keys derived from one secret, keystreams read at fixed positions.
//!
//! `key = HKDF-SHA256(secret, info = session | client | round | attempt | copy | purpose)`, and the
//! stream under a key is ChaCha20 (RFC 8439, zero nonce) read at byte `stride * coordinate`. Nothing is
//! ever "consumed", so that any backend, any thread count and any order give the same bits. A key
//! noises or encrypts one plaintext: a rerun of a round with other input takes a new `attempt`.

use std::fmt;

use chacha20::cipher::{KeyIvInit, StreamCipher, StreamCipherSeek};
use hkdf::Hkdf;
use rand::TryRng;
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// What a derived key is for; part of the derivation, so that no two uses share a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Purpose {
    /// Public +-1 signs of the rotation.
    Signs = 1,
    /// Stochastic rounding of one row.
    Rounding = 2,
    /// Noise of one row, or of one aggregate.
    Noise = 3,
    /// Which clients take part in a round.
    Cohort = 4,
    /// Initial weights of a model.
    Init = 5,
    /// Order of the local mini-batches.
    Batches = 7,
    /// How data are dealt to clients.
    Partition = 8,
    /// Synthetic vectors of `dse` and of benches.
    Synthetic = 9,
    /// A mask that hides a vector from whoever lacks the key.
    Mask = 6,
    /// Draws of `veilsum sample`.
    Draws = 10,
    /// Identity of a run (public).
    Session = 11,
    /// The public polynomials a_j of one-shot encryption.
    Expand = 12,
    /// The secret polynomial of a client's session.
    LatticeSecret = 13,
    /// The errors of a client's ciphertext.
    LatticeError = 14,
    /// What hides the state of correlated noise in a checkpoint.
    NoiseState = 15,
    /// What a client of `masks` derives its keys and coefficients of one aggregation from.
    MasksClient = 20,
    /// A client's signing key, where a simulation makes the identities.
    Identity = 21,
    /// The order of the clients in a graph of masks (public).
    Graph = 22,
    /// A layer of a client's noise that may be taken out again; `copy` is its number, from 1.
    NoiseLayer = 30,
    /// Which clients vanish in a simulation.
    Vanish = 31,
    /// The ternary secret of a key holder.
    HolderSecret = 32,
    /// The error of a key holder's public contribution.
    HolderError = 33,
    /// The coefficients of a key holder's sharing polynomials.
    SharingCoefficients = 34,
    /// What opens the commitment to a public contribution.
    CommitmentOpening = 35,
    /// The flooding noise of one opening.
    Flooding = 36,
    /// What hides the parts of one opening from whoever sees them one by one.
    OpeningMask = 37,
    /// The ternary polynomials of a client's public-key ciphertext.
    Ephemeral = 38,
    /// The errors of the first half of a public-key ciphertext.
    FirstError = 39,
    /// The errors of its second half.
    SecondError = 40,
    /// The linear map that compresses the vectors of a round (public).
    Compression = 41,
    /// What hides, in a checkpoint of a simulation, what its clients keep between rounds.
    Residuals = 42,
    /// The secret polynomial of one message of a client of `oneshot`.
    OneshotSecret = 50,
    /// The errors of that message.
    OneshotError = 51,
    /// The uniform values in the packed shares of the secret polynomial.
    OneshotShares = 52,
    /// The key with which a client of `oneshot` agrees on keys with the holders.
    OneshotChannel = 53,
    /// A holder's signing key, where a simulation makes the identities; the holder's number is the client.
    HolderIdentity = 54,
    /// A holder's key for shares, likewise.
    HolderChannel = 55,
    /// A key holder's X25519 key of one key set-up.
    SetupChannel = 60,
    /// What a key holder derives its part of a collective key and its shares from, in one key set-up.
    HolderKey = 61,
    /// What a key holder derives the flooding of its answers from, under one key.
    HolderAnswers = 62,
    /// What a client of `mphe` derives the randomness of one ciphertext from, bound to its plaintext.
    MpheClient = 63,
    /// A key holder's own secret, where a simulation makes the holders of `mphe`; the holder's number is the client.
    HolderSeed = 64,
    /// Which group of a cohort each client is in (public).
    Groups = 70,
    /// Which clients are in the hands of a simulation's adversary, and what it draws.
    Byzantine = 71,
    /// Who fetches a model when, and arrives when, in a simulation of rounds that do not wait (public).
    Arrivals = 80,
    /// Which training samples are the server's own (public).
    Root = 81,
    /// What a party of a federation derives all its randomness of one run from.
    PartyRun = 90,
    /// Which of its samples a client takes for one step of local DP-SGD; bound to all that the step starts from.
    SampleBatch = 72,
    /// The noise of one step of local DP-SGD, bound to the integers that it hides.
    SampleNoise = 73,
}

/// The stream cipher under a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cipher {
    /// 20 rounds: the default, and the only one outside a simulation.
    #[default]
    ChaCha20,
    /// 8 rounds: about twice as fast; a simulation may choose it.
    ChaCha8,
}

/// Bytes of keystream under one key: `2^32 - 1` blocks of 64 (a 32-bit counter; the crate stops before the last).
pub const STREAM_BYTES: u64 = (1 << 38) - 64;

/// Where in a run a key is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Address {
    /// Client, or 0 where there is none.
    pub client: u64,
    /// Round, from 1; 0 before the first.
    pub round: u32,
    /// Attempt of that round, from 0.
    pub attempt: u32,
    /// Copy of the same delta (asynchronous stand-ins), from 0.
    pub copy: u32,
}

/// A 256-bit secret from which keys are derived. Zeroized on drop, never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret([u8; 32]);

impl Secret {
    /// A fresh secret from the operating system's generator.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub fn fresh() -> Result<Self, PrgError> {
        let mut bytes = [0u8; 32];
        rand::rngs::SysRng.try_fill_bytes(&mut bytes).map_err(|e| PrgError::NoEntropy(e.to_string()))?;
        Ok(Self(bytes))
    }

    /// A secret with known bytes: for tests, and for a simulation that must repeat.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A secret stretched from a small seed: for a simulation that must repeat.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        let mut bytes = [0u8; 32];
        Hkdf::<Sha256>::new(Some(b"veilsum seed v1"), &seed.to_le_bytes())
            .expand(b"secret", &mut bytes)
            .expect("32 bytes are within the limit of HKDF-SHA256");
        Self(bytes)
    }

    /// The bytes, for the run folder of a simulation.
    #[must_use]
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key for one purpose at one address of one session.
    #[must_use]
    pub fn derive(&self, session: &[u8; 16], address: Address, purpose: Purpose, cipher: Cipher) -> StreamKey {
        let mut info = [0u8; 16 + 8 + 4 + 4 + 4 + 1];
        info[..16].copy_from_slice(session);
        info[16..24].copy_from_slice(&address.client.to_le_bytes());
        info[24..28].copy_from_slice(&address.round.to_le_bytes());
        info[28..32].copy_from_slice(&address.attempt.to_le_bytes());
        info[32..36].copy_from_slice(&address.copy.to_le_bytes());
        info[36] = purpose as u8;
        let mut key = [0u8; 32];
        Hkdf::<Sha256>::new(Some(b"veilsum key v1"), &self.0)
            .expand(&info, &mut key)
            .expect("32 bytes are within the limit of HKDF-SHA256");
        StreamKey { key, cipher }
    }

    /// The key for one purpose, bound to `context`: a digest of all that may ever lie under it. The derivation takes 49
    /// bytes and that of [`Self::derive`] 37, so that no key is one of both.
    #[must_use]
    pub fn derive_bound(&self, session: &[u8; 16], purpose: Purpose, context: &[u8; 32], cipher: Cipher) -> StreamKey {
        let mut info = [0u8; 16 + 1 + 32];
        info[..16].copy_from_slice(session);
        info[16] = purpose as u8;
        info[17..].copy_from_slice(context);
        let mut key = [0u8; 32];
        Hkdf::<Sha256>::new(Some(b"veilsum key v1"), &self.0)
            .expand(&info, &mut key)
            .expect("32 bytes are within the limit of HKDF-SHA256");
        StreamKey { key, cipher }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// One keystream. Zeroized on drop, never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct StreamKey {
    key: [u8; 32],
    #[zeroize(skip)]
    cipher: Cipher,
}

impl fmt::Debug for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamKey(.., {:?})", self.cipher)
    }
}

impl StreamKey {
    /// A stream with a known key: for test vectors.
    #[must_use]
    pub const fn from_bytes(key: [u8; 32], cipher: Cipher) -> Self {
        Self { key, cipher }
    }

    /// The bytes of a key that is public, for those who are told it.
    #[must_use]
    pub const fn expose(&self) -> &[u8; 32] {
        &self.key
    }

    /// Which cipher runs under this key.
    #[must_use]
    pub const fn cipher(&self) -> Cipher {
        self.cipher
    }

    /// Writes the key as the eight little-endian words of the block function.
    pub(crate) fn write_words(&self, words: &mut [u32; 8]) {
        for (word, bytes) in words.iter_mut().zip(self.key.as_chunks::<4>().0) {
            *word = u32::from_le_bytes(*bytes);
        }
    }

    /// Writes keystream bytes `[position, position + out.len())` over `out`.
    ///
    /// One key gives [`STREAM_BYTES`]. This is the reference, by the `chacha20` crate;
    /// the vector kernels have their own block function, tested against it.
    ///
    /// # Panics
    /// If `position + out.len()` exceeds [`STREAM_BYTES`], which the checks of every stage exclude.
    pub fn fill(&self, position: u64, out: &mut [u8]) {
        let nonce = [0u8; 12];
        match self.cipher {
            Cipher::ChaCha20 => {
                let mut c = chacha20::ChaCha20::new(&self.key.into(), &nonce.into());
                c.seek(position);
                c.write_keystream(out);
            }
            Cipher::ChaCha8 => {
                let mut c = chacha20::ChaCha8::new(&self.key.into(), &nonce.into());
                c.seek(position);
                c.write_keystream(out);
            }
        }
    }

    /// A reader that starts at byte `position`; for code that draws a varying number of integers.
    #[must_use]
    pub fn reader(&self, position: u64) -> StreamReader {
        StreamReader { key: self.clone(), position, block: [0; 1024], used: 1024 }
    }
}

/// Sequential integers from a keystream, for public or offline randomness (cohorts, initial weights,
/// exact samplers): code on secrets reads fixed positions with [`StreamKey::fill`] instead.
#[derive(Clone, Debug)]
pub struct StreamReader {
    key: StreamKey,
    position: u64,
    block: [u8; 1024],
    used: usize,
}

impl StreamReader {
    /// The next 8 bytes as a little-endian integer.
    pub fn next_u64(&mut self) -> u64 {
        if self.used + 8 > self.block.len() {
            self.key.fill(self.position, &mut self.block);
            self.position += self.block.len() as u64;
            self.used = 0;
        }
        let bytes: [u8; 8] = self.block[self.used..self.used + 8].try_into().expect("8 bytes");
        self.used += 8;
        u64::from_le_bytes(bytes)
    }

    /// A uniform integer in `[0, bound)`, exact (by rejection). `bound` 0 gives 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound <= 1 {
            return 0;
        }
        let zone = u64::MAX - (u64::MAX % bound + 1) % bound;
        loop {
            let x = self.next_u64();
            if x <= zone {
                return x % bound;
            }
        }
    }

    /// A uniform double in `[0, 1)` with 53 bits.
    pub fn next_f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// A standard normal double (Box-Muller). For initial weights and synthetic data, never for noise.
    pub fn next_normal(&mut self) -> f64 {
        let u = 1.0 - self.next_f64();
        let v = self.next_f64();
        libm::sqrt(-2.0 * libm::log(u)) * libm::cos(2.0 * std::f64::consts::PI * v)
    }

    /// Shuffles in place (Fisher-Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            let j = self.below(i as u64 + 1) as usize;
            items.swap(i, j);
        }
    }
}

/// What can go wrong when randomness is asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrgError {
    /// The operating system's generator failed.
    #[error("the operating system gave no randomness: {0}")]
    NoEntropy(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8439, section 2.3.2 uses a nonce; with the zero nonce the appendix A.1 vector #1 applies.
    #[test]
    fn chacha20_rfc8439_a1_vector_1() {
        let key = StreamKey::from_bytes([0; 32], Cipher::ChaCha20);
        let mut out = [0u8; 64];
        key.fill(0, &mut out);
        assert_eq!(
            hex::encode(out),
            "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7\
             da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586"
        );
    }

    #[test]
    fn any_position_gives_the_same_bytes() {
        let key = StreamKey::from_bytes([7; 32], Cipher::ChaCha8);
        let mut whole = vec![0u8; 1000];
        key.fill(0, &mut whole);
        for start in [0usize, 1, 63, 64, 65, 500, 999] {
            let mut part = vec![0u8; 1000 - start];
            key.fill(start as u64, &mut part);
            assert_eq!(part, whole[start..]);
        }
        let mut reader = key.reader(0);
        for i in 0..100 {
            assert_eq!(reader.next_u64(), u64::from_le_bytes(whole[8 * i..8 * i + 8].try_into().unwrap()));
        }
    }

    #[test]
    fn every_part_of_the_address_changes_the_key() {
        let secret = Secret::from_seed(1);
        let base = Address { client: 1, round: 2, attempt: 3, copy: 4 };
        let of = |session: [u8; 16], a: Address, p: Purpose| secret.derive(&session, a, p, Cipher::ChaCha20).key;
        let reference = of([0; 16], base, Purpose::Noise);
        assert_eq!(reference, of([0; 16], base, Purpose::Noise));
        for other in [
            of([1; 16], base, Purpose::Noise),
            of([0; 16], Address { client: 9, ..base }, Purpose::Noise),
            of([0; 16], Address { round: 9, ..base }, Purpose::Noise),
            of([0; 16], Address { attempt: 9, ..base }, Purpose::Noise),
            of([0; 16], Address { copy: 9, ..base }, Purpose::Noise),
            of([0; 16], base, Purpose::Rounding),
        ] {
            assert_ne!(reference, other);
        }
    }

    #[test]
    fn every_part_of_a_bound_key_changes_it() {
        let secret = Secret::from_seed(1);
        let of = |session: [u8; 16], p: Purpose, context: [u8; 32]| {
            secret.derive_bound(&session, p, &context, Cipher::ChaCha20).key
        };
        let reference = of([0; 16], Purpose::Flooding, [0; 32]);
        assert_eq!(reference, of([0; 16], Purpose::Flooding, [0; 32]));
        assert_ne!(reference, of([1; 16], Purpose::Flooding, [0; 32]));
        assert_ne!(reference, of([0; 16], Purpose::OpeningMask, [0; 32]));
        assert_ne!(reference, of([0; 16], Purpose::Flooding, [1; 32]));
        let plain = secret.derive(&[0; 16], Address::default(), Purpose::Flooding, Cipher::ChaCha20);
        assert_ne!(reference, plain.key);
    }

    #[test]
    fn below_is_in_range_and_secrets_do_not_print() {
        let secret = Secret::fresh().unwrap();
        let key = secret.derive(&[0; 16], Address::default(), Purpose::Cohort, Cipher::ChaCha20);
        let mut r = key.reader(0);
        let mut seen = [0u32; 7];
        for _ in 0..7000 {
            seen[r.below(7) as usize] += 1;
        }
        assert!(seen.iter().all(|&c| c > 800), "{seen:?}");
        assert_eq!(format!("{secret:?}"), "Secret(..)");
        assert_eq!(format!("{key:?}"), "StreamKey(.., ChaCha20)");
    }
}
