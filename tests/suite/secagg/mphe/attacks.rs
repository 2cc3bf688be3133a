//! Servers, clients and holders that do not follow the protocol in a round. Two attacks succeed: they are why a plan names
//! whom it protects from.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use veilsum::backend::scalar::Scalar;
use veilsum::he::params::prime_bits;
use veilsum::he::threshold::combine;
use veilsum::he::{Ciphertext, HeError, KeyShare, OpeningGuard, PartialOpening, Ring, poly};
use veilsum::math::prg::{Cipher, Purpose, Secret};
use veilsum::secagg::frame::{self, HEADER};
use veilsum::secagg::identity::Domain;
use veilsum::secagg::mphe::{MpheClient, MpheServer, Phase, RoundFault, RoundSession, Setup, Trust, wire};
use veilsum::secagg::{Output, Party, PartyId, SecAggError};

use super::rogue_keys::spoiled;
use super::world::{self, Keys, Round};
use crate::secagg::net;

const TRUSTS: [Trust; 2] = [Trust::SemiHonestServer, Trust::HonestRoster];

fn new_round(trust: Trust, number: u32) -> (&'static Keys, Round) {
    let keys = world::usual(trust);
    (keys, Round::new(keys, world::round(keys, number, 0, false), u64::from(number)))
}

#[test]
fn hostile_frames_of_a_round_change_nothing() {
    for trust in TRUSTS {
        let (_, mut round) = new_round(trust, 1);
        let announcements: Vec<Vec<u8>> =
            std::iter::from_fn(|| round.server.poll_transmit()).map(|t| t.frame).collect();
        let mut inputs = Vec::new();
        for (i, client) in round.clients.iter_mut().enumerate() {
            for bad in spoiled(&announcements[i]) {
                assert!(client.handle(PartyId::Server, &bad).is_err());
            }
            assert!(client.handle(PartyId::Server, &announcements[(i + 1) % 4]).is_err());
            assert!(client.handle(PartyId::Holder(1), &announcements[i]).is_err());
            client.handle(PartyId::Server, &announcements[i]).unwrap();
            assert_eq!(client.handle(PartyId::Server, &announcements[i]), Err(SecAggError::Late));
            inputs.push(client.poll_transmit().unwrap().frame);
            assert_eq!(client.poll_output(), Some(Output::Delivered));
        }
        // The same round of another attempt, by the same client: a replay.
        let elsewhere = world::round(world::usual(trust), 1, 1, false);
        let replayed = announced(&elsewhere, 0);
        for (i, frame) in inputs.iter().enumerate() {
            let from = PartyId::Client(net::id(i));
            for bad in spoiled(frame) {
                assert!(round.server.handle(from, &bad).is_err());
            }
            for other in
                [PartyId::Client(net::id((i + 1) % 4)), PartyId::Client(8), PartyId::Holder(1), PartyId::Server]
            {
                assert!(round.server.handle(other, frame).is_err(), "{other}");
            }
            assert!(matches!(round.server.handle(from, &replayed), Err(SecAggError::ForeignSession { .. })));
            round.server.handle(from, frame).unwrap();
            assert!(round.server.handle(from, frame).is_err(), "twice");
        }
        let requests: Vec<Vec<u8>> = std::iter::from_fn(|| round.server.poll_transmit()).map(|t| t.frame).collect();
        let mut answers = Vec::new();
        for (j, holder) in (0..).zip(round.holders.iter_mut()) {
            // A semi-honest server's sum is believed, so that only what stands before it is checked.
            let checked = |bad: &Vec<u8>| {
                trust == Trust::HonestRoster || bad.len() != requests[j].len() || bad[..76] != requests[j][..76]
            };
            for bad in spoiled(&requests[j]).into_iter().filter(checked) {
                assert!(holder.handle(PartyId::Server, &bad).is_err(), "{trust}");
            }
            holder.handle(PartyId::Server, &requests[j]).unwrap();
            assert!(holder.handle(PartyId::Server, &requests[j]).is_err(), "twice");
            answers.push(holder.poll_transmit().unwrap().frame);
        }
        for (j, frame) in (1..).zip(&answers) {
            for bad in spoiled(frame) {
                assert!(round.server.handle(PartyId::Holder(j), &bad).is_err());
            }
            assert!(round.server.handle(PartyId::Holder(j % 4 + 1), frame).is_err());
            round.server.handle(PartyId::Holder(j), frame).unwrap();
            assert!(round.server.handle(PartyId::Holder(j), frame).is_err(), "twice");
        }
        let openings: Vec<Vec<u8>> = std::iter::from_fn(|| round.server.poll_transmit()).map(|t| t.frame).collect();
        for j in 1..=3u16 {
            let holder = &mut round.holders[usize::from(j) - 1];
            let opening = &openings[usize::from(j) - 1];
            for bad in spoiled(opening) {
                assert!(holder.handle(PartyId::Server, &bad).is_err());
            }
            holder.handle(PartyId::Server, opening).unwrap();
            assert!(holder.handle(PartyId::Server, opening).is_err(), "twice");
            assert_eq!(holder.guard().len(), 1, "nothing of all that was counted as a release");
            let part = holder.poll_transmit().unwrap().frame;
            for bad in spoiled(&part) {
                assert!(round.server.handle(PartyId::Holder(j), &bad).is_err());
            }
            assert!(round.server.handle(PartyId::Holder(4), &part).is_err());
            round.server.handle(PartyId::Holder(j), &part).unwrap();
        }
        assert_eq!(round.server.poll_output(), Some(round.plain(round.session.cohort())), "{trust}");
        assert!(round.server.handle(PartyId::Client(net::id(0)), &inputs[0]).is_err());
    }
}

/// A client's frame of a round.
fn announced(session: &Arc<RoundSession>, i: usize) -> Vec<u8> {
    let mut server = MpheServer::new(session, net::backend());
    let vectors = world::vectors(session, 1);
    let mut client = world::client(session, i, &vectors[i]);
    let frames = std::iter::from_fn(|| server.poll_transmit());
    let frame = frames.filter(|t| t.to == PartyId::Client(net::id(i))).map(|t| t.frame).next().unwrap();
    client.handle(PartyId::Server, &frame).unwrap();
    client.poll_transmit().unwrap().frame
}

/// A request to the holders as a server makes it up: the survivors, what each has sent, and what stands behind that.
fn request_of(round: &Round, inputs: &[Vec<u8>], survivors: &[bool], behind: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut body = round.session.context().to_vec();
    body.extend(veilsum::secagg::masks::session::bitmap(survivors));
    for (_, frame) in survivors.iter().zip(inputs).filter(|(s, _)| **s) {
        let (bytes, signature) = wire::signed(&frame[HEADER..]).unwrap();
        body.extend(<[u8; 32]>::from(Sha256::digest(bytes)));
        body.extend(signature);
    }
    behind.iter().for_each(|b| body.extend_from_slice(b));
    (1..=4).map(|j| round.session.place().frame(wire::REQUEST, PartyId::Holder(j), &[&body])).collect()
}

fn bytes_of(frame: &[u8]) -> Vec<u8> {
    wire::signed(&frame[HEADER..]).unwrap().0.to_vec()
}

/// The sum of some clients' ciphertexts.
fn sum_of(round: &Round, inputs: &[Vec<u8>], who: &[usize]) -> Ciphertext {
    let ring = round.session.plan().ring();
    let mut all = who.iter().map(|&i| Ciphertext::single(ring, 1, &bytes_of(&inputs[i])).unwrap());
    let mut sum = all.next().unwrap();
    all.for_each(|c| sum.add(&c).unwrap());
    sum
}

/// What stands behind the signatures in a request.
fn behind(round: &Round, inputs: &[Vec<u8>], who: &[usize]) -> Vec<Vec<u8>> {
    if round.session.holders_add() {
        who.iter().map(|&i| bytes_of(&inputs[i])).collect()
    } else {
        vec![sum_of(round, inputs, who).to_bytes()]
    }
}

/// Gives a request to holder j (from 0); its signature.
fn agree(round: &mut Round, j: usize, request: &[u8]) -> Result<Vec<u8>, SecAggError> {
    round.holders[j].handle(PartyId::Server, request)?;
    Ok(round.holders[j].poll_transmit().unwrap().frame)
}

/// The request to open by these holders (from 1), with their signatures.
fn open_by(round: &Round, to: u16, set: &[u16], agreements: &[Vec<u8>]) -> Vec<u8> {
    let mut body = Vec::new();
    for &j in set {
        body.extend(j.to_le_bytes());
        body.extend(wire::signed(&agreements[usize::from(j) - 1][HEADER..]).unwrap().1);
    }
    round.session.place().frame(wire::OPEN, PartyId::Holder(to), &[&body])
}

/// The difference of two sums of a round is a client's vector: one set a round, also after a restart of a holder, and also
/// as another attempt.
#[test]
fn a_second_opening_is_refused() {
    for trust in TRUSTS {
        let (keys, mut round) = new_round(trust, 7);
        let inputs = round.inputs();
        let (all, three) = (vec![true; 4], vec![true, true, true, false]);
        let first = request_of(&round, &inputs, &all, &behind(&round, &inputs, &[0, 1, 2, 3]));
        let second = request_of(&round, &inputs, &three, &behind(&round, &inputs, &[0, 1, 2]));
        let agreements: Vec<Vec<u8>> = (0..4).map(|j| agree(&mut round, j, &first[j]).unwrap()).collect();
        for (j, frame) in second.iter().enumerate() {
            assert_eq!(agree(&mut round, j, frame), Err(SecAggError::AnotherSet), "{trust}");
        }
        for j in 1..=3u16 {
            let frame = open_by(&round, j, &[1, 2, 3], &agreements);
            round.holders[usize::from(j) - 1].handle(PartyId::Server, &frame).unwrap();
        }
        // A holder that has restarted knows what it answered by its record alone; it signs, and does not answer.
        let guards: Vec<OpeningGuard> = round.holders.iter().map(|h| h.guard().clone()).collect();
        let restart = |session: &Arc<RoundSession>| -> Vec<_> {
            keys.holders.iter().zip(&guards).map(|(k, g)| world::holder(session, k, g.clone())).collect()
        };
        round.holders = restart(&round.session);
        let again: Vec<Vec<u8>> = (0..4).map(|j| agree(&mut round, j, &second[j]).unwrap()).collect();
        for j in 1..=3u16 {
            let frame = open_by(&round, j, &[1, 2, 3], &again);
            let heard = round.holders[usize::from(j) - 1].handle(PartyId::Server, &frame);
            assert_eq!(heard, Err(SecAggError::Lattice(HeError::Answered)), "{trust}");
        }
        // The next attempt of the same round, with the same vectors of fewer clients.
        let session = world::round(keys, 7, 1, false);
        let mut next = Round::new(keys, Arc::clone(&session), 7);
        next.holders = restart(&session);
        for (to, frame) in next.openings() {
            let PartyId::Holder(j) = to else { panic!("{to}") };
            let heard = next.holders[usize::from(j) - 1].handle(PartyId::Server, &frame);
            assert_eq!(heard, Err(SecAggError::Lattice(HeError::Answered)), "{trust}");
        }
    }
}

/// Two sets side by side, each shown to some holders: no holder opens what t have not signed.
#[test]
fn different_sums_for_different_holders_are_opened_by_nobody() {
    for trust in TRUSTS {
        let (_, mut round) = new_round(trust, 8);
        let inputs = round.inputs();
        let first = request_of(&round, &inputs, &[true; 4], &behind(&round, &inputs, &[0, 1, 2, 3]));
        let three = [true, true, true, false];
        let second = request_of(&round, &inputs, &three, &behind(&round, &inputs, &[0, 1, 2]));
        let agreements: Vec<Vec<u8>> =
            (0..4).map(|j| agree(&mut round, j, if j < 2 { &first[j] } else { &second[j] }).unwrap()).collect();
        for set in [[1u16, 2, 3], [1, 2, 4], [1, 3, 4], [2, 3, 4]] {
            for j in set {
                let frame = open_by(&round, j, &set, &agreements);
                let heard = round.holders[usize::from(j) - 1].handle(PartyId::Server, &frame);
                assert!(matches!(heard, Err(SecAggError::HolderSignature { .. })), "{trust} {heard:?}");
            }
        }
        assert!(round.holders.iter().all(|h| h.guard().is_empty()));
    }
}

/// A round that needs more survivors than its key (the noise of fewer would be too little): the holders hold to the number
/// that is in the context they sign, and a server that names the least of the key is refused.
#[test]
fn holders_keep_to_the_survivors_that_a_round_needs() {
    for trust in TRUSTS {
        let keys = world::usual(trust);
        let usual = world::round(keys, 10, 0, false);
        let setup = || Setup {
            id: usual.id(),
            cohort: usual.cohort().to_vec(),
            roster: net::roster(4),
            key: Arc::clone(&keys.key),
            deadlines: None,
        };
        let needs = |least| RoundSession::with_survivors(setup(), least);
        assert_eq!(needs(2).unwrap().context(), usual.context());
        assert_ne!(needs(3).unwrap().context(), usual.context());
        assert!(matches!(needs(1), Err(SecAggError::OutOfRange { name: "least number of survivors", found: 1, .. })));
        assert!(matches!(needs(5), Err(SecAggError::OutOfRange { name: "cohort", found: 4, .. })));
        let mut round = Round::new(keys, needs(3).unwrap(), 10);
        let inputs = round.inputs();
        let two = request_of(&round, &inputs, &[true, true, false, false], &behind(&round, &inputs, &[0, 1]));
        assert!(matches!(agree(&mut round, 0, &two[0]), Err(SecAggError::Survivors { found: 2, limit: 3, .. })));
        let three = request_of(&round, &inputs, &[true, true, false, true], &behind(&round, &inputs, &[0, 1, 3]));
        assert!(agree(&mut round, 0, &three[0]).is_ok());
    }
}

/// Too few survivors, a client that has not signed, one twice: the holders look for themselves.
#[test]
fn holders_check_the_survivors() {
    for trust in TRUSTS {
        let (_, mut round) = new_round(trust, 9);
        let inputs = round.inputs();
        let one = request_of(&round, &inputs, &[true, false, false, false], &behind(&round, &inputs, &[0]));
        assert!(matches!(agree(&mut round, 0, &one[0]), Err(SecAggError::Survivors { found: 1, limit: 2, .. })));
        // Client 1's place is taken by the ciphertext and the signature of client 0.
        let mut twice = inputs.clone();
        twice[1] = inputs[0].clone();
        let copied = request_of(&round, &twice, &[true, true, false, false], &behind(&round, &inputs, &[0, 0]));
        assert_eq!(agree(&mut round, 0, &copied[0]), Err(SecAggError::Signature { client: net::id(1) }));
        // A client that never sent anything, signed by the server.
        let mut made_up = inputs.clone();
        let at = made_up[1].len() - 64;
        let domain = Domain { context: *round.session.context(), kind: wire::INPUT, client: net::id(1) };
        let statement = [&Sha256::digest(bytes_of(&inputs[1]))[..], &1u32.to_le_bytes()].concat();
        made_up[1][at..].copy_from_slice(&net::identity(0).sign(&domain, &statement));
        let forged = request_of(&round, &made_up, &[true, true, false, false], &behind(&round, &inputs, &[0, 1]));
        assert_eq!(agree(&mut round, 0, &forged[0]), Err(SecAggError::Signature { client: net::id(1) }));
        assert!(round.holders.iter().all(|h| h.guard().is_empty()));
    }
}

/// What the two names of trust mean: a server that puts one client's ciphertext in the place of the sum has its vector if
/// the holders believe it, and not if they add for themselves.
#[test]
fn a_server_that_swaps_the_sum_is_stopped_where_the_holders_add() {
    let (_, mut round) = new_round(Trust::SemiHonestServer, 10);
    assert!(round.session.plan().to_string().contains("(semi-honest server)"));
    let inputs = round.inputs();
    // One ciphertext with the weight of four, which anybody can write.
    let ring = round.session.plan().ring().clone();
    let mut swapped = bytes_of(&inputs[2]);
    let at = 8 + 4 * ring.limbs();
    swapped[at..at + 16].copy_from_slice(&[4u64.to_le_bytes(), 4u64.to_le_bytes()].concat());
    let request = request_of(&round, &inputs, &[true; 4], std::slice::from_ref(&swapped));
    let sum = Ciphertext::from_bytes(&ring, &swapped).unwrap();
    let values = opened(&mut round, &request, &sum);
    let bound = round.session.plan().request().bound;
    let found: Vec<u64> = values[..11].iter().map(|v| v.wrapping_sub(bound) & 0xffff).collect();
    assert_eq!(found, round.vectors[2], "which is why this server is called semi-honest");

    let (_, mut round) = new_round(Trust::HonestRoster, 10);
    let inputs = round.inputs();
    let mut pieces = behind(&round, &inputs, &[0, 1, 2, 3]);
    pieces[3] = pieces[2].clone();
    let request = request_of(&round, &inputs, &[true; 4], &pieces);
    assert_eq!(agree(&mut round, 0, &request[0]), Err(SecAggError::Signature { client: net::id(3) }));
}

/// What three holders open of `sum` when asked so.
fn opened(round: &mut Round, request: &[Vec<u8>], sum: &Ciphertext) -> Vec<u64> {
    let agreements: Vec<Vec<u8>> = (0..4).map(|j| agree(round, j, &request[j]).unwrap()).collect();
    let plan = round.session.plan().clone();
    let mut parts = Vec::new();
    for j in 1..=3u16 {
        let frame = open_by(round, j, &[1, 2, 3], &agreements);
        let holder = &mut round.holders[usize::from(j) - 1];
        holder.handle(PartyId::Server, &frame).unwrap();
        let part = bytes_of(&holder.poll_transmit().unwrap().frame);
        parts.push(PartialOpening::from_bytes(plan.ring(), plan.threshold(), &part).unwrap());
    }
    combine(&Scalar, plan.opening(), &round.session.opening(), sum, &parts).unwrap()
}

/// A ciphertext of any two halves, as a client that does not follow the protocol sends it.
fn made_up(round: &Round, like: &[u8], c0: &[u32], c1: &[u32]) -> Vec<u8> {
    let ring = round.session.plan().ring();
    let mut out = like[..like.len() - 2 * ring.bytes()].to_vec();
    for half in [c0, c1] {
        for (limb, row) in half.chunks_exact(ring.degree()).enumerate() {
            let bits = prime_bits(ring.basis().limbs()[limb].modulus().value());
            frame::pack(row.iter().map(|&v| u64::from(v)), bits, &mut out);
        }
    }
    out
}

/// The frame of client 3 with these halves, in due form.
fn sybil(round: &Round, inputs: &[Vec<u8>], c0: &[u32], c1: &[u32]) -> Vec<u8> {
    let bytes = made_up(round, &bytes_of(&inputs[3]), c0, c1);
    Ciphertext::single(round.session.plan().ring(), 1, &bytes).unwrap();
    let domain = Domain { context: *round.session.context(), kind: wire::INPUT, client: net::id(3) };
    let statement = [&Sha256::digest(&bytes)[..], &1u32.to_le_bytes()].concat();
    let signature = net::identity(3).sign(&domain, &statement);
    round.session.place().frame(wire::INPUT, PartyId::Client(net::id(3)), &[&bytes, &signature])
}

/// **Succeeds**, in both models: a client of the roster that has seen the ciphertexts of the others cancels all of them
/// but one. It is in league with the server, which neither model allows; only a proof that a ciphertext is well formed
/// and known to its sender would stop it.
#[test]
fn a_late_client_that_cancels_the_others_opens_one_vector() {
    for trust in TRUSTS {
        let (_, mut round) = new_round(trust, 11);
        let name = round.session.plan().to_string();
        assert!(name.contains("semi-honest server") || name.contains("honest roster"), "{name}");
        let mut inputs = round.inputs();
        let ring = round.session.plan().ring().clone();
        let others = sum_of(&round, &inputs, &[1, 2]);
        let (mut c0, mut c1) = (others.halves().0.to_vec(), others.halves().1.to_vec());
        poly::negate(&ring, &mut c0);
        poly::negate(&ring, &mut c1);
        inputs[3] = sybil(&round, &inputs, &c0, &c1);
        for (i, frame) in inputs.iter().enumerate() {
            round.server.handle(PartyId::Client(net::id(i)), frame).unwrap();
        }
        let request: Vec<Vec<u8>> = std::iter::from_fn(|| round.server.poll_transmit()).map(|t| t.frame).collect();
        let sum = sum_of(&round, &inputs, &[0, 1, 2, 3]);
        let values = opened(&mut round, &request, &sum);
        let bound = round.session.plan().request().bound;
        let found: Vec<u64> = values[..11].iter().map(|v| v.wrapping_sub(bound) & 0xffff).collect();
        assert_eq!(found, round.vectors[0], "{trust}");
    }
}

/// **Succeeds**, in both models, and worse: a client whose c1 is a constant makes the opening a decryption of the key, in
/// the slots where the sum is known: those behind the last value.
#[test]
fn a_client_with_a_constant_for_c1_reads_the_key() {
    for trust in TRUSTS {
        let (_, mut round) = new_round(trust, 12);
        let mut inputs = round.inputs();
        let (plan, setup) = (round.session.plan().clone(), round.session.key().session().setup().clone());
        let (ring, n) = (plan.ring().clone(), plan.ring().degree());
        let unit = |factor: u64| -> Vec<u32> {
            let of = |limb: &veilsum::math::ntt::NttTables| {
                let m = limb.modulus();
                m.mul(m.pow(2, u64::from(plan.choice().layout.offset)), m.reduce(factor))
            };
            ring.basis().limbs().iter().map(of).collect()
        };
        // c1 = 2^o and c0 = 2^o K (1 + X + ...): every coefficient of slot 0 gets s_i + K.
        let mut c0 = poly::lift(&ring, &vec![1; n]).to_vec();
        poly::forward(&Scalar, &ring, &mut c0).unwrap();
        poly::scale(&ring, &mut c0, &unit(4));
        let c1: Vec<u32> = unit(1).into_iter().flat_map(|u| std::iter::repeat_n(u, n)).collect();
        inputs[3] = sybil(&round, &inputs, &c0, &c1);
        for (i, frame) in inputs.iter().enumerate() {
            round.server.handle(PartyId::Client(net::id(i)), frame).unwrap();
        }
        let request: Vec<Vec<u8>> = std::iter::from_fn(|| round.server.poll_transmit()).map(|t| t.frame).collect();
        let sum = sum_of(&round, &inputs, &[0, 1, 2, 3]);
        let values = opened(&mut round, &request, &sum);
        let secret = secret_key(&round, &ring, &setup);
        let read: Vec<i64> = values[11..n].iter().map(|&v| v as i64 - 4).collect();
        assert_eq!(read, secret[11..n], "{trust}");
    }
}

/// The coefficients of s, from the secrets of all holders.
fn secret_key(round: &Round, ring: &Ring, setup: &veilsum::he::collective::KeySetup) -> Vec<i64> {
    let mut s = vec![0u32; ring.len()];
    for j in 1..=4 {
        let mut bytes = [0; 32];
        let context = round.session.key().session().context();
        let drawn = world::holder_secret(j).derive_bound(&setup.session, Purpose::HolderKey, context, Cipher::ChaCha20);
        drawn.fill(0, &mut bytes);
        let (share, _) = KeyShare::generate(&Scalar, setup, j, &Secret::from_bytes(bytes)).unwrap();
        poly::add(ring, &mut s, share.secret().expose());
    }
    poly::inverse(&Scalar, ring, &mut s).unwrap();
    let p = i64::from(ring.basis().primes().next().unwrap());
    s[..ring.degree()].iter().map(|&v| if i64::from(v) > p / 2 { i64::from(v) - p } else { i64::from(v) }).collect()
}

/// A holder that answers with something else ends the round, and makes no wrong sum.
#[test]
fn a_wrong_part_is_no_sum() {
    let (_, mut round) = new_round(Trust::SemiHonestServer, 13);
    for (to, frame) in round.openings() {
        let PartyId::Holder(j) = to else { panic!("{to}") };
        let holder = &mut round.holders[usize::from(j) - 1];
        holder.handle(PartyId::Server, &frame).unwrap();
        let mut part = holder.poll_transmit().unwrap().frame;
        if j == 2 {
            let at = part.len() - 64;
            part[at - 100..at - 20].fill(0x11);
            let domain = Domain { context: *round.session.context(), kind: wire::PART, client: 2 };
            let signature = world::holder_identity(2).sign(&domain, &Sha256::digest(&part[HEADER..at]));
            part[at..].copy_from_slice(&signature);
        }
        round.server.handle(to, &part).unwrap();
    }
    assert!(matches!(round.server.poll_output(), Some(Output::Aborted { .. })));
    assert!(
        matches!(round.server.fault(), Some(RoundFault::Parts(HeError::BeyondSlots { .. }))),
        "{:?}",
        round.server.fault()
    );
    assert_eq!(round.server.phase(), None);
}

/// Values beyond the bound never leave the client, and a plan without room for the sum is none.
#[test]
fn values_out_of_range_are_refused_before_anything_is_sent() {
    let wanted = veilsum::secagg::mphe::Request { bound: 1000, ..world::request(Trust::SemiHonestServer, 16) };
    let keys = world::keys(&veilsum::secagg::mphe::Plan::choose(wanted).unwrap(), 6);
    let session = world::round(&keys, 1, 0, false);
    let mut server = MpheServer::new(&session, net::backend());
    let announcement = server.poll_transmit().unwrap().frame;
    let fresh = || MpheClient::new(&session, net::id(0), &net::identity(0), &net::secret(0), net::backend()).unwrap();
    for bad in [1001u64, 0x8000, 0x10000 - 1001, 0x7fff] {
        let mut vector = vec![0u64; 11];
        vector[7] = bad;
        let mut client = fresh();
        client.handle(PartyId::Server, &announcement).unwrap();
        let refused = client.submit(&net::packed(session.shape(), &vector)).unwrap_err();
        assert_eq!(refused, SecAggError::Bound { bound: 1000 });
        assert!(!refused.to_string().contains(&bad.to_string()), "the value is secret: {refused}");
        assert!(client.poll_transmit().is_none() && client.poll_output().is_none());
        // A vector in range may follow.
        vector[7] = 0x10000 - 1000;
        client.submit(&net::packed(session.shape(), &vector)).unwrap();
        assert!(client.poll_transmit().is_some());
    }
    assert_eq!(format!("{:?}", fresh()), format!("MpheClient({}, ..)", net::id(0)));
}

#[test]
fn phases_of_a_round_are_in_order() {
    let (_, mut round) = new_round(Trust::SemiHonestServer, 14);
    assert_eq!(round.server.phase(), Some(Phase::Input));
    let requests = round.requests();
    assert_eq!((round.server.phase(), requests.len()), (Some(Phase::Agree), 4));
    // A holder that is asked to open before it has signed does not.
    let frame = round.session.place().frame(wire::OPEN, PartyId::Holder(1), &[&[0; 3 * 66]]);
    assert!(round.holders[0].handle(PartyId::Server, &frame).is_err());
}
