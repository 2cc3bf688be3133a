//! Criterion's statistics of the kernels in the table of `veilsum bench`; ids are `stage/backend/size`, with
//! the variant of a stage behind the size. Throughput is in elements.
//!
//! `cargo bench --bench kernels` runs all of them, `cargo bench --bench kernels -- fwht` one stage.
//! `RAYON_NUM_THREADS=1` gives the figures of one thread. The limits of the machine: `veilsum bench`.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use veilsum::backend::scalar::fwht;
use veilsum::bench::request::{Case, Request, plan};
use veilsum::bench::stages::STAGES;
use veilsum::sample::table::NoiseTable;

/// Every stage at its usual sizes on both backends; the oracle only where it ends soon.
fn kernels(c: &mut Criterion) {
    for stage in STAGES {
        let backends = ["simd", "scalar"].map(str::to_owned).to_vec();
        let request = Request { stages: vec![stage.name.to_owned()], backends, ..Request::default() };
        let mut group = c.benchmark_group(stage.name);
        group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_millis(700));
        for case in plan(&request).expect("the defaults of the table fit") {
            let backend = case.target.backend.kind().name();
            group.throughput(Throughput::Elements(case.cost().elements as u64));
            group.bench_function(BenchmarkId::new(backend, case.parameter()), |b| measure(b, &case));
        }
    }
}

fn measure(b: &mut criterion::Bencher<'_>, case: &Case) {
    let mut call = case.open().unwrap_or_else(|e| panic!("{}: {e}", case.id()));
    b.iter(|| call().unwrap_or_else(|e| panic!("{}: {e}", case.id())));
}

/// The blocked transform, one lane at a time: the yardstick of `fwht/simd`, at the same sizes.
fn blocked(c: &mut Criterion) {
    let mut group = c.benchmark_group("fwht");
    group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_millis(700));
    for dim in [1 << 12, 1 << 16, 1 << 20] {
        let mut x = vec![0f32; dim];
        group.throughput(Throughput::Elements(dim as u64));
        group.bench_function(BenchmarkId::new("blocked", dim), |b| b.iter(|| fwht::blocked(black_box(&mut x))));
    }
}

/// How long a noise table takes to make.
fn tables(c: &mut Criterion) {
    let mut group = c.benchmark_group("table");
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_millis(700));
    for mu in [5.95, 1428.0, 1e5] {
        group.bench_function(BenchmarkId::new("skellam", mu), |b| b.iter(|| NoiseTable::skellam(mu)));
    }
}

criterion_group!(benches, kernels, blocked, tables);
criterion_main!(benches);
