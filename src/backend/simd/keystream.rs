//! Keystream bytes at any position.

use super::isa::Dispatch;
use crate::math::prg::StreamKey;

/// Writes keystream bytes `[position, position + out.len())` of `key` over `out`.
pub(super) fn fill(_dispatch: Dispatch, key: &StreamKey, position: u64, out: &mut [u8]) {
    key.fill(position, out);
}
