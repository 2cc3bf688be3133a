//! Frames in and out, the time, and the keys of noise that was not needed: what the driver brings between a task and its charge.

use super::{Coordinator, ExcessNoise, State};
use crate::fl::FlError;
use crate::fl::protocol::RoundProtocol;
use crate::math::prg::StreamKey;
use crate::secagg::{Party, PartyId, SecAggError, SessionId, Transmit, frame};

impl Coordinator {
    /// The machine at work under a session: of a group's aggregation, or of a key set-up.
    fn machine(&mut self, of: &SessionId) -> Option<&mut dyn Party> {
        match &mut self.state {
            State::Collecting(groups) => Some(groups.iter_mut().find(|group| group.task.id == *of)?.server.as_mut()),
            State::Keying { id, server, .. } if id == of => Some(server.as_mut()),
            _ => None,
        }
    }

    /// The next frame of the aggregation `id`, or of a key set-up, to a client or key holder.
    pub fn poll_transmit(&mut self, id: &SessionId) -> Option<Transmit> {
        if self.parting.0 == *id
            && let Some(frame) = self.parting.1.pop_front()
        {
            return Some(frame);
        }
        self.machine(id)?.poll_transmit()
    }

    /// Takes a frame of an aggregation, or of a key set-up; its header says of which. A refused frame changes nothing.
    pub fn handle(&mut self, from: PartyId, bytes: &[u8]) -> Result<(), FlError> {
        let first = match &self.state {
            State::Collecting(groups) => groups.first().map(|group| group.task.id),
            State::Keying { id, .. } => Some(*id),
            _ => None,
        };
        let Some(first) = first else { return Err(self.out_of_order("a frame")) };
        // What names no machine the first one refuses, with the reason.
        let named = frame::session(bytes).filter(|id| self.machine(id).is_some()).unwrap_or(first);
        if let Some(machine) = self.machine(&named) {
            machine.handle(from, bytes)?;
            if let PartyId::Client(_) = from {
                self.received.0 += bytes.len() as u64;
            }
        }
        self.collect()
    }

    /// Takes the sum of an aggregation of `plain` whose driver plays the clients and has added their vectors itself, in place of
    /// their frames: `words` mod `2^bits`, and the clients that they are of, ascending.
    ///
    /// # Errors
    /// [`FlError::Aborted`] if too few have delivered; another protocol, length or client than the aggregation's.
    pub fn added(&mut self, id: &SessionId, words: Vec<u64>, survivors: Vec<u64>) -> Result<(), FlError> {
        let State::Collecting(groups) = &mut self.state else { return Err(self.out_of_order("a sum")) };
        let Some(group) = groups.iter_mut().find(|group| group.task.id == *id) else {
            return Err(FlError::OutOfOrder { event: "a sum", state: "collecting, and not for this aggregation" });
        };
        let task = &group.task;
        if !matches!(task.protocol, RoundProtocol::Plain) {
            return Err(FlError::OutOfOrder { event: "a sum", state: "collecting by a protocol that adds itself" });
        }
        if words.len() != task.shape.len as usize {
            let (expected, found) = (format!("{} words", task.shape.len), words.len().to_string());
            return Err(FlError::OutOfRange { name: "the sum of a group", expected, found });
        }
        let known = |client: &u64| task.cohort.binary_search(client).is_ok();
        if let Some(&client) = survivors.iter().find(|client| !known(client)) {
            return Err(SecAggError::UnknownSender { from: PartyId::Client(client) }.into());
        }
        if survivors.len() < task.threshold {
            let (round, threshold) = (id.round, task.threshold);
            return Err(FlError::Aborted { round, survivors: survivors.len(), threshold });
        }
        let count = survivors.len() as u64;
        // What their frames would have had.
        self.received.0 += count * (frame::HEADER + task.shape.packed_len()) as u64;
        self.received.1 += count;
        group.sum = Some((words, survivors));
        self.collect()
    }

    /// The layers of noise that were not needed, and who drew them: asked for once the charge is durable, before
    /// [`Self::charged`]. A client answers with the keys of these layers ([`Self::take_out`]) if the survivors that its own
    /// protocol machine knows are these: fewer would uncover noise that has to stay.
    #[must_use]
    pub fn excess(&self) -> Vec<ExcessNoise> {
        let State::Charging(sums) = &self.state else { return Vec::new() };
        let any = sums.iter().filter(|sum| !sum.task.excess(sum.survivors.len()).is_empty());
        any.map(|sum| ExcessNoise { task: Box::new(sum.task.clone()), clients: sum.survivors.clone() }).collect()
    }

    /// Takes the keys of a survivor's layers of noise that were not needed.
    ///
    /// # Errors
    /// Before there are survivors; a client that is none; another number of keys than of layers.
    pub fn take_out(&mut self, client: u64, keys: Vec<StreamKey>) -> Result<(), FlError> {
        let State::Charging(sums) = &self.state else {
            return Err(self.out_of_order("keys of noise"));
        };
        let Some(sum) = sums.iter().find(|sum| sum.survivors.binary_search(&client).is_ok()) else {
            return Err(SecAggError::UnknownSender { from: PartyId::Client(client) }.into());
        };
        let expected = sum.task.excess(sum.survivors.len()).len();
        if keys.len() != expected {
            return Err(FlError::OutOfRange {
                name: "keys of layers of noise",
                expected: expected.to_string(),
                found: keys.len().to_string(),
            });
        }
        self.told.insert(client, keys);
        Ok(())
    }

    /// When the aggregation `id`, or a key set-up, wants to be told the time next, in milliseconds since it began.
    #[must_use]
    pub fn poll_timeout(&self, id: &SessionId) -> Option<u64> {
        match &self.state {
            State::Collecting(groups) => groups.iter().find(|group| group.task.id == *id)?.server.poll_timeout(),
            State::Keying { id: of, server, .. } if of == id => server.poll_timeout(),
            _ => None,
        }
    }

    /// Tells an aggregation the time. At its deadline it goes on without those who have not delivered, or is aborted, and the
    /// round with it. A key needs all of its holders.
    ///
    /// # Errors
    /// [`FlError::Aborted`] if too few have delivered; [`FlError::Key`] if a holder was not heard.
    pub fn handle_timeout(&mut self, id: &SessionId, now: u64) -> Result<(), FlError> {
        let Some(machine) = self.machine(id) else { return Ok(()) };
        machine.handle_timeout(now);
        self.collect()
    }
}
