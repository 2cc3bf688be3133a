//! What this machine can do, measured on the spot with the same instruction set and threads.
//!
//! The least time of a call with cost [`Cost`] is
//!
//! ```text
//! memory  = sum over motions    of bytes / bandwidth of that motion in the level that holds the footprint
//! ports_k = operations of kind k / rate of that kind in registers
//! compute = max_k ports_k + sharing * (sum_k ports_k - max_k ports_k)
//! limit   = max(memory, compute)
//! ```
//!
//! `sharing` is 1 where all kinds of vector instructions go through the same ports (x86 cores of Intel) and
//! 0 where each kind has ports of its own; it is measured with as many float as word operations in one loop.
//! A kernel can beat this limit a little: probes are short and clocks change.

use std::sync::{Barrier, Mutex, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::cost::{Cost, Motion, Operation};
use super::machine::Machine;
use crate::backend::BackendError;
use crate::backend::device::Device;
use crate::backend::simd::isa::Isa;
use crate::backend::simd::probe;

/// Bandwidth of one level of memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Level {
    /// `L1`, `L2`, `L3`, `DRAM`.
    pub level: String,
    /// Working set of the measurement, all threads together.
    pub bytes: usize,
    /// Gigabytes a second by [`Motion`], all threads together.
    pub read: f64,
    /// As above.
    pub write: f64,
    /// As above.
    pub copy: f64,
    /// As above.
    pub update: f64,
}

impl Level {
    /// Gigabytes a second of a motion.
    #[must_use]
    pub const fn of(&self, motion: Motion) -> f64 {
        match motion {
            Motion::Read => self.read,
            Motion::Write => self.write,
            Motion::Copy => self.copy,
            Motion::Update => self.update,
        }
    }
}

/// Limits of one instruction set at one number of threads, or of a GPU: then the only level is its memory, all motions
/// are copies, and the rates of operations are 0, not measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// The instruction set, or the backend of a GPU.
    pub isa: String,
    /// The caches from the first, and memory.
    pub levels: Vec<Level>,
    /// 10^9 lane operations a second by [`Operation`], all threads together.
    pub floats: f64,
    /// As above.
    pub words: f64,
    /// As above.
    pub products: f64,
    /// As above.
    pub chacha: f64,
    /// How much kinds of operations share ports, 0..=1.
    pub sharing: f64,
}

/// The least time of a call, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Bound {
    /// Seconds.
    pub seconds: f64,
    /// The level of memory or the kind of operation that takes longest.
    pub by: String,
}

impl Limits {
    /// 10^9 lane operations a second.
    #[must_use]
    pub const fn rate(&self, operation: Operation) -> f64 {
        match operation {
            Operation::Float => self.floats,
            Operation::Word => self.words,
            Operation::Product => self.products,
            Operation::Chacha => self.chacha,
        }
    }

    /// The least time of a call (see the module).
    #[must_use]
    pub fn bound(&self, cost: &Cost, machine: &Machine, threads: usize) -> Bound {
        let level = &self.levels[machine.level_of(cost.footprint(), threads).min(self.levels.len() - 1)];
        let memory: f64 = Motion::ALL.map(|m| cost.bytes[m as usize] / (1e9 * level.of(m))).iter().sum();
        let port = |rate: f64, operations: f64| if rate > 0.0 { operations / (1e9 * rate) } else { 0.0 };
        let ports = Operation::ALL.map(|o| port(self.rate(o), cost.operations[o as usize]));
        let longest = Operation::ALL.into_iter().max_by(|a, b| ports[*a as usize].total_cmp(&ports[*b as usize]));
        let longest = longest.unwrap_or(Operation::Float);
        let most = ports[longest as usize];
        let compute = most + self.sharing * (ports.iter().sum::<f64>() - most);
        if memory >= compute {
            Bound { seconds: memory, by: level.level.clone() }
        } else {
            Bound { seconds: compute, by: longest.name().to_owned() }
        }
    }

    /// The better of two measurements in every figure.
    pub fn take_best(&mut self, other: &Self) {
        for (a, b) in self.levels.iter_mut().zip(&other.levels) {
            (a.read, a.write) = (a.read.max(b.read), a.write.max(b.write));
            (a.copy, a.update) = (a.copy.max(b.copy), a.update.max(b.update));
        }
        (self.floats, self.words) = (self.floats.max(other.floats), self.words.max(other.words));
        (self.products, self.chacha) = (self.products.max(other.products), self.chacha.max(other.chacha));
    }
}

/// The limit of a GPU: the bandwidth of copies of 256 MiB, or of what one memory may hold, bytes read and written.
///
/// # Errors
/// No room on the device, and what it refuses.
pub fn measure_device(device: &dyn Device, seconds: f64) -> Result<Limits, BackendError> {
    let words = device.limits().max_memory_words.min(1 << 26);
    let (from, to) = (device.alloc(words, false)?, device.alloc(words, false)?);
    // The first copy fills both with zeros.
    device.copy(&from.all(), &to.all())?;
    device.finish()?;
    let (mut best, begun) = (f64::INFINITY, Instant::now());
    while best.is_infinite() || begun.elapsed().as_secs_f64() < seconds {
        let start = Instant::now();
        for _ in 0..COPIES {
            device.copy(&from.all(), &to.all())?;
        }
        device.finish()?;
        best = best.min(start.elapsed().as_secs_f64() / f64::from(COPIES));
    }
    let rate = 8.0 * words as f64 / best / 1e9;
    let level =
        Level { level: "copy".into(), bytes: 8 * words as usize, read: rate, write: rate, copy: rate, update: rate };
    let isa = device.kind().name().to_owned();
    Ok(Limits { isa, levels: vec![level], floats: 0.0, words: 0.0, products: 0.0, chacha: 0.0, sharing: 0.0 })
}

/// Copies of a timed run on a device, so that starting and waiting do not count.
const COPIES: u32 = 8;

/// Memory of one thread; the level's part of it is used.
struct Bench<'a> {
    pool: &'a rayon::ThreadPool,
    memory: Vec<Mutex<Vec<f32>>>,
    seconds: f64,
}

/// Floats between the two sides of a copy, beside their length: addresses that agree in their last 12 bits
/// would look like conflicts to the processor.
const GAP: usize = 528;
/// A timed run of a probe.
const RUN: f64 = 1e-3;

/// Measures everything for one instruction set on the threads of `pool`; `seconds` a figure, of which there
/// are 21 (memory takes longer where it is slow).
#[must_use]
pub fn measure(machine: &Machine, isa: Isa, pool: &rayon::ThreadPool, seconds: f64) -> Limits {
    let threads = pool.current_num_threads();
    let sizes = [
        ("L1", machine.l1 / 2 * threads),
        ("L2", machine.l2 / 2 * threads),
        // The near part of a large last cache, so that the limit is not lower than a kernel's luck.
        ("L3", (machine.l3 / 2).min(4 * machine.l2 * threads).max(machine.l2)),
        ("DRAM", (2 * machine.l3).clamp(64 << 20, 1 << 30)),
    ];
    let floats = |bytes: usize| (bytes / threads / 4).next_multiple_of(32);
    let length = floats(sizes[3].1) + GAP + 16;
    let memory = pool.broadcast(|_| Mutex::new(vec![1.0f32; length]));
    let bench = Bench { pool, memory, seconds };
    let levels = sizes.map(|(level, bytes)| {
        let n = floats(bytes);
        let rate = |motion: Motion| bench.bandwidth(isa, motion, n, level == "DRAM");
        Level {
            level: level.to_owned(),
            bytes,
            read: rate(Motion::Read),
            write: rate(Motion::Write),
            copy: rate(Motion::Copy),
            update: rate(Motion::Update),
        }
    });
    let rate = |probe: fn(Isa, u64) -> u64| bench.rate(|_, laps| probe(isa, laps) as f64);
    let floats = rate(probe::floats).max(rate(probe::multiply_adds));
    let words = rate(probe::words);
    // As many of each kind: the time of an operation is 1/f + 1/w on shared ports and the longer on own ones.
    let both = rate(probe::floats_and_words) / 2.0;
    let (short, long) = if floats > words { (1.0 / floats, 1.0 / words) } else { (1.0 / words, 1.0 / floats) };
    let sharing = ((1.0 / both - long) / short).clamp(0.0, 1.0);
    let products = rate(probe::products);
    let chacha = rate(probe::chacha);
    Limits { isa: isa.name().to_owned(), levels: levels.into(), floats, words, products, chacha, sharing }
}

impl Bench<'_> {
    /// Gigabytes a second of a motion on `n` floats a thread.
    fn bandwidth(&self, isa: Isa, motion: Motion, n: usize, large: bool) -> f64 {
        let lanes = self.rate(|x, passes| {
            let bytes = match motion {
                Motion::Read => probe::read(isa, &x[..n], passes),
                Motion::Write => probe::write(isa, &mut x[..n], passes),
                Motion::Update => probe::update(isa, &mut x[..n], passes),
                Motion::Copy => {
                    let (from, to) = halves(x, n);
                    probe::copy(isa, from, to, passes)
                }
            };
            bytes as f64
        });
        if !large || !matches!(motion, Motion::Copy | Motion::Write) {
            return lanes;
        }
        // The C library's own loops write around the caches where that is faster; memory knows no lanes.
        let library = self.rate(|x, passes| {
            for _ in 0..passes {
                match motion {
                    Motion::Copy => {
                        let (from, to) = halves(x, n);
                        to.copy_from_slice(std::hint::black_box(from));
                    }
                    _ => std::hint::black_box(&mut x[..n]).fill(0.0),
                }
            }
            (n / 32 * 32 * 4) as f64 * passes as f64
        });
        lanes.max(library)
    }

    /// The best rate of `work` over all threads, in 10^9 a second. `work` takes a thread's memory, aligned
    /// to 64 bytes, and a number of repetitions, and returns what it has done.
    fn rate(&self, work: impl Fn(&mut [f32], u64) -> f64 + Sync) -> f64 {
        let timed = |repetitions: u64| {
            let start = Barrier::new(self.memory.len());
            let each = self.pool.broadcast(|thread| {
                let mut memory = self.memory[thread.index()].lock().unwrap_or_else(PoisonError::into_inner);
                let skip = memory.as_ptr().align_offset(64).min(16);
                start.wait();
                let clock = Instant::now();
                let done = work(&mut memory[skip..], repetitions);
                (done, clock.elapsed().as_secs_f64())
            });
            let longest = each.iter().map(|e| e.1).fold(1e-9, f64::max);
            (each.iter().map(|e| e.0).sum::<f64>() / longest / 1e9, longest)
        };
        let mut repetitions = 1;
        let mut seconds = timed(repetitions).1;
        while seconds < RUN.min(self.seconds) && repetitions < 1 << 40 {
            repetitions *= ((RUN / seconds) as u64).clamp(2, 16);
            seconds = timed(repetitions).1;
        }
        let (mut best, mut spent, mut runs) = (0f64, 0.0, 0);
        while runs < 3 || spent < self.seconds {
            let (rate, seconds) = timed(repetitions);
            (best, spent, runs) = (best.max(rate), spent + seconds, runs + 1);
        }
        best
    }
}

/// Two halves of `n` floats with a gap between them.
fn halves(x: &mut [f32], n: usize) -> (&[f32], &mut [f32]) {
    let half = n / 2;
    let (from, to) = x.split_at_mut(half + GAP);
    (&from[..half], &mut to[..half])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine { l1: 1000, l2: 10_000, l3: 100_000, ..Machine::detect() }
    }

    fn limits() -> Limits {
        let level = |level: &str, speed: f64| Level {
            level: level.into(),
            bytes: 0,
            read: 2.0 * speed,
            write: speed,
            copy: speed,
            update: speed,
        };
        Limits {
            isa: "portable".into(),
            levels: vec![level("L1", 80.0), level("L2", 40.0), level("L3", 20.0), level("DRAM", 10.0)],
            floats: 10.0,
            words: 20.0,
            products: 5.0,
            chacha: 20.0,
            sharing: 0.0,
        }
    }

    /// By hand: 100 elements of 8 bytes in L1 at 80 GB/s take 10 ns; of 3 float operations at 10 G/s 30 ns.
    #[test]
    fn the_limit_is_the_longer_of_memory_and_ports() {
        let (l, m) = (limits(), machine());
        let bound = |cost: Cost| l.bound(&cost, &m, 1);
        let close = |b: Bound, ns: f64, by: &str| assert!((b.seconds * 1e9 - ns).abs() < 1e-9 && b.by == by, "{b:?}");
        close(bound(Cost::of(100).update(8.0)), 10.0, "L1");
        close(bound(Cost::of(100).update(8.0).float(3.0)), 30.0, "floats");
        close(bound(Cost::of(100).update(8.0).float(3.0).word(8.0)), 40.0, "words");
        close(bound(Cost::of(1000).update(8.0).read(4.0)), 200.0 + 50.0, "L2");
        close(bound(Cost::of(100_000).read(4.0)), 20_000.0, "DRAM");
        let shared = Limits { sharing: 1.0, ..l.clone() };
        close(shared.bound(&Cost::of(100).float(3.0).word(8.0), &m, 1), 70.0, "words");
        // Two threads have two first caches.
        let by = |threads| l.bound(&Cost::of(600).update(8.0), &m, threads).by;
        assert_eq!((by(2), by(4)), ("L2".to_owned(), "L1".to_owned()));
    }

    #[test]
    fn the_better_measurement_counts() {
        let mut a = limits();
        let mut b = limits();
        (b.floats, b.levels[0].copy, b.words) = (100.0, 1000.0, 1.0);
        a.take_best(&b);
        assert_eq!((a.floats, a.levels[0].copy, a.words), (100.0, 1000.0, 20.0));
    }

    #[test]
    fn every_figure_is_measured() {
        let pool = crate::bench::measure::pool(1).unwrap();
        let small = Machine { l1: 1 << 14, l2: 1 << 16, l3: 1 << 18, ..Machine::detect() };
        for isa in Isa::ALL.into_iter().filter(|i| i.available()) {
            let l = measure(&small, isa, &pool, 1e-4);
            assert!(Operation::ALL.iter().all(|o| l.rate(*o) > 0.01 && l.rate(*o).is_finite()), "{l:?}");
            for level in &l.levels {
                assert!(Motion::ALL.iter().all(|m| level.of(*m) > 0.01 && level.of(*m).is_finite()), "{level:?}");
            }
            assert!((0.0..=1.0).contains(&l.sharing));
        }
    }
}
