//! Between residues and the fields of a sum: a client's integers z become `z + B`, a sum of these becomes residues.

use zeroize::Zeroize;

use super::session::Session;
use crate::backend::{Aligned, Backend, Buffer};
use crate::secagg::{SecAggError, frame};

/// The values that a client encrypts, as the kernel takes them. Wiped on drop.
pub(super) struct Message(Buffer);

impl Drop for Message {
    fn drop(&mut self) {
        if let Ok(words) = self.0.as_u32_mut() {
            words.zeroize();
        }
    }
}

impl Message {
    pub(super) const fn buffer(&self) -> &Buffer {
        &self.0
    }

    /// The fields `z + B` of the packed residues of a client's integers z.
    ///
    /// # Errors
    /// Another number of bytes than the shape's, a one in an unused bit; an integer of a magnitude above B (does not say
    /// which, and looks at all).
    pub(super) fn new(
        session: &Session,
        index: usize,
        packed: &[u8],
        backend: &dyn Backend,
    ) -> Result<Self, SecAggError> {
        let (shape, plan) = (session.input_shape(), session.plan());
        frame::check_packed(packed, shape)?;
        let bound = plan.bound(index);
        let ring = (1u64 << shape.bits) - 1;
        // |z| <= B where z + B mod 2^bits is 2 B at most, as B is 2^(bits - 1) at most. A sign for every one that is not.
        let mut over = 0u64;
        let mut field = |residue: u64| {
            let field = residue.wrapping_add(bound) & ring;
            over |= (2 * bound).wrapping_sub(field);
            field
        };
        let message = if plan.parts() == 1 && (2..=32).contains(&shape.bits) {
            let mut words = backend.to_host(backend.unpack(packed, shape.len as usize, shape.bits)?)?;
            words.as_u32_mut()?.iter_mut().for_each(|w| *w = field(u64::from(*w)) as u32);
            Self(words)
        } else {
            let degree = plan.vector().ring.degree();
            let parts = plan.parts() as usize;
            let half = plan.kernel().width;
            let blocks = (shape.len as usize).div_ceil(degree);
            let len = if parts == 1 { shape.len as usize } else { 2 * degree * blocks };
            let mut words = Aligned::zeroed(len);
            frame::unpack(packed, shape, |j, residue| {
                let field = field(residue);
                // A slot of w bits is two of w/2: its lower halves first.
                let at = if parts == 1 { j } else { j / degree * 2 * degree + j % degree };
                words[at] = if parts == 1 { field } else { field & ((1 << half) - 1) } as u32;
                if parts == 2 {
                    words[at + degree] = (field >> half) as u32;
                }
            });
            Self(Buffer::HostU32(words))
        };
        if over >> 63 != 0 { Err(SecAggError::Bound { bound }) } else { Ok(message) }
    }
}

/// What the summed fields of the survivors mean: `sum z mod 2^bits`.
pub(super) fn residues(session: &Session, survivors: &[bool], fields: Vec<u64>) -> Vec<u64> {
    let (plan, mask) = (session.plan(), (1u64 << session.shape().bits) - 1);
    let members = (0..survivors.len()).filter(|&i| survivors[i]);
    let shift = members.fold(0u64, |sum, i| sum.wrapping_add(plan.bound(i).wrapping_mul(u64::from(plan.weight(i)))));
    let mut words = fields;
    words.iter_mut().for_each(|w| *w = w.wrapping_sub(shift) & mask);
    words
}
