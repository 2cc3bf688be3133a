//! The device's time, by timestamp queries.

use std::sync::{Mutex, PoisonError};

use super::queue::Shared;
use crate::backend::BackendError;
use crate::backend::device::Mark;

/// Bytes of the two timestamps.
const BYTES: u64 = 16;

/// The queries of the two marks, made when one is first set.
#[derive(Debug, Default)]
pub(super) struct Clock(Mutex<Option<Marks>>);

#[derive(Debug)]
struct Marks {
    queries: wgpu::QuerySet,
    ticks: wgpu::Buffer,
    /// A query that was never written must not be read: a driver would wait for it.
    set: [bool; 2],
}

/// True if the device takes timestamps.
pub(super) fn exists(shared: &Shared) -> bool {
    shared.device.features().contains(wgpu::Features::TIMESTAMP_QUERY)
}

impl Clock {
    /// Records the query of a mark.
    pub(super) fn mark(&self, shared: &Shared, mark: Mark) -> Result<(), BackendError> {
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if guard.is_none() {
            *guard = Some(shared.guarded("timestamps", BYTES, || Marks::new(&shared.device))?);
        }
        let Some(marks) = guard.as_mut() else { return Ok(()) };
        let index = mark as u32;
        let inside = shared.device.features().contains(wgpu::Features::TIMESTAMP_QUERY_INSIDE_ENCODERS);
        shared.record("timestamp", |commands| {
            if inside {
                commands.encoder.write_timestamp(&marks.queries, index);
            } else {
                // Of a pass alone: one that does nothing.
                let at = |wanted| (mark == wanted).then_some(index);
                let timestamp_writes = Some(wgpu::ComputePassTimestampWrites {
                    query_set: &marks.queries,
                    beginning_of_pass_write_index: at(Mark::Begin),
                    end_of_pass_write_index: at(Mark::End),
                });
                let label = Some("timestamp");
                drop(commands.encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label, timestamp_writes }));
            }
        })?;
        marks.set[mark as usize] = true;
        Ok(())
    }

    /// Seconds between the two marks, when both are reached.
    pub(super) fn elapsed(&self, shared: &Shared) -> Result<Option<f64>, BackendError> {
        let guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Marks { queries, ticks, set: [true, true] }) = guard.as_ref() else { return Ok(None) };
        shared.record("timestamps", |commands| commands.encoder.resolve_query_set(queries, 0..2, ticks, 0))?;
        let mut bytes = [0; BYTES as usize];
        shared.read(ticks, 0, &mut bytes)?;
        let [begin, end] = bytemuck::cast::<_, [u64; 2]>(bytes);
        let nanoseconds = end.wrapping_sub(begin) as i64 as f64 * f64::from(shared.queue.get_timestamp_period());
        Ok(Some(nanoseconds * 1e-9))
    }
}

impl Marks {
    fn new(device: &wgpu::Device) -> Self {
        let (label, ty) = (Some("veilsum timestamps"), wgpu::QueryType::Timestamp);
        let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
        Self {
            queries: device.create_query_set(&wgpu::QuerySetDescriptor { label, ty, count: 2 }),
            ticks: device.create_buffer(&wgpu::BufferDescriptor {
                label,
                size: BYTES,
                usage,
                mapped_at_creation: false,
            }),
            set: [false; 2],
        }
    }
}
