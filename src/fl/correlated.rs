//! Noise that is correlated over the rounds of a run, as the coordinator keeps it: made for a round, taken into the state
//! once the round is released, stored under a mask.
//!
//! The state tells the noise of the rounds before, so that a checkpoint, which is no secret, holds it masked by a keystream
//! of the run's secret, with a keyed hash: a state that is not the run's own would be noise that is not accounted.

use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use super::{FlError, SERVER};
use crate::math::prg::{Address, Cipher, Purpose, Secret, StreamKey};
use crate::privacy::matrix::Strategy;
use crate::privacy::matrix::noise::CorrelatedNoise;
use crate::sample::discrete_gaussian;

/// Bytes of the tag.
const TAG: usize = 32;

/// The noise of a run.
#[derive(Debug)]
pub(super) struct RunNoise {
    state: CorrelatedNoise,
    /// Noise of the round that is being released.
    made: Option<Zeroizing<Vec<i64>>>,
}

impl RunNoise {
    pub(super) fn new(strategy: &Strategy, dim: usize) -> Self {
        Self { state: CorrelatedNoise::new(strategy, dim), made: None }
    }

    /// Adds the noise of the next round to words mod 2^32. The same again, as long as the round is not released.
    pub(super) fn add(&mut self, words: &mut [u32], sigma: f64, key: &StreamKey) -> Result<(), FlError> {
        let mut noise = Zeroizing::new(vec![0i64; words.len()]);
        discrete_gaussian::fill(&mut noise, sigma, key)?;
        self.state.correlate(&mut noise);
        words.iter_mut().zip(noise.iter()).for_each(|(word, &n)| *word = word.wrapping_add(n as u32));
        self.made = Some(noise);
        Ok(())
    }

    /// The round is released.
    pub(super) fn released(&mut self) {
        if let Some(noise) = self.made.take() {
            self.state.advance(&noise);
        }
    }

    /// The state after `round`, masked. There is one such state in a run, so that the mask hides one text.
    pub(super) fn seal(&self, secret: &Secret, session: &[u8; 16], round: u32) -> Vec<u8> {
        let mut bytes = self.state.to_bytes();
        let (mut tag, mask) = (tag(secret, session, round, &bytes), key(secret, session, round));
        apply(&mask, &mut bytes);
        bytes.extend_from_slice(&tag);
        tag.zeroize();
        bytes
    }

    /// Puts back what [`Self::seal`] gave.
    pub(super) fn open(
        &mut self,
        sealed: &[u8],
        secret: &Secret,
        session: &[u8; 16],
        round: u32,
    ) -> Result<(), FlError> {
        let damaged = |found: &str| FlError::Checkpoint {
            what: "noise",
            expected: format!("the state of this run's noise after round {round}"),
            found: found.to_owned(),
        };
        let Some((bytes, found)) = sealed.split_last_chunk::<TAG>() else { return Err(damaged("nothing")) };
        let mut bytes = Zeroizing::new(bytes.to_vec());
        apply(&key(secret, session, round), &mut bytes);
        let expected = tag(secret, session, round, &bytes);
        // Without an early exit.
        if expected.iter().zip(found).fold(0, |differs, (a, b)| differs | (a ^ b)) != 0 {
            return Err(damaged("another state, or a damaged one"));
        }
        if self.state.restore(&bytes) { Ok(()) } else { Err(damaged("a state of another size")) }
    }
}

fn key(secret: &Secret, session: &[u8; 16], round: u32) -> StreamKey {
    secret.derive(
        session,
        Address { client: SERVER, round, ..Address::default() },
        Purpose::NoiseState,
        Cipher::ChaCha20,
    )
}

/// XORs the keystream, past the 64 bytes of the tag's key.
fn apply(mask: &StreamKey, bytes: &mut [u8]) {
    const CHUNK: usize = 1 << 16;
    let mut stream = Zeroizing::new([0u8; CHUNK]);
    for (i, part) in bytes.chunks_mut(CHUNK).enumerate() {
        mask.fill(64 + (i * CHUNK) as u64, &mut stream[..]);
        part.iter_mut().zip(stream.iter()).for_each(|(b, s)| *b ^= s);
    }
}

/// SHA-256 of a key and the state: the length of a state is fixed, so that none extends another.
fn tag(secret: &Secret, session: &[u8; 16], round: u32, state: &[u8]) -> [u8; TAG] {
    let mut first = Zeroizing::new([0u8; 64]);
    key(secret, session, round).fill(0, &mut first[..]);
    let mut h = Sha256::new();
    h.update(b"veilsum noise state v1");
    h.update(&first[..]);
    h.update(state);
    h.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::privacy::matrix::{MatrixKind, Participation};

    #[test]
    fn a_state_is_stored_masked_and_comes_back() {
        let once = Participation { max: 1, separation: 1 };
        let matrix = Strategy::new(MatrixKind::SquareRoot { bands: 4 }, 9, once).unwrap();
        let secret = Secret::from_seed(3);
        let key = |round| {
            let address = Address { client: SERVER, round, ..Address::default() };
            secret.derive(&[1; 16], address, Purpose::Noise, Cipher::ChaCha20)
        };
        let mut run = RunNoise::new(&matrix, 5000);
        let mut words = vec![0u32; 5000];
        for round in 1..=3 {
            run.add(&mut words, 1000.0, &key(round)).unwrap();
            // A round that failed before its release: the same noise again.
            run.add(&mut vec![0; 5000], 1000.0, &key(round)).unwrap();
            run.released();
        }
        let sealed = run.seal(&secret, &[1; 16], 3);
        let mut again = RunNoise::new(&matrix, 5000);
        again.open(&sealed, &secret, &[1; 16], 3).unwrap();
        let [mut a, mut b] = [words.clone(), words];
        run.add(&mut a, 1000.0, &key(4)).unwrap();
        again.add(&mut b, 1000.0, &key(4)).unwrap();
        assert_eq!(a, b);
        // No stretch of the state is readable, and nothing else opens it.
        let zeros = sealed.windows(12).filter(|w| w.iter().all(|&b| b == 0)).count();
        assert_eq!(zeros, 0);
        let mut bent = sealed.clone();
        bent[70] ^= 1;
        for (bytes, secret, round) in [
            (&bent[..], &secret, 3),
            (&sealed[..], &Secret::from_seed(4), 3),
            (&sealed, &secret, 2),
            (&sealed[..31], &secret, 3),
        ] {
            let refused = again.open(bytes, secret, &[1; 16], round);
            assert!(matches!(refused, Err(FlError::Checkpoint { what: "noise", .. })));
        }
    }
}
