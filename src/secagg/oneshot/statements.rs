//! What clients sign about their messages, and what names a set of them.

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::session::Session;
use super::wire;
use crate::secagg::SecAggError;
use crate::secagg::wire::{Reader, Signature, bitmap};

/// What a client signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Statement {
    /// How often its ciphertext and its shares count.
    pub(super) weight: u32,
    /// The key that its shares are sealed with.
    pub(super) channel: [u8; 32],
    /// Of its ciphertext.
    pub(super) hash: [u8; 32],
    /// Of its sealed shares.
    pub(super) root: [u8; 32],
}

impl Statement {
    pub(super) fn bytes(&self) -> [u8; wire::STATEMENT] {
        let mut out = [0; wire::STATEMENT];
        out[..4].copy_from_slice(&self.weight.to_le_bytes());
        out[4..36].copy_from_slice(&self.channel);
        out[36..68].copy_from_slice(&self.hash);
        out[68..].copy_from_slice(&self.root);
        out
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, SecAggError> {
        let weight = u32::from_le_bytes(reader.array()?);
        Ok(Self { weight, channel: reader.array()?, hash: reader.array()?, root: reader.array()? })
    }

    /// Checks the weight that the session has for the member, and its signature.
    pub(super) fn check(&self, session: &Session, member: usize, signature: &Signature) -> Result<(), SecAggError> {
        if self.weight != session.plan().weight(member) {
            let (expected, found) = ("that of the session", u64::from(self.weight));
            return Err(SecAggError::OutOfRange { name: "weight", expected, found });
        }
        session.roster().verify(&session.domain(wire::INPUT, session.cohort()[member]), &self.bytes(), signature)
    }
}

/// Bytes up to which a ciphertext is hashed on the caller's thread: of smaller ones many come at once, and to wake the others for
/// each costs more than they save.
const ALONE: usize = 1 << 20;

/// SHA-256 of the hashes of a ciphertext's blocks, which all cores take where it is long.
pub(super) fn ciphertext_hash(session: &Session, ciphertext: &[u8]) -> [u8; 32] {
    let block = ciphertext.len().div_ceil(session.plan().vector().blocks.max(1) as usize).max(1);
    let hash = |block: &[u8]| -> [u8; 32] { Sha256::digest(block).into() };
    let hashes: Vec<[u8; 32]> = if ciphertext.len() <= ALONE {
        ciphertext.chunks(block).map(hash).collect()
    } else {
        ciphertext.par_chunks(block).map(hash).collect()
    };
    Sha256::digest(hashes.as_flattened()).into()
}

fn leaf(holder: usize, sealed: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update([0]);
    hash.update((holder as u16).to_le_bytes());
    hash.update(sealed);
    hash.finalize().into()
}

fn node(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update([1]);
    hash.update(left);
    hash.update(right);
    hash.finalize().into()
}

/// A tree of hashes over the sealed shares of a client, in the order of the holders; zeros fill it up.
pub(super) struct Tree {
    levels: Vec<Vec<[u8; 32]>>,
}

impl Tree {
    pub(super) fn new<'a>(sealed: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut level: Vec<[u8; 32]> = (1..).zip(sealed).map(|(holder, sealed)| leaf(holder, sealed)).collect();
        level.resize(level.len().next_power_of_two(), [0; 32]);
        let mut levels = vec![level];
        while let Some(last) = levels.last().filter(|last| last.len() > 1) {
            let next = last.as_chunks::<2>().0.iter().map(|[left, right]| node(left, right)).collect();
            levels.push(next);
        }
        Self { levels }
    }

    pub(super) fn root(&self) -> [u8; 32] {
        self.levels.last().and_then(|level| level.first()).copied().unwrap_or_default()
    }

    /// The hashes beside the way from holder `holder` (from 1) up.
    pub(super) fn path(&self, holder: usize) -> Vec<[u8; 32]> {
        let below = self.levels.len().saturating_sub(1);
        (0..below).map(|depth| self.levels[depth][((holder - 1) >> depth) ^ 1]).collect()
    }
}

/// The root that a holder's sealed share and its path give.
pub(super) fn root_of(holder: usize, sealed: &[u8], path: &[[u8; 32]]) -> [u8; 32] {
    path.iter().enumerate().fold(leaf(holder, sealed), |hash, (depth, other)| {
        if ((holder - 1) >> depth) & 1 == 0 { node(&hash, other) } else { node(other, &hash) }
    })
}

/// The identity of a set of messages: whoever answers for one says which clients, and what each has signed.
pub(super) fn view<'a>(
    session: &Session,
    set: &[bool],
    statement: impl Fn(usize) -> Option<&'a Statement>,
) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"veilsum oneshot view v1");
    hash.update(session.context());
    hash.update(bitmap(set));
    let members = (0..set.len()).filter(|&i| set[i]);
    members.filter_map(statement).for_each(|statement| hash.update(statement.bytes()));
    hash.finalize().into()
}

/// What a holder signs with its answer.
pub(super) fn answer_statement(view: &[u8; 32], body: &[u8]) -> Vec<u8> {
    [&view[..], body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_leaf_has_its_path() {
        for holders in [1usize, 2, 3, 5, 8, 13] {
            let sealed: Vec<Vec<u8>> = (0..holders).map(|j| vec![j as u8; 20]).collect();
            let tree = Tree::new(sealed.iter().map(Vec::as_slice));
            for j in 1..=holders {
                let path = tree.path(j);
                assert_eq!(path.len(), holders.next_power_of_two().ilog2() as usize);
                assert_eq!(root_of(j, &sealed[j - 1], &path), tree.root());
                let other = if j == 1 { 2 } else { j - 1 };
                assert_ne!(root_of(other, &sealed[j - 1], &path), tree.root(), "another holder's share");
                let mut bad = sealed[j - 1].clone();
                bad[3] ^= 1;
                assert_ne!(root_of(j, &bad, &path), tree.root());
            }
        }
    }
}
