//! All parties of one protocol in one process, in virtual time: frames are delivered in the order in which they were sent,
//! and where nothing is on its way the time moves on to the next deadline. What is sent, and how long it is worked on, is
//! counted by kind of frame.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::{Output, Party, PartyId, SecAggError};

/// Frames of one kind: how many, their bytes, and the time that their receivers took for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Frames sent.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Time of those who took them, and made their answers.
    pub time: Duration,
}

/// What happened.
#[derive(Debug)]
pub struct Played {
    /// Outputs, in the order of the parties.
    pub outputs: Vec<Option<Output>>,
    /// By kind of frame.
    pub tallies: BTreeMap<u8, Tally>,
}

/// A party that vanishes: it hears nothing more, and sends no frame of this kind or a later one. Kinds of one protocol
/// are numbered in the order in which they are sent.
pub type Lost = BTreeMap<PartyId, u8>;

/// Where the kind of a frame stands.
const KIND: usize = 3;

/// Lets the parties talk until nothing more happens. `clock` gives a time that does not go back.
///
/// # Errors
/// A frame that was refused: among parties that all follow their protocol there is none.
pub fn play(
    parties: &mut [(PartyId, &mut dyn Party)],
    lost: &Lost,
    clock: &dyn Fn() -> Duration,
) -> Result<Played, SecAggError> {
    let places: BTreeMap<PartyId, usize> = parties.iter().enumerate().map(|(at, (id, _))| (*id, at)).collect();
    let mut air: VecDeque<(PartyId, usize, Vec<u8>)> = VecDeque::new();
    let mut gone = vec![false; parties.len()];
    let mut outputs: Vec<Option<Output>> = parties.iter().map(|_| None).collect();
    let mut tallies: BTreeMap<u8, Tally> = BTreeMap::new();
    let mut changed: Vec<usize> = (0..parties.len()).collect();
    loop {
        for at in changed.drain(..) {
            let (id, party) = &mut parties[at];
            let last = lost.get(id).copied();
            while let Some(t) = party.poll_transmit() {
                let kind = t.frame.get(KIND).copied().unwrap_or_default();
                gone[at] |= last.is_some_and(|last| kind >= last);
                if !gone[at] {
                    let tally = tallies.entry(kind).or_default();
                    (tally.frames, tally.bytes) = (tally.frames + 1, tally.bytes + t.frame.len() as u64);
                    if let Some(&to) = places.get(&t.to) {
                        air.push_back((*id, to, t.frame));
                    }
                }
            }
            if !gone[at] {
                outputs[at] = outputs[at].take().or_else(|| party.poll_output());
            }
        }
        if let Some((from, to, frame)) = air.pop_front() {
            if !gone[to] {
                let start = clock();
                parties[to].1.handle(from, &frame)?;
                let kind = frame.get(KIND).copied().unwrap_or_default();
                tallies.entry(kind).or_default().time += clock().saturating_sub(start);
                changed.push(to);
            }
            continue;
        }
        let Some(now) =
            parties.iter().zip(&gone).filter(|(_, gone)| !**gone).filter_map(|((_, p), _)| p.poll_timeout()).min()
        else {
            return Ok(Played { outputs, tallies });
        };
        // Who is gone has no time either: its deadlines would come for ever.
        for (at, (_, party)) in parties.iter_mut().enumerate().filter(|(at, _)| !gone[*at]) {
            party.handle_timeout(now);
            changed.push(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::backend::scalar::Scalar;
    use crate::secagg::frame::{KIND_ANNOUNCE, KIND_INPUT};
    use crate::secagg::plain::{PlainClient, PlainServer};
    use crate::secagg::{SessionId, VectorShape};

    #[test]
    fn who_is_lost_is_not_in_the_sum() {
        let (id, shape) = (SessionId { session: [1; 16], round: 1, attempt: 0 }, VectorShape { len: 3, bits: 8 });
        let mut server = PlainServer::new(id, &[1, 2, 3], shape, 2, Some(100), Arc::new(Scalar)).unwrap();
        let mut clients: Vec<PlainClient> =
            (1..=3).map(|c| PlainClient::new(id, c, shape, &[c, 10 * c, 200]).unwrap()).collect();
        let mut parties: Vec<(PartyId, &mut dyn Party)> = vec![(PartyId::Server, &mut server)];
        parties.extend((1..).zip(&mut clients).map(|(c, p)| (PartyId::Client(c), p as &mut dyn Party)));
        let lost = BTreeMap::from([(PartyId::Client(2), KIND_INPUT)]);
        let played = play(&mut parties, &lost, &|| Duration::ZERO).unwrap();
        let sum = Output::Sum { words: vec![4, 40, 144], survivors: vec![1, 3] };
        assert_eq!(played.outputs, [Some(sum), Some(Output::Delivered), None, Some(Output::Delivered)]);
        assert_eq!(played.tallies[&KIND_ANNOUNCE].frames, 3);
        assert_eq!((played.tallies[&KIND_INPUT].frames, played.tallies[&KIND_INPUT].bytes), (2, 2 * 47));
    }
}
