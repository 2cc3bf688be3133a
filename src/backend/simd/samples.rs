//! Rows in the types that they come in: a kernel that reads them is written once over [`Sample`].

use half::{bf16, f16};

use super::lanes::{Floats, Machine};
use crate::backend::rows::Real;

/// An element type of rows that kernels read, sixteen at a time, as floats.
pub(super) trait Sample: Real {
    /// Reads sixteen and widens them, which is exact.
    fn load<M: Machine>(x: &[Self; 16]) -> M::F;

    /// The same as floats in memory: where they are, or in `room`.
    fn floats<'a, M: Machine>(x: &'a [Self; 16], room: &'a mut [f32; 16]) -> &'a [f32; 16];
}

impl Sample for f32 {
    #[inline(always)]
    fn load<M: Machine>(x: &[f32; 16]) -> M::F {
        M::F::load(x)
    }

    #[inline(always)]
    fn floats<'a, M: Machine>(x: &'a [f32; 16], _: &'a mut [f32; 16]) -> &'a [f32; 16] {
        x
    }
}

impl Sample for f16 {
    #[inline(always)]
    fn load<M: Machine>(x: &[f16; 16]) -> M::F {
        M::F::load_f16(x)
    }

    #[inline(always)]
    fn floats<'a, M: Machine>(x: &'a [f16; 16], room: &'a mut [f32; 16]) -> &'a [f32; 16] {
        widen::<M, Self>(x, room)
    }
}

impl Sample for bf16 {
    #[inline(always)]
    fn load<M: Machine>(x: &[bf16; 16]) -> M::F {
        M::F::load_bf16(x)
    }

    #[inline(always)]
    fn floats<'a, M: Machine>(x: &'a [bf16; 16], room: &'a mut [f32; 16]) -> &'a [f32; 16] {
        widen::<M, Self>(x, room)
    }
}

#[inline(always)]
fn widen<'a, M: Machine, T: Sample>(x: &[T; 16], room: &'a mut [f32; 16]) -> &'a [f32; 16] {
    T::load::<M>(x).store(room);
    room
}
