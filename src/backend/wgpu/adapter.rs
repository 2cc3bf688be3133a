//! Which adapters there are, and which one is taken.

use wgpu::{Backends, DeviceType};

use crate::backend::probe::Found;
use crate::backend::{BackendError, BackendKind, OpenOptions};

fn all() -> (wgpu::Instance, Vec<wgpu::Adapter>) {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = Backends::VULKAN | Backends::METAL | Backends::DX12;
    // No validation layers: they are not ours to ask for, and errors of wgpu itself come without them.
    descriptor.flags = wgpu::InstanceFlags::empty();
    let instance = wgpu::Instance::new(descriptor);
    let mut adapters = pollster::block_on(instance.enumerate_adapters(Backends::all()));
    adapters.sort_by_key(|adapter| rank(adapter.get_info().device_type));
    (instance, adapters)
}

/// Every adapter of this machine, the best first; one entry that says so if there is none.
#[must_use]
pub fn probe(options: &OpenOptions) -> Vec<Found> {
    let found: Vec<Found> = all().1.iter().map(|adapter| entry(adapter, options)).collect();
    if found.is_empty() { vec![Found::nothing(BackendKind::Wgpu, NO_ADAPTER.into())] } else { found }
}

const NO_ADAPTER: &str = "no adapter: neither a Vulkan driver (Linux), Metal (macOS) nor DX12 (Windows) was found";

fn entry(adapter: &wgpu::Adapter, options: &OpenOptions) -> Found {
    let (info, limits) = (adapter.get_info(), adapter.limits());
    Found {
        backend: BackendKind::Wgpu,
        class: match info.device_type {
            DeviceType::DiscreteGpu => "discrete GPU",
            DeviceType::IntegratedGpu => "integrated GPU",
            DeviceType::VirtualGpu => "virtual GPU",
            DeviceType::Cpu => "software adapter",
            DeviceType::Other => "other",
        },
        driver: driver(&info),
        limits: vec![
            ("buffer_bytes", limits.max_buffer_size),
            ("binding_bytes", limits.max_storage_buffer_binding_size),
            ("group_bytes", u64::from(limits.max_compute_workgroup_storage_size)),
            ("group_threads", u64::from(limits.max_compute_invocations_per_workgroup)),
            ("subgroup_least", u64::from(info.subgroup_min_size)),
            ("subgroup_most", u64::from(info.subgroup_max_size)),
        ],
        refused: refusal(adapter, &info, options),
        name: Some(info.name),
    }
}

/// The order in which adapters are tried.
const fn rank(kind: DeviceType) -> u32 {
    match kind {
        DeviceType::DiscreteGpu => 0,
        DeviceType::IntegratedGpu => 1,
        DeviceType::VirtualGpu => 2,
        DeviceType::Other => 3,
        DeviceType::Cpu => 4,
    }
}

fn refusal(adapter: &wgpu::Adapter, info: &wgpu::AdapterInfo, options: &OpenOptions) -> Option<String> {
    if info.device_type == DeviceType::Cpu && !options.allow_software {
        return Some(format!(
            "a software adapter, many times slower than simd ({}=1 allows it for tests)",
            OpenOptions::ALLOW_SOFTWARE
        ));
    }
    let limits = adapter.limits();
    let least = wgpu::Limits::default();
    let storage = limits.max_compute_workgroup_storage_size;
    if storage < least.max_compute_workgroup_storage_size {
        return Some(format!("{storage} bytes of group memory, 16384 needed"));
    }
    let threads = limits.max_compute_invocations_per_workgroup;
    (threads < least.max_compute_invocations_per_workgroup).then(|| format!("groups of {threads} threads, 256 needed"))
}

/// The best adapter that is not refused, or one of several of its kind.
pub(super) fn pick(options: &OpenOptions) -> Result<(wgpu::Instance, wgpu::Adapter), BackendError> {
    let (mut reasons, mut best) = (Vec::new(), Vec::new());
    let (instance, adapters) = all();
    for adapter in adapters {
        let info = adapter.get_info();
        match refusal(&adapter, &info, options) {
            None if best.first().is_none_or(|(kind, _)| *kind == info.device_type) => {
                best.push((info.device_type, adapter));
            }
            None => {}
            Some(reason) => reasons.push(format!("{}: {reason}", info.name)),
        }
    }
    if !best.is_empty() {
        let (_, adapter) = best.swap_remove(options.device % best.len());
        return Ok((instance, adapter));
    }
    if reasons.is_empty() {
        reasons.push(NO_ADAPTER.into());
    }
    Err(unavailable(reasons.join("; ")))
}

/// A device with everything that the adapter allows.
pub(super) fn request(adapter: &wgpu::Adapter) -> Result<(wgpu::Device, wgpu::Queue), BackendError> {
    let clock = wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::TIMESTAMP_QUERY_INSIDE_ENCODERS;
    let ours = clock | wgpu::Features::SUBGROUP;
    // The autodiff framework asks the adapter, not the device, which types its kernels may use.
    let types = wgpu::Features::SHADER_F16
        | wgpu::Features::SHADER_F64
        | wgpu::Features::SHADER_INT64
        | wgpu::Features::SHADER_FLOAT32_ATOMIC;
    let descriptor = wgpu::DeviceDescriptor {
        label: Some("veilsum"),
        required_features: adapter.features() & (ours | types),
        required_limits: adapter.limits(),
        ..Default::default()
    };
    pollster::block_on(adapter.request_device(&descriptor)).map_err(|error| unavailable(error.to_string()))
}

fn unavailable(reason: String) -> BackendError {
    BackendError::Unavailable { name: "wgpu".into(), reason }
}

/// Interface and driver.
fn driver(info: &wgpu::AdapterInfo) -> String {
    format!("{:?}, {} {}", info.backend, info.driver, info.driver_info).trim().to_owned()
}

/// Name, interface and driver in one line.
pub(super) fn describe(info: &wgpu::AdapterInfo) -> String {
    let software = if info.device_type == DeviceType::Cpu { ", software" } else { "" };
    format!("wgpu ({}, {}{software})", info.name, driver(info))
}
