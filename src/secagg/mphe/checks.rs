//! What both the server and the holders of a key set-up look at.

use super::fault::Misdeed;
use super::session::KeySession;
use super::statements;
use super::wire::{self, Entry, Reader};
use crate::he::{Commitment, Contribution, KeyCeremony};
use crate::secagg::SecAggError;
use crate::secagg::channel::check_public;
use crate::secagg::identity::SIGNATURE_BYTES;

/// The entries of all holders, signed by them.
pub(super) fn read_roll(session: &KeySession, body: &[u8]) -> Result<Vec<Entry>, SecAggError> {
    wire::exactly(body, usize::from(session.holders()) * (64 + SIGNATURE_BYTES))?;
    let mut reader = Reader::new(body);
    (1..=session.holders())
        .map(|holder| {
            let (entry, signature) = (Entry::read(&mut reader)?, reader.array()?);
            session.verify(wire::COMMIT, holder, &entry.bytes(), &signature)?;
            Ok(entry)
        })
        .collect()
}

/// The first holder whose key or commitment cannot stand beside those before it.
pub(super) fn judge_roll(entries: &[Entry], ceremony: &mut KeyCeremony) -> Option<(u16, Misdeed)> {
    for (at, (holder, entry)) in (1..).zip(entries).enumerate() {
        let taken = entries[..at].iter().any(|other| other.channel == entry.channel);
        if taken || check_public(&entry.channel).is_err() {
            return Some((holder, Misdeed::Channel));
        }
        if ceremony.commit(&Commitment { holder, digest: entry.commitment }).is_err() {
            return Some((holder, Misdeed::Commitment));
        }
    }
    None
}

/// The bytes of a contribution (to = 0) or of an encrypted share that its dealer has signed.
pub(super) fn verified<'a>(
    session: &KeySession,
    view: &[u8; 32],
    dealer: u16,
    to: u16,
    piece: &'a [u8],
) -> Result<&'a [u8], SecAggError> {
    let (bytes, signature) = wire::signed(piece)?;
    session.verify(wire::SHARES, dealer, &statements::deal(view, to, bytes), &signature)?;
    Ok(bytes)
}

/// Takes the contribution of a dealer, if it is what it has committed to.
pub(super) fn judge_contribution(
    session: &KeySession,
    dealer: u16,
    bytes: &[u8],
    ceremony: &mut KeyCeremony,
) -> Option<()> {
    let contribution = Contribution::from_bytes(&session.setup().ring, bytes).ok()?;
    if contribution.holder() != dealer {
        return None;
    }
    ceremony.open(&contribution).ok()
}
