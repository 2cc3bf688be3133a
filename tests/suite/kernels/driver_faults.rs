//! A card that is lost, what is no loss, and that the emulated driver finds the mistakes of a host side.

use std::ffi::{c_int, c_uint, c_void};

use veilsum::backend::{Buffer, EncodeReport, Packed, Rows};

use super::driver::{Control, inside};
use super::*;

/// Rows on a device, encoded and packed there.
fn encoded(backend: &DeviceBackend) -> Result<(Packed, EncodeReport), BackendError> {
    let (signs, keys) = (stream(90), row_keys(3));
    let x: Vec<f32> = (0..300u16).map(|i| f32::from(i % 17) - 8.0).collect();
    let there = backend.upload(&Buffer::from(x))?;
    backend.encode_packed(&Rows::side_by_side(there, 3, 100)?, &job(plain_params(100, 5), &signs, &keys))
}

/// The driver's calls that an encoding makes, each with what it is called for.
const CALLS: [&str; 8] = [
    "cuMemAllocFromPoolAsync",
    "cuMemsetD8Async",
    "cuMemcpyHtoDAsync_v2",
    "cuEventRecord",
    "cuLaunchKernel",
    "cuMemcpyDtoHAsync_v2",
    "cuEventSynchronize",
    "cuMemFreeAsync",
];

#[test]
fn a_lost_card_says_so_until_it_is_opened_again() {
    inside("driver_faults", "a_lost_card_says_so_until_it_is_opened_again", &[], |driver| {
        let expected = encoded(&DeviceBackend::new(Arc::new(Cuda::open(0).unwrap()))).unwrap();
        for code in [700, 999] {
            for call in CALLS {
                for after in [0, 1] {
                    let backend = DeviceBackend::new(Arc::new(Cuda::open(0).unwrap()));
                    assert!(encoded(&backend).unwrap() == expected);
                    driver.fail(call, after, code, true);
                    let lost = |result: Result<(), BackendError>| {
                        let found = matches!(&result, Err(BackendError::DeviceLost { backend: "cuda", reason })
                            if reason.starts_with("CUDA_ERROR_"));
                        assert!(found, "{code} at {call} {after}: {result:?}");
                    };
                    // A free has no result: the call after it has.
                    let first = encoded(&backend);
                    if call != "cuMemFreeAsync" {
                        lost(first.map(drop));
                    }
                    for _ in 0..2 {
                        lost(encoded(&backend).map(drop));
                        lost(backend.finish());
                        lost(backend.device().alloc(8, true).map(drop));
                    }
                }
            }
        }
        // The context went with the last of its users; a new one works.
        let backend = DeviceBackend::new(Arc::new(Cuda::open(0).unwrap()));
        assert!(encoded(&backend).unwrap() == expected);
        drop(backend);
        assert_eq!((driver.live(), driver.mistakes()), ([0; 6], Vec::new()));
    });
}

#[test]
fn a_call_that_is_refused_is_no_loss_of_the_card() {
    inside("driver_faults", "a_call_that_is_refused_is_no_loss_of_the_card", &[], |driver| {
        let backend = DeviceBackend::new(Arc::new(Cuda::open(0).unwrap()));
        let expected = encoded(&backend).unwrap();
        for code in [1, 701, 801] {
            // A free or a wait at the end of its use has nobody to tell.
            for call in CALLS.into_iter().filter(|&call| call != "cuMemFreeAsync") {
                for after in [0, 1] {
                    driver.fail(call, after, code, false);
                    let error = encoded(&backend).unwrap_err();
                    assert!(
                        matches!(error, BackendError::DeviceFailed { backend: "cuda", .. }),
                        "{code} {call}: {error}"
                    );
                    assert!(encoded(&backend).unwrap() == expected, "{code} at {call}");
                }
            }
        }
        drop(backend);
        assert_eq!((driver.live(), driver.mistakes()), ([0; 6], Vec::new()));
    });
}

/// The driver's interface, called as a host side must not.
pub(super) struct Raw<'a> {
    driver: &'a Control,
    pub(super) stream: *mut c_void,
    pool: *mut c_void,
}

type TakesHandle = unsafe extern "C" fn(*mut c_void) -> c_int;

impl<'a> Raw<'a> {
    /// A context of our own, current on this thread, a stream and a pool.
    pub(super) fn new(driver: &'a Control) -> Self {
        let (mut context, mut stream, mut pool) = (std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null_mut());
        let mut properties = [0u64; 11];
        properties[0] = 1;
        properties[1] = 1;
        // SAFETY: the types of the driver's interface; 88 bytes of properties: pinned memory of device 0.
        unsafe {
            assert_eq!(driver.function::<unsafe extern "C" fn(c_uint) -> c_int>("cuInit")(0), 0);
            type Retain = unsafe extern "C" fn(*mut *mut c_void, c_int) -> c_int;
            assert_eq!(driver.function::<Retain>("cuDevicePrimaryCtxRetain")(&raw mut context, 0), 0);
            assert_eq!(driver.function::<TakesHandle>("cuCtxSetCurrent")(context), 0);
            type Create = unsafe extern "C" fn(*mut *mut c_void, c_uint) -> c_int;
            assert_eq!(driver.function::<Create>("cuStreamCreate")(&raw mut stream, 1), 0);
            type CreatePool = unsafe extern "C" fn(*mut *mut c_void, *const u64) -> c_int;
            assert_eq!(driver.function::<CreatePool>("cuMemPoolCreate")(&raw mut pool, properties.as_ptr()), 0);
        }
        Self { driver, stream, pool }
    }

    pub(super) fn alloc(&self, bytes: usize) -> u64 {
        let mut address = 0;
        type Alloc = unsafe extern "C" fn(*mut u64, usize, *mut c_void, *mut c_void) -> c_int;
        let alloc = self.driver.function::<Alloc>("cuMemAllocFromPoolAsync");
        // SAFETY: the type of the driver's interface.
        assert_eq!(unsafe { alloc(&raw mut address, bytes, self.pool, self.stream) }, 0);
        address
    }

    pub(super) fn free(&self, address: u64) -> c_int {
        type Free = unsafe extern "C" fn(u64, *mut c_void) -> c_int;
        // SAFETY: the type of the driver's interface; the emulated one bears any address.
        unsafe { self.driver.function::<Free>("cuMemFreeAsync")(address, self.stream) }
    }

    pub(super) fn set(&self, address: u64, bytes: usize) -> c_int {
        type Set = unsafe extern "C" fn(u64, u8, usize, *mut c_void) -> c_int;
        // SAFETY: as above.
        unsafe { self.driver.function::<Set>("cuMemsetD8Async")(address, 7, bytes, self.stream) }
    }

    pub(super) fn host(&self, bytes: usize) -> *mut u8 {
        let mut host = std::ptr::null_mut();
        type Host = unsafe extern "C" fn(*mut *mut u8, usize, c_uint) -> c_int;
        // SAFETY: the type of the driver's interface.
        assert_eq!(unsafe { self.driver.function::<Host>("cuMemHostAlloc")(&raw mut host, bytes, 0) }, 0);
        host
    }

    pub(super) fn copy_there(&self, to: u64, from: *const u8, bytes: usize) -> c_int {
        type Copy = unsafe extern "C" fn(u64, *const u8, usize, *mut c_void) -> c_int;
        // SAFETY: the caller's memory is page-locked, of which the driver knows the length.
        unsafe { self.driver.function::<Copy>("cuMemcpyHtoDAsync_v2")(to, from, bytes, self.stream) }
    }

    fn copy_back(&self, to: *mut u8, from: u64, bytes: usize) -> c_int {
        type Copy = unsafe extern "C" fn(*mut u8, u64, usize, *mut c_void) -> c_int;
        // SAFETY: as above.
        unsafe { self.driver.function::<Copy>("cuMemcpyDtoHAsync_v2")(to, from, bytes, self.stream) }
    }

    pub(super) fn call(&self, name: &str, handle: *mut c_void) -> c_int {
        // SAFETY: a function that takes one handle; the emulated driver bears any.
        unsafe { self.driver.function::<TakesHandle>(name)(handle) }
    }

    /// The one mistake since the last time.
    fn mistake(&self, expected: &str) {
        let found = self.driver.mistakes();
        assert!(found.len() == 1 && found[0].contains(expected), "{expected}: {found:?}");
    }
}

#[test]
fn the_emulated_driver_finds_what_a_host_side_does_wrong_with_memory() {
    inside("driver_faults", "the_emulated_driver_finds_what_a_host_side_does_wrong_with_memory", &[], |driver| {
        let raw = Raw::new(driver);
        let (first, second) = (raw.alloc(64), raw.alloc(64));
        assert_eq!((raw.set(first, 64), raw.set(first + 32, 32)), (0, 0));
        assert_ne!(raw.set(first, 65), 0);
        raw.mistake("65 bytes from byte 0 of 64");
        assert_ne!(raw.set(first + 60, 8), 0);
        raw.mistake("8 bytes from byte 60 of 64");
        assert_ne!(raw.set(8, 8), 0);
        raw.mistake("not of the device");
        let host = raw.host(128);
        assert_ne!(raw.copy_there(first, host.wrapping_add(100), 64), 0);
        raw.mistake("beyond page-locked memory");
        assert_ne!(raw.free(first + 16), 0);
        raw.mistake("no such memory");
        assert_eq!(raw.free(first), 0);
        assert_ne!(raw.free(first), 0);
        raw.mistake("freed already");
        assert_ne!(raw.set(first, 8), 0);
        raw.mistake("memory that is freed");
        // Memory that nobody has written is poisoned, and so is what a copy has not reached yet.
        let words = |host: *mut u8| {
            // SAFETY: 128 bytes of page-locked memory, aligned to pages.
            unsafe { std::slice::from_raw_parts(host.cast::<u32>(), 4) }.to_vec()
        };
        // SAFETY: as above.
        unsafe { host.write_bytes(9, 128) };
        assert_eq!(raw.copy_back(host, second, 16), 0);
        assert_eq!(words(host), [0xffc0_dead; 4]);
        assert_eq!(raw.set(second, 16), 0);
        assert_eq!(raw.copy_back(host, second, 16), 0);
        assert_eq!(words(host), [0xffc0_dead; 4], "the copy has not run");
        assert_ne!(raw.call("cuMemFreeHost", host.cast()), 0);
        raw.mistake("a copy that has not run");
        assert_eq!(raw.call("cuStreamSynchronize", raw.stream), 0);
        assert_eq!(words(host), [0x0707_0707; 4]);
        // Host memory that is used again before its copy has run arrives with what was written later.
        // SAFETY: as above.
        unsafe { host.write_bytes(1, 16) };
        assert_eq!(raw.copy_there(second, host, 16), 0);
        // SAFETY: as above.
        unsafe { host.write_bytes(2, 16) };
        assert_eq!((raw.copy_back(host, second, 16), raw.call("cuStreamSynchronize", raw.stream)), (0, 0));
        assert_ne!(words(host), [0x0101_0101; 4]);
        assert_eq!((raw.call("cuMemFreeHost", host.cast()), raw.free(second)), (0, 0));
        assert!(driver.mistakes().is_empty());
    });
}

#[test]
fn the_emulated_driver_finds_what_a_host_side_does_wrong_with_handles() {
    inside("driver_faults", "the_emulated_driver_finds_what_a_host_side_does_wrong_with_handles", &[], |driver| {
        let raw = Raw::new(driver);
        let mut event = std::ptr::null_mut();
        type Create = unsafe extern "C" fn(*mut *mut c_void, c_uint) -> c_int;
        // SAFETY: the type of the driver's interface.
        assert_eq!(unsafe { driver.function::<Create>("cuEventCreate")(&raw mut event, 2) }, 0);
        assert_eq!(raw.call("cuEventDestroy_v2", event), 0);
        assert_ne!(raw.call("cuEventDestroy_v2", event), 0);
        raw.mistake("was destroyed before");
        assert_ne!(raw.call("cuEventDestroy_v2", 64 as *mut c_void), 0);
        raw.mistake("was never made");
        // A thread has no context until it says which.
        let stream = raw.stream as usize;
        let other = std::thread::scope(|scope| {
            let other = || {
                // SAFETY: a function that takes one handle.
                unsafe { driver.function::<TakesHandle>("cuStreamSynchronize")(stream as *mut c_void) }
            };
            scope.spawn(other).join().unwrap()
        });
        assert_ne!(other, 0);
        raw.mistake("no context is current on this thread");
        // What is left when the context goes is a leak.
        let memory = raw.alloc(16);
        // SAFETY: the type of the driver's interface.
        let release =
            || unsafe { driver.function::<unsafe extern "C" fn(c_int) -> c_int>("cuDevicePrimaryCtxRelease_v2")(0) };
        assert_eq!(release(), 0);
        let leaks = driver.mistakes();
        assert_eq!(leaks.len(), 2, "{leaks:?}");
        assert!(leaks[0].contains("1 streams are left") && leaks[1].contains("1 blocks of device memory"), "{leaks:?}");
        assert_ne!((raw.free(memory), release()), (0, 0));
        let late = driver.mistakes();
        assert!(late[0].contains("the current context is released") && late[1].contains("not retained"), "{late:?}");
    });
}

/// Streams run in any order that their events allow.
#[test]
fn the_emulated_driver_finds_a_stream_that_does_not_wait_for_another() {
    inside("driver_faults", "the_emulated_driver_finds_a_stream_that_does_not_wait_for_another", &[], |driver| {
        let first = Raw::new(driver);
        let (mut stream, mut event) = (std::ptr::null_mut(), std::ptr::null_mut());
        type Create = unsafe extern "C" fn(*mut *mut c_void, c_uint) -> c_int;
        type OfTwo = unsafe extern "C" fn(*mut c_void, *mut c_void) -> c_int;
        type Wait = unsafe extern "C" fn(*mut c_void, *mut c_void, c_uint) -> c_int;
        // SAFETY: the types of the driver's interface.
        unsafe {
            assert_eq!(driver.function::<Create>("cuStreamCreate")(&raw mut stream, 1), 0);
            assert_eq!(driver.function::<Create>("cuEventCreate")(&raw mut event, 2), 0);
        }
        let second = Raw { driver, stream, pool: first.pool };
        let (memory, host) = (first.alloc(16), first.host(16));
        let copied = |waits: bool| {
            assert_eq!((first.set(memory, 16), first.call("cuStreamSynchronize", first.stream)), (0, 0));
            // SAFETY: 16 bytes of page-locked memory, of which the last copy has run.
            unsafe { host.write_bytes(8, 16) };
            assert_eq!(first.copy_there(memory, host, 16), 0);
            // SAFETY: the types of the driver's interface.
            unsafe {
                assert_eq!(driver.function::<OfTwo>("cuEventRecord")(event, first.stream), 0);
                if waits {
                    assert_eq!(driver.function::<Wait>("cuStreamWaitEvent")(stream, event, 0), 0);
                }
            }
            let there = first.host(16);
            assert_eq!((second.copy_back(there, memory, 16), second.call("cuStreamSynchronize", stream)), (0, 0));
            // SAFETY: 16 bytes of page-locked memory, which the copy has filled.
            let found = unsafe { there.read() };
            assert_eq!(first.call("cuStreamSynchronize", first.stream), 0);
            assert_eq!(first.call("cuMemFreeHost", there.cast()), 0);
            found
        };
        assert!((0..40).all(|_| copied(true) == 8));
        let late = (0..40).filter(|_| copied(false) == 7).count();
        assert!((1..40).contains(&late), "{late} of 40");
        assert!(driver.mistakes().is_empty());
    });
}

/// A mistake that no test forgives ends the process with a status that is no success.
#[test]
fn a_mistake_fails_the_process() {
    const ALLOWED: &str = "VEILSUM_EMULATED_DRIVER";
    if std::env::var_os(ALLOWED).is_some() {
        return;
    }
    let result = std::panic::catch_unwind(|| {
        inside("driver_faults", "made_on_purpose", &[("VEILSUM_MISTAKE", "1")], |_| ());
    });
    if super::emulation::available() {
        let text = *result.expect_err("the process has to fail").downcast::<String>().unwrap();
        assert!(text.contains("1 passed") && text.contains("emulated CUDA driver: cuMemFreeAsync: no such"), "{text}");
    }
}

/// Not a test of its own: what `a_mistake_fails_the_process` runs.
#[test]
fn made_on_purpose() {
    if std::env::var_os("VEILSUM_MISTAKE").is_some() {
        inside("driver_faults", "made_on_purpose", &[], |driver| assert_ne!(Raw::new(driver).free(64), 0));
    }
}
