//! Servers and clients that do not follow the protocol. Where a rule of the honest clients is what stops them, the same
//! attack is run against clients that lack the rule, and has to succeed.

use std::sync::Arc;

use hkdf::Hkdf;
use sha2::{Digest, Sha256};
use veilsum::backend::{Buffer, MaskSign};
use veilsum::math::prg::{Cipher, StreamKey};
use veilsum::math::shamir::{Interpolation, SHARE_BYTES, Share};
use veilsum::params::Ring;
use veilsum::secagg::channel::{PrivateKey, Route};
use veilsum::secagg::masks::wire::{self, Keys, Reader};
use veilsum::secagg::masks::{MasksClient, MasksServer, Phase, Plan, Request, ServerModel, Session, Setup};
use veilsum::secagg::{Output, Party, PartyId, SecAggError, Transmit, VectorShape};

use super::net;

const SHAPE: VectorShape = VectorShape { len: 40, bits: 16 };

/// A session in steps, with everything that was sent.
pub(super) struct Stage {
    pub(super) session: Arc<Session>,
    pub(super) vectors: Vec<Vec<u64>>,
    pub(super) server: MasksServer,
    pub(super) clients: Vec<MasksClient>,
    /// Frames to each client, and from it.
    heard: Vec<Vec<Vec<u8>>>,
    said: Vec<Vec<Vec<u8>>>,
}

impl Stage {
    pub(super) fn new(plan: Plan, round: u32) -> Self {
        let session = net::session_of(plan, SHAPE, round, None);
        let n = session.cohort().len();
        let vectors = net::vectors(n, SHAPE, u64::from(round));
        Self {
            server: MasksServer::new(&session, net::backend()),
            clients: net::clients(&session, &vectors),
            heard: vec![Vec::new(); n],
            said: vec![Vec::new(); n],
            session,
            vectors,
        }
    }

    fn index(&self, to: PartyId) -> usize {
        let PartyId::Client(client) = to else { panic!("{to}") };
        self.session.index(client).unwrap()
    }

    /// The requests of the present phase.
    pub(super) fn requests(&mut self) -> Vec<(usize, Vec<u8>)> {
        let frames: Vec<Transmit> = std::iter::from_fn(|| self.server.poll_transmit()).collect();
        frames.into_iter().map(|t| (self.index(t.to), t.frame)).collect()
    }

    /// Gives a request to a client, and returns what it answers.
    fn give(&mut self, i: usize, frame: &[u8]) -> Result<Option<Vec<u8>>, SecAggError> {
        self.clients[i].handle(PartyId::Server, frame)?;
        self.heard[i].push(frame.to_vec());
        let answer = self.clients[i].poll_transmit().map(|t| t.frame);
        self.said[i].extend(answer.clone());
        Ok(answer)
    }

    /// Plays one phase honestly.
    fn phase(&mut self) {
        for (i, frame) in self.requests() {
            let answer = self.give(i, &frame).unwrap().unwrap();
            self.server.handle(PartyId::Client(net::id(i)), &answer).unwrap();
        }
    }

    /// Plays up to the requests of `phase`, which are returned.
    fn until(&mut self, phase: Phase) -> Vec<(usize, Vec<u8>)> {
        while self.server.phase() != Some(phase) {
            self.phase();
        }
        self.requests()
    }

    fn finish(&mut self) -> Output {
        while self.server.phase().is_some() {
            self.phase();
        }
        self.server.poll_output().unwrap()
    }

    fn expected(&self) -> Output {
        net::plain(&self.session, &self.vectors, self.session.cohort())
    }

    /// A client that knows what `i` knew when its vector was sent, and nothing of what it has answered since.
    fn forgetful(&self, i: usize) -> MasksClient {
        let mut client = net::client(&self.session, i, &self.vectors[i]);
        for frame in &self.heard[i][..3] {
            client.handle(PartyId::Server, frame).unwrap();
            client.poll_transmit().unwrap();
        }
        client
    }

    fn keys(&self, i: usize) -> Keys {
        Reader::new(wire::body(&self.session, &self.said[i][0], wire::KEYS, i).unwrap()).keys().unwrap()
    }

    /// The vector's hash and signature as they stand in a request to open.
    fn input(&self, i: usize) -> Vec<u8> {
        let body = wire::body(&self.session, &self.said[i][2], wire::INPUT, i).unwrap();
        let (masked, signature) = wire::signed(body).unwrap();
        // One part: the hash of its hash.
        let hash: [u8; 32] = Sha256::digest(Sha256::digest(masked)).into();
        [&(i as u32).to_le_bytes()[..], &hash, &signature].concat()
    }
}

/// One set of survivors, and whom the server shows it to.
struct Story {
    set: Vec<bool>,
    told: Vec<usize>,
}

fn bits(set: &[bool]) -> Vec<u8> {
    veilsum::secagg::masks::session::bitmap(set)
}

/// A server that tells several stories and opens each as far as the clients let it: the vector of `victim`, if the
/// answers uncover it.
fn uncover(stage: &mut Stage, victim: usize, stories: &[Story], forgetful: bool) -> Option<Vec<u64>> {
    let session = Arc::clone(&stage.session);
    let near =
        |i: usize, set: &[bool]| session.graph().neighbors(i).into_iter().filter(|&j| set[j]).collect::<Vec<_>>();
    let (mut of_seed, mut of_key) = (Vec::new(), Vec::new());
    // All signatures first, then all openings.
    let mut parties: Vec<Vec<(usize, MasksClient)>> = Vec::new();
    let mut lists = Vec::new();
    for story in stories {
        let mut replicas = Vec::new();
        let mut signatures = Vec::new();
        for &i in &story.told {
            let mut replica = stage.forgetful(i);
            if session.checks_consistency() {
                let request = wire::frame(&session, wire::SURVIVORS, i, &[&bits(&story.set)]);
                let party = if forgetful { &mut replica } else { &mut stage.clients[i] };
                if party.handle(PartyId::Server, &request).is_ok() {
                    let consent = party.poll_transmit().unwrap().frame;
                    let body = wire::body(&session, &consent, wire::CONSENT, i).unwrap();
                    signatures.push([&(i as u32).to_le_bytes()[..], body].concat());
                }
            }
            replicas.push((i, replica));
        }
        parties.push(replicas);
        lists.push([&wire::count(signatures.len())[..], &signatures.concat()].concat());
    }
    for ((story, replicas), signatures) in stories.iter().zip(parties).zip(&lists) {
        for (i, mut replica) in replicas {
            let near = if session.checks_consistency() { near(i, &story.set) } else { Vec::new() };
            let inputs: Vec<u8> = near.iter().flat_map(|&j| stage.input(j)).collect();
            let (set, count) = (bits(&story.set), wire::count(near.len()));
            let parts: [&[u8]; 4] = [&set, signatures, &count, &inputs];
            let request = wire::frame(&session, wire::OPEN, i, &parts);
            let party = if forgetful { &mut replica } else { &mut stage.clients[i] };
            if party.handle(PartyId::Server, &request).is_err() {
                continue;
            }
            let answer = party.poll_transmit().unwrap().frame;
            let (list, _) = wire::signed(wire::body(&session, &answer, wire::UNMASK, i).unwrap()).unwrap();
            for mut entry in Reader::new(list).list(5 + SHARE_BYTES, 1000).unwrap() {
                let (member, kind) = (entry.member().unwrap(), entry.array::<1>().unwrap()[0]);
                let share = Share::from_bytes(&entry.array().unwrap()).unwrap();
                if member == victim {
                    if kind == wire::OF_SEED { &mut of_seed } else { &mut of_key }.push((i as u64 + 1, share));
                }
            }
        }
    }
    let seed = combine(&of_seed, session.plan().threshold())?;
    let key = PrivateKey::from_bytes(combine(&of_key, session.plan().threshold())?);
    assert_eq!(key.public(), stage.keys(victim).pairwise);
    Some(strip(stage, victim, &seed, &key))
}

fn combine(shares: &[(u64, Share)], threshold: usize) -> Option<[u8; 32]> {
    let chosen = shares.get(..threshold)?;
    let at: Vec<u64> = chosen.iter().map(|(x, _)| *x).collect();
    let given: Vec<&Share> = chosen.iter().map(|(_, s)| s).collect();
    Some(*Interpolation::new(&at).unwrap().combine(&given).unwrap())
}

/// Takes all masks off one vector, with both secrets of its owner.
fn strip(stage: &Stage, victim: usize, seed: &[u8; 32], key: &PrivateKey) -> Vec<u64> {
    let session = &stage.session;
    let view = session.view(&vec![true; session.cohort().len()]);
    let body = wire::body(session, &stage.said[victim][2], wire::INPUT, victim).unwrap();
    let backend = net::backend();
    let packed = wire::signed(body).unwrap().0;
    let mut words = backend.unpack(packed, SHAPE.len as usize, SHAPE.bits).unwrap();
    let mut take_off = |key: [u8; 32], sign| {
        backend.mask(&mut words, Ring::Bits(SHAPE.bits), &StreamKey::from_bytes(key, Cipher::ChaCha20), sign).unwrap();
    };
    let mut own = [0; 32];
    let info = [&session.context()[..], &session.cohort()[victim].to_le_bytes(), &view].concat();
    Hkdf::<Sha256>::new(Some(b"veilsum masks self v1"), seed).expand(&info, &mut own).unwrap();
    take_off(own, MaskSign::Subtract);
    for j in session.graph().neighbors(victim) {
        let (low, high) = (victim.min(j), victim.max(j));
        let cohort = session.cohort();
        let route = Route { context: *session.context(), from: cohort[low], to: cohort[high], purpose: 2 };
        let shared = key.agree(&stage.keys(j).pairwise).unwrap().derive(&route, &view);
        take_off(*shared, if victim < j { MaskSign::Subtract } else { MaskSign::Add });
    }
    let Buffer::HostU32(words) = words else { panic!("on a device") };
    words.iter().map(|&w| u64::from(w)).collect()
}

fn but(n: usize, out: usize) -> Vec<bool> {
    (0..n).map(|i| i != out).collect()
}

#[test]
fn one_set_is_opened_in_a_session_and_clients_that_forget_are_found_out() {
    for server in [ServerModel::Malicious, ServerModel::SemiHonest] {
        let plan = Plan::choose(&Request::new(7, 1, 2, server)).unwrap();
        let stories = || {
            [
                Story { set: vec![true; 7], told: (0..7).collect() },
                Story { set: but(7, 2), told: vec![0, 1, 3, 4, 5, 6] },
            ]
        };
        let mut stage = Stage::new(plan, 1);
        stage.until(if server == ServerModel::Malicious { Phase::Consistency } else { Phase::Unmask });
        assert_eq!(uncover(&mut stage, 2, &stories(), false), None, "{server:?}");
        // The planted defect: both shares of one client are given out.
        assert_eq!(uncover(&mut stage, 2, &stories(), true), Some(stage.vectors[2].clone()), "{server:?}");
        // And the honest ones say why.
        let again = wire::frame(&stage.session, wire::SURVIVORS, 0, &[&bits(&but(7, 3))]);
        assert_eq!(stage.clients[0].handle(PartyId::Server, &again), Err(SecAggError::AnotherSet));
        let same = wire::frame(&stage.session, wire::OPEN, 0, &[&bits(&[true; 7]), &[0; 8]]);
        assert!(matches!(stage.clients[0].handle(PartyId::Server, &same), Err(SecAggError::Duplicate { .. })));
    }
}

#[test]
fn different_sets_for_different_clients_uncover_nobody_unless_signatures_are_ignored() {
    let victim = 8;
    let stories = |with_victim: bool| {
        let first = if with_victim { vec![0, 1, 2, 3, victim] } else { vec![0, 1, 2, 3] };
        [Story { set: vec![true; 9], told: first }, Story { set: but(9, victim), told: vec![4, 5, 6, 7] }]
    };
    let malicious = Plan::choose(&Request::new(9, 0, 4, ServerModel::Malicious)).unwrap();
    for with_victim in [false, true] {
        let mut stage = Stage::new(malicious, 2);
        stage.until(Phase::Consistency);
        assert_eq!(uncover(&mut stage, victim, &stories(with_victim), false), None);
    }
    // The planted defect: clients that ask for no signatures. They exist, under the name of the server that they trust.
    let trusting = Plan::choose(&Request::new(9, 0, 5, ServerModel::SemiHonest)).unwrap();
    let mut stage = Stage::new(Plan::complete(trusting.request()).unwrap(), 2);
    stage.until(Phase::Unmask);
    assert_eq!(uncover(&mut stage, victim, &stories(false), false), Some(stage.vectors[victim].clone()));
}

#[test]
fn too_few_false_or_borrowed_signatures_open_nothing() {
    let plan = Plan::choose(&Request::new(7, 1, 2, ServerModel::Malicious)).unwrap();
    let mut stage = Stage::new(plan, 3);
    for (i, frame) in stage.until(Phase::Consistency) {
        let answer = stage.give(i, &frame).unwrap().unwrap();
        stage.server.handle(PartyId::Client(net::id(i)), &answer).unwrap();
    }
    let session = Arc::clone(&stage.session);
    let set = bits(&[true; 7]);
    let signatures: Vec<Vec<u8>> =
        (0..7).map(|i| wire::body(&session, &stage.said[i][3], wire::CONSENT, i).unwrap().to_vec()).collect();
    let signature = |i: usize| signatures[i].clone();
    let inputs: Vec<Vec<u8>> = (0..7).map(|j| stage.input(j)).collect();
    let ask = |stage: &mut Stage, set: &[u8], signers: &[(usize, Vec<u8>)]| {
        let list: Vec<u8> = signers.iter().flat_map(|(i, s)| [&(*i as u32).to_le_bytes()[..], s].concat()).collect();
        let (near, count, six) = (inputs[1..].concat(), wire::count(signers.len()), wire::count(6));
        let parts: [&[u8]; 5] = [set, &count, &list, &six, &near];
        stage.clients[0].handle(PartyId::Server, &wire::frame(&session, wire::OPEN, 0, &parts))
    };
    let of = |who: &[usize]| who.iter().map(|&i| (i, signature(i))).collect::<Vec<_>>();
    let (q, all) = (plan.quorum(), of(&[0, 1, 2, 3, 4]));
    assert_eq!(q, 5);
    assert_eq!(ask(&mut stage, &set, &all[..4]), Err(SecAggError::Quorum { found: 4, needed: 5 }));
    let twice = [all[..4].to_vec(), all[3..4].to_vec()].concat();
    assert!(matches!(ask(&mut stage, &set, &twice), Err(SecAggError::List { position: 4, .. })));
    let borrowed = [all[..4].to_vec(), vec![(4, signature(3))]].concat();
    assert_eq!(ask(&mut stage, &set, &borrowed), Err(SecAggError::Signature { client: net::id(4) }));
    assert_eq!(ask(&mut stage, &bits(&but(7, 3)), &all), Err(SecAggError::AnotherSet));
    assert_eq!(ask(&mut stage, &set, &all), Ok(()));
}

/// A client that is shown another set of sharers masks for that: its seed stays closed.
#[test]
fn a_vector_that_was_masked_for_another_view_is_not_opened() {
    let plan = Plan::choose(&Request::new(7, 1, 2, ServerModel::Malicious)).unwrap();
    let mut stage = Stage::new(plan, 4);
    let session = Arc::clone(&stage.session);
    let victim = 6;
    for (i, frame) in stage.until(Phase::Input) {
        if i == victim {
            // Without client 0, and without its shares.
            let mut reader = Reader::new(wire::body(&session, &frame, wire::DELIVERY, i).unwrap());
            reader.set(7).unwrap();
            let sealed: Vec<Reader<'_>> = reader.list(4 + wire::SEALED, 6).unwrap().collect();
            let mut list = wire::count(5).to_vec();
            for mut entry in sealed.into_iter().skip(1) {
                list.extend_from_slice(entry.take(4 + wire::SEALED).unwrap());
            }
            let other = wire::frame(&session, wire::DELIVERY, i, &[&bits(&but(7, 0)), &list]);
            let answer = stage.give(i, &other).unwrap().unwrap();
            // The honest server has no use for it either.
            let refused = stage.server.handle(PartyId::Client(net::id(i)), &answer);
            assert_eq!(refused, Err(SecAggError::Signature { client: net::id(victim) }));
        } else {
            stage.give(i, &frame).unwrap().unwrap();
        }
    }
    let stories = [Story { set: vec![true; 7], told: (0..6).collect() }];
    let request = |i: usize| wire::frame(&session, wire::SURVIVORS, i, &[&bits(&stories[0].set)]);
    let mut signatures = Vec::new();
    for i in 0..6 {
        let consent = stage.give(i, &request(i)).unwrap().unwrap();
        let body = wire::body(&session, &consent, wire::CONSENT, i).unwrap();
        signatures.push([&(i as u32).to_le_bytes()[..], body].concat());
    }
    assert!(stage.give(victim, &request(victim)).is_err(), "not in its own view: client 0");
    let inputs: Vec<u8> = (1..7).flat_map(|j| stage.input(j)).collect();
    let set = bits(&[true; 7]);
    let (count, signatures) = (wire::count(6), signatures.concat());
    let parts: [&[u8]; 5] = [&set, &count, &signatures, &count, &inputs];
    let open = wire::frame(&session, wire::OPEN, 0, &parts);
    assert_eq!(stage.give(0, &open), Err(SecAggError::Signature { client: net::id(victim) }));
}

#[test]
fn survivors_that_would_be_cut_off_are_refused_by_everybody() {
    let request = Request { privacy_bits: 2, availability_bits: 0, ..Request::new(40, 1, 1, ServerModel::Malicious) };
    let plan = Plan::choose(&request).unwrap();
    let mut stage = Stage::new(plan, 5);
    stage.until(Phase::Consistency);
    let session = Arc::clone(&stage.session);
    let mut set = vec![true; 40];
    for j in session.graph().neighbors(11) {
        set[j] = false;
    }
    let missing = session.graph().most_missing(&set);
    assert_eq!(missing, plan.degree());
    for i in (0..40).filter(|&i| set[i]) {
        let request = wire::frame(&session, wire::SURVIVORS, i, &[&bits(&set)]);
        let refused = stage.give(i, &request).unwrap_err();
        assert!(matches!(refused, SecAggError::Survivors { limit, .. } if limit <= 39), "{refused}");
    }
    // Whom it names and who is not in it.
    let out = (0..40).find(|&i| !set[i]).unwrap();
    let request = wire::frame(&session, wire::SURVIVORS, out, &[&bits(&set)]);
    assert!(matches!(stage.give(out, &request), Err(SecAggError::List { .. })));
    let too_few: Vec<bool> = (0..40).map(|i| i < 10).collect();
    let request = wire::frame(&session, wire::SURVIVORS, 0, &[&bits(&too_few)]);
    let limit = plan.min_survivors();
    assert!(matches!(stage.give(0, &request), Err(SecAggError::Survivors { found: 10, limit: l, .. }) if l == limit));
}

#[test]
fn substituted_and_repeated_keys_are_refused() {
    let plan = Plan::choose(&Request::new(5, 0, 1, ServerModel::SemiHonest)).unwrap();
    let (mut stage, mut other) = (Stage::new(plan, 6), Stage::new(plan, 7));
    other.until(Phase::Shares);
    for (i, frame) in stage.until(Phase::Shares) {
        let mut own = frame.clone();
        let server = PrivateKey::from_bytes([7; 32]).public();
        // Behind header, count and member number: the first neighbor's two keys.
        own[44 + 8..44 + 40].copy_from_slice(&server);
        let neighbor = if i == 0 { 1 } else { 0 };
        let refused = Err(SecAggError::Signature { client: net::id(neighbor) });
        assert_eq!(stage.give(i, &own), refused);
        // Signed, but in another round.
        let mut old = frame.clone();
        old[44 + 8..44 + 168].copy_from_slice(&other.said[neighbor][0][44..]);
        assert_eq!(stage.give(i, &old), refused);
        let answer = stage.give(i, &frame).unwrap().unwrap();
        stage.server.handle(PartyId::Client(net::id(i)), &answer).unwrap();
    }
    assert_eq!(stage.finish(), stage.expected());
}

/// A frame of keys that a corrupt client signs.
fn signed_keys(session: &Session, i: usize, keys: &Keys) -> Vec<u8> {
    let signature = net::identity(i).sign(&session.domain(wire::KEYS, i), &keys.bytes());
    wire::frame(session, wire::KEYS, i, &[&keys.bytes(), &signature])
}

#[test]
fn keys_of_low_order_are_refused_even_with_a_signature() {
    let plan = Plan::choose(&Request::new(5, 0, 1, ServerModel::SemiHonest)).unwrap();
    let mut stage = Stage::new(plan, 8);
    let session = Arc::clone(&stage.session);
    let requests = stage.requests();
    let good = PrivateKey::from_bytes([1; 32]).public();
    for keys in [
        Keys { channel: [0; 32], pairwise: good, commitment: [0; 32] },
        Keys { channel: good, pairwise: [0; 32], commitment: [0; 32] },
    ] {
        let frame = signed_keys(&session, 4, &keys);
        assert_eq!(stage.server.handle(PartyId::Client(net::id(4)), &frame), Err(SecAggError::AllZero));
        // A server in league with it passes them on.
        stage.clients[0] = net::client(&session, 0, &stage.vectors[0]);
        stage.clients[0].handle(PartyId::Server, &requests[0].1).unwrap();
        let peers: Vec<u8> = (1..5)
            .flat_map(|j| {
                let frame = if j == 4 {
                    frame.clone()
                } else {
                    signed_keys(&session, j, &Keys { channel: good, ..keys_of(j) })
                };
                [&(j as u32).to_le_bytes()[..], &frame[44..]].concat()
            })
            .collect();
        let request = wire::frame(&session, wire::PEERS, 0, &[&wire::count(4), &peers]);
        assert_eq!(stage.clients[0].handle(PartyId::Server, &request), Err(SecAggError::AllZero));
    }
}

fn keys_of(j: usize) -> Keys {
    let public = PrivateKey::from_bytes([j as u8 + 1; 32]).public();
    Keys { channel: public, pairwise: public, commitment: [0; 32] }
}

#[test]
fn changed_shares_are_left_out_and_the_rest_suffices() {
    let plan = Plan::choose(&Request::new(6, 0, 2, ServerModel::Malicious)).unwrap();
    let mut stage = Stage::new(plan, 9);
    for (i, mut frame) in stage.until(Phase::Input) {
        // The last byte of the first neighbor's ciphertext, and of the last one's.
        let first = 44 + 1 + 4 + 4 + wire::SEALED - 1;
        if i < 2 {
            frame[first] ^= 1;
        }
        let answer = stage.give(i, &frame).unwrap().unwrap();
        stage.server.handle(PartyId::Client(net::id(i)), &answer).unwrap();
    }
    assert_eq!(stage.finish(), stage.expected());
    // All of one client's: its seed cannot be opened, and there is no sum.
    let mut stage = Stage::new(plan, 10);
    for (i, mut frame) in stage.until(Phase::Input) {
        if i != 0 {
            frame[44 + 1 + 4 + 4] ^= 1;
        }
        let answer = stage.give(i, &frame).unwrap().unwrap();
        stage.server.handle(PartyId::Client(net::id(i)), &answer).unwrap();
    }
    assert_eq!(stage.finish(), Output::Aborted { survivors: 1, threshold: 4 });
}

/// A corrupt client opens shares that are none.
#[test]
fn a_wrong_share_is_found_and_another_one_used() {
    let plan = Plan::choose(&Request::new(7, 1, 2, ServerModel::Malicious)).unwrap();
    for liars in [1, 3] {
        let mut stage = Stage::new(plan, 11);
        let session = Arc::clone(&stage.session);
        for (i, frame) in stage.until(Phase::Unmask) {
            let mut answer = stage.give(i, &frame).unwrap().unwrap();
            if i < liars {
                let at = answer.len() - 64;
                // The lowest bit of the first share of each entry.
                for entry in 0..7 {
                    answer[44 + 4 + entry * 45 + 5] ^= 1;
                }
                let signature = net::identity(i).sign(&session.domain(wire::UNMASK, i), &answer[44..at]);
                answer.truncate(at);
                answer.extend_from_slice(&signature);
            }
            stage.server.handle(PartyId::Client(net::id(i)), &answer).unwrap();
        }
        let output = stage.server.poll_output().unwrap();
        if liars == 1 {
            assert_eq!(output, stage.expected());
        } else {
            assert!(matches!(output, Output::Aborted { .. }), "{output:?}");
        }
    }
}

/// Answers of the wrong kind, for others, or about others.
#[test]
fn the_server_refuses_openings_that_were_not_asked_for() {
    let plan = Plan::choose(&Request::new(5, 0, 1, ServerModel::SemiHonest)).unwrap();
    let mut stage = Stage::new(plan, 12);
    let session = Arc::clone(&stage.session);
    let requests = stage.until(Phase::Unmask);
    let answer = stage.give(requests[0].0, &requests[0].1).unwrap().unwrap();
    let resigned = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut body = answer[44..answer.len() - 64].to_vec();
        change(&mut body);
        let signature = net::identity(0).sign(&session.domain(wire::UNMASK, 0), &body);
        wire::frame(&session, wire::UNMASK, 0, &[&body, &signature])
    };
    let sender = PartyId::Client(net::id(0));
    type Change<'a> = &'a dyn Fn(&mut Vec<u8>);
    let changes: [Change<'_>; 5] =
        [&|b| b[8] = wire::OF_KEY, &|b| b[4] = 1, &|b| b[4] = 200, &|b| b[9..17].fill(0xff), &|b| b.push(0)];
    for change in changes {
        assert!(stage.server.handle(sender, &resigned(change)).is_err());
    }
    stage.server.handle(sender, &answer).unwrap();
    assert!(matches!(stage.server.handle(sender, &answer), Err(SecAggError::Duplicate { .. })));
    for (i, frame) in &requests[1..] {
        let answer = stage.give(*i, frame).unwrap().unwrap();
        stage.server.handle(PartyId::Client(net::id(*i)), &answer).unwrap();
    }
    assert_eq!(stage.server.poll_output().unwrap(), stage.expected());
}

#[test]
fn sessions_side_by_side_do_not_mix() {
    let plan = Plan::choose(&Request::new(5, 0, 1, ServerModel::Malicious)).unwrap();
    let mut stages = [Stage::new(plan, 13), Stage::new(plan, 14)];
    while stages.iter().all(|s| s.server.phase().is_some()) {
        let requests = stages.each_mut().map(Stage::requests);
        for s in 0..2 {
            for (i, frame) in &requests[s] {
                let foreign = stages[1 - s].give(*i, frame);
                assert!(matches!(foreign, Err(SecAggError::ForeignSession { .. })), "{foreign:?}");
                let answer = stages[s].give(*i, frame).unwrap().unwrap();
                let from = PartyId::Client(net::id(*i));
                let foreign = stages[1 - s].server.handle(from, &answer).unwrap_err();
                let over = stages[1 - s].server.phase().is_none() && foreign == SecAggError::Late;
                assert!(over || matches!(foreign, SecAggError::ForeignSession { .. }), "{foreign}");
                assert!(matches!(
                    stages[s].server.handle(PartyId::Client(net::id((*i + 1) % 5)), &answer),
                    Err(SecAggError::UnknownSender { .. } | SecAggError::Duplicate { .. })
                ));
                stages[s].server.handle(from, &answer).unwrap();
            }
        }
    }
    for mut stage in stages {
        assert_eq!(stage.server.poll_output().unwrap(), stage.expected());
    }
}

#[test]
fn sessions_that_cannot_be_are_refused() {
    let plan = Plan::choose(&Request::new(3, 0, 0, ServerModel::Malicious)).unwrap();
    let good = || Setup {
        id: veilsum::secagg::SessionId { session: [3; 16], round: 1, attempt: 1 },
        shape: SHAPE,
        cohort: (0..3).map(net::id).collect(),
        roster: net::roster(3),
        plan,
        graph_seed: [0; 32],
        deadlines: None,
    };
    let session = Session::new(good()).unwrap();
    for bad in [
        Setup { cohort: vec![net::id(0), net::id(2), net::id(1)], ..good() },
        Setup { cohort: vec![net::id(0), net::id(1), net::id(1)], ..good() },
        Setup { cohort: vec![net::id(0), net::id(1)], ..good() },
        Setup { cohort: vec![net::id(0), net::id(1), 99_999], ..good() },
        Setup { shape: VectorShape { len: 1, bits: 64 }, ..good() },
        Setup { shape: VectorShape { len: 1, bits: 0 }, ..good() },
        Setup { deadlines: Some([1, 2, 3, 3, 4]), ..good() },
    ] {
        assert!(Session::new(bad).is_err());
    }
    let new = |i: usize, identity: usize| {
        MasksClient::new(&session, net::id(i), &net::identity(identity), &net::secret(i), net::backend()).map(|_| ())
    };
    assert_eq!(new(0, 0), Ok(()));
    assert!(matches!(new(0, 1), Err(SecAggError::Identity { .. })));
    assert!(matches!(new(5, 5), Err(SecAggError::UnknownSender { .. })));
    // A party that was told of another round does not begin.
    let mut other = MasksServer::new(&Session::new(Setup { graph_seed: [1; 32], ..good() }).unwrap(), net::backend());
    let mut client = net::client(&session, 0, &net::vectors(1, SHAPE, 1)[0]);
    let announced = other.poll_transmit().unwrap();
    assert_eq!(client.handle(PartyId::Server, &announced.frame), Err(SecAggError::Context));
    assert_eq!(
        client.handle(PartyId::Client(3), &announced.frame).unwrap_err(),
        SecAggError::UnknownSender { from: PartyId::Client(3) }
    );
    let text = format!("{client:?} {:?} {:?}", net::identity(0), net::secret(0));
    assert_eq!(text, "MasksClient(7, ..) Identity(..) Secret(..)");
    // A word that does not fit its field cannot be said; bits beyond the last field can, and are refused.
    let odd = Session::new(Setup { shape: VectorShape { len: 3, bits: 15 }, ..good() }).unwrap();
    let new = MasksClient::new(&odd, net::id(0), &net::identity(0), &net::secret(0), net::backend());
    assert_eq!(new.unwrap().submit(&[0, 0, 0, 0, 0, 0x20]), Err(SecAggError::Padding));
}
