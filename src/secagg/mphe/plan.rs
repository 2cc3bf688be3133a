//! What a key and the sums under it are made for: ring, layout, flooding and limits, chosen before the first round.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::he::chooser::{self, Failure, MpheChoice};
use crate::he::noise::Weights;
use crate::he::params::MAX_WIDTH;
use crate::he::shamir::Threshold;
use crate::he::{OpeningPlan, Ring};
use crate::secagg::accumulator::check_shape;
use crate::secagg::{SecAggError, VectorShape};

/// Whom the sum is protected from. Nothing proves to anybody that a ciphertext is well formed, so that no member of this
/// list stands a client of the roster that is in league with the server: see [`super`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trust {
    /// *Semi-honest server*: it follows the protocol and looks at everything, in league with up to f key holders. The
    /// holders get the sum from it: few bytes.
    SemiHonestServer,
    /// *Malicious server, honest roster*: the server may do what it likes, in league with up to f key holders, but with no
    /// client of the roster. The holders get every ciphertext, check its signature and add them themselves: n ciphertexts
    /// for each of the K holders.
    HonestRoster,
}

impl fmt::Display for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SemiHonestServer => "semi-honest server",
            Self::HonestRoster => "malicious server, honest roster",
        })
    }
}

/// What a plan is made from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Request {
    /// d and b: length of the vectors, and the ring in which the sum is wanted.
    pub shape: VectorShape,
    /// B: magnitude that no centred value exceeds, for certain; `1 ..= 2^(b-1)`.
    pub bound: u64,
    /// n: most clients of a sum.
    pub clients: u32,
    /// Clients of the roster that the least number of survivors must not count on.
    pub corrupt: u32,
    /// Least number of clients that are added up, at least `corrupt + 2`: two honest ones.
    pub min_survivors: u32,
    /// K, t, f.
    pub threshold: Threshold,
    /// Sums under one key.
    pub rounds: u64,
    /// Further sets of holders that a sum may be opened by where a holder of the first vanishes. Each is a release that
    /// the flooding is sized for.
    pub spare_sets: u64,
    /// lambda: bits of statistical distance of all openings.
    pub lambda: u32,
    /// N, if it is given: else the one with the fewest bytes a client. A smaller one makes the set-up of a key cheaper,
    /// which deals `K t` polynomials a holder.
    pub degree: Option<usize>,
    /// Whom the sum is protected from.
    pub trust: Trust,
}

impl Request {
    /// Two honest survivors, a thousand rounds, one further set where t < K, lambda = 40, every residue of the ring.
    #[must_use]
    pub fn new(shape: VectorShape, clients: u32, threshold: Threshold, trust: Trust) -> Self {
        Self {
            shape,
            bound: 1 << (shape.bits.clamp(1, 63) - 1),
            clients,
            corrupt: 0,
            min_survivors: 2,
            threshold,
            rounds: 1000,
            spare_sets: u64::from(threshold.needed() < threshold.holders()),
            lambda: 40,
            degree: None,
            trust,
        }
    }

    fn openings(&self) -> u64 {
        self.rounds.saturating_mul(self.spare_sets.saturating_add(1))
    }

    fn of_chooser(&self) -> chooser::Request {
        let clients = u64::from(self.clients);
        chooser::Request {
            values: u64::from(self.shape.len),
            bound: self.bound,
            weight_sum: clients,
            ciphertexts: Weights::equal(clients),
            threshold: self.threshold,
            openings: self.openings(),
            lambda: self.lambda,
            // The errors of the sums are under the flooding: its bound covers them all but with 2^-(lambda + 5).
            failure: Failure::Statistical,
            degree: self.degree,
        }
    }
}

/// A request with the parameters that serve it; made by [`Plan::choose`] alone, so that no key is used beyond its numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    request: Request,
    choice: MpheChoice,
    opening: OpeningPlan,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ring, layout, r) = (self.ring(), &self.choice.layout, &self.request);
        let t = r.threshold;
        write!(
            f,
            "mphe ({}): N = {}, log2 Q = {:.1}, {} values of {} bits a coefficient over {} of noise; {} of {} holders, {} \
             corrupt; {} openings; flooding 2^{:.1}; {:.0} bits of security",
            r.trust,
            ring.degree(),
            ring.log2_modulus(),
            layout.slots,
            layout.width,
            layout.offset,
            t.needed(),
            t.holders(),
            t.corrupt(),
            r.openings(),
            self.choice.flooding.log2_distance,
            self.choice.security.bits
        )
    }
}

impl Plan {
    /// The parameters with the fewest bytes: [`chooser::mphe`].
    ///
    /// # Errors
    /// A number out of range; no safe set for the bits that the sum takes (with the nearest request that has one).
    pub fn choose(request: Request) -> Result<Self, SecAggError> {
        check_shape(request.shape)?;
        let range = |name, expected, found| Err(SecAggError::OutOfRange { name, expected, found });
        if !(1..=1 << (request.shape.bits - 1)).contains(&request.bound) {
            return range("bound of a value", "1..=2^(bits - 1)", request.bound);
        }
        let least = request.corrupt.saturating_add(2);
        if request.min_survivors < least || request.min_survivors > request.clients {
            return range(
                "least number of survivors",
                "two more than the corrupt clients, at most all clients",
                u64::from(request.min_survivors),
            );
        }
        if request.spare_sets > 0 && request.threshold.needed() == request.threshold.holders() {
            return range("number of spare sets", "0 where all holders are needed", request.spare_sets);
        }
        let wanted = request.of_chooser();
        let choice = chooser::mphe(&wanted)?;
        debug_assert!(choice.layout.width <= MAX_WIDTH);
        let opening = OpeningPlan::of(&choice, &wanted)?.with_sets(request.spare_sets.saturating_add(1))?;
        Ok(Self { request, choice, opening })
    }

    /// What was asked for.
    #[must_use]
    pub const fn request(&self) -> &Request {
        &self.request
    }

    /// What was chosen: layout, flooding, security, bytes.
    #[must_use]
    pub const fn choice(&self) -> &MpheChoice {
        &self.choice
    }

    /// What the holders answer within.
    #[must_use]
    pub const fn opening(&self) -> &OpeningPlan {
        &self.opening
    }

    /// N and the primes.
    #[must_use]
    pub const fn ring(&self) -> &Ring {
        &self.choice.ring
    }

    /// K, t, f.
    #[must_use]
    pub const fn threshold(&self) -> Threshold {
        self.request.threshold
    }

    /// Blocks of a ciphertext.
    #[must_use]
    pub const fn blocks(&self) -> usize {
        self.choice.blocks as usize
    }

    /// SHA-256 of all numbers, for a context.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let (r, t, layout) = (&self.request, self.request.threshold, &self.choice.layout);
        let mut hash = Sha256::new();
        hash.update(b"veilsum mphe plan v1");
        hash.update([u8::from(r.trust == Trust::HonestRoster)]);
        let numbers = [r.shape.len, r.shape.bits, r.clients, r.corrupt, r.min_survivors, r.lambda];
        numbers.iter().for_each(|n| hash.update(n.to_le_bytes()));
        [r.bound, r.rounds, r.spare_sets].iter().for_each(|n| hash.update(n.to_le_bytes()));
        [t.holders(), t.needed(), t.corrupt()].iter().for_each(|n| hash.update(n.to_le_bytes()));
        [layout.width, layout.slots, layout.offset].iter().for_each(|n| hash.update(n.to_le_bytes()));
        hash.update((self.ring().degree() as u32).to_le_bytes());
        self.ring().basis().primes().for_each(|p| hash.update(p.to_le_bytes()));
        hash.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        let shape = VectorShape { len: 100, bits: 16 };
        Request::new(shape, 10, Threshold::new(5, 4, 1).unwrap(), Trust::SemiHonestServer)
    }

    #[test]
    fn a_plan_is_made_for_all_openings_that_may_come() {
        let plan = Plan::choose(request()).unwrap();
        assert_eq!(plan.opening().openings(), 2000, "{plan}");
        assert_eq!(plan.opening().sets(), 2);
        assert!(plan.choice().flooding.log2_distance <= -40.0);
        assert!(plan.to_string().contains("semi-honest server"), "{plan}");
        let more = Plan::choose(Request { rounds: 2000, ..request() }).unwrap();
        assert!(more.choice().flooding.bound > plan.choice().flooding.bound);
        assert_ne!(more.digest(), plan.digest());
        let other = Plan::choose(Request { trust: Trust::HonestRoster, ..request() }).unwrap();
        assert_ne!(other.digest(), plan.digest());
    }

    #[test]
    fn what_cannot_be_planned_is_refused() {
        let shape = |bits| VectorShape { len: 4, bits };
        let bad = [
            Request { bound: 0, ..request() },
            Request { bound: (1 << 15) + 1, ..request() },
            Request { shape: shape(0), ..request() },
            Request { shape: shape(64), ..request() },
            Request { min_survivors: 1, ..request() },
            Request { corrupt: 1, ..request() },
            Request { min_survivors: 11, ..request() },
            Request { rounds: 0, ..request() },
            Request { rounds: u64::MAX, ..request() },
            Request { lambda: 0, ..request() },
            Request { degree: Some(1000), ..request() },
            Request { threshold: Threshold::new(4, 4, 0).unwrap(), ..request() },
            Request { shape: shape(63), bound: 1 << 62, clients: u32::MAX, ..request() },
        ];
        for request in bad {
            assert!(Plan::choose(request).is_err(), "{request:?}");
        }
        // The bit budget is checked here, before any round, and the error says what would fit.
        let wide = Plan::choose(Request { shape: shape(63), bound: 1 << 62, ..request() }).unwrap_err();
        assert!(wide.to_string().contains("nearest"), "{wide}");
    }
}
