//! What there is to run on, and why something is not there: the data of `veilsum devices`.

use super::simd::Simd;
use super::{Backend, BackendKind, OpenOptions, cuda, wgpu};

/// A device, or a backend that has none here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The backend that would use it.
    pub backend: BackendKind,
    /// Name of the device; nothing if the backend has none here.
    pub name: Option<String>,
    /// `discrete GPU`, `integrated GPU`, `virtual GPU`, `software adapter`, `processor`, `other`; empty without a device.
    pub class: &'static str,
    /// Interface and driver; empty if there is none.
    pub driver: String,
    /// What it allows, by name.
    pub limits: Vec<(&'static str, u64)>,
    /// Why it is not used, or not there; nothing if it can be used.
    pub refused: Option<String>,
}

impl Found {
    /// A backend without a device, and why.
    #[must_use]
    pub fn nothing(backend: BackendKind, reason: String) -> Self {
        Self { backend, name: None, class: "", driver: String::new(), limits: Vec::new(), refused: Some(reason) }
    }
}

/// Everything that [`super::open_with`] would choose from, in the order in which it tries; the oracle is left out.
#[must_use]
pub fn probe(options: &OpenOptions) -> Vec<Found> {
    let mut found = cuda::found();
    found.extend(wgpu::probe(options));
    found.push(processor());
    found
}

/// The CPU.
fn processor() -> Found {
    Found {
        backend: BackendKind::Simd,
        name: Some(Simd::new().describe()),
        class: "processor",
        driver: String::new(),
        limits: vec![("threads", std::thread::available_parallelism().map_or(1, usize::from) as u64)],
        refused: None,
    }
}
