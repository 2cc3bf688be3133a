//! Time of the kernels; ids are `stage/backend/size`, throughput is in elements.
//!
//! `cargo bench --bench kernels` runs all of them, `cargo bench --bench kernels -- fwht` one stage.
//! `RAYON_NUM_THREADS=1` gives the figures of one thread.

use std::hint::black_box;
use std::time::Duration;

use bytemuck::Zeroable;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime,
};
use veilsum::backend::{Backend, BackendKind, Buffer, EncodeJob, NonFinite, RowKeys, Rows, open};
use veilsum::math::prg::{Cipher, StreamKey};
use veilsum::params::{DecodeParams, EncodeParams, FwhtParams, NO_LINF, Ring};
use veilsum::sample::discrete_gaussian;
use veilsum::sample::noise::Noise;
use veilsum::sample::table::NoiseTable;

/// The dimension of the distributed sum estimation.
const DIM: usize = 1 << 16;

fn stream(n: u8) -> StreamKey {
    StreamKey::from_bytes([n; 32], Cipher::ChaCha20)
}

fn group<'a>(c: &'a mut Criterion, stage: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = c.benchmark_group(stage);
    group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_millis(700));
    group
}

/// The oracle only where it ends soon.
fn backends(elements: usize) -> Vec<(&'static str, std::sync::Arc<dyn Backend>)> {
    [BackendKind::Simd, BackendKind::Scalar]
        .into_iter()
        .filter(|kind| *kind == BackendKind::Simd || elements <= DIM)
        .filter_map(|kind| Some((kind.name(), open(Some(kind)).ok()?)))
        .collect()
}

fn fwht(c: &mut Criterion) {
    let mut group = group(c, "fwht");
    for block_log2 in (10..=20).step_by(2) {
        let len = 1usize << block_log2;
        group.throughput(Throughput::Elements(len as u64));
        let params = FwhtParams { len: len as u32, block_log2, scale: (len as f32).sqrt().recip(), _pad: 0 };
        for (name, backend) in backends(len) {
            let mut x = Buffer::HostF32((0..len).map(|i| (i % 17) as f32 - 8.0).collect());
            group.bench_function(BenchmarkId::new(name, len), |b| {
                b.iter(|| backend.fwht(black_box(&mut x), &params).unwrap());
            });
        }
    }
}

fn encode(c: &mut Criterion) {
    let mut group = group(c, "encode");
    group.throughput(Throughput::Elements(DIM as u64));
    let params = EncodeParams {
        dim: DIM as u32,
        padded: DIM as u32,
        block_log2: 16,
        rotate: 1,
        bits: 16,
        fraction_bits: 16,
        linf: NO_LINF,
        gamma: 64.0,
        clip: 1.0,
        norm_bound: EncodeParams::limbs(1 << 44),
        ..EncodeParams::zeroed()
    };
    let rows = Rows::dense((0..DIM).map(|i| (i % 17) as f32 - 8.0).collect(), 1, DIM).unwrap();
    let keys = [RowKeys { rounding: stream(1), noise: stream(2) }];
    let signs = stream(3);
    let table = Noise::from(NoiseTable::skellam(5.95).unwrap());
    for (label, noise) in [("plain", None), ("skellam-5.95", Some(&table))] {
        let job = EncodeJob { params, signs: &signs, keys: &keys, noise, non_finite: NonFinite::Error };
        for (name, backend) in backends(DIM) {
            group.bench_function(BenchmarkId::new(name, format!("{DIM}-{label}")), |b| {
                b.iter(|| backend.encode(black_box(&rows), &job).unwrap());
            });
        }
    }
}

fn noise(c: &mut Criterion) {
    let mut group = group(c, "noise");
    for mu in [5.95, 1428.0] {
        let table = Noise::from(NoiseTable::skellam(mu).unwrap());
        let len = 1 << 14;
        group.throughput(Throughput::Elements(len));
        for (name, backend) in backends(DIM) {
            let mut words = Buffer::HostU32(vec![0; len as usize].into());
            group.bench_function(BenchmarkId::new(name, format!("skellam-{mu}")), |b| {
                b.iter(|| backend.noise(black_box(&mut words), 32, &table, &stream(4)).unwrap());
            });
        }
    }
    let len = 1 << 14;
    group.throughput(Throughput::Elements(len));
    for sigma in [100.0, 1e6] {
        let mut words = vec![0; len as usize];
        group.bench_function(BenchmarkId::new("exact", format!("discrete-gaussian-{sigma}")), |b| {
            b.iter(|| discrete_gaussian::add(black_box(&mut words), 32, sigma, &stream(4)).unwrap());
        });
    }
    for mu in [1428.0, 1e5] {
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("table", format!("skellam-{mu}")), |b| {
            b.iter(|| NoiseTable::skellam(black_box(mu)).unwrap());
        });
    }
}

fn sum(c: &mut Criterion) {
    let mut group = group(c, "sum");
    let rows = 16;
    group.throughput(Throughput::Elements((rows * DIM) as u64));
    let data = Buffer::HostU32((0..(rows * DIM) as u32).collect());
    for (name, backend) in backends(DIM) {
        let mut acc = Buffer::HostU32(vec![0; DIM].into());
        group.bench_function(BenchmarkId::new(name, rows * DIM), |b| {
            b.iter(|| backend.sum(black_box(&mut acc), &data, Ring::Bits(16)).unwrap());
        });
    }
}

fn decode(c: &mut Criterion) {
    let mut group = group(c, "decode");
    group.throughput(Throughput::Elements(DIM as u64));
    let params = DecodeParams {
        dim: DIM as u32,
        padded: DIM as u32,
        block_log2: 16,
        rotate: 1,
        bits: 16,
        unit: 1.0 / 64.0,
        _pad: [0; 2],
    };
    let words = Buffer::HostU32((0..DIM as u32).collect());
    for (name, backend) in backends(DIM) {
        group.bench_function(BenchmarkId::new(name, DIM), |b| {
            b.iter(|| backend.decode(black_box(&words), &params, &stream(3)).unwrap());
        });
    }
}

criterion_group!(kernels, fwht, encode, noise, sum, decode);
criterion_main!(kernels);
