//! Are all residues below their prime? A pass over public numbers, before anything is written.

use rayon::prelude::*;

use super::SEGMENT;
use super::isa::{Dispatch, Kernel};
use super::lanes::{Machine, Words};
use crate::backend::{BackendError, check};
use crate::params::Ring;

/// Checks that residues mod a prime are reduced; those mod `2^b` need not be.
///
/// # Errors
/// [`BackendError::NotBelowPrime`] with the first that is not.
pub(super) fn check(dispatch: Dispatch, what: &'static str, x: &[u32], ring: Ring) -> Result<(), BackendError> {
    let Ring::Prime(p) = ring else { return Ok(()) };
    let reduced = x.par_chunks(SEGMENT).all(|x| dispatch.run(Largest(x)) < p);
    if reduced { Ok(()) } else { check::residues(what, x, ring) }
}

/// The largest word, 0 of none.
struct Largest<'a>(&'a [u32]);

impl Kernel for Largest<'_> {
    type Output = u32;

    #[inline(always)]
    fn run<M: Machine>(self) -> u32 {
        let (groups, rest) = self.0.as_chunks::<16>();
        let mut most = M::W::splat(0);
        for group in groups {
            most = most.max(M::W::load(group));
        }
        let mut lanes = [0; 16];
        most.store(&mut lanes);
        lanes.iter().chain(rest).fold(0, |most, &v| most.max(v))
    }
}
