//! Which NVIDIA devices this machine has, and why there is none.

use std::ffi::c_int;

use cudarc::driver::sys::CUdevice_attribute as Attribute;
use cudarc::driver::{DriverError, result, sys};

use super::driver::reason;

/// What the driver has to support: the version of CUDA that `scripts/cuda-build` compiles with.
pub const DRIVER_CUDA: (i32, i32) = (13, 0);
/// The oldest driver that does.
pub const DRIVER_RELEASE: u32 = 580;
/// The oldest architecture that the embedded kernels have code for.
pub const OLDEST: (i32, i32) = (8, 0);

/// A device as the driver describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CudaInfo {
    /// Its number for the driver.
    pub ordinal: usize,
    /// What its maker calls it.
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (i32, i32),
    /// Bytes of device memory.
    pub memory: u64,
    /// Bytes of shared memory that a block may ask for.
    pub shared_bytes: u32,
    /// Version of CUDA that the driver supports, major and minor.
    pub driver: (i32, i32),
}

impl CudaInfo {
    /// The device, if the kernels run on it.
    ///
    /// # Errors
    /// Why they do not.
    pub fn usable(self) -> Result<Self, String> {
        match self.refused() {
            None => Ok(self),
            Some(why) => Err(why),
        }
    }

    /// Why the kernels do not run on it.
    pub(super) fn refused(&self) -> Option<String> {
        let (found, needed) = (self.capability, OLDEST);
        (found < needed).then(|| {
            let name = &self.name;
            format!("{name} has compute capability {}.{}; the kernels need {}.{}", found.0, found.1, needed.0, needed.1)
        })
    }
}

/// The devices, in the driver's order; the error says in words why there are none.
///
/// # Errors
/// No driver, one that is too old or does not start, or no device.
pub fn probe() -> Result<Vec<CudaInfo>, String> {
    // SAFETY: loads the driver's library by its name, as any program that uses it does; it has no other precondition.
    if !unsafe { sys::is_culib_present() } {
        return Err("there is no NVIDIA driver (libcuda.so.1, or nvcuda.dll)".to_owned());
    }
    let driver = driver_version().map_err(|e| format!("the NVIDIA driver does not answer: {}", reason(e)))?;
    if driver < DRIVER_CUDA {
        return Err(format!(
            "the NVIDIA driver supports CUDA {}.{}; {}.{} is needed: driver {DRIVER_RELEASE} or newer",
            driver.0, driver.1, DRIVER_CUDA.0, DRIVER_CUDA.1
        ));
    }
    result::init().map_err(|e| format!("the NVIDIA driver does not start: {}", reason(e)))?;
    let count = result::device::get_count().map_err(|e| format!("the NVIDIA driver lists no device: {}", reason(e)))?;
    let found: Result<Vec<CudaInfo>, DriverError> = (0..count).map(|i| describe(i, driver)).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err("the NVIDIA driver finds no device".to_owned()),
        Err(e) => Err(format!("the NVIDIA driver does not describe its devices: {}", reason(e))),
    }
}

/// The version of CUDA that the driver supports, major and minor; nothing without a driver, or if it does not answer.
#[must_use]
pub fn driver_cuda() -> Option<(i32, i32)> {
    // SAFETY: as in `probe`.
    if unsafe { sys::is_culib_present() } { driver_version().ok() } else { None }
}

fn driver_version() -> Result<(i32, i32), DriverError> {
    let mut version: c_int = 0;
    // SAFETY: the library is there, and the function only writes the integer.
    unsafe { sys::cuDriverGetVersion(&raw mut version) }.result()?;
    Ok((version / 1000, version % 1000 / 10))
}

fn describe(ordinal: c_int, driver: (i32, i32)) -> Result<CudaInfo, DriverError> {
    let device = result::device::get(ordinal)?;
    // SAFETY: `device` comes from the driver, which has been started.
    let attribute = |which| unsafe { result::device::get_attribute(device, which) };
    Ok(CudaInfo {
        ordinal: ordinal as usize,
        name: result::device::get_name(device)?,
        capability: (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        // SAFETY: as above.
        memory: unsafe { result::device::total_mem(device) }? as u64,
        shared_bytes: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)? as u32,
        driver,
    })
}
