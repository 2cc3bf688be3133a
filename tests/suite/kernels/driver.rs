//! The CUDA backend's host side without a card: this program runs again in a process of its own whose `libcuda.so` is
//! `kernels/emulation/driver`, which runs the kernels on the processor and refuses what a host side must not do.

use std::ffi::{CString, c_char, c_int, c_ulonglong, c_void};
use std::process::Command;

use libloading::{Library, Symbol};
use veilsum::backend::device::{Device, Mark, Memory};
use veilsum::backend::{Buffer, MaskSign, Rows};
use veilsum::params::{FwhtParams, Ring};

use super::emulation::{available, driver_folder};
use super::*;

/// Set in a process whose driver is the emulated one.
const INSIDE: &str = "VEILSUM_EMULATED_DRIVER";

/// A look into the driver of this process.
pub(super) struct Control(Library);

impl Control {
    /// Errors of a test are panics.
    fn open() -> Self {
        // SAFETY: the library that the CUDA backend loads, too; its initializers only note kernels.
        Self(unsafe { Library::new("libcuda.so") }.expect("the emulated driver"))
    }

    /// A function of the driver. The caller answers for its type.
    pub(super) fn function<T>(&self, name: &str) -> Symbol<'_, T> {
        // SAFETY: every caller states the type that stands in `kernels/emulation/driver`.
        unsafe { self.0.get(name.as_bytes()) }.unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// What was done wrong so far; forgotten by this call.
    pub(super) fn mistakes(&self) -> Vec<String> {
        let mut text = vec![0u8; 1 << 16];
        // SAFETY: the types of control.cpp; the text ends with a zero byte within its length.
        let count = unsafe {
            let count = self.function::<unsafe extern "C" fn(*mut c_char, usize) -> usize>("emulated_cuda_mistakes")(
                text.as_mut_ptr().cast(),
                text.len(),
            );
            self.function::<unsafe extern "C" fn()>("emulated_cuda_forgive")();
            count
        };
        let end = text.iter().position(|&b| b == 0).unwrap();
        let found: Vec<String> = String::from_utf8_lossy(&text[..end]).lines().map(str::to_owned).collect();
        assert_eq!(found.len(), count);
        found
    }

    /// The calls of a function so far.
    pub(super) fn calls(&self, name: &str) -> u64 {
        let name = CString::new(name).unwrap();
        // SAFETY: the type of control.cpp.
        unsafe {
            self.function::<unsafe extern "C" fn(*const c_char) -> c_ulonglong>("emulated_cuda_calls")(name.as_ptr())
        }
    }

    /// Lets the call number `after` from now on of `name` fail, and all that follow if it `sticks`; replaces what it was
    /// told before.
    pub(super) fn fail(&self, name: &str, after: u64, code: c_int, sticks: bool) {
        let name = CString::new(name).unwrap();
        type Fail = unsafe extern "C" fn(*const c_char, c_ulonglong, c_int, c_int);
        // SAFETY: the type of control.cpp.
        unsafe { self.function::<Fail>("emulated_cuda_fail")(name.as_ptr(), after, code, sticks.into()) }
    }

    /// Looks for these bytes from now on.
    fn watch(&self, bytes: &[u8]) {
        type Watch = unsafe extern "C" fn(*const c_void, usize);
        // SAFETY: the type of control.cpp, which copies the bytes.
        unsafe { self.function::<Watch>("emulated_cuda_watch")(bytes.as_ptr().cast(), bytes.len()) }
    }

    fn count(&self, name: &str) -> u64 {
        // SAFETY: the type of control.cpp.
        unsafe { self.function::<unsafe extern "C" fn() -> c_ulonglong>(name)() }
    }

    /// Regions that hold the watched bytes, and that held them when they were freed.
    fn traces(&self) -> (u64, u64) {
        (self.count("emulated_cuda_held"), self.count("emulated_cuda_left_behind"))
    }

    /// Streams, events, pools, modules, blocks of device memory and of page-locked memory that are there.
    pub(super) fn live(&self) -> [u64; 6] {
        let mut counts = [0; 6];
        // SAFETY: the type of control.cpp, which writes six numbers.
        unsafe { self.function::<unsafe extern "C" fn(*mut u64)>("emulated_cuda_live")(counts.as_mut_ptr()) };
        counts
    }
}

/// Lets a program find the emulated driver before any other.
pub(crate) fn with_driver(command: &mut Command) -> &mut Command {
    let images = concat!(env!("CARGO_MANIFEST_DIR"), "/kernels/prebuilt");
    command.env("LD_LIBRARY_PATH", driver_folder()).env("EMULATED_CUDA_IMAGES", images)
}

/// Runs tests of this program where the driver is the emulated one. Returns what they print, and whether they pass.
fn again(arguments: &[&str], variables: &[(&str, &str)]) -> (bool, String) {
    let output = with_driver(&mut Command::new(std::env::current_exe().unwrap()))
        .args(arguments)
        .env(INSIDE, "1")
        .env("VEILSUM_GPU", "cuda")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.success(), text)
}

/// Runs `body` in a process with the emulated driver: the test `name` of `module` once more.
pub(super) fn inside(module: &str, name: &str, variables: &[(&str, &str)], body: impl FnOnce(&Control)) {
    if std::env::var_os(INSIDE).is_some() {
        return body(&Control::open());
    }
    if !available() {
        return;
    }
    let test = format!("kernels::{module}::{name}");
    let (passed, text) = again(&[&test, "--exact", "--nocapture"], variables);
    assert!(passed && text.contains("1 passed"), "{variables:?}\n{text}");
}

fn open() -> DeviceBackend {
    DeviceBackend::new(Arc::new(Cuda::open(0).unwrap()))
}

/// A verb with an answer that is exact: the Walsh function of a unit vector.
fn assert_works(backend: &DeviceBackend) {
    let mut x = vec![0.0; 64];
    x[5] = 1.0;
    let mut x = Buffer::from(x);
    backend.fwht(&mut x, &FwhtParams { len: 64, block_log2: 6, scale: 1.0, _pad: 0 }).unwrap();
    let walsh = |i: usize| if (i & 5).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 };
    assert!(x.as_f32().unwrap().iter().enumerate().all(|(i, &v)| v == walsh(i)));
}

/// What the suite asks of devices, of the real host side of the CUDA backend. Work is deferred as far as it may be.
#[test]
fn the_host_side_passes_every_test_of_a_device() {
    if std::env::var_os(INSIDE).is_some() || !available() {
        return;
    }
    let rooms = ["device", "ghost", "gram", "halves", "lattice", "select"].map(|room| format!("kernels::{room}"));
    // But for what computes on the processor alone, or for long.
    let skipped = ["several_threads", "number_of_threads", "oracle_evaluates", "three_clients"];
    let skipped = skipped.into_iter().flat_map(|name| ["--skip", name]);
    let arguments: Vec<&str> = rooms.iter().map(String::as_str).chain(skipped).collect();
    let (passed, text) = again(&arguments, &[("EMULATED_CUDA_ORDER", "deferred:1")]);
    assert!(passed && text.contains("test result: ok"), "{text}");
    let threads = "kernels::device::threads_share_a_device";
    assert!(text.contains(&format!("{threads} ... ok")), "{text}");
    // As on a card that is never behind.
    let (passed, text) = again(&[threads], &[("EMULATED_CUDA_ORDER", "now")]);
    assert!(passed && text.contains("1 passed"), "{text}");
}

#[test]
fn the_card_is_described_and_every_handle_is_given_back() {
    inside("driver", "the_card_is_described_and_every_handle_is_given_back", &[], |driver| {
        for _ in 0..2 {
            let cuda = Cuda::open(0).unwrap();
            assert_eq!(cuda.describe(), "CUDA on emulated card, 2 GiB, sm_90, driver for CUDA 13.0");
            assert_eq!(cuda.limits().fwht_tiles, [13, 14, 15]);
            let backend = DeviceBackend::new(Arc::new(cuda));
            assert_works(&backend);
            // Memory keeps the driver's state when the device is gone, and the modules are not used by it.
            let memory = backend.device().alloc(100, true).unwrap();
            assert!(driver.live().iter().all(|&count| count > 0), "{:?}", driver.live());
            drop(backend);
            assert_eq!(driver.live()[3..5], [0, 1]);
            drop(memory);
            assert_eq!(driver.live(), [0; 6]);
        }
        let missing = Cuda::open(1);
        assert!(
            matches!(&missing, Err(BackendError::Unavailable { reason, .. }) if reason.contains("the driver lists 1"))
        );
        assert!(driver.mistakes().is_empty());
    });
}

#[test]
fn a_full_card_says_how_much_was_needed_and_is_free_and_works_again() {
    let memory = (64u64 << 20).to_string();
    let variables = [("EMULATED_CUDA_MEMORY", memory.as_str())];
    inside("driver", "a_full_card_says_how_much_was_needed_and_is_free_and_works_again", &variables, |driver| {
        let backend = open();
        let mib = |mib: u64, secret| backend.device().alloc(mib << 18, secret);
        let full = |result: Result<Memory, BackendError>, expected: u64, left: u64| match result {
            Err(BackendError::DeviceMemory { backend: "cuda", needed, free: Some(free) }) => {
                assert_eq!((needed >> 20, free >> 20), (expected, left));
            }
            other => panic!("{other:?}"),
        };
        let first = mib(40, false).unwrap();
        full(mib(40, true), 40, 24);
        full(mib(65, false), 65, 64);
        let second = mib(20, true).unwrap();
        assert_works(&backend);
        drop(first);
        // The pool has kept 40 MiB in one piece, of which it gives 30; with all pieces given back there is room for 43.
        drop(mib(30, false).unwrap());
        drop(mib(43, false).unwrap());
        full(mib(45, false), 45, 44);
        drop(second);
        drop(mib(63, true).unwrap());
        assert_works(&backend);
        // A verb that does not fit leaves nothing behind.
        let words = Buffer::from(vec![1u32; 12 << 20]);
        let there = backend.upload(&words).unwrap();
        let error = backend.upload(&words).unwrap_err();
        assert!(matches!(error, BackendError::DeviceMemory { needed: 50_331_648, .. }), "{error}");
        assert!(backend.download(&there).unwrap() == words);
        drop((there, backend));
        assert_eq!((driver.live(), driver.mistakes()), ([0; 6], Vec::new()));
    });
}

/// A stream key whose bytes stand nowhere else.
fn secret_key() -> StreamKey {
    StreamKey::from_bytes(std::array::from_fn(|i| 0xa1 ^ (37 * i) as u8), Cipher::ChaCha20)
}

#[test]
fn keys_and_secret_words_are_wiped_on_the_card_and_on_the_way() {
    inside("driver", "keys_and_secret_words_are_wiped_on_the_card_and_on_the_way", &[], |driver| {
        let bytes: [u8; 16] = std::array::from_fn(|i| 0xa1 ^ (37 * i) as u8);
        let words: Vec<u32> = bytes.as_chunks::<4>().0.iter().map(|&b| u32::from_le_bytes(b)).collect();
        let backend = open();
        driver.watch(&bytes);
        // What is not secret is left where it was.
        let memory = backend.device().alloc(4, false).unwrap();
        backend.device().write(&memory, 0, &words).unwrap();
        drop(memory);
        assert_eq!(driver.traces(), (1, 1));
        // Overwrites both halves of the pinned memory.
        let zeros = backend.upload(&Buffer::from(vec![0u32; 3 << 20])).unwrap();
        driver.watch(&bytes);
        assert_eq!(driver.traces(), (0, 0));
        let memory = backend.device().alloc(4, true).unwrap();
        backend.device().write(&memory, 0, &words).unwrap();
        assert_eq!(driver.traces(), (1, 0), "only where it belongs");
        let mut back = [0; 4];
        backend.device().read(&memory, 0, &mut back).unwrap();
        assert_eq!(back, words[..]);
        drop(memory);
        assert_eq!(driver.traces(), (0, 0));
        // The key of a verb, also if the verb fails.
        let mask = |x: &mut Buffer| backend.mask(x, Ring::Bits(20), &secret_key(), MaskSign::Add);
        mask(&mut zeros.clone()).unwrap();
        for call in ["cuLaunchKernel", "cuEventRecord", "cuMemcpyHtoDAsync_v2", "cuMemsetD8Async", "cuEventSynchronize"]
        {
            for after in 0..2 {
                driver.fail(call, after, 801, false);
                let _ = mask(&mut zeros.clone());
                driver.fail("no more", 0, 0, false);
                assert_eq!(driver.traces(), (0, 0), "{call}, {after}");
                assert_works(&backend);
            }
        }
        drop((zeros, backend));
        assert_eq!((driver.live(), driver.traces(), driver.mistakes()), ([0; 6], (0, 0), Vec::new()));
    });
}

#[test]
fn the_card_s_clock_counts_what_lies_between_two_marks() {
    inside("driver", "the_card_s_clock_counts_what_lies_between_two_marks", &[], |driver| {
        let cuda = Cuda::open(0).unwrap();
        let (from, to) = (cuda.alloc(1 << 18, false).unwrap(), cuda.alloc(1 << 18, false).unwrap());
        assert_eq!(cuda.elapsed().unwrap(), None);
        cuda.mark(Mark::Begin).unwrap();
        assert_eq!(cuda.elapsed().unwrap(), None);
        for copies in [1, 5] {
            cuda.mark(Mark::Begin).unwrap();
            (0..copies).for_each(|_| cuda.copy(&from.all(), &to.all()).unwrap());
            cuda.mark(Mark::End).unwrap();
            cuda.copy(&from.all(), &to.all()).unwrap();
            // The emulated driver's time: 1000 ns a step and 1 ns for 1024 bytes, read and written.
            let expected = f64::from(copies) * 2.0 * (1000.0 + 1024.0) * 1e-9;
            assert!((cuda.elapsed().unwrap().unwrap() / expected - 1.0).abs() < 1e-3);
        }
        drop((from, to, cuda));
        assert_eq!((driver.live(), driver.mistakes()), ([0; 6], Vec::new()));
    });
}

/// The calls of a chunk of a round: what launches cost the host is decided by their number (see `backend/cuda.rs`).
#[test]
fn a_chunk_of_a_round_makes_as_many_calls_as_were_counted() {
    inside("driver", "a_chunk_of_a_round_makes_as_many_calls_as_were_counted", &[], |driver| {
        let (backend, signs, keys, law) = (open(), stream(90), row_keys(3), super::integers::jagged_table(9));
        let x: Vec<f32> = (0..3 << 16).map(|i| (i % 17) as f32 - 8.0).collect();
        let rows = Rows::side_by_side(backend.upload(&Buffer::from(x)).unwrap(), 3, 1 << 16).unwrap();
        let job = EncodeJob { noise: Some(&law), ..job(plain_params(1 << 16, 16), &signs, &keys) };
        let names = [
            "cuLaunchKernel",
            "cuMemAllocFromPoolAsync",
            "cuMemsetD8Async",
            "cuMemcpyHtoDAsync_v2",
            "cuMemcpyDtoHAsync_v2",
            "cuMemFreeAsync",
        ];
        let counted = |verb: &dyn Fn()| {
            let before = names.map(|name| driver.calls(name));
            verb();
            let after = names.map(|name| driver.calls(name));
            std::array::from_fn::<u64, 6, _>(|i| after[i] - before[i])
        };
        // Kernels are loaded, and page-locked memory is there, before anything is counted.
        let encode = || drop(backend.encode_packed(&rows, &job).unwrap());
        encode();
        let encoded = counted(&encode);
        let words = Buffer::from(vec![1u32; 1 << 16]);
        let sum = || {
            let mut acc = backend.upload(&words).unwrap();
            backend.sum(&mut acc, &words, Ring::Bits(32)).unwrap();
            backend.decode_in_place(&mut acc, &job.params.decode(1.0), &signs).unwrap();
        };
        sum();
        assert_eq!((encoded, counted(&sum)), ([11, 10, 13, 4, 2, 10], [6, 5, 5, 3, 0, 5]));
    });
}
