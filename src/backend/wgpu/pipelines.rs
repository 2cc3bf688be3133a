//! Pipelines: compiled at their first launch, and kept.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use super::queue::Shared;
use super::shaders;
use crate::backend::device::failed as device_failed;
use crate::backend::device::{Access, Kernel};
use crate::backend::{BackendError, BackendKind};

/// Pipelines and shader modules by name.
#[derive(Default)]
pub(super) struct Pipelines {
    made: Mutex<HashMap<(&'static str, &'static str), wgpu::ComputePipeline>>,
}

impl fmt::Debug for Pipelines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pipelines(..)")
    }
}

impl Pipelines {
    /// The pipeline of a kernel. Errors: what the compiler of the driver says.
    pub(super) fn get(&self, shared: &Shared, kernel: &Kernel) -> Result<wgpu::ComputePipeline, BackendError> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipeline) = made.get(&(kernel.file, kernel.entry)) {
            return Ok(pipeline.clone());
        }
        let Some(source) = shaders::source(kernel.file) else {
            return Err(device_failed(BackendKind::Wgpu, kernel.file, "there is no such shader"));
        };
        let pipeline = shared.guarded(kernel.entry, 0, || compile(&shared.device, kernel, source))?;
        made.insert((kernel.file, kernel.entry), pipeline.clone());
        Ok(pipeline)
    }
}

fn compile(device: &wgpu::Device, kernel: &Kernel, source: String) -> wgpu::ComputePipeline {
    let label = Some(kernel.entry);
    let source = wgpu::ShaderSource::Wgsl(source.into());
    let descriptor = wgpu::ShaderModuleDescriptor { label: Some(kernel.file), source };
    // Indices stay checked; counting the turns of every loop would keep drivers from unrolling them.
    let checks = wgpu::ShaderRuntimeChecks { force_loop_bounding: false, ..wgpu::ShaderRuntimeChecks::checked() };
    // SAFETY: the shaders are texts of this crate, and every loop in them counts to a limit known before it begins.
    let module = unsafe { device.create_shader_module_trusted(descriptor, checks) };
    let entries: Vec<_> = std::iter::once(uniform(kernel))
        .chain(kernel.buffers.iter().zip(1..).map(|(access, binding)| storage(binding, *access)))
        .collect();
    let group = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label, entries: &entries });
    let bind_group_layouts = &[Some(&group)];
    let layout =
        device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor { label, bind_group_layouts, immediate_size: 0 });
    device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label,
        layout: Some(&layout),
        module: &module,
        entry_point: Some(kernel.entry),
        // No kernel reads group memory that it has not written.
        compilation_options: wgpu::PipelineCompilationOptions {
            constants: &[],
            zero_initialize_workgroup_memory: false,
        },
        cache: None,
    })
}

fn entry(binding: u32, ty: wgpu::BufferBindingType, min: Option<u64>) -> wgpu::BindGroupLayoutEntry {
    let min_binding_size = min.and_then(wgpu::BufferSize::new);
    wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size },
        count: None,
    }
}

fn uniform(kernel: &Kernel) -> wgpu::BindGroupLayoutEntry {
    entry(0, wgpu::BufferBindingType::Uniform, Some(kernel.params as u64))
}

fn storage(binding: u32, access: Access) -> wgpu::BindGroupLayoutEntry {
    entry(binding, wgpu::BufferBindingType::Storage { read_only: access == Access::Read }, None)
}

/// The group of a launch: parameters, then buffers, offsets and lengths in bytes.
pub(super) fn bind(
    device: &wgpu::Device,
    pipeline: &wgpu::ComputePipeline,
    params: wgpu::BufferBinding<'_>,
    slices: &[(&wgpu::Buffer, u64, u64)],
) -> wgpu::BindGroup {
    let buffers = slices.iter().map(|&(buffer, offset, len)| wgpu::BufferBinding {
        buffer,
        offset,
        size: wgpu::BufferSize::new(len),
    });
    let entries: Vec<_> = std::iter::once(params)
        .chain(buffers)
        .zip(0..)
        .map(|(binding, i)| wgpu::BindGroupEntry { binding: i, resource: wgpu::BindingResource::Buffer(binding) })
        .collect();
    let layout = &pipeline.get_bind_group_layout(0);
    device.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout, entries: &entries })
}
