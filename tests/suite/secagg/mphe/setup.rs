//! The set-up of a key: by machines, once, for many rounds; what is lost on the way, and what the wire shows.

use proptest::prelude::*;
use veilsum::backend::scalar::Scalar;
use veilsum::he::{HolderShare, KeyShare, Ring, ShareDeal, poly};
use veilsum::math::prg::{Cipher, Purpose, Secret, StreamKey};
use veilsum::secagg::channel::{PrivateKey, Route};
use veilsum::secagg::mphe::wire::{self, Reader};
use veilsum::secagg::mphe::{Epochs, HolderKeys, KeyHolder, KeySession, Misdeed, Plan, SignedKey, Trust};
use veilsum::secagg::{Output, PartyId, SecAggError};

use super::world::{self, Weather, request};

fn plan() -> Plan {
    Plan::choose(request(Trust::SemiHonestServer, 16)).unwrap()
}

#[test]
fn all_machines_get_the_same_signed_key() {
    let session = world::key_session(&plan(), 1, true);
    let mut weather = Weather { twice: 2, delay: 100, ..Weather::calm() };
    let (mut server, mut holders, outputs) = world::play_setup(&session, &mut weather);
    assert!(outputs.iter().all(|o| *o == Some(Output::Delivered)), "{outputs:?} {:?}", server.fault());
    let key = server.take_key().unwrap();
    assert!(server.take_key().is_none());
    let kept: Vec<HolderKeys> = holders.iter_mut().map(|h| h.take_keys().unwrap()).collect();
    for (j, keys) in (1..).zip(&kept) {
        assert_eq!((keys.holder(), keys.key().to_bytes()), (j, key.to_bytes()));
        // What a holder keeps is read again, of its own key and number alone.
        let bytes = keys.to_bytes();
        let again = HolderKeys::from_bytes(keys.key(), j, &bytes).unwrap();
        assert_eq!(again.to_bytes(), bytes);
        assert!(HolderKeys::from_bytes(keys.key(), j % 4 + 1, &bytes).is_err());
        for cut in [0, 4, 5, 40, bytes.len() - 1] {
            assert!(HolderKeys::from_bytes(keys.key(), j, &bytes[..cut]).is_err(), "cut at {cut}");
        }
        assert_eq!(format!("{keys:?}"), format!("HolderKeys({j}, ..)"));
    }
    // Bytes are counted where they are sent.
    let sent: u64 = holders.iter().map(|h| h.traffic().bytes_sent()).sum();
    assert_eq!(server.traffic().bytes_received(), sent);
    let of_one: Vec<u64> = holders[0].traffic().sent.iter().map(|c| c.bytes).collect();
    let ring = &session.setup().ring;
    let shares = 44 + wire::contribution_len(ring) + 3 * wire::sealed_len(ring);
    assert_eq!(of_one, [44 + 64 + 64, shares as u64, 44 + 64, 0]);
    // A late client has the bytes of the key alone.
    let late = SignedKey::from_bytes(&world::key_session(&plan(), 1, false), &key.to_bytes()).unwrap();
    assert_eq!(late.key(), key.key());
    // A refresh is another epoch: another key, and the old bytes are refused under it.
    let next = world::keys(&plan(), 2);
    assert_ne!(next.key.key().public(), key.key().public());
    assert_eq!(SignedKey::from_bytes(next.key.session(), &key.to_bytes()).unwrap_err(), SecAggError::ForeignKey);
}

#[test]
fn an_epoch_is_begun_once() {
    let session = world::key_session(&plan(), 1, true);
    let mut epochs = Epochs::new();
    let mut begin = || {
        let (identity, secret) = (world::holder_identity(2), world::holder_secret(2));
        KeyHolder::new(&session, 2, &identity, &secret, &Scalar, &mut epochs)
    };
    begin().unwrap();
    assert_eq!(begin().unwrap_err(), SecAggError::UsedEpoch);
    let wrong =
        KeyHolder::new(&session, 2, &world::holder_identity(3), &world::holder_secret(2), &Scalar, &mut Epochs::new());
    assert!(matches!(wrong, Err(SecAggError::Holder { holder: 2, .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    /// A holder that vanishes at any step is named, and nobody has a key then; late and repeated frames change nothing.
    #[test]
    fn a_lost_holder_is_named(seed in any::<u64>(), lost in 1u16..=4, frames in 0usize..4, also in proptest::option::of(1u16..=4)) {
        let session = world::key_session(&plan(), (seed % 250) as u8, true);
        let mut weather = Weather { random: crate::secagg::net::reader(seed), twice: 3, delay: 200, ..Weather::calm() };
        weather.silent_after.insert(PartyId::Holder(lost), frames);
        if let Some(also) = also {
            weather.silent_after.entry(PartyId::Holder(also)).or_insert(frames);
        }
        let (mut server, mut holders, outputs) = world::play_setup(&session, &mut weather);
        if frames == 3 {
            // It has signed: the key exists, and the lost one has not heard of it.
            prop_assert!(server.take_key().is_some());
            return Ok(());
        }
        prop_assert!(server.take_key().is_none() && holders.iter_mut().all(|h| h.take_keys().is_none()));
        let fault = server.fault().unwrap();
        let mut expected = vec![lost];
        expected.extend(also.filter(|&a| a != lost));
        expected.sort_unstable();
        prop_assert_eq!(&fault.holders, &expected);
        prop_assert_eq!((fault.misdeed, fault.accuser), (Misdeed::Silent, None));
        prop_assert_eq!(fault.phase as usize, frames);
        prop_assert!(fault.to_string().contains(&lost.to_string()));
        prop_assert!(outputs.iter().all(|o| matches!(o, Some(Output::Aborted { .. }))), "{:?}", outputs);
        // The holders that are left know it too.
        for (j, holder) in (1..).zip(&holders) {
            if !expected.contains(&j) {
                prop_assert_eq!(holder.fault().unwrap().misdeed, Misdeed::Silent);
            }
        }
    }
}

/// What the dealers seal, made again from their secrets: dealer, holder, the bytes of the share.
fn deals(session: &KeySession) -> Vec<(u16, u16, Vec<u8>)> {
    let setup = session.setup();
    let mut out = Vec::new();
    for dealer in 1..=session.holders() {
        let mut bytes = [0; 32];
        let stream = world::holder_secret(dealer).derive_bound(
            &setup.session,
            Purpose::HolderKey,
            session.context(),
            Cipher::ChaCha20,
        );
        stream.fill(0, &mut bytes);
        let sharing = Secret::from_bytes(bytes);
        let (share, _) = KeyShare::generate(&Scalar, setup, dealer, &sharing).unwrap();
        for deal in share.deal(setup, &sharing).unwrap() {
            out.push((dealer, deal.holder(), deal.to_bytes(&setup.ring).to_vec()));
        }
    }
    out
}

/// The longest run of `secret` that the wire shows, in pieces of 32 bytes behind the header.
fn pieces_on_the_wire(capture: &[Vec<u8>], secret: &[u8]) -> usize {
    let body = &secret[100..];
    body.chunks_exact(32).take(8).filter(|piece| capture.iter().any(|f| f.windows(32).any(|w| w == *piece))).count()
}

#[test]
fn a_capture_of_the_set_up_shows_no_share() {
    let session = world::key_session(&plan(), 1, false);
    let mut weather = Weather::calm();
    let (_, mut holders, _) = world::play_setup(&session, &mut weather);
    let ring = &session.setup().ring;
    let deals = deals(&session);
    let keys: Vec<HolderKeys> = holders.iter_mut().map(|h| h.take_keys().unwrap()).collect();
    for (dealer, holder, share) in deals.iter().filter(|(_, holder, _)| *holder != 1).step_by(3) {
        assert_eq!(pieces_on_the_wire(&weather.capture, share), 0, "{dealer} to {holder}");
    }
    // The test is one: the sums are made of these shares, and a set-up that relays them in clear is found out.
    let mut sigma = vec![0u32; ring.len()];
    for (_, _, bytes) in deals.iter().filter(|(_, holder, _)| *holder == 2) {
        poly::add(ring, &mut sigma, ShareDeal::from_bytes(ring, bytes).unwrap().poly().expose());
    }
    assert_eq!(share_of(&keys[1], ring).poly().expose(), sigma);
    let mut clear = weather.capture.clone();
    clear.push(deals[1].2.clone());
    assert_eq!(pieces_on_the_wire(&clear, &deals[1].2), 8);
    // Nobody opens a share with what stands on the wire: the public keys, and a key of one's own.
    let eve = PrivateKey::from_bytes([9; 32]);
    let roll = weather.capture.iter().find(|f| f[3] == wire::ROLL).unwrap();
    let shares = weather.capture.iter().find(|f| f[3] == wire::SHARES).unwrap();
    let (open, sealed) = (wire::contribution_len(ring), wire::sealed_len(ring));
    let mut opened = 0;
    for (to, piece) in (2u64..).zip(shares[44 + open..].chunks_exact(sealed)) {
        let (bytes, _) = wire::signed(piece).unwrap();
        let mut reader = Reader::new(&roll[44..]);
        for _ in 0..4 {
            let entry = wire::Entry::read(&mut reader).unwrap();
            reader.take(64).unwrap();
            for purpose in 0..4 {
                let route = Route { context: *session.context(), from: 1, to, purpose };
                for key in [&eve, &PrivateKey::from_bytes(entry.channel)] {
                    opened += usize::from(key.agree(&entry.channel).unwrap().open(&route, bytes).is_ok());
                }
            }
        }
    }
    assert_eq!(opened, 0);
}

fn share_of(keys: &HolderKeys, ring: &Ring) -> HolderShare {
    let bytes = keys.to_bytes();
    HolderShare::from_bytes(ring, &bytes[5 + 32 + 3 * 34..]).unwrap()
}

/// Chi-square of the pairs (top three bits of one share, of another) over the coefficients of the first limb, 63 degrees
/// of freedom.
fn chi_square(ring: &Ring, shares: [&[u32]; 2]) -> f64 {
    let p = u64::from(ring.basis().primes().next().unwrap());
    let [one, two] = shares.map(|s| {
        let mut s = s.to_vec();
        poly::inverse(&Scalar, ring, &mut s).unwrap();
        s.truncate(ring.degree());
        s
    });
    let mut counts = [0f64; 64];
    one.iter().zip(&two).for_each(|(&x, &y)| counts[(u64::from(x) * 8 / p * 8 + u64::from(y) * 8 / p) as usize] += 1.0);
    let expected = one.len() as f64 / 64.0;
    counts.iter().map(|c| (c - expected).powi(2) / expected).sum()
}

/// What t - 1 holders keep together after a set-up is uniform; the same test finds shares with ternary coefficients.
#[test]
fn what_two_of_three_holders_keep_does_not_depend_on_the_key() {
    let session = world::key_session(&plan(), 9, false);
    let (_, mut holders, _) = world::play_setup(&session, &mut Weather::calm());
    let ring = &session.setup().ring;
    let shares: Vec<HolderShare> = holders.iter_mut().map(|h| share_of(&h.take_keys().unwrap(), ring)).collect();
    for (i, j) in [(0, 1), (1, 3), (0, 2)] {
        let found = chi_square(ring, [shares[i].poly().expose(), shares[j].poly().expose()]);
        // 140 is beyond 10^-7.
        assert!(found < 140.0, "holders {i} and {j}: {found}");
    }
    let ternary = |n: u8| {
        let stream = StreamKey::from_bytes([n; 32], Cipher::ChaCha20);
        let mut x = poly::lift(ring, &poly::ternary(ring, &stream, 1).unwrap());
        poly::forward(&Scalar, ring, &mut x).unwrap();
        x.to_vec()
    };
    let planted = |j: u32| {
        let mut f = ternary(1);
        for r in [ternary(2), ternary(3)] {
            poly::scale(ring, &mut f, &vec![j; ring.limbs()]);
            poly::add(ring, &mut f, &r);
        }
        f
    };
    let found = chi_square(ring, [&planted(1), &planted(2)]);
    assert!(found > 10_000.0, "the same test finds ternary coefficients: {found}");
}

#[test]
fn a_substituted_public_key_is_refused() {
    let keys = world::usual(Trust::SemiHonestServer);
    let (session, good) = (keys.key.session(), keys.key.to_bytes());
    SignedKey::from_bytes(session, &good).unwrap();
    // The key of a server that plays all holders: the same set-up, other signatures.
    let mut other = good.clone();
    let at = good.len() - 4 * 64;
    other[at - 8] ^= 1;
    assert!(matches!(SignedKey::from_bytes(session, &other), Err(SecAggError::HolderSignature { holder: 1 })));
    for holder in 0..4usize {
        let mut bad = good.clone();
        bad[at + 64 * holder + 3] ^= 1;
        let expected = SecAggError::HolderSignature { holder: holder as u16 + 1 };
        assert_eq!(SignedKey::from_bytes(session, &bad).unwrap_err(), expected, "all K have to sign");
    }
    assert!(SignedKey::from_bytes(session, &good[..good.len() - 64]).is_err());
    for cut in [0, 3, 5, 6, 100, good.len() - 1] {
        assert!(SignedKey::from_bytes(session, &good[..cut]).is_err(), "cut at {cut}");
    }
    let mut future = good.clone();
    future[4] = 2;
    assert!(matches!(SignedKey::from_bytes(session, &future), Err(SecAggError::Format { version: 2, .. })));
    // Another seed, roster or plan is another set-up.
    let more = Plan::choose(veilsum::secagg::mphe::Request { rounds: 21, ..request(Trust::SemiHonestServer, 16) });
    let elsewhere = world::key_session(&more.unwrap(), 1, false);
    assert!(SignedKey::from_bytes(&elsewhere, &good).is_err());
}
