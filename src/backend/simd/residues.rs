//! The largest of many words, and with it: are all residues below their prime? A pass over what is to be read,
//! before anything is written.

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
    if largest_of_all(dispatch, x) < p { Ok(()) } else { check::residues(what, x, ring) }
}

/// The largest word, 0 of none, on rayon's threads; the time depends on the length alone.
pub(super) fn largest_of_all(dispatch: Dispatch, x: &[u32]) -> u32 {
    x.par_chunks(SEGMENT).map(|x| largest(dispatch, x)).max().unwrap_or(0)
}

/// The same on the caller's thread.
pub(super) fn largest(dispatch: Dispatch, x: &[u32]) -> u32 {
    dispatch.run(Largest(x))
}

struct Largest<'a>(&'a [u32]);

impl Kernel for Largest<'_> {
    type Output = u32;

    #[inline(always)]
    fn run<M: Machine>(self) -> u32 {
        let zero = M::W::splat(0);
        // Two chains, so that a comparison does not wait for the last one.
        let (mut a, mut b) = (zero, zero);
        let (groups, rest) = self.0.as_chunks::<16>();
        let (pairs, last) = groups.as_chunks::<2>();
        for [x, y] in pairs {
            (a, b) = (a.max(M::W::load(x)), b.max(M::W::load(y)));
        }
        for x in last {
            a = a.max(M::W::load(x));
        }
        let mut lanes = [0; 16];
        a.max(b).store(&mut lanes);
        lanes.iter().chain(rest).fold(0, |most, &v| most.max(v))
    }
}
