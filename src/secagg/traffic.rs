//! Frames and bytes by phase.

/// Frames and bytes of a phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Frames.
    pub frames: u64,
    /// Their bytes, headers included.
    pub bytes: u64,
}

impl Count {
    const fn add(&mut self, bytes: usize) {
        self.frames += 1;
        self.bytes += bytes as u64;
    }
}

/// What one machine has sent and has accepted in each of P phases, in the order of the protocol's `PHASES`.
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
    pub(super) const fn send(&mut self, phase: usize, bytes: usize) {
        self.sent[phase].add(bytes);
    }

    pub(super) const fn receive(&mut self, phase: usize, bytes: usize) {
        self.received[phase].add(bytes);
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
