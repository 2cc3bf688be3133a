//! Memory that another library made on the same card, on a stream of its own: read where it is, in order with its maker, and
//! copied where its rows lie apart.

use std::sync::atomic::{AtomicU32, Ordering};

use veilsum::backend::device::{Device, DeviceBuffer, ElementType, RowShape, Slice};
use veilsum::backend::{Buffer, Rows};
use veilsum::params::FwhtParams;

use super::driver::{Control, inside};
use super::driver_faults::Raw;
use super::*;

const ROWS: usize = 3;
const DIM: usize = 100;
/// Words between rows: a pitch of 512 bytes.
const PITCH: usize = 128;
const BYTES: usize = 4 * ((ROWS - 1) * PITCH + DIM);

/// The variable that says in which order the emulated driver works.
const ORDER: &str = "EMULATED_CUDA_ORDER";

/// Another library with rows in its memory: what it writes waits on its stream until somebody asks for it.
struct Maker<'a> {
    raw: Raw<'a>,
    host: *mut u8,
    address: u64,
    given_back: Arc<AtomicU32>,
}

/// Says when it is dropped.
struct Holder(Arc<AtomicU32>);

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl<'a> Maker<'a> {
    /// Room for the rows, and `skipped` words before them.
    fn new(driver: &'a Control, skipped: u64) -> Self {
        let raw = Raw::new(driver);
        let (address, host) = (raw.alloc(BYTES + 4 * skipped as usize) + 4 * skipped, raw.host(BYTES));
        Self { raw, host, address, given_back: Arc::default() }
    }

    fn values(round: u16) -> Vec<f32> {
        (0..(BYTES / 4) as u16).map(|i| f32::from((i * 7 + round * 13) % 31) - 15.0).collect()
    }

    /// Enqueues the values of a round, when the copies of an earlier one have run.
    fn write(&self, round: u16) {
        assert_eq!(self.raw.call("cuStreamSynchronize", self.raw.stream), 0);
        let values = Self::values(round);
        // SAFETY: page-locked memory of so many bytes, aligned to pages, that no copy uses any more.
        unsafe { self.host.copy_from(values.as_ptr().cast(), BYTES) };
        assert_eq!(self.raw.copy_there(self.address, self.host, BYTES), 0);
    }

    /// The rows, as the backend's memory.
    fn rows(&self, cuda: &Cuda) -> Rows {
        let holder = Holder(self.given_back.clone());
        let (memory, offset) = cuda.foreign(self.address, BYTES as u64, holder).unwrap();
        let buffer = DeviceBuffer::new(memory, offset, BYTES / 4, ElementType::F32).unwrap();
        Rows { buffer: Buffer::Device(buffer), offset: 0, stride: PITCH, rows: ROWS, dim: DIM }
    }

    fn given_back(&self) -> u32 {
        self.given_back.load(Ordering::Relaxed)
    }
}

fn open() -> (Arc<Cuda>, DeviceBackend) {
    let cuda = Arc::new(Cuda::open(0).unwrap());
    (cuda.clone(), DeviceBackend::new(cuda))
}

/// Runs a test in several orders of the streams.
fn in_orders(name: &str, body: impl Fn(&Control)) {
    let chosen = std::env::var(ORDER).ok();
    let orders = ["deferred:1", "deferred:2", "deferred:3", "now"];
    // The process with the driver runs it once, in its order.
    for order in orders.iter().filter(|&&order| chosen.as_deref().is_none_or(|chosen| chosen == order)) {
        inside("driver_foreign", name, &[(ORDER, order)], &body);
    }
}

/// The fixed-point rows of a round, from a host.
fn expected(backend: &DeviceBackend, round: u16) -> Buffer {
    let (signs, keys) = (stream(90), row_keys(ROWS));
    let rows = Rows { buffer: Maker::values(round).into(), offset: 0, stride: PITCH, rows: ROWS, dim: DIM };
    let (fixed, _) = backend.encode_fixed(&rows, &job(plain_params(DIM as u32, 5), &signs, &keys)).unwrap();
    backend.download(&fixed).unwrap()
}

/// Neither before its maker has written, nor after the maker writes again.
#[test]
fn foreign_rows_are_read_between_their_maker_s_writes() {
    in_orders("foreign_rows_are_read_between_their_maker_s_writes", |driver| {
        let (cuda, backend) = open();
        let (signs, keys) = (stream(90), row_keys(ROWS));
        let job = job(plain_params(DIM as u32, 5), &signs, &keys);
        for skipped in [0, 1] {
            let maker = Maker::new(driver, skipped);
            for round in 0..12 {
                maker.write(round);
                let rows = maker.rows(&cuda);
                let shared = rows.buffer.clone();
                let (fixed, _) = backend.encode_fixed(&rows, &job).unwrap();
                drop(rows);
                assert_eq!(maker.given_back(), u32::from(round), "another handle is there");
                drop(shared);
                assert_eq!(maker.given_back(), u32::from(round) + 1);
                assert_eq!(maker.raw.set(maker.address, BYTES), 0);
                assert!(backend.download(&fixed).unwrap() == expected(&backend, round), "{skipped} {round}");
            }
        }
        assert!(driver.mistakes().is_empty());
    });
}

#[test]
fn foreign_rows_are_never_written() {
    in_orders("foreign_rows_are_never_written", |driver| {
        let (cuda, backend) = open();
        let maker = Maker::new(driver, 0);
        maker.write(3);
        let rows = maker.rows(&cuda);
        let mut x = rows.buffer;
        let fwht = FwhtParams { len: 64, block_log2: 6, scale: 1.0, _pad: 0 };
        let Buffer::Device(there) = &x else { panic!() };
        let first = DeviceBuffer::new(there.slice().memory.clone(), 0, 64, ElementType::F32).unwrap();
        let mut first = Buffer::Device(first);
        backend.fwht(&mut first, &fwht).unwrap();
        assert!(backend.download(&first).unwrap() != backend.download(&x).unwrap());
        assert_eq!(backend.download(&x).unwrap().as_f32().unwrap(), Maker::values(3));
        x = first;
        drop(x);
        assert_eq!((maker.given_back(), driver.mistakes().len()), (1, 0));
    });
}

/// Rows of `device` that lie apart are copied to rows that lie side by side, and what lies between them stays out.
fn copies_rows(device: &dyn Device, from: &Slice<'_>) {
    let shape = RowShape { rows: ROWS as u64, width: DIM as u64, from_stride: PITCH as u64, to_stride: DIM as u64 };
    let to = device.alloc((ROWS * DIM + 4) as u64, false).unwrap();
    let target = Slice { memory: &to, offset: 4, words: shape.span(shape.to_stride) };
    device.copy_rows(from, &target, &shape).unwrap();
    let mut found = vec![0; ROWS * DIM + 4];
    device.read(&to, 0, &mut found).unwrap();
    let values = Maker::values(5);
    let rows = (0..ROWS).flat_map(|i| &values[i * PITCH..i * PITCH + DIM]).map(|x| x.to_bits());
    assert!(found.iter().copied().eq([0; 4].into_iter().chain(rows)), "{}", device.describe());
    let short = Slice { words: target.words - 1, ..target };
    assert!(matches!(device.copy_rows(from, &short, &shape), Err(BackendError::WrongLength { .. })));
    let flat = RowShape { from_stride: DIM as u64 - 1, ..shape };
    assert!(matches!(device.copy_rows(from, &target, &flat), Err(BackendError::WrongLength { .. })));
}

#[test]
fn rows_that_lie_apart_are_copied_side_by_side() {
    for backend in devices() {
        let device = backend.device();
        let from = device.alloc((BYTES / 4 + 8) as u64, false).unwrap();
        let words: Vec<u32> = Maker::values(5).iter().map(|x| x.to_bits()).collect();
        device.write(&from, 8, &words).unwrap();
        copies_rows(device, &Slice { memory: &from, offset: 8, words: words.len() as u64 });
    }
}

#[test]
fn foreign_rows_are_copied_in_one_call() {
    in_orders("foreign_rows_are_copied_in_one_call", |driver| {
        let (cuda, _backend) = open();
        let maker = Maker::new(driver, 0);
        maker.write(5);
        let rows = maker.rows(&cuda);
        let Buffer::Device(buffer) = &rows.buffer else { panic!() };
        copies_rows(&*cuda, &buffer.slice());
        let calls = ["cuMemcpy2DAsync_v2", "cuMemcpyDtoDAsync_v2"].map(|name| driver.calls(name));
        assert_eq!((calls, cuda.bytes_read()), ([1, 0], 4 * (ROWS * DIM + 4) as u64));
        assert!(driver.mistakes().is_empty());
    });
}

#[test]
fn what_the_kernels_keep_is_given_back_for_others() {
    in_orders("what_the_kernels_keep_is_given_back_for_others", |driver| {
        let (cuda, _backend) = open();
        let all = cuda.free_bytes().unwrap();
        let (held, dropped) = (cuda.alloc(1 << 20, false).unwrap(), cuda.alloc(3 << 20, true).unwrap());
        drop(dropped);
        assert_eq!(cuda.free_bytes(), Some(all - (16 << 20)), "it is kept");
        cuda.trim().unwrap();
        assert_eq!(cuda.free_bytes(), Some(all - (4 << 20)));
        drop(held);
        cuda.trim().unwrap();
        assert_eq!(cuda.free_bytes(), Some(all));
        driver.fail("cuMemPoolTrimTo", 0, 801, false);
        assert!(matches!(cuda.trim(), Err(BackendError::DeviceFailed { backend: "cuda", .. })));
        assert!(driver.mistakes().is_empty());
    });
}

#[test]
fn what_is_no_memory_of_the_card_is_refused() {
    in_orders("what_is_no_memory_of_the_card_is_refused", |driver| {
        let (cuda, backend) = open();
        let maker = Maker::new(driver, 0);
        maker.write(1);
        let here = [0u32; 4];
        let refused = |pointer: u64, bytes: u64, why: &str| {
            let given_back = Arc::new(AtomicU32::new(0));
            let error = cuda.foreign(pointer, bytes, Holder(given_back.clone())).unwrap_err();
            assert!(matches!(error, BackendError::DeviceFailed { backend: "cuda", .. }), "{error}");
            assert!(error.to_string().contains(why), "{error}");
            assert_eq!(given_back.load(Ordering::Relaxed), 1);
        };
        refused(maker.address, BYTES as u64 + 4, "exceed an allocation of 1424 bytes");
        refused(maker.address + 2, 4, "expected whole words");
        refused(here.as_ptr() as u64, 16, "CUDA_ERROR_INVALID_VALUE");
        for call in ["cuPointerGetAttribute", "cuCtxRecordEvent", "cuEventCreate", "cuStreamWaitEvent"] {
            driver.fail(call, 0, 801, false);
            refused(maker.address, BYTES as u64, "CUDA_ERROR_NOT_SUPPORTED");
        }
        // What does not work when the memory is given back is made up for, by waiting.
        for call in ["cuCtxWaitEvent", "cuEventRecord"] {
            let (signs, keys) = (stream(90), row_keys(ROWS));
            let rows = maker.rows(&cuda);
            let params = plain_params(DIM as u32, 5);
            let (fixed, _) = backend.encode_fixed(&rows, &job(params, &signs, &keys)).unwrap();
            driver.fail(call, 0, 801, false);
            drop(rows);
            assert_eq!(maker.raw.set(maker.address, BYTES), 0);
            assert!(backend.download(&fixed).unwrap() == expected(&backend, 1), "{call}");
            maker.write(1);
        }
        // A card that is lost gives everything back, too.
        let rows = maker.rows(&cuda);
        driver.fail("cuCtxWaitEvent", 0, 700, true);
        drop(rows);
        assert_eq!(maker.given_back(), 3);
        let lost = cuda.foreign(maker.address, BYTES as u64, ());
        assert!(matches!(lost, Err(BackendError::DeviceLost { backend: "cuda", .. })), "{lost:?}");
        assert!(driver.mistakes().is_empty());
    });
}
