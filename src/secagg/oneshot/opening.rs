//! From the holders' sums to the sum of the vectors.

use super::fields;
use super::session::Session;
use crate::backend::Backend;
use crate::he;
use crate::secagg::SecAggError;

/// The sum, and the holders whose answers do not fit those of the others.
///
/// Three checks stand before it: surplus answers lie on the polynomials of the others; coefficients of the summed key are
/// sums of small numbers, and zero where there is none; no coefficient of the opened sum leaves its slots. Of another key
/// half of the coefficients do.
///
/// # Errors
/// What fails.
pub(super) fn open(
    session: &Session,
    backend: &dyn Backend,
    survivors: &[bool],
    answers: &[(u16, &[u32])],
    sums: &[u32],
) -> Result<(Vec<u64>, Vec<u16>), SecAggError> {
    let plan = session.plan();
    let (vector, shape) = (plan.vector(), session.shape());
    let opened = plan.packing().open(answers)?;
    let key: Vec<u64> = opened.secrets.iter().map(|&x| u64::from(x)).collect();
    let weight = (0..survivors.len()).filter(|&i| survivors[i]).map(|i| u64::from(plan.weight(i))).sum();
    let key = he::oneshot::secret_sum(backend, &vector.ring, &key, weight)?;
    let place = (&vector.ring, &vector.layout);
    let values = he::oneshot::open(place, session.expand(), &key, sums, shape.len as usize)?;
    Ok((fields::residues(session, survivors, values), opened.wrong))
}
