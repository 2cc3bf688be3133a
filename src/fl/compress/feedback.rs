//! What clients keep between rounds where errors are fed back: `e <- u - S^T S u`, `u = x + e`.
//!
//! In a federation every client keeps its own; here is what a driver needs that plays them all. What a client keeps changes only when its
//! vector has become part of a released sum: one that vanished, whose row held NaN or an infinity, or whose round was given up keeps what
//! it had, so that an attempt that is repeated has the same input.
//!
//! What a clip or the fixed point took from the vector is **not** kept: it is lost as without feedback. Else a client above the clip
//! bound would keep more and more.

use std::collections::BTreeMap;

use rayon::prelude::*;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::Operator;
use crate::backend::Rows;
use crate::fl::{FlError, SERVER};
use crate::math::prg::{Address, Cipher, Purpose, Secret};

const DIGEST: usize = 32;

/// What all clients of a run keep.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Residuals {
    kept: BTreeMap<u64, Vec<f32>>,
    /// What the clients of the round in progress will keep if it is released with them.
    pending: BTreeMap<u64, Vec<f32>>,
    /// Chained over all that was ever kept: what rows depend on beside the weights.
    digest: [u8; DIGEST],
}

impl Residuals {
    /// A hash of all that was kept, in its order: part of a round's input.
    #[must_use]
    pub const fn digest(&self) -> [u8; DIGEST] {
        self.digest
    }

    /// What a client keeps, if anything.
    #[must_use]
    pub fn of(&self, client: u64) -> Option<&[f32]> {
        self.kept.get(&client).map(Vec::as_slice)
    }

    /// The clients' rows, `[n x d]` on the host, with what they kept: what they compress. What they will keep of it waits for
    /// [`Self::commit`].
    ///
    /// # Errors
    /// Rows of another length than the map takes, or that are not on the host.
    pub fn carry(&mut self, operator: &Operator, clients: &[u64], rows: &Rows) -> Result<Rows, FlError> {
        let dim = operator.dim();
        let mut carried = Vec::with_capacity(rows.rows * dim);
        for (i, client) in clients.iter().enumerate().take(rows.rows) {
            let row = rows.widened(i)?;
            match self.kept.get(client) {
                Some(kept) => carried.extend(row.iter().zip(kept).map(|(x, e)| x + e)),
                None => carried.extend_from_slice(&row),
            }
        }
        let carried = Rows::dense(carried, rows.rows, dim)?;
        let lost = clients
            .par_iter()
            .enumerate()
            .map(|(i, &client)| Ok(lost(operator, carried.row(i)?)?.map(|lost| (client, lost))))
            .collect::<Result<Vec<_>, FlError>>()?;
        self.pending.extend(lost.into_iter().flatten());
        Ok(carried)
    }

    /// What a client will keep if the round is released with it.
    pub fn keep(&mut self, client: u64, values: Vec<f32>) {
        self.pending.insert(client, values);
    }

    /// The round is released with these clients in the sum.
    pub fn commit(&mut self, survivors: &[u64]) {
        let mut pending = std::mem::take(&mut self.pending);
        let changed: Vec<(u64, Vec<f32>)> =
            survivors.iter().filter_map(|&client| Some((client, pending.remove(&client)?))).collect();
        let hashes: Vec<[u8; DIGEST]> = changed.par_iter().map(|(client, kept)| hash(*client, kept)).collect();
        let mut h = Sha256::new();
        h.update(b"veilsum residuals v1");
        h.update(self.digest);
        hashes.iter().for_each(|hash| h.update(hash));
        self.digest = h.finalize().into();
        self.kept.extend(changed);
    }

    /// The round in progress is given up, or begins again.
    pub fn give_up(&mut self) {
        self.pending.clear();
    }

    /// All that is kept after `round`, for a checkpoint: masked under a key of its own hash, which is behind it (the keyed hash of the
    /// text is the nonce: another text, another keystream, also where rounds were run again from other input).
    #[must_use]
    pub fn seal(&self, secret: &Secret, session: &[u8; 16], round: u32) -> Vec<u8> {
        let values = self.kept.values().next().map_or(0, Vec::len);
        let mut bytes = Vec::with_capacity(2 * DIGEST + self.kept.len() * (8 + 4 * values));
        bytes.extend_from_slice(&self.digest);
        for (client, kept) in &self.kept {
            bytes.extend_from_slice(&client.to_le_bytes());
            kept.iter().for_each(|x| bytes.extend_from_slice(&x.to_le_bytes()));
        }
        let tag = tag(secret, session, round, &bytes);
        mask(secret, session, &tag, &mut bytes);
        bytes.extend_from_slice(&tag);
        bytes
    }

    /// What [`Self::seal`] gave after the same round of the same run, for vectors of `dim` coordinates.
    ///
    /// # Errors
    /// [`FlError::Checkpoint`] for anything else.
    pub fn open(
        sealed: &[u8],
        (secret, session, round): (&Secret, &[u8; 16], u32),
        dim: usize,
    ) -> Result<Self, FlError> {
        let damaged = |found: &str| FlError::Checkpoint {
            what: "residuals",
            expected: format!("what this run's clients kept after round {round}"),
            found: found.to_owned(),
        };
        let Some((bytes, found)) = sealed.split_last_chunk::<DIGEST>() else { return Err(damaged("nothing")) };
        let mut bytes = bytes.to_vec();
        mask(secret, session, found, &mut bytes);
        let expected = tag(secret, session, round, &bytes);
        // Without an early exit.
        if expected.iter().zip(found).fold(0, |differs, (a, b)| differs | (a ^ b)) != 0 {
            return Err(damaged("something else, or damaged"));
        }
        let Some((digest, rest)) = bytes.split_first_chunk::<DIGEST>() else { return Err(damaged("too short")) };
        let entry = 8 + 4 * dim;
        if !rest.len().is_multiple_of(entry) {
            return Err(damaged("of another number of parameters"));
        }
        let read = |entry: &[u8]| {
            let (client, values) = entry.split_first_chunk::<8>()?;
            Some((
                u64::from_le_bytes(*client),
                values.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            ))
        };
        let kept = rest.chunks_exact(entry).filter_map(read).collect();
        Ok(Self { kept, pending: BTreeMap::new(), digest: *digest })
    }
}

/// What is lost of a row; `None` where the row, or what becomes of it, is not finite: `encode` sends zeros then.
fn lost(operator: &Operator, row: &[f32]) -> Result<Option<Vec<f32>>, FlError> {
    let mut compressed = vec![0f32; operator.size()];
    operator.compress_row(row, &mut compressed);
    if compressed.iter().any(|y| !y.is_finite()) {
        return Ok(None);
    }
    let lifted = operator.lift(&compressed)?;
    let lost: Vec<f32> = row.iter().zip(lifted.iter()).map(|(u, l)| u - l).collect();
    Ok(lost.iter().all(|x| x.is_finite()).then_some(lost))
}

fn hash(client: u64, kept: &[f32]) -> [u8; DIGEST] {
    let mut h = Sha256::new();
    h.update(client.to_le_bytes());
    kept.chunks(1 << 12).for_each(|part| {
        let bytes: Vec<u8> = part.iter().flat_map(|x| x.to_le_bytes()).collect();
        h.update(bytes);
    });
    h.finalize().into()
}

/// SHA-256 of a key and the text, whose length the number of its entries fixes.
fn tag(secret: &Secret, session: &[u8; 16], round: u32, text: &[u8]) -> [u8; DIGEST] {
    let address = Address { client: SERVER, round, ..Address::default() };
    let mut key = Zeroizing::new([0u8; 64]);
    secret.derive(session, address, Purpose::Residuals, Cipher::ChaCha20).fill(0, &mut key[..]);
    // Twice, so that no text extends another.
    let mut inner = Sha256::new();
    inner.update(&key[..]);
    inner.update(text);
    let mut h = Sha256::new();
    h.update(b"veilsum residuals v1");
    h.update(&key[..]);
    h.update(inner.finalize());
    h.finalize().into()
}

/// XORs the keystream that belongs to a tag.
fn mask(secret: &Secret, session: &[u8; 16], tag: &[u8; DIGEST], bytes: &mut [u8]) {
    const CHUNK: usize = 1 << 16;
    let key = secret.derive_bound(session, Purpose::Residuals, tag, Cipher::ChaCha20);
    bytes.par_chunks_mut(CHUNK).enumerate().for_each(|(i, part)| {
        let mut stream = Zeroizing::new(vec![0u8; part.len()]);
        key.fill((i * CHUNK) as u64, &mut stream);
        part.iter_mut().zip(stream.iter()).for_each(|(b, s)| *b ^= s);
    });
}

#[cfg(test)]
mod tests {
    use super::super::{Compression, RandomK, Sketch};
    use super::*;

    const DIM: usize = 40;

    fn operator(round: u32) -> Operator {
        let address = Address { round, ..Address::default() };
        let key = Secret::from_seed(8).derive(&[2; 16], address, Purpose::Compression, Cipher::ChaCha20);
        let compression = if round.is_multiple_of(2) {
            Compression::RandomK(RandomK { keep: 0.2, error_feedback: true })
        } else {
            Compression::Sketch(Sketch { rows: 2, columns: Some(4), ratio: None, error_feedback: true })
        };
        Operator::draw(&compression, DIM, &key).unwrap()
    }

    fn rows(clients: &[u64], round: u32) -> Rows {
        let value = |client: u64, j: usize| ((client as usize * 31 + j * 17 + round as usize * 7) % 23) as f32 - 11.0;
        let all = clients.iter().flat_map(|&c| (0..DIM).map(move |j| value(c, j))).collect();
        Rows::dense(all, clients.len(), DIM).unwrap()
    }

    fn square(row: &[f32]) -> f64 {
        row.iter().map(|&x| f64::from(x) * f64::from(x)).sum()
    }

    /// What was lifted and what is kept add up to all that the client ever had; and what it keeps stays bounded.
    #[test]
    fn nothing_is_lost_and_what_is_kept_stays_bounded() {
        let mut residuals = Residuals::default();
        let (mut had, mut got) = (vec![0f64; DIM], vec![0f64; DIM]);
        let mut most = 0f64;
        for round in 1..=200 {
            let operator = operator(round);
            let row = rows(&[3], round);
            had.iter_mut().zip(row.row(0).unwrap()).for_each(|(h, &x)| *h += f64::from(x));
            let carried = residuals.carry(&operator, &[3], &row).unwrap();
            let lifted = operator.lift(operator.compress(&carried).unwrap().row(0).unwrap()).unwrap();
            got.iter_mut().zip(lifted.iter()).for_each(|(g, &x)| *g += f64::from(x));
            residuals.commit(&[3]);
            let kept = residuals.of(3).unwrap();
            most = most.max(square(kept) / square(row.row(0).unwrap()));
            for ((h, g), &e) in had.iter().zip(&got).zip(kept) {
                assert!((h - g - f64::from(e)).abs() < 1e-3, "{round}: {h} {g} {e}");
            }
        }
        // omega <= 5.9: (1 + sqrt(1 - 1/omega))^2 / ... of a row whatever it is; far from 200^2.
        assert!(most < 4.0 * 5.9 * 5.9, "{most}");
    }

    #[test]
    fn only_who_is_in_the_sum_moves_on() {
        let (clients, mut residuals) = ([1, 2, 3, 4], Residuals::default());
        residuals.carry(&operator(1), &clients, &rows(&clients, 1)).unwrap();
        residuals.commit(&clients);
        let before = residuals.clone();
        // Given up, and begun again in parts: the same as at once.
        residuals.carry(&operator(2), &clients, &rows(&clients, 2)).unwrap();
        residuals.give_up();
        assert_eq!(residuals, before);
        let mut row = rows(&[1, 2], 2).buffer.as_f32().unwrap().to_vec();
        row[5] = f32::NAN;
        let bad = Rows::dense(row, 2, DIM).unwrap();
        let carried = residuals.carry(&operator(2), &[1, 2], &bad).unwrap();
        assert!(carried.row(0).unwrap()[5].is_nan());
        residuals.carry(&operator(2), &[3, 4], &rows(&[3, 4], 2)).unwrap();
        // Client 1 sent zeros and client 3 vanished: they keep what they had; 2 and 4 do not.
        residuals.commit(&[1, 2, 4]);
        for client in clients {
            let same = residuals.of(client) == before.of(client);
            assert_eq!(same, [1, 3].contains(&client), "{client}");
        }
        assert!(residuals.pending.is_empty() && residuals.digest() != before.digest());
        // A client that would keep an infinity keeps what it had.
        let huge = Rows::dense(vec![f32::MAX; DIM], 1, DIM).unwrap();
        let kept = residuals.of(2).unwrap().to_vec();
        residuals.carry(&operator(3), &[2], &huge).unwrap();
        residuals.commit(&[2]);
        assert!(residuals.of(2).unwrap().iter().all(|x| x.is_finite()), "{kept:?}");
    }

    #[test]
    fn the_digest_is_of_all_that_was_kept() {
        let run = |order: &[u64], value: f32| {
            let mut residuals = Residuals::default();
            for &client in order {
                let row = Rows::dense(vec![value; DIM], 1, DIM).unwrap();
                residuals.carry(&operator(2), &[client], &row).unwrap();
            }
            residuals.commit(order);
            residuals.digest()
        };
        assert_eq!(run(&[1, 2], 1.0), run(&[1, 2], 1.0));
        let others = [run(&[1, 3], 1.0), run(&[1, 2], 1.000_000_1), run(&[1], 1.0), Residuals::default().digest()];
        assert!(others.iter().all(|other| *other != run(&[1, 2], 1.0)));
    }

    #[test]
    fn what_is_kept_is_stored_masked_and_comes_back() {
        let (clients, secret) = ([5, 6, 9], Secret::from_seed(3));
        let mut residuals = Residuals::default();
        for round in 1..=3 {
            residuals.carry(&operator(round), &clients, &rows(&clients, round)).unwrap();
            residuals.commit(&clients[..2]);
        }
        let sealed = residuals.seal(&secret, &[1; 16], 3);
        assert_eq!(Residuals::open(&sealed, (&secret, &[1; 16], 3), DIM).unwrap(), residuals);
        let empty = Residuals::default().seal(&secret, &[1; 16], 3);
        assert_eq!(Residuals::open(&empty, (&secret, &[1; 16], 3), DIM).unwrap(), Residuals::default());
        // Other texts have other keystreams: the difference of two is not that of what they hide.
        let mut other = residuals.clone();
        other.kept.get_mut(&5).unwrap()[0] += 1.0;
        let equal = other.seal(&secret, &[1; 16], 3).iter().zip(&sealed).filter(|(a, b)| a == b).count();
        assert!(equal < 20, "{equal}");
        let mut bent = sealed.clone();
        bent[70] ^= 1;
        for (bytes, secret, session, round, dim) in [
            (&bent[..], &secret, [1; 16], 3, DIM),
            (&sealed[..], &Secret::from_seed(4), [1; 16], 3, DIM),
            (&sealed, &secret, [2; 16], 3, DIM),
            (&sealed, &secret, [1; 16], 2, DIM),
            (&sealed, &secret, [1; 16], 3, DIM + 1),
            (&sealed[..31], &secret, [1; 16], 3, DIM),
            (&sealed[..40], &secret, [1; 16], 3, DIM),
        ] {
            let refused = Residuals::open(bytes, (secret, &session, round), dim);
            assert!(matches!(refused, Err(FlError::Checkpoint { what: "residuals", .. })));
        }
    }
}
