//! Backends on a device: the transform against the oracle, memory, and what goes wrong.

use veilsum::backend::device::{Access, Device, DeviceBuffer, ElementType, Kernel, Launch, Mark};
use veilsum::backend::probe::probe;
use veilsum::backend::wgpu::WgpuMemory;
use veilsum::backend::{BackendError, BackendKind, Buffer, open_with};
use veilsum::params::FwhtParams;

use super::floats::{ULP, assert_close, norm};
use super::*;

/// Numbers in (-1, 1) without a pattern.
fn scattered(len: usize) -> Vec<f32> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / 8_388_608.0 - 1.0).collect()
}

fn params(len: usize, block_log2: u32) -> FwhtParams {
    FwhtParams { len: len as u32, block_log2, scale: 0.5f64.powi(block_log2 as i32).sqrt() as f32, _pad: 0 }
}

fn fwht(backend: &dyn Backend, x: &[f32], block_log2: u32) -> Vec<f32> {
    let mut buffer = Buffer::from(x.to_vec());
    backend.fwht(&mut buffer, &params(x.len(), block_log2)).unwrap();
    buffer.as_f32().unwrap().to_vec()
}

fn assert_transform(backend: &dyn Backend, blocks: usize, block_log2: u32) {
    let x = scattered(blocks << block_log2);
    let expected = fwht(&oracle(), &x, block_log2);
    let bound = f64::from(block_log2 + 2) * ULP * norm(x.iter().map(|&v| f64::from(v)));
    let found = fwht(backend, &x, block_log2);
    assert_close(&found, &expected, bound, &format!("{blocks} blocks of 2^{block_log2}, {}", backend.describe()));
}

#[test]
fn the_transform_is_near_the_oracle_for_every_block_and_number_of_blocks() {
    for backend in devices() {
        for block_log2 in 0..=19 {
            assert_transform(&backend, 1, block_log2);
        }
        for (block_log2, blocks) in [(0, 1001), (1, 777), (2, 333), (5, 1023), (11, 3), (12, 5), (13, 3), (14, 9)] {
            assert_transform(&backend, blocks, block_log2);
        }
        let mut nothing = Buffer::from(Vec::<f32>::new());
        backend.fwht(&mut nothing, &params(0, 3)).unwrap();
        assert_eq!(nothing.len(), 0);
    }
}

/// Three passes of the shader: `H e_j` is the Walsh function j, exact in `f32`.
#[test]
fn the_longest_blocks_turn_unit_vectors_into_walsh_functions() {
    let (n, j) = (1usize << 22, 2_345_678);
    let mut x = vec![0.0; n];
    x[j] = 1.0;
    for backend in devices() {
        let mut y = Buffer::from(x.clone());
        backend.fwht(&mut y, &FwhtParams { len: n as u32, block_log2: 22, scale: 1.0, _pad: 0 }).unwrap();
        let walsh = |i: usize| if (i & j).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 };
        assert!(y.as_f32().unwrap().iter().enumerate().all(|(i, &v)| v == walsh(i)), "{}", backend.describe());
    }
}

#[test]
fn what_is_uploaded_stays_on_the_device_until_it_is_downloaded() {
    for backend in devices() {
        let x = scattered(3 << 10);
        let mut there = backend.upload(&Buffer::from(x.clone())).unwrap();
        assert_eq!((there.len(), there.dtype()), (x.len(), "f32"));
        let twin = there.clone();
        assert_eq!(there, twin);
        backend.fwht(&mut there, &params(x.len(), 10)).unwrap();
        backend.finish().unwrap();
        assert!(matches!(there, Buffer::Device(_)) && there != twin);
        // The clone has kept the values of before, and a host backend takes neither.
        assert_eq!(backend.download(&twin).unwrap().as_f32().unwrap(), x);
        let found = backend.download(&there).unwrap();
        assert_eq!(found.as_f32().unwrap(), fwht(&backend, &x, 10));
        for host in [&oracle() as &dyn Backend, &blocked()[0]] {
            let mut there = there.clone();
            assert!(matches!(host.fwht(&mut there, &params(x.len(), 10)), Err(BackendError::WrongPlace { .. })));
            assert!(matches!(host.download(&there), Err(BackendError::WrongPlace { .. })));
            assert_eq!(host.download(&found).unwrap(), found);
        }
    }
}

#[test]
fn buffers_of_every_type_come_back_as_they_were() {
    let buffers =
        [Buffer::from(vec![1.5f32, -0.0, f32::MIN_POSITIVE]), vec![-1i32, 7].into(), vec![u32::MAX, 0, 1, 2, 3].into()];
    for backend in devices() {
        for buffer in &buffers {
            let there = backend.upload(buffer).unwrap();
            assert_eq!(backend.upload(&there).unwrap(), there);
            assert_eq!(backend.download(&there).unwrap(), *buffer);
        }
    }
}

#[test]
fn a_wrong_argument_is_an_error_and_the_device_still_works() {
    for backend in devices() {
        let mut x = Buffer::from(scattered(64));
        assert!(matches!(backend.fwht(&mut x, &params(32, 3)), Err(BackendError::WrongLength { .. })));
        assert!(matches!(backend.fwht(&mut x, &params(64, 28)), Err(BackendError::OutOfRange { .. })));
        let mut words = Buffer::from(vec![0u32; 64]);
        assert!(matches!(backend.fwht(&mut words, &params(64, 3)), Err(BackendError::WrongType { .. })));
        assert_transform(&backend, 1, 6);
    }
}

#[test]
fn threads_share_a_device() {
    for backend in devices() {
        std::thread::scope(|scope| {
            for block_log2 in [3, 9, 12, 14] {
                let backend = &backend;
                scope.spawn(move || (0..5).for_each(|blocks| assert_transform(backend, 1 + blocks, block_log2)));
            }
        });
    }
}

#[test]
fn uploads_and_downloads_of_many_parts_are_whole() {
    // More than one part of 64 MiB each.
    let words: Vec<u32> = (0..(17 << 20) + 3).collect();
    let there = Buffer::from(words);
    for backend in devices() {
        assert!(backend.download(&backend.upload(&there).unwrap()).unwrap() == there);
    }
}

#[test]
fn too_much_memory_is_an_error_that_says_how_much_and_the_device_still_works() {
    for backend in devices() {
        let words = backend.device().limits().max_memory_words + 1;
        match backend.device().alloc(words, false) {
            Err(BackendError::DeviceMemory { needed, .. }) => assert_eq!(needed, 4 * words),
            other => panic!("{other:?}"),
        }
        assert!(matches!(backend.device().alloc(u64::MAX, true), Err(BackendError::DeviceMemory { .. })));
        assert_transform(&backend, 1, 6);
    }
}

static NO_SUCH_FILE: Kernel =
    Kernel { file: "nothing", entry: "nothing", threads: 1, shared_words: 0, params: 16, buffers: &[Access::Read] };
static NO_SUCH_ENTRY: Kernel = Kernel { file: "fwht", ..NO_SUCH_FILE };

#[test]
fn a_launch_that_cannot_be_is_an_error_and_the_device_still_works() {
    for backend in devices() {
        let device = backend.device();
        let memory = device.alloc(256, false).unwrap();
        let refused = |kernel: &'static Kernel, groups, slice| {
            let launch = Launch { kernel, groups, params: &[0; 16], slices: &[slice] };
            let result = device.launch(&launch).and_then(|()| device.finish());
            assert!(
                matches!(result, Err(BackendError::DeviceFailed { .. } | BackendError::WrongLength { .. })),
                "{result:?}"
            );
        };
        refused(&NO_SUCH_FILE, 1, memory.all());
        refused(&NO_SUCH_ENTRY, 1, memory.all());
        refused(&NO_SUCH_FILE, 0, memory.all());
        refused(&NO_SUCH_FILE, 1 << 33, memory.all());
        refused(&NO_SUCH_FILE, 1, memory.all().part(1, 3));
        refused(&NO_SUCH_FILE, 1, memory.all().part(0, 257));
        refused(&NO_SUCH_FILE, 1, memory.all().part(0, 0));
        let launch = Launch { kernel: &NO_SUCH_FILE, groups: 1, params: &[], slices: &[] };
        assert!(matches!(device.launch(&launch), Err(BackendError::DeviceFailed { .. })));
        assert!(matches!(device.write(&memory, 255, &[1, 2]), Err(BackendError::WrongLength { .. })));
        assert!(matches!(device.read(&memory, 0, &mut [0; 257]), Err(BackendError::WrongLength { .. })));
        let mut words = [1; 256];
        device.read(&memory, 0, &mut words).unwrap();
        assert_eq!(words, [0; 256]);
        assert_transform(&backend, 1, 6);
    }
}

/// Device, queue and name of an adapter, as another library would have made them; none where there is no adapter.
pub(crate) fn raw_device(
    limits: impl FnOnce(&mut wgpu::Limits),
) -> Option<(wgpu::Device, wgpu::Queue, wgpu::AdapterInfo)> {
    let (_, adapter) = raw_adapter()?;
    let mut required_limits = adapter.limits();
    limits(&mut required_limits);
    let descriptor = wgpu::DeviceDescriptor { required_limits, ..Default::default() };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).unwrap();
    Some((device, queue, adapter.get_info()))
}

/// A second device, with limits of its own.
pub(super) fn other_device(limits: impl FnOnce(&mut wgpu::Limits)) -> Option<DeviceBackend> {
    let (device, queue, info) = raw_device(limits)?;
    Some(DeviceBackend::new(Arc::new(Wgpu::from_device(device, queue, &info))))
}

#[test]
fn data_beyond_the_binding_limit_are_split() {
    let Some(backend) = other_device(|limits| limits.max_storage_buffer_binding_size = 1 << 15) else { return };
    assert_eq!(backend.device().limits().max_slice_words, 1 << 13);
    // Whole blocks in several slices, then blocks of 2 to 16 slices.
    for (block_log2, blocks) in [(0, 20_001), (1, 10_001), (3, 3001), (12, 7), (13, 3), (14, 3), (17, 1)] {
        assert_transform(&backend, blocks, block_log2);
    }
}

/// Time on the device is that between two marks, and both are there.
#[test]
fn a_device_with_a_clock_tells_how_long_it_took() {
    for backend in devices() {
        let device = backend.device();
        let x = backend.upload(&Buffer::from(scattered(1 << 12))).unwrap();
        let work = |times| (0..times).for_each(|_| backend.fwht(&mut x.clone(), &params(1 << 12, 12)).unwrap());
        if device.clock().is_none() {
            device.mark(Mark::Begin).and_then(|()| device.mark(Mark::End)).unwrap();
            assert_eq!(device.elapsed().unwrap(), None, "{}", backend.describe());
            continue;
        }
        let begun = std::time::Instant::now();
        let mut least = f64::INFINITY;
        for _ in 0..3 {
            device.mark(Mark::Begin).unwrap();
            work(4);
            device.mark(Mark::End).unwrap();
            least = least.min(device.elapsed().unwrap().unwrap());
        }
        assert!(least > 0.0 && least < begun.elapsed().as_secs_f64(), "{least} on {}", backend.describe());
    }
}

#[test]
fn a_buffer_of_another_device_is_an_error() {
    let Some(other) = other_device(|_| ()) else { return };
    for backend in devices() {
        let mut x = other.upload(&Buffer::from(scattered(8))).unwrap();
        assert!(matches!(backend.fwht(&mut x, &params(8, 3)), Err(BackendError::WrongPlace { .. })));
        assert!(matches!(backend.download(&x), Err(BackendError::WrongPlace { .. })));
        assert!(matches!(backend.upload(&x), Err(BackendError::WrongPlace { .. })));
    }
}

#[test]
fn a_lost_device_is_an_error_again_and_again() {
    let Some((device, queue, info)) = raw_device(|_| ()) else { return };
    let backend = DeviceBackend::new(Arc::new(Wgpu::from_device(device.clone(), queue, &info)));
    let x = backend.upload(&Buffer::from(scattered(8))).unwrap();
    device.destroy();
    for _ in 0..3 {
        let lost = |result: Result<(), BackendError>| {
            assert!(matches!(result, Err(BackendError::DeviceLost { backend: "wgpu", .. })), "{result:?}");
        };
        lost(backend.fwht(&mut x.clone(), &params(8, 3)));
        lost(backend.download(&x).map(drop));
        lost(backend.upload(&Buffer::from(vec![1u32])).map(drop));
        lost(backend.finish());
    }
}

#[test]
fn memory_made_elsewhere_is_read_at_any_offset_and_never_written() {
    let Some((device, queue, info)) = raw_device(|_| ()) else { return };
    let x = scattered(100);
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let pool =
        device.create_buffer(&wgpu::BufferDescriptor { label: None, size: 400, usage, mapped_at_creation: false });
    queue.write_buffer(&pool, 0, bytemuck::cast_slice(&x));
    let wgpu = Wgpu::from_device(device, queue, &info);
    let memory = wgpu.foreign(pool).unwrap();
    let backend = DeviceBackend::new(Arc::new(wgpu));
    for (offset, len) in [(0, 64), (3, 64), (36, 64)] {
        let mut rows = Buffer::Device(DeviceBuffer::new(memory.clone(), offset as u64, len, ElementType::F32).unwrap());
        assert_eq!(backend.download(&rows).unwrap().as_f32().unwrap(), &x[offset..offset + len]);
        backend.fwht(&mut rows, &params(len, 4)).unwrap();
        let expected = fwht(&backend, &x[offset..offset + len], 4);
        assert_eq!(backend.download(&rows).unwrap().as_f32().unwrap(), expected);
    }
    let whole = Buffer::Device(DeviceBuffer::new(memory.clone(), 0, 100, ElementType::F32).unwrap());
    assert_eq!(backend.download(&whole).unwrap().as_f32().unwrap(), x);
    assert!(DeviceBuffer::new(memory, 1, 100, ElementType::F32).is_err());
}

#[test]
fn a_secret_is_wiped_when_its_memory_is_dropped() {
    let Some((device, queue, info)) = raw_device(|_| ()) else { return };
    let wgpu = Wgpu::from_device(device, queue, &info);
    for (secret, left) in [(false, 7), (true, 0)] {
        let memory = wgpu.alloc(8, secret).unwrap();
        wgpu.write(&memory, 0, &[7; 8]).unwrap();
        let buffer = memory.storage::<WgpuMemory>().unwrap().buffer().clone();
        drop(memory);
        let mut words = [1; 8];
        wgpu.read(&wgpu.foreign(buffer).unwrap(), 0, &mut words).unwrap();
        assert_eq!(words, [left; 8]);
    }
}

#[test]
fn a_software_adapter_is_refused_unless_it_is_asked_for() {
    let refused = probe(&OpenOptions::default());
    let allowed = probe(&OpenOptions { allow_software: true, device: 0 });
    assert_eq!(refused.len(), allowed.len());
    for (refused, allowed) in refused.iter().zip(&allowed) {
        let software = refused.class == "software adapter";
        assert_eq!(software, refused.refused.is_some() && allowed.refused.is_none(), "{refused:?}");
    }
    let adapters = || refused.iter().filter(|found| found.backend == BackendKind::Wgpu);
    let hardware = adapters().any(|found| found.refused.is_none());
    match open_with(Some(BackendKind::Wgpu), &OpenOptions::default()) {
        Ok(backend) => assert!(hardware && backend.kind() == BackendKind::Wgpu),
        Err(BackendError::Unavailable { name, reason }) => {
            assert!(!hardware && name == "wgpu", "{reason}");
            assert!(adapters().all(|found| found.name.as_ref().is_none_or(|n| reason.contains(n))), "{reason}");
        }
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn without_a_name_the_first_backend_that_exists_is_opened_and_says_why() {
    let found = probe(&OpenOptions::default());
    let first = found.iter().find(|found| found.refused.is_none()).expect("the processor is never refused");
    for _ in 0..2 {
        let backend = open_with(None, &OpenOptions::default()).unwrap();
        assert_eq!(backend.kind(), first.backend);
        if backend.kind() == BackendKind::Simd {
            let description = backend.describe();
            assert!(description.contains("no cuda: ") && description.contains("no wgpu: "), "{description}");
        }
    }
}
