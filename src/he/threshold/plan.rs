//! What the openings under one key are planned for.

use crate::he::ETA;
use crate::he::chooser::{MpheChoice, Request};
use crate::he::encrypt::Ciphertext;
use crate::he::error::HeError;
use crate::he::noise::{CiphertextNoise, Flooding, Weights};
use crate::he::params::{Layout, Ring};
use crate::he::shamir::Threshold;

/// What the openings under one key were planned for; the flooding follows from it.
#[derive(Clone, Debug, PartialEq)]
pub struct OpeningPlan {
    ring: Ring,
    layout: Layout,
    threshold: Threshold,
    weights: Weights,
    openings: u64,
    sets: u64,
    blocks: u64,
    flooding: Flooding,
}

impl OpeningPlan {
    /// Openings of R sums of at most `blocks` blocks with at most these weights, statistical distance `2^-lambda`.
    ///
    /// # Errors
    /// A layout of another ring, or with fewer bits below its slots than the flooding takes.
    pub fn new(
        ring: &Ring,
        layout: Layout,
        threshold: Threshold,
        weights: Weights,
        (openings, blocks, lambda): (u64, u64, u32),
    ) -> Result<Self, HeError> {
        Layout::new(ring, layout.width, layout.slots, layout.offset)?;
        for (name, found) in [("number of openings", openings), ("number of blocks", blocks)] {
            if !(1..=1 << 36).contains(&found) {
                return Err(HeError::OutOfRange { name, found, least: 1, most: 1 << 36 });
            }
        }
        let (holders, parts) = (u32::from(threshold.holders()), u32::from(threshold.needed()));
        let noise = CiphertextNoise { degree: ring.degree(), holders, eta: ETA, weights };
        let coefficients = ring.degree() as f64 * blocks as f64 * openings as f64;
        let flooding = Flooding::new(&noise, lambda, coefficients, parts)?;
        let least = u64::from(flooding.offset(parts));
        if u64::from(layout.offset) < least {
            let most = u64::from(ring.basis().floor_log2());
            let found = u64::from(layout.offset);
            return Err(HeError::OutOfRange { name: "offset of the layout", found, least, most });
        }
        Ok(Self { ring: ring.clone(), layout, threshold, weights, openings, sets: 1, blocks, flooding })
    }

    /// The plan of a chosen set.
    ///
    /// # Errors
    /// None for the choice of that request.
    pub fn of(choice: &MpheChoice, request: &Request) -> Result<Self, HeError> {
        let sizes = (request.openings, choice.blocks, request.lambda);
        Self::new(&choice.ring, choice.layout, request.threshold, request.ciphertexts, sizes)
    }

    /// The same plan where a sum may be opened by this many different sets of holders, because a holder of the first one
    /// has vanished: each is one of the R openings. One if this is not called.
    ///
    /// # Errors
    /// None, or more than all openings.
    pub fn with_sets(self, sets: u64) -> Result<Self, HeError> {
        let most = self.openings;
        if !(1..=most).contains(&sets) {
            return Err(HeError::OutOfRange { name: "number of sets of holders", found: sets, least: 1, most });
        }
        Ok(Self { sets, ..self })
    }

    /// Most sets of holders that answer for one sum.
    #[must_use]
    pub const fn sets(&self) -> u64 {
        self.sets
    }

    /// N and the primes.
    #[must_use]
    pub const fn ring(&self) -> &Ring {
        &self.ring
    }

    /// w, k, o.
    #[must_use]
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// K, t, f.
    #[must_use]
    pub const fn threshold(&self) -> Threshold {
        self.threshold
    }

    /// What hides the noise of the sums.
    #[must_use]
    pub const fn flooding(&self) -> &Flooding {
        &self.flooding
    }

    /// R.
    #[must_use]
    pub const fn openings(&self) -> u64 {
        self.openings
    }

    /// True if the parts of an opening must be masked in pairs.
    #[must_use]
    pub const fn needs_pairs(&self) -> bool {
        self.threshold.needed() < self.threshold.holders()
    }

    /// Checks that a sum is one of those planned for.
    pub(super) fn check(&self, sum: &Ciphertext) -> Result<(), HeError> {
        if *sum.ring() != self.ring {
            return Err(HeError::ForeignRing { what: "a sum" });
        }
        let within = |what, found, planned| {
            if found > planned { Err(HeError::BeyondPlan { what, found, planned }) } else { Ok(()) }
        };
        within("blocks of a sum", sum.blocks() as u64, self.blocks)?;
        within("weight of a sum", sum.weight(), self.weights.sum())?;
        within("squared weights of a sum", sum.squares(), self.weights.squares())?;
        if sum.blocks() == 0 {
            return Err(HeError::Length { what: "a sum (in blocks)", expected: 1, found: 0 });
        }
        sum.refuse_zero()
    }
}
