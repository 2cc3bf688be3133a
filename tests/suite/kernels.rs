//! Kernels: known answers for the oracle, and the oracle against every other backend.

mod device;
mod device_encode;
mod device_words;
mod driver;
mod driver_faults;
mod driver_foreign;
mod emulated;
mod emulation;
mod floats;
mod ghost;
mod gram;
mod halves;
mod integers;
mod keystream;
mod lattice;
mod lattice_encrypt;
mod layouts;
mod long_rows;
mod mask;
mod noise;
mod packing;
mod recorded;
mod select;
mod transforms;

use std::sync::{Arc, OnceLock};

use bytemuck::Zeroable;
use veilsum::backend::cuda::Cuda;
use veilsum::backend::device::DeviceBackend;
use veilsum::backend::scalar::Scalar;
use veilsum::backend::simd::Simd;
use veilsum::backend::simd::isa::Isa;
use veilsum::backend::wgpu::Wgpu;
use veilsum::backend::{Backend, BackendError, BackendKind, EncodeJob, NonFinite, OpenOptions, RowKeys};
use veilsum::math::prg::{Cipher, StreamKey};
use veilsum::params::{EncodeParams, NO_LINF};

pub(crate) use self::device::raw_device;
pub(crate) use self::driver::with_driver;
use self::emulated::Emulated;
pub(crate) use self::emulation::available as emulation_available;

/// The oracle.
fn oracle() -> Scalar {
    Scalar
}

/// The blocked backend on every instruction set of this processor.
fn blocked() -> Vec<Simd> {
    Isa::ALL.into_iter().filter_map(|isa| Simd::with_isa(isa).ok()).collect()
}

/// A stream per number, for tests.
fn stream(n: u8) -> StreamKey {
    StreamKey::from_bytes([n; 32], Cipher::ChaCha8)
}

/// Keys of `rows` rows.
fn row_keys(rows: usize) -> Vec<RowKeys> {
    (0..rows as u8).map(|i| RowKeys { rounding: stream(2 * i), noise: stream(2 * i + 1) }).collect()
}

/// Rotated, plain norm, no bound reached, no noise.
fn plain_params(dim: u32, block_log2: u32) -> EncodeParams {
    EncodeParams {
        dim,
        padded: dim.next_multiple_of(1 << block_log2),
        block_log2,
        rotate: 1,
        bits: 32,
        fraction_bits: 16,
        linf: NO_LINF,
        gamma: 64.0,
        clip: f32::INFINITY,
        norm_bound: EncodeParams::limbs(u128::MAX),
        ..EncodeParams::zeroed()
    }
}

fn job<'a>(params: EncodeParams, signs: &'a StreamKey, keys: &'a [RowKeys]) -> EncodeJob<'a> {
    EncodeJob { params, signs, keys, noise: None, non_finite: NonFinite::Error }
}

/// A backend as the callers hold it.
fn all() -> Vec<Box<dyn Backend>> {
    let mut all: Vec<Box<dyn Backend>> = vec![Box::new(oracle())];
    all.extend(blocked().into_iter().map(|b| Box::new(b) as Box<dyn Backend>));
    all
}

/// Every backend but the oracle, devices among them; these alone where `VEILSUM_GPU` asks for some.
fn others() -> Vec<Box<dyn Backend>> {
    let blocked = if Wanted::from_env() == Wanted::Everything { blocked() } else { Vec::new() };
    blocked
        .into_iter()
        .map(|backend| Box::new(backend) as Box<dyn Backend>)
        .chain(devices().into_iter().map(|backend| Box::new(backend) as Box<dyn Backend>))
        .collect()
}

/// Every backend.
fn everywhere() -> Vec<Box<dyn Backend>> {
    std::iter::once(Box::new(oracle()) as Box<dyn Backend>).chain(others()).collect()
}

/// The backends on devices that this machine has, software adapters among them; never none on a machine of CI.
///
/// They are many times slower than the others: 10^5 to 10^6 elements are much. `VEILSUM_GPU` asks for those of one kind
/// alone ([`Wanted`]), and a test that uses them fails where there is none.
pub(crate) fn devices() -> Vec<DeviceBackend> {
    // Opened once: every device has a queue and pipelines of its own.
    static OPENED: OnceLock<Vec<DeviceBackend>> = OnceLock::new();
    OPENED.get_or_init(open_devices).clone()
}

/// An adapter of another instance, for devices of a test's own; none where [`devices`] has none of wgpu.
pub(crate) fn raw_adapter() -> Option<(wgpu::Instance, wgpu::Adapter)> {
    if devices().iter().all(|d| d.kind() != BackendKind::Wgpu) {
        return None;
    }
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::PRIMARY));
    let cards = matches!(Wanted::from_env(), Wanted::Cards { .. });
    let suits = |a: &wgpu::Adapter| !cards || a.get_info().device_type != wgpu::DeviceType::Cpu;
    let adapter = adapters.into_iter().find(suits).expect("another instance has found an adapter");
    Some((instance, adapter))
}

/// What the variable `VEILSUM_GPU` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// It is not set: the emulation, and every device that there is.
    Everything,
    /// `cuda`, `wgpu`, or `required`: cards alone, of one backend or of any.
    Cards { cuda: bool, wgpu: bool },
    /// `software`: the software adapter alone.
    Software,
}

impl Wanted {
    pub(crate) fn from_env() -> Self {
        match std::env::var("VEILSUM_GPU").unwrap_or_default().as_str() {
            "" => Self::Everything,
            "cuda" => Self::Cards { cuda: true, wgpu: false },
            "wgpu" => Self::Cards { cuda: false, wgpu: true },
            "required" => Self::Cards { cuda: true, wgpu: true },
            "software" => Self::Software,
            other => panic!("VEILSUM_GPU is {other}, expected cuda, wgpu, required (one of both) or software"),
        }
    }
}

/// The devices that `VEILSUM_GPU` asks for; panics, and says what is missing, if there is none.
fn wanted_devices(cuda: bool, wgpu: bool, software: bool) -> Vec<DeviceBackend> {
    let (mut devices, mut missing) = (Vec::new(), Vec::new());
    let mut take = |opened: Result<DeviceBackend, BackendError>| match opened {
        Ok(device) => devices.push(device),
        Err(error) => missing.push(error.to_string()),
    };
    if cuda {
        take(Cuda::open(0).map(|device| DeviceBackend::new(Arc::new(device))));
    }
    if wgpu {
        let options = OpenOptions { allow_software: software, device: 0 };
        take(Wgpu::open(&options).map(|device| DeviceBackend::new(Arc::new(device))));
    }
    assert!(!devices.is_empty(), "VEILSUM_GPU asks for a device that is not here: {}", missing.join("; "));
    devices
}

fn open_devices() -> Vec<DeviceBackend> {
    match Wanted::from_env() {
        Wanted::Everything => {}
        Wanted::Cards { cuda, wgpu } => return wanted_devices(cuda, wgpu, false),
        Wanted::Software => return wanted_devices(false, true, true),
    }
    // The CUDA kernels run on the processor, and on a GPU too where there is one.
    let mut devices = Vec::new();
    match emulation::unavailable() {
        None => devices.push(DeviceBackend::new(Arc::new(Emulated::new()))),
        Some(why) => eprintln!("SKIPPED on emulated CUDA: {why}"),
    }
    devices.extend(Cuda::open(0).ok().map(|device| DeviceBackend::new(Arc::new(device))));
    match Wgpu::open(&OpenOptions { allow_software: true, device: 0 }) {
        Ok(device) => devices.push(DeviceBackend::new(Arc::new(device))),
        Err(error) => {
            assert!(std::env::var("CI").is_err(), "{error}: CI needs mesa-vulkan-drivers and libvulkan1");
            eprintln!("SKIPPED on wgpu: {error}");
        }
    }
    devices
}
