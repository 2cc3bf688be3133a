//! Frames and bytes by phase.

use crate::secagg::masks::session::Count;

/// What one machine has sent and has accepted in each of P phases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic<const P: usize> {
    /// Handed out by `poll_transmit`.
    pub sent: [Count; P],
    /// Accepted by `handle`; what was refused is not counted.
    pub received: [Count; P],
}

impl<const P: usize> Default for Traffic<P> {
    fn default() -> Self {
        Self { sent: [Count::default(); P], received: [Count::default(); P] }
    }
}

impl<const P: usize> Traffic<P> {
    pub(super) fn send(&mut self, phase: usize, bytes: usize) {
        self.sent[phase].frames += 1;
        self.sent[phase].bytes += bytes as u64;
    }

    pub(super) fn receive(&mut self, phase: usize, bytes: usize) {
        self.received[phase].frames += 1;
        self.received[phase].bytes += bytes as u64;
    }

    /// Bytes sent in all phases.
    #[must_use]
    pub fn bytes_sent(&self) -> u64 {
        self.sent.iter().map(|c| c.bytes).sum()
    }

    /// Bytes accepted in all phases.
    #[must_use]
    pub fn bytes_received(&self) -> u64 {
        self.received.iter().map(|c| c.bytes).sum()
    }
}
