//! Frames that were changed, cut, invented or sent to others: refused, and nothing changes.

use proptest::prelude::*;
use veilsum::secagg::frame::{Header, write_header};
use veilsum::secagg::{Party, PartyId};

use super::super::frames::{change, spoil};
use super::super::net;
use super::{Stage, plan};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Before every frame, spoiled copies of it, and the frame from and to somebody else.
    #[test]
    fn spoiled_frames_are_refused(changes in proptest::collection::vec(change(), 4), round in 1u32..200) {
        let mut stage = Stage::new(plan(3), round);
        let spoiled = |frame: &[u8]| {
            changes.iter().map(|c| spoil(frame, c)).filter(|bad| bad != frame).collect::<Vec<_>>()
        };
        for request in stage.requests() {
            let PartyId::Client(client) = request.to else { unreachable!() };
            let i = stage.session.index(client).unwrap();
            for bad in spoiled(&request.frame) {
                prop_assert!(stage.clients[i].handle(PartyId::Server, &bad).is_err());
            }
            prop_assert!(stage.clients[(i + 1) % 3].handle(PartyId::Server, &request.frame).is_err());
            stage.clients[i].handle(PartyId::Server, &request.frame).unwrap();
        }
        for i in 0..3 {
            let message = stage.clients[i].poll_transmit().unwrap().frame;
            let from = PartyId::Client(net::id(i));
            for bad in spoiled(&message) {
                prop_assert!(stage.server.handle(from, &bad).is_err());
            }
            let other = PartyId::Client(net::id((i + 1) % 3));
            prop_assert!(stage.server.handle(other, &message).is_err());
            prop_assert!(stage.server.handle(PartyId::Holder(1), &message).is_err());
            stage.server.handle(from, &message).unwrap();
            prop_assert!(stage.server.handle(from, &message).is_err(), "a second time");
        }
        let frames = stage.for_holders();
        for (at, frames) in frames.iter().enumerate() {
            for frame in frames {
                for bad in spoiled(frame) {
                    // A request that names another set than the one with this view; or whose clients it lacks.
                    let heard = stage.tell(at, &[bad]);
                    let lacking = matches!(&heard, Ok(Some(answer)) if answer[3] == 53);
                    prop_assert!(heard.is_err() || lacking);
                }
                prop_assert!(stage.tell((at + 1) % 5, std::slice::from_ref(frame)).is_err(), "another holder's");
                let answer = stage.tell(at, std::slice::from_ref(frame)).unwrap();
                prop_assert!(stage.tell(at, std::slice::from_ref(frame)).is_err(), "a second time");
                let Some(answer) = answer else { continue };
                for bad in spoiled(&answer) {
                    prop_assert!(stage.answer(at, &bad).is_err());
                }
                prop_assert!(stage.answer((at + 1) % 5, &answer).is_err());
                prop_assert!(stage.server.handle(PartyId::Client(net::id(at % 3)), &answer).is_err());
                stage.answer(at, &answer).unwrap();
                prop_assert!(stage.answer(at, &answer).is_err(), "a second time");
            }
        }
        prop_assert_eq!(stage.server.poll_output(), Some(stage.expected()));
    }

    /// Frames that nobody sent, of every kind, to everybody.
    #[test]
    fn invented_frames_are_refused(
        bodies in proptest::collection::vec((46u8..56, 0u64..6, proptest::collection::vec(any::<u8>(), 0..400)), 1..20),
    ) {
        let mut stage = Stage::new(plan(3), 1);
        let (id, shape) = (stage.session.id(), stage.session.input_shape());
        let messages = stage.messages();
        for step in 0..2 {
            for (kind, who, body) in &bodies {
                for client in [*who, net::id(*who as usize)] {
                    let mut frame = write_header(&Header { kind: *kind, id, client, shape }, body.len());
                    frame.extend_from_slice(body);
                    for frame in [&frame, body] {
                        for from in [PartyId::Server, PartyId::Client(net::id(*who as usize)), PartyId::Holder(*who as u16)] {
                            prop_assert!(stage.server.handle(from, frame).is_err());
                        }
                        prop_assert!(stage.clients[0].handle(PartyId::Server, frame).is_err());
                        prop_assert!(stage.holders[1].handle(PartyId::Server, frame).is_err());
                    }
                }
            }
            if step == 0 {
                let frames = stage.deliver(&messages);
                for (at, frames) in frames.iter().enumerate() {
                    let answer = stage.tell(at, frames).unwrap().unwrap();
                    if at < 4 {
                        stage.answer(at, &answer).unwrap();
                    }
                }
            }
        }
        stage.server.handle_timeout(2000);
        prop_assert_eq!(stage.server.poll_output(), Some(stage.expected()));
    }
}
