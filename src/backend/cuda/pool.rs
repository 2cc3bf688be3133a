//! A pool of device memory: an allocation is a step of the stream, and what was freed is used again.

use std::ffi::c_int;

use cudarc::driver::sys::{self, CUmemPool_attribute_enum as Attribute, CUresult};
use cudarc::driver::{CudaStream, DriverError, result};

/// A pool of its own, so that neither other libraries of the process nor we meet the other's settings.
#[derive(Debug)]
pub(super) struct Pool(sys::CUmemoryPool);

// SAFETY: a handle that the driver lets any thread use.
unsafe impl Send for Pool {}
// SAFETY: as above.
unsafe impl Sync for Pool {}

impl Pool {
    /// A pool on device `ordinal` that keeps what is freed until the memory runs out.
    pub(super) fn new(ordinal: usize) -> Result<Self, DriverError> {
        // SAFETY: plain data of the C interface, of which zero means "none" in every member.
        let mut properties: sys::CUmemPoolProps = unsafe { std::mem::zeroed() };
        properties.allocType = sys::CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED;
        properties.location.type_ = sys::CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE;
        properties.location.id = ordinal as c_int;
        // SAFETY: the properties are complete; the driver only reads them.
        let pool = Self(unsafe { result::mem_pool::create(&raw const properties) }?);
        let mut keep = u64::MAX;
        let what = Attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        // SAFETY: this attribute is a u64, which the driver only reads.
        unsafe { result::mem_pool::set_attribute(pool.0, what, (&raw mut keep).cast()) }?;
        Ok(pool)
    }

    /// Gives the driver back what is kept, with all that the stream has yet to free.
    pub(super) fn trim(&self, stream: &CudaStream) -> Result<(), DriverError> {
        stream.synchronize()?;
        // SAFETY: the pool is alive.
        unsafe { result::mem_pool::trim_to(self.0, 0) }
    }

    /// Memory from the pool. If there is too little, what is kept is given back to the driver first, which joins pieces.
    pub(super) fn alloc(&self, bytes: usize, stream: &CudaStream) -> Result<sys::CUdeviceptr, DriverError> {
        // SAFETY: pool and stream are alive.
        let attempt = || unsafe { result::mem_pool::alloc_async(self.0, bytes, stream.cu_stream()) };
        match attempt() {
            Err(e) if e.0 == CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                self.trim(stream)?;
                attempt()
            }
            other => other,
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: made by `new` and destroyed once; every allocation keeps the driver's state, and so the pool, alive.
        // Nothing can be done about an error.
        let _ = unsafe { result::mem_pool::destroy(self.0) };
    }
}
