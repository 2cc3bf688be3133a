//! What the targets share: a network in virtual time whose input drops, changes, repeats, invents and delays frames.

pub mod mphe;
#[cfg(feature = "net")]
pub mod net {
    //! Hostile bytes for the network: every file plays one input, and panics where a promise is broken. The suite plays with them too.

    /// Writes inputs to start from into the folder that `VEILSUM_SEEDS` names, if it does.
    ///
    /// # Panics
    /// If the folder cannot be written.
    pub fn plant(seeds: &[Vec<u8>]) {
        let Ok(folder) = std::env::var("VEILSUM_SEEDS") else { return };
        for (number, seed) in seeds.iter().enumerate() {
            std::fs::write(format!("{folder}/{number:04}"), seed).unwrap();
        }
    }

    pub mod bytes;
    pub mod client;
    pub mod input;
    pub mod server;
    pub mod town;
}

use std::ops::Range;

use veilsum::secagg::frame::{Header, pack, write_header};
use veilsum::secagg::{Party, PartyId, SessionId, VectorShape};

/// What an invented frame says of itself: something that its receiver does not refuse for the header alone.
pub struct Headers {
    /// Kinds of the protocol's frames.
    pub kinds: Range<u8>,
    /// Session, round, attempt.
    pub id: SessionId,
    /// Shape of vectors.
    pub shape: VectorShape,
}

/// The steps of the clock, and when it has run out.
pub struct Clock {
    /// Milliseconds of a step.
    pub step: u64,
    /// The end of the last phase.
    pub end: u64,
}

/// A vector as a client hands it over.
#[must_use]
pub fn packed(vector: &[u64], bits: u32) -> Vec<u8> {
    let mut out = Vec::new();
    pack(vector.iter().copied(), bits, &mut out);
    out
}

/// Plays the parties, the server first, until the clock has run out. The bytes of `data` say what becomes of frames; after
/// them everything arrives in order.
pub fn storm(data: &[u8], parties: &mut [(PartyId, &mut dyn Party)], headers: &Headers, clock: &Clock) {
    let mut air: Vec<(PartyId, PartyId, Vec<u8>)> = Vec::new();
    let mut input = data.iter().copied();
    let mut next = || input.next();
    let mut now = 0;
    loop {
        for (from, party) in parties.iter_mut() {
            air.extend(std::iter::from_fn(|| party.poll_transmit()).map(|t| (*from, t.to, t.frame)));
        }
        let (action, place) = (next().unwrap_or(0), usize::from(next().unwrap_or(0)));
        if air.is_empty() && action < 240 {
            now += clock.step;
            parties.iter_mut().for_each(|(_, party)| party.handle_timeout(now));
            if now > clock.end {
                return;
            }
            continue;
        }
        let mut flight = match action {
            0..240 => air.remove(place % air.len()),
            _ => {
                let who = parties[1 + place / 2 % (parties.len() - 1)].0;
                let (from, to) = if place % 2 == 0 { (who, PartyId::Server) } else { (PartyId::Server, who) };
                let author = match who {
                    PartyId::Client(client) => client,
                    PartyId::Holder(holder) => holder.into(),
                    PartyId::Server => 0,
                };
                let kind = headers.kinds.start + action % headers.kinds.len() as u8;
                let header = Header { kind, id: headers.id, client: author, shape: headers.shape };
                let mut frame = write_header(&header, 64);
                let len = next().unwrap_or(0);
                frame.extend((0..len).map_while(|_| next()));
                (from, to, frame)
            }
        };
        match action {
            // Lost.
            200..210 => continue,
            // Repeated.
            210..220 => air.push(flight.clone()),
            // Changed.
            220..240 => {
                air.push(flight.clone());
                let len = flight.2.len();
                let at = usize::from(next().unwrap_or(0)) * len / 256;
                flight.2[at] ^= next().unwrap_or(1);
                if action >= 235 {
                    flight.2.truncate(at);
                }
            }
            _ => {}
        }
        let (from, to, frame) = flight;
        if let Some((_, party)) = parties.iter_mut().find(|(id, _)| *id == to) {
            // Refused or not: what counts is the end.
            let _ = party.handle(from, &frame);
        }
    }
}

/// The end of an aggregation: an exact sum of at least two, or none.
///
/// # Panics
/// If the server ended otherwise: a finding.
pub fn exact_or_aborted(server: &mut dyn Party, vectors: &[Vec<u64>], bits: u32) {
    use veilsum::secagg::Output;
    match server.poll_output() {
        Some(Output::Sum { words, survivors }) => {
            let ring = (1u64 << bits) - 1;
            let of = |j: usize| survivors.iter().fold(0u64, |sum, &c| sum.wrapping_add(vectors[c as usize][j])) & ring;
            assert!(survivors.len() >= 2 && words == (0..vectors[0].len()).map(of).collect::<Vec<_>>());
        }
        other => assert!(matches!(other, Some(Output::Aborted { .. })), "{other:?}"),
    }
}
