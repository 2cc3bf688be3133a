//! What clients sign about a session, and the two checks that come before anything is opened.

use super::session::{Session, bitmap};
use super::wire::{self, Reader};
use crate::secagg::SecAggError;

/// What a client signs with its vector: the set of sharers that it was masked for, and a hash of what it sends.
pub(super) fn input_statement(view: &[u8; 32], masked: &[u8]) -> [u8; 64] {
    input_statement_of(view, &wire::digest(masked))
}

pub(super) fn input_statement_of(view: &[u8; 32], hash: &[u8; 32]) -> [u8; 64] {
    let mut out = [0; 64];
    out[..32].copy_from_slice(view);
    out[32..].copy_from_slice(hash);
    out
}

/// What a client signs about the survivors.
pub(super) fn consent_statement(view: &[u8; 32], set: &[bool]) -> Vec<u8> {
    [&view[..], &bitmap(set)].concat()
}

/// At least q survivors have signed the set (none is asked for with a server that is trusted to follow the protocol).
pub(super) fn check_quorum(
    session: &Session,
    view: &[u8; 32],
    set: &[bool],
    reader: &mut Reader<'_>,
) -> Result<(), SecAggError> {
    let statement = consent_statement(view, set);
    let (mut found, mut last) = (0, None);
    for (position, mut entry) in reader.list(4 + 64, set.len())?.enumerate() {
        let (member, signature) = (entry.member()?, entry.array()?);
        if last.is_some_and(|last| last >= member) || !set.get(member).is_some_and(|&s| s) {
            return Err(SecAggError::List { list: "signatures", position, found: member as u64 });
        }
        last = Some(member);
        session.roster().verify(&session.domain(wire::CONSENT, member), &statement, &signature)?;
        found += 1;
    }
    let needed = session.plan().quorum();
    if found < needed { Err(SecAggError::Quorum { found, needed }) } else { Ok(()) }
}

/// Every neighbor among the survivors has signed that it masked its vector for the same set of sharers.
pub(super) fn check_inputs(
    session: &Session,
    me: usize,
    view: &[u8; 32],
    set: &[bool],
    reader: &mut Reader<'_>,
) -> Result<(), SecAggError> {
    let mut expected = Vec::new();
    if session.checks_consistency() {
        expected = session.graph().neighbors(me).into_iter().filter(|&j| set[j]).collect();
    }
    let mut found = Vec::new();
    for mut entry in reader.list(4 + 32 + 64, expected.len())? {
        let (member, hash, signature) = (entry.member()?, entry.array()?, entry.array()?);
        if member >= set.len() {
            return Err(SecAggError::List { list: "vectors", position: found.len(), found: member as u64 });
        }
        let statement = input_statement_of(view, &hash);
        session.roster().verify(&session.domain(wire::INPUT, member), &statement, &signature)?;
        found.push(member);
    }
    wire::same_members("vectors", &found, &expected)
}
