//! Holders that cheat while a key is made: nobody has a key then, and everybody knows whose fault it is.

use std::sync::Arc;

use veilsum::he::{Contribution, KeyShare, ShareDeal, poly};
use veilsum::math::prg::Secret;
use veilsum::secagg::channel::{PrivateKey, Route};
use veilsum::secagg::frame::HEADER;
use veilsum::secagg::identity::Domain;
use veilsum::secagg::mphe::wire::{self, Entry};
use veilsum::secagg::mphe::{KeyHolder, KeyPhase, KeyServer, KeySession, Misdeed, Plan, Trust};
use veilsum::secagg::{Party, PartyId, SecAggError};

use super::world::{self, request};
use crate::secagg::net::backend;

/// Who cheats.
const ROGUE: u16 = 3;

/// A set-up in steps.
struct Stage {
    session: Arc<KeySession>,
    server: KeyServer,
    holders: Vec<KeyHolder>,
}

type Frames = Vec<(u16, Vec<u8>)>;

impl Stage {
    fn new(epoch: u8) -> Self {
        let plan = Plan::choose(request(Trust::SemiHonestServer, 16)).unwrap();
        let session = world::key_session(&plan, epoch, false);
        Self { server: KeyServer::new(&session), holders: world::key_holders(&session), session }
    }

    fn requests(&mut self) -> Frames {
        std::iter::from_fn(|| self.server.poll_transmit())
            .map(|t| match t.to {
                PartyId::Holder(j) => (j, t.frame),
                other => panic!("{other}"),
            })
            .collect()
    }

    /// What the holders answer to the present requests.
    fn answers(&mut self) -> Frames {
        let mut out = Vec::new();
        for (j, frame) in self.requests() {
            let holder = &mut self.holders[usize::from(j) - 1];
            holder.handle(PartyId::Server, &frame).unwrap();
            out.extend(std::iter::from_fn(|| holder.poll_transmit()).map(|t| (j, t.frame)));
        }
        out
    }

    fn hear(&mut self, answers: Frames) {
        for (j, frame) in answers {
            let heard = self.server.handle(PartyId::Holder(j), &frame);
            assert!(matches!(heard, Ok(()) | Err(SecAggError::Late)), "{heard:?}");
        }
    }

    fn sign(&self, kind: u8, body: &[u8]) -> [u8; 64] {
        let domain = Domain { context: *self.session.context(), kind, client: u64::from(ROGUE) };
        world::holder_identity(ROGUE).sign(&domain, body)
    }

    fn frame(&self, kind: u8, parts: &[&[u8]]) -> Vec<u8> {
        self.session.place().frame(kind, PartyId::Holder(ROGUE), parts)
    }

    /// A commitment frame of the rogue with another entry.
    fn commit(&self, entry: Entry) -> Vec<u8> {
        self.frame(wire::COMMIT, &[&entry.bytes(), &self.sign(wire::COMMIT, &entry.bytes())])
    }

    fn entry(&self, answers: &Frames, holder: u16) -> Entry {
        let frame = &answers.iter().find(|(j, _)| *j == holder).unwrap().1;
        Entry::read(&mut wire::Reader::new(&frame[HEADER..])).unwrap()
    }

    /// Server and honest holders end, and blame the rogue.
    fn is_blamed(&mut self, phase: KeyPhase, misdeed: Misdeed, accuser: Option<u16>) {
        let fault = self.server.fault().unwrap().clone();
        assert_eq!(
            (fault.phase, &fault.holders[..], fault.misdeed, fault.accuser),
            (phase, &[ROGUE][..], misdeed, accuser)
        );
        assert!(fault.to_string().contains("by key holder 3"), "{fault}");
        for (j, frame) in self.requests() {
            let holder = &mut self.holders[usize::from(j) - 1];
            let heard = holder.handle(PartyId::Server, &frame);
            assert!(matches!(heard, Ok(()) | Err(SecAggError::Late)), "{heard:?}");
            assert!(holder.take_keys().is_none());
            if j != ROGUE {
                let known = holder.fault().unwrap();
                assert_eq!((&known.holders[..], known.misdeed), (&[ROGUE][..], misdeed), "holder {j}");
            }
        }
        assert!(self.server.take_key().is_none());
    }
}

fn replace(answers: &mut Frames, frame: Vec<u8>) {
    answers.iter_mut().find(|(j, _)| *j == ROGUE).unwrap().1 = frame;
}

#[test]
fn channel_keys_of_low_order_and_copies_are_named() {
    for (epoch, which) in (1..).zip(0..3) {
        let mut stage = Stage::new(epoch);
        let mut answers = stage.answers();
        let (own, other) = (stage.entry(&answers, ROGUE), stage.entry(&answers, 1));
        let (entry, misdeed) = match which {
            0 => (Entry { channel: [0; 32], ..own }, Misdeed::Channel),
            1 => (Entry { channel: other.channel, ..own }, Misdeed::Channel),
            _ => (Entry { commitment: other.commitment, ..own }, Misdeed::Commitment),
        };
        replace(&mut answers, stage.commit(entry));
        stage.hear(answers);
        stage.is_blamed(KeyPhase::Commit, misdeed, None);
    }
}

/// The holders check the same, whatever the server lets through.
#[test]
fn holders_find_bad_keys_themselves() {
    let mut stage = Stage::new(1);
    let answers = stage.answers();
    let own = stage.entry(&answers, ROGUE);
    let mut body = Vec::new();
    for (j, frame) in &answers {
        let bad = stage.commit(Entry { channel: [0; 32], ..own });
        body.extend_from_slice(&(if *j == ROGUE { &bad } else { frame })[HEADER..]);
    }
    let roll = stage.session.place().frame(wire::ROLL, PartyId::Holder(1), &[&body]);
    let holder = &mut stage.holders[0];
    holder.handle(PartyId::Server, &roll).unwrap();
    assert_eq!(
        (&holder.fault().unwrap().holders[..], holder.fault().unwrap().misdeed),
        (&[ROGUE][..], Misdeed::Channel)
    );
    let complaint = holder.poll_transmit().unwrap().frame;
    stage.server.handle(PartyId::Holder(1), &complaint).unwrap();
    assert_eq!(stage.server.fault().unwrap().accuser, Some(1));
}

/// The attack that commitments are for: a contribution that is chosen after the others' makes p the rogue's own key.
#[test]
fn a_contribution_chosen_after_the_others_is_named() {
    let mut stage = Stage::new(1);
    let answers = stage.answers();
    stage.hear(answers);
    let mut answers = stage.answers();
    let ring = stage.session.setup().ring.clone();
    let open = wire::contribution_len(&ring);
    let read = |frame: &[u8]| {
        let (bytes, _) = wire::signed(&frame[HEADER..HEADER + open]).unwrap();
        Contribution::from_bytes(&ring, bytes).unwrap()
    };
    // p' = p* - sum of the others, with p* of a key that the rogue knows: the same bytes in another polynomial.
    let (_, own) = KeyShare::generate(&*backend(), stage.session.setup(), ROGUE, &Secret::from_seed(666)).unwrap();
    assert_ne!(read(&answers[2].1), own);
    let chosen = own.to_bytes(&ring);
    let view = view_of(&stage);
    let statement = deal_statement(&view, 0, &chosen);
    let mut frame = answers[2].1[..HEADER].to_vec();
    frame.extend_from_slice(&chosen);
    frame.extend_from_slice(&stage.sign(wire::SHARES, &statement));
    frame.extend_from_slice(&answers[2].1[HEADER + open..]);
    // The server passes it on all the same: every holder refuses it, and says why.
    let delivery = |to: usize| {
        let bodies: Vec<&[u8]> =
            (0..4).map(|i| if i == 2 { &frame[HEADER..] } else { &answers[i].1[HEADER..] }).collect();
        let sealed = wire::sealed_len(&ring);
        let mut body: Vec<u8> = bodies.iter().flat_map(|b| b[..open].to_vec()).collect();
        for (i, b) in bodies.iter().enumerate().filter(|(i, _)| *i != to) {
            let at = to - usize::from(to > i);
            body.extend_from_slice(&b[open + at * sealed..][..sealed]);
        }
        stage.session.place().frame(wire::DELIVERY, PartyId::Holder(to as u16 + 1), &[&body])
    };
    let deliveries: Vec<Vec<u8>> = (0..4).map(delivery).collect();
    for to in [0, 1, 3] {
        let holder = &mut stage.holders[to];
        holder.handle(PartyId::Server, &deliveries[to]).unwrap();
        let fault = holder.fault().unwrap();
        assert_eq!((&fault.holders[..], fault.misdeed), (&[ROGUE][..], Misdeed::Contribution));
        assert_eq!(holder.poll_transmit().unwrap().frame[3], wire::COMPLAINT);
        assert!(holder.take_keys().is_none());
    }
    // And so does an honest server.
    replace(&mut answers, frame);
    let mut stage = Stage::new(1);
    let first = stage.answers();
    stage.hear(first);
    stage.answers();
    stage.hear(answers);
    assert_eq!(stage.server.fault().unwrap().misdeed, Misdeed::Contribution);
    stage.server.fault().unwrap();
    assert_eq!(stage.server.fault().unwrap().holders, [ROGUE]);
}

/// `SHA-256("veilsum mphe key view v1" | context | entries)`, from the secrets of the machines.
fn view_of(stage: &Stage) -> [u8; 32] {
    use sha2::{Digest, Sha256};
    let again = Stage {
        server: KeyServer::new(&stage.session),
        holders: world::key_holders(&stage.session),
        session: Arc::clone(&stage.session),
    };
    let mut again = again;
    let answers = again.answers();
    let mut hash = Sha256::new();
    hash.update(b"veilsum mphe key view v1");
    hash.update(stage.session.context());
    (1..=4).for_each(|j| hash.update(again.entry(&answers, j).bytes()));
    hash.finalize().into()
}

fn deal_statement(view: &[u8; 32], to: u16, bytes: &[u8]) -> Vec<u8> {
    use sha2::{Digest, Sha256};
    [&view[..], &to.to_le_bytes(), &Sha256::digest(bytes)].concat()
}

/// Shares that are none: of noise, of zeros, of another dealer. The accuser is named with the dealer, since only the two
/// of them know what was sealed.
#[test]
fn shares_that_are_none_are_named_with_their_accuser() {
    for (epoch, which) in (1..).zip(0..3) {
        let mut stage = Stage::new(epoch);
        let answers = stage.answers();
        let channel = rogue_channel(&stage);
        assert_eq!(channel.public(), stage.entry(&answers, ROGUE).channel);
        let victim = stage.entry(&answers, 1);
        stage.hear(answers);
        let mut answers = stage.answers();
        let ring = stage.session.setup().ring.clone();
        let (open, sealed) = (wire::contribution_len(&ring), wire::sealed_len(&ring));
        let route = Route { context: *stage.session.context(), from: u64::from(ROGUE), to: 1, purpose: 1 };
        let agreement = channel.agree(&victim.channel).unwrap();
        let good = agreement.open(&route, wire::signed(&answers[2].1[HEADER + open..][..sealed]).unwrap().0).unwrap();
        ShareDeal::from_bytes(&ring, &good).unwrap();
        let mut message = good.to_vec();
        let poly = message.len() - ring.bytes();
        match which {
            0 => message[poly..].fill(0xff),
            1 => message[poly..].fill(0),
            _ => message[poly - 4..poly - 2].copy_from_slice(&2u16.to_le_bytes()),
        }
        let bad = agreement.seal(&route, &message);
        let signature = stage.sign(wire::SHARES, &deal_statement(&view_of(&stage), 1, &bad));
        let frame = &mut answers[2].1;
        frame[HEADER + open..][..sealed].copy_from_slice(&[&bad[..], &signature].concat());
        stage.hear(answers);
        // The server cannot see it; holder 1 does.
        assert!(stage.server.fault().is_none());
        let answers = stage.answers();
        assert_eq!(answers[0].1[3], wire::COMPLAINT);
        stage.hear(answers);
        stage.is_blamed(KeyPhase::Sign, Misdeed::Share, Some(1));
    }
}

/// The rogue's X25519 key, drawn as its machine does.
fn rogue_channel(stage: &Stage) -> PrivateKey {
    use veilsum::math::prg::{Cipher, Purpose};
    let mut bytes = [0; 32];
    world::holder_secret(ROGUE)
        .derive_bound(&stage.session.setup().session, Purpose::SetupChannel, stage.session.context(), Cipher::ChaCha20)
        .fill(0, &mut bytes);
    PrivateKey::from_bytes(bytes)
}

/// A zero contribution, committed to in due form.
#[test]
fn a_contribution_of_zeros_is_named() {
    use sha2::{Digest, Sha256};
    let mut stage = Stage::new(1);
    let mut answers = stage.answers();
    let setup = stage.session.setup().clone();
    let ring = setup.ring.clone();
    let (_, own) = KeyShare::generate(&*backend(), &setup, ROGUE, &Secret::from_seed(1)).unwrap();
    let mut zeros = own.to_bytes(&ring);
    let at = zeros.len() - ring.bytes();
    zeros[at..].fill(0);
    // The digest of he::collective over the set-up, the opening and N L zeros.
    let mut hash = Sha256::new();
    hash.update(b"veilsum he key commitment v1");
    hash.update(setup.session);
    hash.update(setup.seed);
    [4u16, 3, 1].iter().for_each(|x| hash.update(x.to_le_bytes()));
    hash.update((ring.degree() as u32).to_le_bytes());
    hash.update((ring.limbs() as u32).to_le_bytes());
    ring.basis().primes().for_each(|p| hash.update(p.to_le_bytes()));
    hash.update(&zeros[at - 34..at]);
    let mut all = poly::lift(&ring, &vec![0; ring.degree()]).to_vec();
    all.fill(0);
    all.iter().for_each(|r| hash.update(r.to_le_bytes()));
    let entry = Entry { commitment: hash.finalize().into(), ..stage.entry(&answers, ROGUE) };
    replace(&mut answers, stage.commit(entry));
    stage.hear(answers);
    // The rogue's own machine would not go on; the others do.
    let mut answers: Frames = Vec::new();
    for (j, frame) in stage.requests() {
        let holder = &mut stage.holders[usize::from(j) - 1];
        if j != ROGUE {
            holder.handle(PartyId::Server, &frame).unwrap();
            answers.push((j, holder.poll_transmit().unwrap().frame));
        } else {
            assert!(holder.handle(PartyId::Server, &frame).is_err());
        }
    }
    let mut view = Sha256::new();
    view.update(b"veilsum mphe key view v1");
    view.update(stage.session.context());
    let honest = {
        let mut again = Stage::new(1);
        let answers = again.answers();
        (1..=4).map(|j| again.entry(&answers, j)).collect::<Vec<_>>()
    };
    (1..=4u16).for_each(|j| view.update(if j == ROGUE { entry.bytes() } else { honest[usize::from(j) - 1].bytes() }));
    let view: [u8; 32] = view.finalize().into();
    let mut body = [&zeros[..], &stage.sign(wire::SHARES, &deal_statement(&view, 0, &zeros))].concat();
    for to in [1u16, 2, 4] {
        let sealed = vec![0; wire::sealed_len(&ring) - 64];
        body.extend([&sealed[..], &stage.sign(wire::SHARES, &deal_statement(&view, to, &sealed))].concat());
    }
    answers.push((ROGUE, stage.frame(wire::SHARES, &[&body])));
    stage.hear(answers);
    stage.is_blamed(KeyPhase::Share, Misdeed::Contribution, None);
}

/// Frames that nobody may send, or not now: refused, and nothing changes.
#[test]
fn hostile_frames_of_a_set_up_change_nothing() {
    let mut stage = Stage::new(1);
    let mut last: Frames = Vec::new();
    for step in 0..4 {
        let requests = stage.requests();
        for (j, frame) in &requests {
            let holder = &mut stage.holders[usize::from(*j) - 1];
            for bad in spoiled(frame) {
                assert!(holder.handle(PartyId::Server, &bad).is_err(), "step {step}");
            }
            assert!(holder.handle(PartyId::Holder(1), frame).is_err());
            let other = &requests[usize::from(*j) % 4].1;
            assert!(holder.handle(PartyId::Server, other).is_err(), "the request of another holder");
            holder.handle(PartyId::Server, frame).unwrap();
            assert!(holder.handle(PartyId::Server, frame).is_err(), "twice");
        }
        if step == 3 {
            break;
        }
        let holders = stage.holders.iter_mut();
        let answers: Frames = (1..).zip(holders).map(|(j, h)| (j, h.poll_transmit().unwrap().frame)).collect();
        for (j, frame) in &answers {
            for bad in spoiled(frame) {
                assert!(stage.server.handle(PartyId::Holder(*j), &bad).is_err(), "step {step}");
            }
            let from = [PartyId::Holder(j % 4 + 1), PartyId::Holder(0), PartyId::Holder(9), PartyId::Client(3)];
            from.iter().for_each(|&f| assert!(stage.server.handle(f, frame).is_err()));
            for (_, old) in &last {
                assert!(stage.server.handle(PartyId::Holder(*j), old).is_err(), "of the step before");
            }
            stage.server.handle(PartyId::Holder(*j), frame).unwrap();
            assert!(stage.server.handle(PartyId::Holder(*j), frame).is_err(), "twice");
        }
        last = answers;
    }
    assert!(stage.server.take_key().is_some());
    assert!(stage.holders.iter_mut().all(|h| h.take_keys().is_some()));
}

/// Spoiled copies of a frame: cut, grown, of another version, session, kind, shape, author; a bit flipped anywhere.
pub(super) fn spoiled(frame: &[u8]) -> Vec<Vec<u8>> {
    let len = frame.len();
    let mut out: Vec<Vec<u8>> =
        [0, 3, 43, 44, 45, len / 2, len - 1].iter().map(|&cut| frame[..cut.min(len - 1)].to_vec()).collect();
    out.push([frame, &[0]].concat());
    // Magic, version 2 of the future, kind, session, round, attempt, author, shape; then the body.
    for (at, bits) in [(0, 1), (2, 3), (3, 1), (3, 0x40), (4, 1), (20, 1), (24, 1), (28, 8), (36, 1), (40, 1)] {
        let mut bad = frame.to_vec();
        bad[at] ^= bits;
        out.push(bad);
    }
    for at in [44, 60, 76, len / 2, len - 65, len - 1] {
        if at >= 44 && at < len {
            let mut bad = frame.to_vec();
            bad[at] ^= 1;
            out.push(bad);
        }
    }
    out
}
