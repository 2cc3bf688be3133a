//! Frames that were changed, cut, invented or sent at the wrong time: refused, or harmless.

use proptest::prelude::*;
use veilsum::secagg::frame::{Header, write_header};
use veilsum::secagg::masks::{Plan, Request, ServerModel, wire};
use veilsum::secagg::{Output, Party, PartyId};

use super::net;
use super::rogue::Stage;

fn plan() -> Plan {
    Plan::choose(&Request::new(5, 0, 1, ServerModel::Malicious)).unwrap()
}

/// One way to spoil a frame.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Flip(usize, u8),
    Cut(usize),
    Grow(Vec<u8>),
    Kind(u8),
    Zero(usize, usize),
}

pub(super) fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (any::<usize>(), 1u8..).prop_map(|(at, bits)| Change::Flip(at, bits)),
        1 => any::<usize>().prop_map(Change::Cut),
        1 => proptest::collection::vec(any::<u8>(), 1..40).prop_map(Change::Grow),
        1 => (0u8..30).prop_map(Change::Kind),
        1 => (any::<usize>(), 1usize..80).prop_map(|(at, len)| Change::Zero(at, len)),
    ]
}

pub(super) fn spoil(frame: &[u8], change: &Change) -> Vec<u8> {
    let mut out = frame.to_vec();
    let len = out.len();
    match change {
        Change::Flip(at, bits) => out[at % len] ^= bits,
        Change::Cut(at) => out.truncate(at % len),
        Change::Grow(more) => out.extend_from_slice(more),
        Change::Kind(kind) => out[3] = *kind,
        Change::Zero(at, zeros) => {
            let at = at % len;
            out[at..(at + zeros).min(len)].fill(0);
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]
    /// Before every frame, spoiled copies of it. What a client has signed is refused by the server whatever was changed;
    /// a client may believe a changed request of the server, and then there is the exact sum or none.
    #[test]
    fn spoiled_frames_are_refused_or_harmless(changes in proptest::collection::vec(change(), 4), round in 1u32..200) {
        let mut stage = Stage::new(plan(), round);
        let mut deceived = false;
        while stage.server.phase().is_some() {
            let requests = stage.requests();
            if requests.is_empty() {
                break;
            }
            for (i, frame) in requests {
                for change in &changes {
                    let bad = spoil(&frame, change);
                    let believed = bad != frame && stage.clients[i].handle(PartyId::Server, &bad).is_ok();
                    let kind = frame[3];
                    prop_assert!(!believed || kind == wire::DELIVERY || kind == wire::SURVIVORS, "kind {kind} {change:?}");
                    deceived |= believed;
                }
                let heard = stage.clients[i].handle(PartyId::Server, &frame);
                prop_assert!(deceived || heard.is_ok(), "{heard:?}");
                let Some(answer) = stage.clients[i].poll_transmit() else { continue };
                let from = PartyId::Client(net::id(i));
                for change in &changes {
                    let bad = spoil(&answer.frame, change);
                    prop_assert!(bad == answer.frame || stage.server.handle(from, &bad).is_err(), "{change:?}");
                }
                let taken = stage.server.handle(from, &answer.frame);
                prop_assert!(deceived || taken.is_ok(), "{taken:?}");
            }
        }
        let output = stage.server.poll_output();
        if let Some(Output::Sum { survivors, .. }) = &output {
            let expected = net::plain(&stage.session, &stage.vectors, survivors);
            prop_assert_eq!(output.as_ref(), Some(&expected));
        }
        let summed = matches!(output, Some(Output::Sum { .. }));
        prop_assert!(deceived || summed);
    }

    /// Frames that nobody sent, of every kind, to everybody, at every step.
    #[test]
    fn invented_frames_are_refused(
        bodies in proptest::collection::vec((0u8..30, 0usize..6, proptest::collection::vec(any::<u8>(), 2..400)), 1..12),
    ) {
        let mut stage = Stage::new(plan(), 1);
        let (id, shape) = (stage.session.id(), stage.session.shape());
        while stage.server.phase().is_some() {
            for (kind, i, body) in &bodies {
                let mut frame = write_header(&Header { kind: *kind, id, client: net::id(*i), shape }, body.len());
                frame.extend_from_slice(body);
                let from = PartyId::Client(net::id(*i));
                prop_assert!(stage.server.handle(from, &frame).is_err());
                prop_assert!(stage.server.handle(from, body).is_err());
                if let Some(client) = stage.clients.get_mut(*i) {
                    prop_assert!(client.handle(PartyId::Server, &frame).is_err());
                    prop_assert!(client.handle(PartyId::Server, body).is_err());
                }
            }
            for (i, frame) in stage.requests() {
                stage.clients[i].handle(PartyId::Server, &frame).unwrap();
                let answer = stage.clients[i].poll_transmit().unwrap().frame;
                stage.server.handle(PartyId::Client(net::id(i)), &answer).unwrap();
            }
        }
        let expected = net::plain(&stage.session, &stage.vectors, stage.session.cohort());
        prop_assert_eq!(stage.server.poll_output(), Some(expected));
    }
}

/// A list that claims more than it may holds nothing up: lengths come before allocations.
#[test]
fn huge_counts_are_refused() {
    let mut stage = Stage::new(plan(), 1);
    let session = std::sync::Arc::clone(&stage.session);
    let (_, announce) = stage.requests().swap_remove(0);
    stage.clients[0].handle(PartyId::Server, &announce).unwrap();
    for count in [5u32, 1 << 20, u32::MAX] {
        let frame = wire::frame(&session, wire::PEERS, 0, &[&count.to_le_bytes(), &[0; 200]]);
        assert!(stage.clients[0].handle(PartyId::Server, &frame).is_err());
    }
}
