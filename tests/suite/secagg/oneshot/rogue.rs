//! Servers, holders and clients that do not follow the protocol. Where a rule stops them, the same attack is run without
//! the rule, and has to succeed.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use veilsum::backend::packed_len;
use veilsum::he;
use veilsum::math::packed::P;
use veilsum::math::prg::{Cipher, StreamKey};
use veilsum::secagg::channel::{PrivateKey, Route};
use veilsum::secagg::masks::session::bitmap;
use veilsum::secagg::oneshot::{
    OneshotClient, OneshotHolder, Plan, Request, Session, Setup, Suspects, Weighting, simulated_channel,
    simulated_holder, wire,
};
use veilsum::secagg::{Output, Party, PartyId, SecAggError, frame};

use super::super::net;
use super::{SHAPE, Stage, holder, plan};

const HEADER: usize = frame::HEADER;

/// The statement that a relayed frame carries.
fn statement(relay: &[u8]) -> &[u8] {
    &relay[HEADER + 4..][..wire::STATEMENT]
}

/// What names a set of messages.
fn view(session: &Session, set: &[bool], relays: &[Vec<u8>]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"veilsum oneshot view v1");
    hash.update(session.context());
    hash.update(bitmap(set));
    (0..set.len()).filter(|&i| set[i]).for_each(|i| hash.update(statement(&relays[i])));
    hash.finalize().into()
}

pub(super) fn request(session: &Session, number: u16, set: &[bool], relays: &[Vec<u8>]) -> Vec<u8> {
    let view = view(session, set, relays);
    wire::frame(session, wire::OPEN, PartyId::Holder(number), &[&bitmap(set), &view])
}

/// The sum in an answer.
pub(super) fn values(session: &Session, answer: &[u8]) -> Vec<u32> {
    let len = session.plan().share_len();
    let mut out = vec![0; len];
    let shape = veilsum::secagg::VectorShape { len: len as u32, bits: 30 };
    frame::unpack(&answer[HEADER..][..packed_len(len, 30)], shape, |j, v| out[j] = v as u32);
    out
}

fn pack(values: &[u32]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::pack(values.iter().map(|&v| u64::from(v)), 30, &mut out);
    out
}

/// The relayed frames of all holders, by client, and the messages they come from.
pub(super) fn relays(stage: &mut Stage) -> (Vec<Vec<u8>>, Vec<Vec<Vec<u8>>>) {
    let messages = stage.messages();
    let mut frames = stage.deliver(&messages);
    frames.iter_mut().for_each(|frames| drop(frames.pop()));
    (messages, frames)
}

/// What the server opens for a set with answers of the holders, from the messages themselves.
fn opened(session: &Session, set: &[bool], messages: &[Vec<u8>], answers: &[(u16, Vec<u32>)]) -> Option<Vec<u64>> {
    let (plan, ring) = (session.plan(), &session.plan().vector().ring);
    let answers: Vec<(u16, &[u32])> = answers.iter().map(|(j, values)| (*j, &values[..])).collect();
    let key: Vec<u64> = plan.packing().open(&answers).ok()?.secrets.iter().map(|&x| u64::from(x)).collect();
    let members: Vec<usize> = (0..set.len()).filter(|&i| set[i]).collect();
    let backend = net::backend();
    let key = he::oneshot::secret_sum(&*backend, ring, &key, members.len() as u64).ok()?;
    let len = ring.len() * plan.vector().blocks as usize;
    let mut sums = vec![0; len];
    for &i in &members {
        let body = &messages[i][HEADER + wire::STATED..][..packed_len(len, 30)];
        let words = backend.unpack(body, len, 30).unwrap();
        he::oneshot::add(ring, &mut sums, words.as_u32().unwrap(), 1).unwrap();
    }
    let place = (ring, &plan.vector().layout);
    let d = session.shape().len as usize;
    let fields = he::oneshot::open(place, session.expand(), &key, &sums, d).ok()?;
    Some(fields.iter().map(|f| f.wrapping_sub(members.len() as u64 * plan.bound(0)) & 0xffff).collect())
}

/// A server that asks the same holders for everybody and for everybody but one. Holders refuse the second set, also when
/// they were restarted with their record; without record the difference is the victim's vector.
#[test]
fn a_second_opening_is_refused_and_would_uncover_a_client() {
    let mut stage = Stage::new(plan(4), 1);
    let session = Arc::clone(&stage.session);
    let (messages, frames) = relays(&mut stage);
    let sets = [vec![true; 4], vec![true, true, false, true]];
    let ask = |holder: &mut OneshotHolder, number: u16, set: &[bool]| -> Result<Vec<u32>, SecAggError> {
        let frames = &frames[usize::from(number) - 1];
        holder.handle(PartyId::Server, &request(&session, number, set, frames))?;
        Ok(values(&session, &holder.poll_transmit().unwrap().frame))
    };
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for number in 1..=4u16 {
        let at = usize::from(number) - 1;
        stage.tell(at, &frames[at]).unwrap();
        assert_eq!(stage.holders[at].record(), None);
        first.push((number, ask(&mut stage.holders[at], number, &sets[0]).unwrap()));
        let record = stage.holders[at].record();
        assert_eq!(record, Some(view(&session, &sets[0], &frames[at])));
        assert_eq!(ask(&mut stage.holders[at], number, &sets[1]), Err(SecAggError::AnotherSet));
        let again = ask(&mut stage.holders[at], number, &sets[0]);
        assert_eq!(again, Err(SecAggError::HolderAnswered { holder: number }));
        let mut restarted = holder(&session, number, record);
        assert_eq!(restarted.handle(PartyId::Server, &frames[at][0]), Err(SecAggError::Late));
        assert_eq!(ask(&mut restarted, number, &sets[1]), Err(SecAggError::AnotherSet));
        // The defect: it begins again and knows nothing of what it said.
        let mut forgetful = holder(&session, number, None);
        frames[at].iter().for_each(|frame| forgetful.handle(PartyId::Server, frame).unwrap());
        second.push((number, ask(&mut forgetful, number, &sets[1]).unwrap()));
    }
    let all = opened(&session, &sets[0], &messages, &first).unwrap();
    assert_eq!(stage.expected(), Output::Sum { words: all.clone(), survivors: session.cohort().to_vec() });
    let others = opened(&session, &sets[1], &messages, &second).unwrap();
    let victim: Vec<u64> = all.iter().zip(&others).map(|(a, b)| a.wrapping_sub(*b) & 0xffff).collect();
    let truth: Vec<u64> = stage.integers[2].iter().map(|&z| z as u64 & 0xffff).collect();
    assert_eq!(victim, truth, "the attack works where holders forget");
}

#[test]
fn small_sets_and_other_messages_are_refused() {
    let asked = Request { corrupt_clients: 1, min_survivors: 3, ..Request::new(4, SHAPE, 1 << 15, (5, 4, 1)) };
    let mut stage = Stage::new(Plan::choose(&asked).unwrap(), 1);
    let session = Arc::clone(&stage.session);
    let (_, frames) = relays(&mut stage);
    stage.tell(0, &frames[0][..3]).unwrap();
    let mut ask = |set: &[bool], relays: &[Vec<u8>]| {
        let answer = stage.tell(0, &[request(&session, 1, set, relays)])?;
        Ok(answer.unwrap()[3])
    };
    let few = ask(&[true, true, false, false], &frames[0]);
    assert_eq!(few, Err(SecAggError::Survivors { what: "their number", found: 2, limit: 3 }));
    // A set with a client whose share it has not: said, and nothing opened.
    assert_eq!(ask(&[true; 4], &frames[0]), Ok(wire::LACKS));
    // Another message of a client than the one that it has seen.
    let mut other = frames[0].clone();
    other[1][HEADER + 4 + 40] ^= 1;
    assert_eq!(ask(&[true, true, true, false], &other), Err(SecAggError::Context));
    assert_eq!(ask(&[true, true, true, false], &frames[0]), Ok(wire::ANSWER));
}

#[test]
fn keys_are_pinned() {
    let stage = Stage::new(plan(3), 1);
    let session = &stage.session;
    let (identity, channel) = (simulated_holder(&net::secret(77), 2).0, simulated_channel(&net::secret(77), 2));
    let other = PrivateKey::from_bytes([9; 32]);
    let found =
        |number, channel: &PrivateKey| OneshotHolder::new(session, number, &identity, channel, None).map(|_| ());
    assert_eq!(found(2, &other), Err(SecAggError::HolderKey { holder: 2 }));
    assert_eq!(found(1, &channel), Err(SecAggError::HolderKey { holder: 1 }));
    assert!(matches!(found(6, &channel), Err(SecAggError::UnknownSender { from: PartyId::Holder(6) })));
    assert!(matches!(found(0, &channel), Err(SecAggError::UnknownSender { .. })));
    found(2, &channel).unwrap();
    // A server that shows a client a session with a holder's key of its own: the client has pinned another session.
    let setup = |change: &dyn Fn(&mut Setup)| {
        let mut setup = Setup {
            id: session.id(),
            cohort: session.cohort().to_vec(),
            roster: net::roster(3),
            holders: session.holders().to_vec(),
            plan: session.plan().clone(),
            deadlines: None,
        };
        change(&mut setup);
        Session::new(setup)
    };
    let substituted = setup(&|s| s.holders[3].channel = other.public()).unwrap();
    assert_ne!(substituted.context(), session.context());
    let announce = wire::frame(session, wire::ANNOUNCE, PartyId::Client(net::id(0)), &[substituted.context()]);
    let mut client = super::client(session, 0, &stage.integers[0]);
    assert_eq!(client.handle(PartyId::Server, &announce), Err(SecAggError::Context));
    assert!(client.poll_transmit().is_none());
    // Keys that are there twice, of low order, or one too few.
    assert!(setup(&|s| s.holders[3].channel = s.holders[0].channel).is_err());
    assert!(setup(&|s| s.holders[3].identity = s.holders[0].identity).is_err());
    assert!(matches!(setup(&|s| s.holders[3].channel = [0; 32]), Err(SecAggError::AllZero)));
    assert!(setup(&|s| s.holders.truncate(4)).is_err());
    assert!(setup(&|s| s.cohort.swap(0, 1)).is_err());
    assert!(setup(&|s| s.deadlines = Some([5, 5])).is_err());
    // A client under a false name.
    let wrong = OneshotClient::new(session, net::id(0), &net::identity(1), &net::secret(1), net::backend());
    assert!(matches!(wrong, Err(SecAggError::Identity { .. })));
}

/// Wrong answers: found and named with one answer to spare for each twice, found with one, and of no use without.
#[test]
fn a_rogue_holder_is_named_or_the_round_aborts() {
    for (needed, named) in [(6, true), (7, false), (8, false)] {
        let asked = Request::new(3, SHAPE, 1 << 15, (8, needed, 1));
        let mut stage = Stage::new(Plan::choose(&asked).unwrap(), 1);
        let session = Arc::clone(&stage.session);
        let messages = stage.messages();
        let frames = stage.deliver(&messages);
        for (at, frames) in frames.iter().enumerate() {
            let mut answer = stage.tell(at, frames).unwrap().unwrap();
            if at == 2 {
                // Every coefficient stays small: only one share is off by one, as l of it can be.
                let mut sum = values(&session, &answer);
                sum[5] = (sum[5] + 1) % P;
                let body = pack(&sum);
                answer[HEADER..HEADER + body.len()].copy_from_slice(&body);
                let refused = stage.answer(at, &answer);
                assert_eq!(refused, Err(SecAggError::HolderSignature { holder: 3 }), "nobody else changes an answer");
                let number = at as u64 + 1;
                let view = &frames.last().unwrap()[HEADER + 1..];
                let identity = simulated_holder(&net::secret(77), number as u16).0;
                let signature = identity.sign(&session.domain(wire::ANSWER, number), &[view, &body[..]].concat());
                answer[HEADER + body.len()..].copy_from_slice(&signature);
            }
            stage.answer(at, &answer).unwrap();
        }
        let output = stage.server.poll_output().unwrap();
        if named {
            assert_eq!(output, stage.expected());
            assert_eq!(*stage.server.suspects(), Suspects { holders: vec![3], clients: vec![] });
        } else {
            assert!(matches!(output, Output::Aborted { .. }), "{needed}: {output:?}");
        }
    }
}

/// The tree of hashes of a client that seals what it likes.
fn root(sealed: &[&[u8]]) -> [u8; 32] {
    let mut level: Vec<[u8; 32]> = (1u16..)
        .zip(sealed)
        .map(|(j, sealed)| Sha256::digest([&[0][..], &j.to_le_bytes(), sealed].concat()).into())
        .collect();
    level.resize(level.len().next_power_of_two(), [0; 32]);
    while level.len() > 1 {
        level = level.chunks(2).map(|pair| Sha256::digest([&[1][..], &pair[0], &pair[1]].concat()).into()).collect();
    }
    level[0]
}

/// A message with other sealed shares and another weight, signed by `signer` in the name of `member`.
fn resigned(
    session: &Session,
    (member, signer): (usize, usize),
    message: &[u8],
    weight: u32,
    change: impl Fn(usize, &mut [u8]),
) -> Vec<u8> {
    let plan = session.plan();
    let (vector, size) = (wire::ciphertext_bytes(plan), wire::sealed_bytes(plan));
    let mut body = message[HEADER..message.len() - 64].to_vec();
    body[..4].copy_from_slice(&weight.to_le_bytes());
    let (front, sealed) = body.split_at_mut(wire::STATED + vector);
    sealed.chunks_mut(size).enumerate().for_each(|(at, sealed)| change(at, sealed));
    let block: [u8; 32] = Sha256::digest(&front[wire::STATED..]).into();
    assert_eq!(plan.vector().blocks, 1);
    let hash: [u8; 32] = Sha256::digest(block).into();
    let root = root(&sealed.chunks(size).collect::<Vec<_>>());
    let statement = [&front[..wire::STATED], &hash, &root].concat();
    let signature = net::identity(signer).sign(&session.domain(wire::INPUT, net::id(member)), &statement);
    wire::frame(session, wire::INPUT, PartyId::Client(net::id(member)), &[&body, &signature])
}

/// A Sybil that comes last and sends the shares, or all, of another client under its own name.
#[test]
fn copied_shares_are_worth_nothing() {
    let mut stage = Stage::new(plan(3), 1);
    let session = Arc::clone(&stage.session);
    let messages = stage.messages();
    let copy = resigned(&session, (2, 2), &messages[0], 1, |_, _| {});
    assert_ne!(copy, messages[0]);
    let frames = stage.deliver(&[messages[0].clone(), messages[1].clone(), copy]);
    for (at, frames) in frames.iter().enumerate() {
        stage.tell(at, &frames[..2]).unwrap();
        assert_eq!(stage.tell(at, &frames[2..3]), Err(SecAggError::Ciphertext));
        let answer = stage.tell(at, &frames[3..]).unwrap().unwrap();
        stage.answer(at, &answer).unwrap();
    }
    assert_eq!(stage.server.poll_output(), None, "the shares may be on their way");
    stage.server.handle_timeout(2000);
    assert_eq!(stage.server.poll_output(), Some(Output::Aborted { survivors: 0, threshold: 4 }));
    assert_eq!(stage.server.suspects().clients, [net::id(2)], "the next attempt may leave it out");
    assert_eq!(stage.server.suspects().holders, [1, 2, 3, 4, 5]);
}

/// A client that seals a share with values that are none, or garbage, to one holder: the others open without it.
#[test]
fn a_share_that_is_none_costs_one_answer() {
    for garbage in [false, true] {
        let mut stage = Stage::new(plan(3), 1);
        let session = Arc::clone(&stage.session);
        let messages = stage.messages();
        let key = PrivateKey::from_bytes([7; 32]);
        let plan = session.plan();
        let bad = resigned(&session, (1, 1), &messages[1], 1, |at, sealed| {
            if at == 3 && garbage {
                sealed[10] ^= 1;
            } else if at == 3 {
                // 2^30 - 1 is no residue.
                let message = vec![0xff; wire::share_bytes(plan)];
                let route = Route { context: *session.context(), from: net::id(1), to: 4, purpose: 1 };
                sealed.copy_from_slice(&key.agree(&session.holders()[3].channel).unwrap().seal(&route, &message));
            }
        });
        let frames = stage.deliver(&[messages[0].clone(), bad, messages[2].clone()]);
        for (at, frames) in frames.iter().enumerate() {
            let refused = frames[..3].iter().filter(|f| stage.holders[at].handle(PartyId::Server, f).is_err()).count();
            assert_eq!(refused, usize::from(at == 3));
            let answer = stage.tell(at, &frames[3..]).unwrap().unwrap();
            stage.answer(at, &answer).unwrap();
        }
        assert_eq!(stage.server.poll_output(), Some(stage.expected()));
        let expected = Suspects { holders: vec![4], clients: vec![net::id(1)] };
        assert_eq!(*stage.server.suspects(), expected);
    }
}

#[test]
fn weights_are_those_of_the_session() {
    let asked = Request { weights: Weighting::Server(vec![1, 3, 2]), ..Request::new(3, SHAPE, 1 << 15, (5, 4, 1)) };
    let mut stage = Stage::new(Plan::choose(&asked).unwrap(), 1);
    let session = Arc::clone(&stage.session);
    let messages = stage.messages();
    for weight in [0, 1, 2, 4, 1 << 29, u32::MAX] {
        let heavy = resigned(&session, (1, 1), &messages[1], weight, |_, _| {});
        let refused = stage.server.handle(PartyId::Client(net::id(1)), &heavy);
        assert!(matches!(refused, Err(SecAggError::OutOfRange { name: "weight", .. })), "{refused:?}");
    }
    // The same weight, signed again: the very same bytes.
    assert_eq!(resigned(&session, (1, 1), &messages[1], 3, |_, _| {}), messages[1]);
    let forged = resigned(&session, (1, 0), &messages[1], 3, |_, _| {});
    let refused = stage.server.handle(PartyId::Client(net::id(1)), &forged);
    assert_eq!(refused, Err(SecAggError::Signature { client: net::id(1) }));
    let frames = stage.deliver(&messages);
    // A server that tells a holder another weight.
    let mut lighter = frames[0][1].clone();
    lighter[HEADER + 4] = 1;
    assert!(stage.holders[0].handle(PartyId::Server, &lighter).is_err());
    for (at, frames) in frames.iter().enumerate() {
        let answer = stage.tell(at, frames).unwrap().unwrap();
        stage.answer(at, &answer).unwrap();
    }
    assert_eq!(stage.server.poll_output(), Some(stage.expected()));
}

/// Integers beyond the bound stay where they are; residues beyond their primes, and blocks of zeros, are not added.
#[test]
fn values_out_of_range_are_refused() {
    let asked = Request::new(3, SHAPE, 1000, (5, 4, 1));
    let stage = Stage::new(Plan::choose(&asked).unwrap(), 1);
    let session = &stage.session;
    for bad in [1001i64, -1001, 32_767, -32_768] {
        for at in [0, 17, 39] {
            let mut integers = stage.integers[0].clone();
            integers[at] = bad;
            let packed = super::packed(session.input_shape(), &integers);
            let found =
                OneshotClient::packed(session, net::id(0), &net::identity(0), &net::secret(0), net::backend(), &packed);
            assert_eq!(found.unwrap_err(), SecAggError::Bound { bound: 1000 }, "{bad} at {at}");
        }
    }
    let mut stage = stage;
    let session = Arc::clone(&stage.session);
    let message = stage.messages().swap_remove(0);
    let end = HEADER + wire::STATED + wire::ciphertext_bytes(session.plan());
    for fill in [0xff, 0] {
        let mut bad = message.clone();
        bad[end - 40..end].fill(fill);
        if fill == 0 {
            bad[HEADER + wire::STATED..end].fill(0);
        }
        let bad = resigned(&session, (0, 0), &bad, 1, |_, _| {});
        let refused = stage.server.handle(PartyId::Client(net::id(0)), &bad);
        assert!(matches!(refused, Err(SecAggError::Lattice(_))), "{refused:?}");
    }
    stage.server.handle(PartyId::Client(net::id(0)), &message).unwrap();
}

/// The same data give the same bytes; other data under the same secret and session another key, so that the difference of
/// two ciphertexts says nothing. Were the randomness the same it would be `2^o (m - m')`.
#[test]
fn a_retry_repeats_its_bytes_and_other_data_take_another_key() {
    let stage = Stage::new(plan(3), 1);
    let session = &stage.session;
    let message = |session: &Arc<Session>, integers: &[i64]| {
        let mut client = super::client(session, 0, integers);
        let announce = wire::frame(session, wire::ANNOUNCE, PartyId::Client(net::id(0)), &[session.context()]);
        client.handle(PartyId::Server, &announce).unwrap();
        client.poll_transmit().unwrap().frame
    };
    let first = message(session, &stage.integers[0]);
    assert_eq!(message(session, &stage.integers[0]), first);
    let mut other = stage.integers[0].clone();
    other[7] -= i64::from(other[7] > 0) * 2 - 1;
    let second = message(session, &other);
    let body = HEADER + wire::STATED;
    assert_ne!(first[HEADER + 4..body], second[HEADER + 4..body], "another channel key");
    let same = |a: &[u8], b: &[u8]| a.iter().zip(b).filter(|(a, b)| a == b).count();
    let len = wire::ciphertext_bytes(session.plan());
    assert!(same(&first[body..][..len], &second[body..][..len]) < len / 50, "all of it differs");
    let next = super::session(plan(3), 2, None);
    let third = message(&next, &stage.integers[0]);
    assert!(same(&first[body..][..len], &third[body..][..len]) < len / 50);
}

/// Whoever reads everything on the wire has only sealed shares: without a holder's key they open to nothing.
#[test]
fn a_wire_capture_opens_to_nothing() {
    let mut stage = Stage::new(plan(3), 1);
    let session = Arc::clone(&stage.session);
    let messages = stage.messages();
    let size = wire::sealed_bytes(session.plan());
    let sealed = &messages[0][HEADER + wire::STATED + wire::ciphertext_bytes(session.plan())..][..size];
    let channel: [u8; 32] = messages[0][HEADER + 4..][..32].try_into().unwrap();
    let route = Route { context: *session.context(), from: net::id(0), to: 1, purpose: 1 };
    // The holder can, nobody else.
    let holder = simulated_channel(&net::secret(77), 1);
    holder.agree(&channel).unwrap().open(&route, sealed).unwrap();
    for other in [simulated_channel(&net::secret(77), 2), PrivateKey::from_bytes([3; 32])] {
        assert!(other.agree(&channel).unwrap().open(&route, sealed).is_err());
    }
    let stream = StreamKey::from_bytes(*session.context(), Cipher::ChaCha20);
    let mut guess = [0; 32];
    stream.fill(0, &mut guess);
    assert!(PrivateKey::from_bytes(guess).agree(&channel).unwrap().open(&route, sealed).is_err());
}
