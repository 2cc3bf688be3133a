//! The room `he` from outside: rounds of encryption and opening, attacks, parameters, bytes.

mod attacks;
mod broken_scheme;
mod bytes;
mod parameters;
mod rounds;

use std::collections::BTreeMap;

use veilsum::backend::scalar::Scalar;
use veilsum::he::collective::KeySetup;
use veilsum::he::noise::Weights;
use veilsum::he::poly;
use veilsum::he::{
    Ciphertext, CollectiveKey, EncryptKeys, Holder, HolderShare, KeyCeremony, KeyShare, Layout, OpeningGuard,
    OpeningPlan, Ring, SecretKey, Threshold,
};
use veilsum::math::prg::{Address, Cipher, Secret, StreamKey};

fn stream(n: u8) -> StreamKey {
    StreamKey::from_bytes([n; 32], Cipher::ChaCha20)
}

/// A key with its holders, made as they would.
struct World {
    setup: KeySetup,
    key: CollectiveKey,
    shares: Vec<KeyShare>,
    held: Vec<HolderShare>,
}

impl World {
    fn new(ring: &Ring, threshold: Threshold, seed: u64) -> Self {
        let mut session = [0; 16];
        session[..8].copy_from_slice(&seed.to_le_bytes());
        let setup = KeySetup { ring: ring.clone(), session, seed: [9; 32], threshold };
        let secret = |j: u16| Secret::from_seed(seed << 16 | u64::from(j));
        let all = 1..=threshold.holders();
        let made: Vec<_> = all.clone().map(|j| KeyShare::generate(&Scalar, &setup, j, &secret(j)).unwrap()).collect();
        let mut ceremony = KeyCeremony::new(setup.clone());
        made.iter().for_each(|(_, c)| ceremony.commit(&c.commitment(&setup)).unwrap());
        made.iter().for_each(|(_, c)| ceremony.open(c).unwrap());
        let deals: Vec<_> = made.iter().map(|(s, _)| s.deal(&setup, &secret(s.holder())).unwrap()).collect();
        let of = |j: u16| deals.iter().map(|d| d[usize::from(j) - 1].clone()).collect::<Vec<_>>();
        let held = all.map(|j| HolderShare::new(ring, threshold, &session, j, &of(j)).unwrap()).collect();
        let key = ceremony.finish().unwrap();
        Self { setup, key, shares: made.into_iter().map(|(s, _)| s).collect(), held }
    }

    fn secret_key(&self) -> SecretKey {
        SecretKey::of_shares(&self.setup.ring, &self.shares).unwrap()
    }

    /// s, transformed.
    fn secret(&self) -> Vec<u32> {
        let mut sum = vec![0u32; self.setup.ring.len()];
        self.shares.iter().for_each(|s| poly::add(&self.setup.ring, &mut sum, s.secret().expose()));
        sum
    }

    /// Holder j, with a secret in common with every other one.
    fn holder(&self, plan: &OpeningPlan, j: u16) -> Holder {
        let common = |i: u16| Secret::from_seed(1_000_000 + 1000 * u64::from(i.min(j)) + u64::from(i.max(j)));
        let pairs: BTreeMap<u16, Secret> =
            (1..=self.setup.threshold.holders()).filter(|&i| i != j).map(|i| (i, common(i))).collect();
        let share = self.held[usize::from(j) - 1].clone();
        let secret = Secret::from_seed(77_000 + u64::from(j));
        Holder::new(plan.clone(), share, secret, pairs, OpeningGuard::default()).unwrap()
    }

    fn encrypt(&self, layout: &Layout, client: u64, message: &[u64]) -> Ciphertext {
        let address = Address { client, round: 1, ..Address::default() };
        let keys = EncryptKeys::derive(&Secret::from_seed(client), &[3; 16], address);
        Ciphertext::encrypt(&Scalar, &self.key, layout, &keys, message).unwrap()
    }
}

/// The ring of the key sets: N = 4096, four primes of 27 bits.
fn key_ring() -> Ring {
    Ring::find(4096, 27, 4).unwrap()
}

/// A plan of a few openings, with the layout that goes with it.
fn plan(ring: &Ring, threshold: Threshold, clients: u64, width: u32) -> OpeningPlan {
    let weights = Weights::equal(clients);
    let room = ring.basis().floor_log2();
    let layout = |slots| Layout::new(ring, width, slots, room - slots * width).unwrap();
    let all = |slots| OpeningPlan::new(ring, layout(slots), threshold, weights, (8, 2, 40));
    (1..=room / width).rev().find_map(|slots| all(slots).ok()).unwrap()
}
