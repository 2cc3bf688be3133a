//! Training on the device that runs the kernels: gradient rows next to those of the processor, the way from the backward
//! pass to packed integers without the host, memory that is not taken away, errors.

mod cohort;
mod runs;

use std::path::Path;
use std::sync::Arc;

use veilsum::backend::cuda::{Cuda, compiler};
use veilsum::backend::device::{Device, DeviceBackend};
use veilsum::backend::wgpu::Wgpu;
use veilsum::backend::{Backend, BackendError, BackendKind, Buffer, EncodeJob, NonFinite, RowKeys, Rows};
use veilsum::data::Batch;
use veilsum::math::prg::{Cipher, StreamKey};
use veilsum::model::{Clients, LocalConfig, LocalTrainer, ModelConfig, ModelError, trainer_for, trainer_on};
use veilsum::params::{EncodeParams, NO_LINF};

use crate::kernels::{devices, raw_adapter};

const LOCAL: LocalConfig =
    LocalConfig { epochs: 2, batch_size: 7, learning_rate: 0.1, momentum: 0.5, weight_decay: 0.01, proximal: 0.2 };

/// The device of wgpu that the kernels are tested on; none where there is none (a failure in CI).
fn device() -> Option<DeviceBackend> {
    devices().into_iter().find(|device| device.kind() == BackendKind::Wgpu)
}

fn wgpu(backend: &DeviceBackend) -> &Wgpu {
    let device: &dyn std::any::Any = Backend::device(backend).unwrap();
    device.downcast_ref().unwrap()
}

/// The card of a backend; nothing of the emulation.
fn cuda(backend: &DeviceBackend) -> Option<&Cuda> {
    let device: &dyn std::any::Any = Backend::device(backend).unwrap();
    device.downcast_ref()
}

/// A card that clients can train on; says why there is none.
fn card() -> Option<DeviceBackend> {
    let found = devices().into_iter().find(|device| cuda(device).is_some());
    let why = match &found {
        None => "there is no card".to_owned(),
        Some(device) => match compiler::ready(cuda(device).unwrap().info()) {
            Ok(()) => return found,
            Err(why) => why,
        },
    };
    eprintln!("SKIPPED: training on CUDA: {why}");
    None
}

/// Every device that clients can train on here.
fn trained_on() -> Vec<DeviceBackend> {
    device().into_iter().chain(card()).collect()
}

fn key(byte: u8) -> StreamKey {
    StreamKey::from_bytes([byte; 32], Cipher::ChaCha20)
}

fn mlp(sizes: &[usize]) -> ModelConfig {
    ModelConfig::Mlp(sizes.to_vec())
}

/// Normal features and uniform labels.
fn synthetic(len: usize, dim: usize, classes: u64) -> Batch {
    let mut reader = key(9).reader(0);
    Batch {
        features: (0..len * dim).map(|_| reader.next_normal() as f32).collect(),
        labels: (0..len).map(|_| reader.below(classes) as u32).collect(),
        dim,
    }
}

fn part(batch: &Batch, samples: std::ops::Range<usize>) -> Batch {
    let features = batch.features[samples.start * batch.dim..samples.end * batch.dim].to_vec();
    Batch { features, labels: batch.labels[samples].to_vec(), dim: batch.dim }
}

/// Row i of rows on the host or on `backend`.
fn values(backend: &dyn Backend, rows: &Rows) -> Vec<Vec<f32>> {
    let all = backend.to_host(rows.buffer.clone()).unwrap();
    let start = |i| rows.offset + i * rows.stride;
    (0..rows.rows).map(|i| all.as_f32().unwrap()[start(i)..start(i) + rows.dim].to_vec()).collect()
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum::<f64>().sqrt()
}

/// How far a row may be from that of the processor, and all rows together, as shares of their norms.
struct Tolerance {
    row: f64,
    all: f64,
}

/// Products of matrices are of TF32 on CUDA, and one in a thousand units of a hidden layer is on for one side alone.
fn tolerance(backend: &DeviceBackend) -> Tolerance {
    match backend.kind() {
        BackendKind::Cuda => Tolerance { row: 0.5, all: 0.1 },
        _ => Tolerance { row: 1e-5, all: 1e-5 },
    }
}

fn near(found: &[Vec<f32>], expected: &[Vec<f32>], most: &Tolerance, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let norm = |row: &[f32]| distance(row, &vec![0.0; row.len()]);
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let (norm, off) = (norm(expected), distance(found, expected));
        assert!(norm > 1e-3 && off <= most.row * norm, "{what}, row {i}: {off:e} of {norm}");
    }
    let (found, expected) = (found.concat(), expected.concat());
    let (norm, off) = (norm(&expected), distance(&found, &expected));
    assert!(off <= most.all * norm, "{what}: {off:e} of {norm}");
}

fn same_bits(a: &[Vec<f32>], b: &[Vec<f32>]) {
    let bits = |rows: &[Vec<f32>]| rows.iter().flatten().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert!(bits(a) == bits(b));
}

/// True where a buffer is memory that the kernels only read: of a tensor.
fn is_tensor(rows: &Rows) -> bool {
    let Buffer::Device(buffer) = &rows.buffer else { panic!("the rows are on the host") };
    buffer.slice().memory.foreign()
}

#[test]
fn rows_deltas_and_logits_are_near_those_of_the_processor() {
    trained_on().iter().for_each(is_near_the_processor);
}

fn is_near_the_processor(device: &DeviceBackend) {
    let most = tolerance(device);
    for (sizes, len) in [(&[196, 40, 10][..], 37), (&[64, 20, 20, 10], 33), (&[30, 10], 300), (&[3, 1, 2], 5)] {
        let what = format!("{} {sizes:?}", device.kind().name());
        let there = trainer_on(&mlp(sizes), Arc::new(device.clone())).unwrap();
        let here = trainer_for(&mlp(sizes)).unwrap();
        let weights = here.init(&key(4));
        assert_eq!(weights, there.init(&key(4)));
        let batch = synthetic(len, sizes[0], sizes[sizes.len() - 1] as u64);
        let rows = |trainer: &dyn LocalTrainer| values(device, &trainer.gradient_rows(&weights, &batch).unwrap());
        near(&rows(&*there), &rows(&*here), &most, &what);
        let logits = |trainer: &dyn LocalTrainer| vec![trainer.logits(&weights, &batch).unwrap()];
        near(&logits(&*there), &logits(&*here), &most, &what);
        // Clients of 0, 1 and more samples.
        let ends = [0, 0, 1, 12, len];
        let shard = |i: usize| part(&batch, ends[i].min(len)..ends[i + 1].min(len).max(ends[i].min(len)));
        let clients = Clients { count: 4, shard: &shard, key: &|i| key(20 + i as u8) };
        for (name, work) in [("delta", true), ("mean", false)] {
            let rows = |trainer: &dyn LocalTrainer| {
                let rows = if work {
                    trainer.delta_rows(&weights, &clients, &LOCAL)
                } else {
                    trainer.mean_rows(&weights, &clients)
                };
                values(device, &rows.unwrap())
            };
            let (found, expected) = (rows(&*there), rows(&*here));
            assert!(found[0].iter().chain(&expected[0]).all(|&x| x == 0.0), "{what}");
            let present = if len > 12 { 1..4 } else { 1..3 };
            near(&found[present.clone()], &expected[present], &most, &format!("{what} {name}"));
        }
        let delta = |trainer: &dyn LocalTrainer| vec![trainer.local_delta(&weights, &batch, &LOCAL, &key(7)).unwrap()];
        near(&delta(&*there), &delta(&*here), &most, &what);
    }
}

#[test]
fn a_row_has_the_same_bits_in_every_batch_and_every_run() {
    trained_on().iter().for_each(has_the_same_bits);
}

fn has_the_same_bits(device: &DeviceBackend) {
    let trainer = trainer_on(&mlp(&[20, 9, 5]), Arc::new(device.clone())).unwrap();
    let (weights, batch) = (trainer.init(&key(1)), synthetic(600, 20, 5));
    let rows = |samples| values(device, &trainer.gradient_rows(&weights, &part(&batch, samples)).unwrap());
    let whole = rows(0..600);
    same_bits(&whole, &rows(0..600));
    same_bits(&whole[..1], &rows(0..1));
    same_bits(&whole[..100], &rows(0..100));
    same_bits(&whole[256..600], &rows(256..600));
    let delta = || vec![trainer.local_delta(&weights, &part(&batch, 0..50), &LOCAL, &key(2)).unwrap()];
    same_bits(&delta(), &delta());
}

#[test]
fn nothing_is_read_back_between_the_backward_pass_and_the_packed_integers() {
    // Devices of their own: others read back at the same time.
    if let Some(backend) = other_device(|_| ()) {
        reads_nothing_back(&backend, || wgpu(&backend).bytes_read());
    }
    if card().is_some() {
        let backend = DeviceBackend::new(Arc::new(Cuda::open(0).unwrap()));
        reads_nothing_back(&backend, || cuda(&backend).unwrap().bytes_read());
    }
}

fn reads_nothing_back(backend: &DeviceBackend, bytes_read: impl Fn() -> u64) {
    let trainer = trainer_on(&mlp(&[64, 20, 20, 10]), Arc::new(backend.clone())).unwrap();
    let weights = trainer.init(&key(3));
    let dim = weights.len() as u32;
    let params = EncodeParams {
        dim,
        padded: dim.next_multiple_of(1 << 12),
        block_log2: 12,
        rotate: 1,
        bits: 12,
        fraction_bits: 16,
        linf: NO_LINF,
        gamma: 64.0,
        clip: 1.0,
        norm_bound: EncodeParams::limbs(u128::MAX),
        ..bytemuck::Zeroable::zeroed()
    };
    let all = synthetic(300, 64, 10);
    let shard = |i: usize| part(&all, 3 * i..3 * i + 3);
    let clients = Clients { count: 40, shard: &shard, key: &|i| key(i as u8) };
    // One tensor as it is, several tensors copied, means and deltas of clients.
    type Make<'a> = &'a dyn Fn() -> Result<Rows, ModelError>;
    let kinds: [(&str, usize, bool, Make<'_>); 4] = [
        ("rows", 40, true, &|| trainer.gradient_rows(&weights, &part(&all, 0..40))),
        ("copied rows", 300, false, &|| trainer.gradient_rows(&weights, &all)),
        ("means", 40, false, &|| trainer.mean_rows(&weights, &clients)),
        ("deltas", 40, false, &|| trainer.delta_rows(&weights, &clients, &LOCAL)),
    ];
    for (name, count, tensor, make) in kinds {
        let keys: Vec<RowKeys> = (0..count).map(|i| RowKeys { rounding: key(i as u8), noise: key(!i as u8) }).collect();
        let signs = key(77);
        let job = EncodeJob { params, signs: &signs, keys: &keys, noise: None, non_finite: NonFinite::ZeroRow };
        let before = bytes_read();
        let rows = make().unwrap();
        assert_eq!(bytes_read(), before, "{name}: made on the device");
        assert_eq!(is_tensor(&rows), tensor, "{name}");
        let (packed, report) = backend.encode_packed(&rows, &job).unwrap();
        // The records of the rows, 8 words each, and the integers themselves.
        let read = bytes_read() - before;
        assert_eq!(read, (32 * count + packed.bytes.len()) as u64, "{name}");
        assert!(packed.bytes.iter().any(|&b| b != 0) && report.zeroed == 0, "{name}");
        // What was encoded are these rows.
        let host = values(backend, &rows).concat();
        let host = Rows::dense(host, count, dim as usize).unwrap();
        assert_eq!(backend.encode_packed(&host, &job).unwrap().0.bytes, packed.bytes, "{name}");
    }
}

/// Only what is not generic over the framework's backends, and is instantiated for the processor, asks it for values.
#[test]
fn the_framework_is_asked_for_values_on_the_processor_only() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/model");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let asks = ["into_data", "to_data", "into_scalar", "try_into", "read_one", "read_tensor", "read_async", ".sync("];
    let asking = |name: &str| asks.iter().any(|ask| read(name).contains(ask));
    assert!(asking("burn_trainer/flex.rs"));
    assert!(!asking("burn_trainer.rs"));
    for entry in std::fs::read_dir(folder.join("burn_trainer")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name == "flex.rs" || !asking(&format!("burn_trainer/{name}")), "{name}");
    }
}

#[test]
fn rows_stay_as_they_are_while_training_goes_on() {
    trained_on().iter().for_each(keeps_rows);
}

fn keeps_rows(device: &DeviceBackend) {
    let trainer = trainer_on(&mlp(&[64, 20, 10]), Arc::new(device.clone())).unwrap();
    let (mut weights, batch) = (trainer.init(&key(3)), synthetic(64, 64, 10));
    let kept = trainer.gradient_rows(&weights, &batch).unwrap();
    let first = values(device, &kept);
    for _ in 0..5 {
        weights.iter_mut().for_each(|w| *w *= 0.5);
        let next = trainer.gradient_rows(&weights, &batch).unwrap();
        assert!(distance(&values(device, &next)[0], &first[0]) > 0.0);
        trainer.local_delta(&weights, &batch, &LOCAL, &key(1)).unwrap();
    }
    same_bits(&values(device, &kept), &first);
    drop(trainer);
    same_bits(&values(device, &kept), &first);
}

#[test]
fn bad_input_is_an_error_and_nothing_is_no_error() {
    trained_on().iter().for_each(refuses_bad_input);
}

fn refuses_bad_input(device: &DeviceBackend) {
    let backend: Arc<dyn Backend> = Arc::new(device.clone());
    let trainer = trainer_on(&mlp(&[4, 3]), backend.clone()).unwrap();
    let (weights, batch) = (vec![0.5; 15], synthetic(4, 4, 3));
    assert!(matches!(
        trainer.gradient_rows(&weights[1..], &batch),
        Err(ModelError::WrongLength { expected: 15, found: 14, .. })
    ));
    let strange = Batch { labels: vec![0, 1, 2, 3], ..batch.clone() };
    assert!(matches!(
        trainer.mean_rows(&weights, &Clients { count: 1, shard: &|_| strange.clone(), key: &|_| key(0) }),
        Err(ModelError::Label { sample: 3, found: 3, classes: 3 })
    ));
    let config = LocalConfig { epochs: 0, ..LOCAL };
    assert!(matches!(trainer.local_delta(&weights, &batch, &config, &key(1)), Err(ModelError::Setting { .. })));
    let none = part(&batch, 0..0);
    assert_eq!(trainer.gradient_rows(&weights, &none).unwrap().rows, 0);
    assert!(trainer.logits(&weights, &none).unwrap().is_empty());
    let nan = Batch { features: vec![f32::NAN; 16], ..batch };
    let rows = values(device, &trainer.gradient_rows(&weights, &nan).unwrap());
    assert!(rows.iter().all(|row| row.iter().any(|g| g.is_nan())));
}

/// A model that one binding cannot hold; a backend without a device, or with one that the framework does not know.
#[test]
fn a_device_that_cannot_train_the_model_is_refused() {
    let Some(small) = other_device(|limits| limits.max_storage_buffer_binding_size = 1 << 16) else { return };
    let refused = |result: Result<Arc<dyn LocalTrainer>, ModelError>| match result {
        Err(ModelError::Backend(error)) => error.to_string(),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("accepted"),
    };
    let message = refused(trainer_on(&mlp(&[200, 100]), Arc::new(small)));
    assert!(message.contains("20100 parameters, expected at most 16384"), "{message}");
    let message = refused(trainer_on(&mlp(&[4, 3]), veilsum::backend::open(Some(BackendKind::Simd)).unwrap()));
    assert!(message.contains("simd") && message.contains("wgpu"), "{message}");
    let emulated = devices().into_iter().find(|d| d.kind() == BackendKind::Cuda && cuda(d).is_none());
    if let Some(emulated) = emulated {
        let message = refused(trainer_on(&mlp(&[4, 3]), Arc::new(emulated)));
        assert!(message.contains("a device of cuda to train on"), "{message}");
    }
}

/// What is left of the card's memory is not enough: an error with numbers, after which the trainer works.
#[test]
fn a_card_without_room_says_how_much_was_needed_and_still_works() {
    let Some(device) = card() else { return };
    let card = cuda(&device).unwrap();
    let trainer = trainer_on(&mlp(&[3000, 2000, 2]), Arc::new(device.clone())).unwrap();
    let (weights, batch) = (trainer.init(&key(1)), synthetic(64, 3000, 2));
    let taken = card.alloc_unset(card.free_bytes().unwrap() / 100 * 99 / 4).unwrap();
    let result = trainer.gradient_rows(&weights, &batch);
    assert!(
        matches!(&result, Err(ModelError::Backend(BackendError::DeviceMemory { backend: "cuda", needed, free: Some(free) }))
            if needed > free),
        "{result:?}"
    );
    // The pool of the kernels keeps it until the framework finds no room.
    drop(taken);
    let small = trainer_on(&mlp(&[30, 10]), Arc::new(device.clone())).unwrap();
    let (weights, batch) = (small.init(&key(2)), synthetic(3, 30, 10));
    let expected = trainer_for(&mlp(&[30, 10])).unwrap().gradient_rows(&weights, &batch).unwrap();
    let found = small.gradient_rows(&weights, &batch).unwrap();
    near(&values(&device, &found), &values(&device, &expected), &tolerance(&device), "afterwards");
}

/// Buffers of Burn's pools may be as large as a binding: here the device refuses those.
#[test]
fn a_device_that_refuses_memory_is_an_error_and_still_works() {
    let Some(device) = other_device(|limits| limits.max_buffer_size = 20 << 20) else { return };
    let trainer = trainer_on(&mlp(&[2000, 1000, 2]), Arc::new(device.clone())).unwrap();
    let weights = trainer.init(&key(1));
    for _ in 0..2 {
        let result = trainer.gradient_rows(&weights, &synthetic(2, 2000, 2));
        assert!(matches!(result, Err(ModelError::Backend(_))), "{result:?}");
        assert!(!matches!(result, Err(ModelError::Backend(BackendError::DeviceLost { .. }))), "{result:?}");
        let small = trainer_on(&mlp(&[30, 10]), Arc::new(device.clone())).unwrap();
        let (weights, batch) = (small.init(&key(2)), synthetic(3, 30, 10));
        let expected = trainer_for(&mlp(&[30, 10])).unwrap().gradient_rows(&weights, &batch).unwrap();
        let found = small.gradient_rows(&weights, &batch).unwrap();
        near(&values(&device, &found), &values(&device, &expected), &tolerance(&device), "afterwards");
    }
}

#[test]
fn a_lost_device_is_an_error_of_every_call() {
    let Some(device) = other_device(|_| ()) else { return };
    let trainer = trainer_on(&mlp(&[30, 10]), Arc::new(device.clone())).unwrap();
    let (weights, batch) = (trainer.init(&key(2)), synthetic(3, 30, 10));
    trainer.gradient_rows(&weights, &batch).unwrap();
    wgpu(&device).device().destroy();
    let clients = Clients { count: 2, shard: &|_| synthetic(3, 30, 10), key: &|_| key(1) };
    let lost = |result: Result<(), ModelError>| {
        assert!(
            matches!(result, Err(ModelError::Backend(BackendError::DeviceLost { backend: "wgpu", .. }))),
            "{result:?}"
        );
    };
    let used = |rows: Rows| Ok(device.download(&rows.buffer).map(drop)?);
    for _ in 0..2 {
        lost(trainer.gradient_rows(&weights, &batch).and_then(used));
        lost(trainer.logits(&weights, &batch).map(drop));
        lost(trainer.local_delta(&weights, &batch, &LOCAL, &key(1)).map(drop));
        lost(trainer.mean_rows(&weights, &clients).and_then(used));
    }
}

/// A second device, with limits of its own, that Burn may be told of.
fn other_device(limits: impl FnOnce(&mut wgpu::Limits)) -> Option<DeviceBackend> {
    let (instance, adapter) = raw_adapter()?;
    let mut required_limits = adapter.limits();
    limits(&mut required_limits);
    let required_features = adapter.features()
        & (wgpu::Features::SHADER_INT64
            | wgpu::Features::SHADER_F64
            | wgpu::Features::SHADER_F16
            | wgpu::Features::SHADER_FLOAT32_ATOMIC
            | wgpu::Features::SUBGROUP
            | wgpu::Features::TIMESTAMP_QUERY);
    let descriptor = wgpu::DeviceDescriptor { required_limits, required_features, ..Default::default() };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).unwrap();
    let wgpu = Wgpu::from_device(device, queue, &adapter.get_info()).with_origin(instance, adapter);
    Some(DeviceBackend::new(Arc::new(wgpu)))
}
