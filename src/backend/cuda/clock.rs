//! The device's time, by events of the stream.

use std::sync::{Mutex, PoisonError};

use cudarc::driver::{CudaEvent, DriverError, sys};

use super::driver::Driver;
use crate::backend::BackendError;
use crate::backend::device::Mark;

/// The events of the two marks, made when one is first set.
#[derive(Debug, Default)]
pub(super) struct Clock(Mutex<[Option<CudaEvent>; 2]>);

impl Clock {
    /// Records the event of a mark behind all that is on the stream.
    pub(super) fn mark(&self, driver: &Driver, mark: Mark) -> Result<(), BackendError> {
        let mut events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let earlier = events[mark as usize].take();
        let recorded = || -> Result<CudaEvent, DriverError> {
            let flags = sys::CUevent_flags::CU_EVENT_DEFAULT;
            let event = earlier.map_or_else(|| driver.context.new_event(Some(flags)), Ok)?;
            event.record(&driver.stream)?;
            Ok(event)
        };
        events[mark as usize] = Some(recorded().map_err(|e| driver.error(e))?);
        Ok(())
    }

    /// Seconds between the two marks, when both are reached.
    pub(super) fn elapsed(&self, driver: &Driver) -> Result<Option<f64>, BackendError> {
        let events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let [Some(begin), Some(end)] = &*events else { return Ok(None) };
        let milliseconds = begin.elapsed_ms(end).map_err(|e| driver.error(e))?;
        Ok(Some(f64::from(milliseconds) / 1e3))
    }
}
