//! Which instructions run: one body a kernel, compiled once per instruction set.

use std::fmt;

use super::lanes::Machine;
use super::portable::Portable;
use crate::backend::BackendError;

/// Instruction sets that the kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// Whatever the compiler's target guarantees.
    Portable,
    /// NEON, on aarch64.
    Neon,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, DQ, VL.
    Avx512,
    /// The same with IFMA: transforms run on 52-bit products, all else as on [`Self::Avx512`].
    Avx512Ifma,
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A kernel whose body is compiled for every instruction set.
///
/// `run` and all that it calls must be `#[inline(always)]`: only then is the body compiled with the
/// features of the function that it lands in.
pub(super) trait Kernel {
    /// What the kernel returns.
    type Output;
    /// The body, over the registers of an instruction set.
    fn run<M: Machine>(self) -> Self::Output;
}

impl Isa {
    /// All of them, slowest first.
    pub const ALL: [Self; 5] = [Self::Portable, Self::Neon, Self::Avx2, Self::Avx512, Self::Avx512Ifma];

    /// The name that `VEILSUM_ISA` takes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Neon => "neon",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Ifma => "avx512ifma",
        }
    }

    /// True if this processor has it.
    #[must_use]
    pub fn available(self) -> bool {
        match self {
            Self::Portable => true,
            Self::Neon => cfg!(target_arch = "aarch64"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Ifma => Self::Avx512.available() && is_x86_feature_detected!("avx512ifma"),
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// The fastest that this processor has.
    #[must_use]
    pub fn best() -> Self {
        Self::ALL.into_iter().rev().find(|isa| isa.available()).unwrap_or(Self::Portable)
    }

    /// The instruction set of that name.
    ///
    /// # Errors
    /// [`BackendError::Unavailable`]: no such name, or not on this processor.
    pub fn from_name(name: &str) -> Result<Self, BackendError> {
        let unavailable = |reason: String| BackendError::Unavailable { name: format!("simd ({name})"), reason };
        let isa = Self::ALL.into_iter().find(|isa| isa.name() == name).ok_or_else(|| {
            unavailable("the instruction sets are portable, neon, avx2, avx512 and avx512ifma".into())
        })?;
        if isa.available() {
            Ok(isa)
        } else {
            Err(unavailable(format!("this processor lacks it; the best it has is {}", Self::best())))
        }
    }
}

/// An instruction set that was found on this processor: the proof that running it is sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dispatch(Isa);

impl Dispatch {
    /// `isa`, or the portable body where the processor lacks it.
    pub(super) fn new(isa: Isa) -> Self {
        Self(if isa.available() { isa } else { Isa::Portable })
    }

    /// Which instruction set runs.
    pub(super) const fn isa(self) -> Isa {
        self.0
    }

    /// Runs a kernel.
    #[inline]
    pub(super) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `new` has seen these features on this processor.
            Isa::Avx512 | Isa::Avx512Ifma => unsafe { avx512(kernel) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `new` has seen these features on this processor.
            Isa::Avx2 => unsafe { avx2(kernel) },
            // NEON needs no shim: the target has it everywhere.
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => kernel.run::<super::neon::Neon>(),
            _ => kernel.run::<Portable>(),
        }
    }

    /// Runs a kernel that lives on [`Machine::count_halves`]: with BITALG (VPOPCNTW) where AVX-512 has it.
    #[inline]
    pub(super) fn run_counting<K: Kernel>(self, kernel: K) -> K::Output {
        #[cfg(target_arch = "x86_64")]
        if matches!(self.0, Isa::Avx512 | Isa::Avx512Ifma) && is_x86_feature_detected!("avx512bitalg") {
            // SAFETY: `new` has seen the features of AVX-512 on this processor, and this line BITALG.
            return unsafe { avx512_bitalg(kernel) };
        }
        self.run(kernel)
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bitalg,avx2,fma")]
fn avx512_bitalg<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<super::avx512::Avx512Bitalg>()
}

#[cfg(target_arch = "x86_64")]
impl Dispatch {
    /// True if [`Self::run_ifma`] is allowed.
    pub(super) fn has_ifma(self) -> bool {
        self.0 == Isa::Avx512Ifma
    }

    /// Runs a kernel of 52-bit products; nothing, unless [`Self::has_ifma`].
    #[inline]
    pub(super) fn run_ifma<K: IfmaKernel>(self, kernel: K) {
        if self.has_ifma() {
            // SAFETY: `new` has seen these features on this processor.
            unsafe { ifma(kernel) };
        }
    }
}

/// A kernel on the lanes of `super::ifma`; inlined throughout, as [`Kernel`].
#[cfg(target_arch = "x86_64")]
pub(super) trait IfmaKernel {
    /// The body.
    fn run(self);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx2,fma")]
fn ifma<K: IfmaKernel>(kernel: K) {
    kernel.run();
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn avx512<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<super::avx512::Avx512>()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn avx2<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<super::avx2::Avx2>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_or_refused_with_a_reason() {
        assert_eq!(Isa::from_name("portable"), Ok(Isa::Portable));
        assert_eq!(Isa::from_name(Isa::best().name()), Ok(Isa::best()));
        let error = Isa::from_name("sse9").unwrap_err().to_string();
        assert!(error.contains("sse9") && error.contains("avx512"), "{error}");
        for isa in Isa::ALL {
            assert_eq!(Isa::from_name(isa.name()).is_ok(), isa.available());
            assert_eq!(Dispatch::new(isa).isa() == isa, isa.available());
        }
    }
}
