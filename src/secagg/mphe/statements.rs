//! What holders and clients sign.

use sha2::{Digest, Sha256};

use super::wire::Entry;
use crate::secagg::wire::bitmap;

/// What is stated about a frame's body: nothing but its hash.
pub(super) fn hash(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Identity of the keys and commitments of all holders: in every later signature and pair secret of a set-up.
pub(super) fn view(context: &[u8; 32], entries: &[Entry]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"veilsum mphe key view v1");
    hash.update(context);
    entries.iter().for_each(|entry| hash.update(entry.bytes()));
    hash.finalize().into()
}

/// What a dealer signs about the contribution (to = 0) or about the encrypted share for holder `to`.
pub(super) fn deal(view: &[u8; 32], to: u16, bytes: &[u8]) -> [u8; 66] {
    let mut out = [0; 66];
    out[..32].copy_from_slice(view);
    out[32..34].copy_from_slice(&to.to_le_bytes());
    out[34..].copy_from_slice(&hash(bytes));
    out
}

/// What a holder signs about the finished key: no more than the set-up's context and the key, so that a client can check
/// it.
pub(super) fn key(digest: &[u8; 32]) -> [u8; 32] {
    *digest
}

/// What a holder signs about another: whom it accuses, and of what.
pub(super) fn complaint(accused: u16, misdeed: u8) -> [u8; 3] {
    let [low, high] = accused.to_le_bytes();
    [low, high, misdeed]
}

/// What a client signs: a hash of its ciphertext and the weight with which it enters the sum.
pub(super) fn input(ciphertext: &[u8; 32], weight: u32) -> [u8; 36] {
    let mut out = [0; 36];
    out[..32].copy_from_slice(ciphertext);
    out[32..].copy_from_slice(&weight.to_le_bytes());
    out
}

/// What a holder signs before anything is opened: the set of survivors, what each of them has signed, and the sum.
pub(super) fn root(context: &[u8; 32], survivors: &[bool], inputs: &[[u8; 32]], sum: &[u8; 32]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"veilsum mphe root v1");
    hash.update(context);
    hash.update((survivors.len() as u64).to_le_bytes());
    hash.update(bitmap(survivors));
    inputs.iter().for_each(|input| hash.update(input));
    hash.update(sum);
    hash.finalize().into()
}
