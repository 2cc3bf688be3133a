//! What is left over in the sum, and the keys that take it off: of every survivor the self mask, of every lost client
//! its masks with the survivors.

use std::collections::HashMap;

use rayon::prelude::*;
use zeroize::Zeroizing;

use super::keys;
use super::server::Member;
use super::session::Session;
use super::wire::{self, Reader};
use crate::backend::MaskSign;
use crate::math::prg::StreamKey;
use crate::math::shamir::{Interpolation, SHARE_BYTES, Share};
use crate::secagg::SecAggError;
use crate::secagg::channel::PrivateKey;

/// What the server has when the last phase is over.
pub(super) struct Opened<'a> {
    pub(super) session: &'a Session,
    pub(super) members: &'a [Member],
    pub(super) sharers: &'a [bool],
    pub(super) survivors: &'a [bool],
    pub(super) view: &'a [u8; 32],
}

/// A secret of which too few shares were opened, or none that fit.
pub(super) struct Short {
    pub(super) found: usize,
    pub(super) needed: usize,
}

/// Reads the shares that member `i` has opened: one each of neighbors and of itself, of the kind that the set of
/// survivors asks for.
pub(super) fn read(
    session: &Session,
    i: usize,
    body: &[u8],
    sharers: &[bool],
    survivors: &[bool],
) -> Result<Vec<(usize, Share)>, SecAggError> {
    let near = session.graph().neighbors(i);
    let mut reader = Reader::new(body);
    let mut shares: Vec<(usize, Share)> = Vec::new();
    for (position, mut entry) in reader.list(4 + 1 + SHARE_BYTES, near.len() + 1)?.enumerate() {
        let (member, kind) = (entry.member()?, entry.array::<1>()?[0]);
        let ascending = shares.last().is_none_or(|(last, _)| *last < member);
        let holder = member == i || near.binary_search(&member).is_ok();
        if !ascending || !holder || !sharers[member] {
            return Err(SecAggError::List { list: "shares", position, found: member as u64 });
        }
        let expected = if survivors[member] { wire::OF_SEED } else { wire::OF_KEY };
        if kind != expected {
            return Err(SecAggError::Kind { expected, found: kind });
        }
        shares.push((member, Share::from_bytes(&entry.array()?)?));
    }
    reader.end()?;
    Ok(shares)
}

/// The keystreams to apply to the sum, and how.
pub(super) fn masks(opened: &Opened<'_>) -> Result<Vec<(StreamKey, MaskSign)>, Short> {
    let targets: Vec<usize> = (0..opened.members.len()).filter(|&i| opened.sharers[i]).collect();
    let interpolations = Interpolations::new(opened, &targets)?;
    let found = targets.par_iter().map(|&i| of_member(opened, i, &interpolations));
    let found = found.collect::<Result<Vec<_>, Short>>()?;
    Ok(found.into_iter().flatten().collect())
}

/// The masks of one member that are in the sum.
fn of_member(opened: &Opened<'_>, i: usize, at: &Interpolations) -> Result<Vec<(StreamKey, MaskSign)>, Short> {
    let (session, member) = (opened.session, &opened.members[i]);
    let needed = session.plan().threshold();
    let short = Short { found: member.opened.len().min(needed), needed };
    let Some((public, _)) = &member.keys else { return Err(short) };
    if opened.survivors[i] {
        let fits = |seed: &[u8; 32]| keys::commitment(session, i, seed) == public.commitment;
        let Some(seed) = at.secret(member, needed, fits) else { return Err(short) };
        return Ok(vec![(keys::self_mask(session, i, &seed, opened.view), MaskSign::Subtract)]);
    }
    let fits = |key: &[u8; 32]| PrivateKey::from_bytes(*key).public() == public.pairwise;
    let Some(key) = at.secret(member, needed, fits) else { return Err(short) };
    let key = PrivateKey::from_bytes(*key);
    let mut masks = Vec::new();
    for j in session.graph().around(i).filter(|&j| opened.survivors[j]) {
        let Some((theirs, _)) = &opened.members[j].keys else { continue };
        // Keys of low order were refused when they came.
        let Ok(agreed) = key.agree(&theirs.pairwise) else { continue };
        // The survivor's sign, undone.
        let sign = match keys::pair_sign(j, i) {
            MaskSign::Add => MaskSign::Subtract,
            MaskSign::Subtract => MaskSign::Add,
        };
        masks.push((keys::pair_mask(session, i, j, &agreed, opened.view), sign));
    }
    Ok(masks)
}

/// Weights of the sets of holders that occur: in a complete graph all members have the same.
struct Interpolations(HashMap<Vec<u64>, Interpolation>);

impl Interpolations {
    fn new(opened: &Opened<'_>, targets: &[usize]) -> Result<Self, Short> {
        let needed = opened.session.plan().threshold();
        let mut sets = HashMap::new();
        for &i in targets {
            let shares = &opened.members[i].opened;
            let Some(first) = shares.get(..needed) else { return Err(Short { found: shares.len(), needed }) };
            sets.entry(points(first)).or_insert(());
        }
        let weights = sets.into_par_iter().map(|(points, ())| {
            let weights = Interpolation::new(&points);
            weights.map(|w| (points, w)).map_err(|_| Short { found: 0, needed })
        });
        Ok(Self(weights.collect::<Result<_, _>>()?))
    }

    /// The secret of a member: from the first t shares, and if these do not fit what it has published, from any t in a
    /// row, so that one wrong share among more than t does no harm.
    fn secret(&self, member: &Member, needed: usize, fits: impl Fn(&[u8; 32]) -> bool) -> Option<Zeroizing<[u8; 32]>> {
        let shares = &member.opened;
        let try_from = |start: usize| {
            let chosen: Vec<&(u64, Share)> = (0..needed).map(|k| &shares[(start + k) % shares.len()]).collect();
            let at: Vec<u64> = chosen.iter().map(|(point, _)| *point).collect();
            let given: Vec<&Share> = chosen.iter().map(|(_, share)| share).collect();
            let made;
            let weights = match self.0.get(&at) {
                Some(weights) => weights,
                None => {
                    made = Interpolation::new(&at).ok()?;
                    &made
                }
            };
            weights.combine(&given).ok().filter(|secret| fits(secret))
        };
        (0..shares.len()).find_map(try_from)
    }
}

fn points(shares: &[(u64, Share)]) -> Vec<u64> {
    shares.iter().map(|(point, _)| *point).collect()
}
