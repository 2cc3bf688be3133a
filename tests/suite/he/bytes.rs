//! The binary format: what is written is read again, and nothing else is.

use proptest::prelude::*;
use veilsum::backend::scalar::Scalar;
use veilsum::he::{
    Ciphertext, CollectiveKey, Commitment, Contribution, HeError, HolderSet, HolderShare, KeyShare, Layout,
    OpeningGuard, PartialOpening, Ring, SecretKey, ShareDeal, Threshold,
};
use veilsum::math::prg::Secret;

use super::{World, key_ring, plan, stream};

type Read = Box<dyn Fn(&[u8]) -> Result<Vec<u8>, HeError>>;
type Kind = (&'static str, Vec<u8>, Read);

/// One of every kind: its name, its bytes, and how they are read and written again.
fn kinds() -> (Ring, Vec<Kind>) {
    let (ring, threshold) = (key_ring(), Threshold::new(3, 2, 0).unwrap());
    let world = World::new(&ring, threshold, 21);
    let plan = plan(&ring, threshold, 2, 10);
    let sum = world.encrypt(plan.layout(), 1, &vec![3; 10_000]);
    let set = HolderSet::new(threshold, &[1, 3]).unwrap();
    let mut holder = world.holder(&plan, 3);
    let part = holder.answer(&Scalar, &[7; 16], &sum, &set).unwrap();
    let (share, contribution) = KeyShare::generate(&Scalar, &world.setup, 2, &Secret::from_seed(5)).unwrap();
    let deal = share.deal(&world.setup, &Secret::from_seed(5)).unwrap().remove(0);
    let secret = SecretKey::generate(&Scalar, &ring, &stream(9)).unwrap();
    let r = || ring.clone();
    let kinds: Vec<Kind> = vec![
        ("commitment", contribution.commitment(&world.setup).to_bytes(&ring), {
            let r = r();
            Box::new(move |b| Commitment::from_bytes(&r, b).map(|x| x.to_bytes(&r)))
        }),
        ("contribution", contribution.to_bytes(&ring), {
            let r = r();
            Box::new(move |b| Contribution::from_bytes(&r, b).map(|x| x.to_bytes(&r)))
        }),
        ("key", world.key.to_bytes(), Box::new(|b| CollectiveKey::from_bytes(b).map(|x| x.to_bytes()))),
        ("key share", share.to_bytes(&ring).to_vec(), {
            let r = r();
            Box::new(move |b| KeyShare::from_bytes(&r, b).map(|x| x.to_bytes(&r).to_vec()))
        }),
        ("deal", deal.to_bytes(&ring).to_vec(), {
            let r = r();
            Box::new(move |b| ShareDeal::from_bytes(&r, b).map(|x| x.to_bytes(&r).to_vec()))
        }),
        ("holder share", world.held[1].to_bytes(&ring).to_vec(), {
            let r = r();
            Box::new(move |b| HolderShare::from_bytes(&r, b).map(|x| x.to_bytes(&r).to_vec()))
        }),
        ("ciphertext", sum.to_bytes(), {
            let r = r();
            Box::new(move |b| Ciphertext::from_bytes(&r, b).map(|x| x.to_bytes()))
        }),
        ("part", part.to_bytes(&ring), {
            let r = r();
            Box::new(move |b| PartialOpening::from_bytes(&r, threshold, b).map(|x| x.to_bytes(&r)))
        }),
        ("guard", holder.guard().to_bytes(&ring), {
            let r = r();
            Box::new(move |b| OpeningGuard::from_bytes(&r, b).map(|x| x.to_bytes(&r)))
        }),
        ("secret key", secret.to_bytes().to_vec(), {
            let r = r();
            Box::new(move |b| SecretKey::from_bytes(&r, b).map(|x| x.to_bytes().to_vec()))
        }),
    ];
    (ring, kinds)
}

#[test]
fn what_is_written_is_read_again_and_nothing_else() {
    let (ring, kinds) = kinds();
    let length = |name: &str| kinds.iter().find(|(n, ..)| *n == name).unwrap().1.len();
    assert_eq!(length("contribution"), Contribution::encoded_len(&ring));
    assert_eq!(length("deal"), ShareDeal::encoded_len(&ring));
    let blocks = (length("ciphertext") - 40) / (2 * ring.bytes());
    assert_eq!(length("ciphertext"), Ciphertext::encoded_len(&ring, blocks));
    let header = 8 + 4 * ring.limbs();
    for (name, bytes, read) in &kinds {
        assert_eq!(read(bytes).as_ref(), Ok(bytes), "{name}");
        for (at, what) in [(0, "magic"), (4, "version"), (5, "kind")] {
            let mut bad = bytes.clone();
            bad[at] ^= 0x40;
            assert!(matches!(read(&bad), Err(HeError::Format { .. })), "{name}: {what}");
        }
        let mut future = bytes.clone();
        future[4] = 2;
        assert!(read(&future).unwrap_err().to_string().contains("version 2"), "{name}");
        for at in [6, 7, 8, header - 1] {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(read(&bad).is_err(), "{name}: byte {at} of the ring");
        }
        for cut in [0, 3, 5, 7, header - 1, header + 1, bytes.len() / 2, bytes.len() - 1] {
            assert!(matches!(read(&bytes[..cut]), Err(HeError::Length { .. })), "{name}: cut at {cut}");
        }
        let mut long = bytes.clone();
        long.push(0);
        assert!(matches!(read(&long), Err(HeError::Length { .. })), "{name}: something follows");
        // Every kind is refused as every other one.
        for (other, _, read_other) in kinds.iter().filter(|(other, ..)| other != name) {
            assert!(matches!(read_other(bytes), Err(HeError::Format { .. })), "{name} as {other}");
        }
        // All ones behind the header: residues above their primes, or numbers out of range.
        if !["commitment", "guard"].contains(name) {
            let mut ones = bytes.clone();
            let poly = ones.len() - ring.bytes();
            ones[poly..].fill(0xff);
            assert!(matches!(read(&ones), Err(HeError::NotReduced { .. })), "{name}: {:?}", read(&ones));
        }
    }
    // A count that would be a huge allocation.
    for name in ["ciphertext", "part", "guard"] {
        let (_, bytes, read) = kinds.iter().find(|(n, ..)| *n == name).unwrap();
        let at = header
            + match name {
                "ciphertext" => 16,
                "part" => 16 + 32 + 2 + 2 + 4,
                _ => 0,
            };
        for huge in [u64::MAX, 1 << 36, 1 << 20] {
            let mut bad = bytes.clone();
            bad[at..at + 8].copy_from_slice(&huge.to_le_bytes());
            let found = read(&bad);
            assert!(matches!(found, Err(HeError::Length { .. } | HeError::OutOfRange { .. })), "{name}: {found:?}");
        }
    }
}

#[test]
fn what_is_read_works_as_what_was_written() {
    let (ring, threshold) = (key_ring(), Threshold::new(1, 1, 0).unwrap());
    let world = World::new(&ring, threshold, 22);
    let layout = Layout::new(&ring, 20, 2, 60).unwrap();
    let key = CollectiveKey::from_bytes(&world.key.to_bytes()).unwrap();
    assert_eq!((key.digest(), key.common()), (world.key.digest(), world.key.common()));
    let c = Ciphertext::single(&ring, 1, &world.encrypt(&layout, 1, &[5, 6]).to_bytes()).unwrap();
    let secret = SecretKey::from_bytes(&ring, &world.secret_key().to_bytes()).unwrap();
    assert_eq!(secret.decrypt(&Scalar, &layout, &c).unwrap()[..3], [5, 6, 0]);
    assert!(Ciphertext::single(&ring, 2, &c.to_bytes()).is_err());
    let mut twice = c.clone();
    twice.add(&c).unwrap();
    assert!(matches!(Ciphertext::single(&ring, 1, &twice.to_bytes()), Err(HeError::BeyondPlan { .. })));
    let zero = vec![0u8; ring.bytes()];
    let mut bytes = c.to_bytes();
    let end = bytes.len();
    bytes[end - zero.len()..].copy_from_slice(&zero);
    assert!(matches!(Ciphertext::from_bytes(&ring, &bytes), Err(HeError::Zero { .. })));
}

/// A key whose ring is above the limits is refused, whatever else it is.
#[test]
fn an_unsafe_ring_is_not_read() {
    let mut bytes = World::new(&key_ring(), Threshold::new(1, 1, 0).unwrap(), 23).key.to_bytes();
    bytes[6] = 11;
    assert!(matches!(CollectiveKey::from_bytes(&bytes), Err(HeError::Unsafe { degree: 2048, .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn bytes_of_anything_are_no_panic(tail in prop::collection::vec(any::<u8>(), 0..400), kind in 0u8..12, log2 in 0u8..20, limbs in 0u8..70) {
        let ring = Ring::find(1024, 26, 1).unwrap();
        let mut bytes = b"VSHE\x01".to_vec();
        bytes.extend([kind, log2, limbs]);
        bytes.extend(&tail);
        let threshold = Threshold::new(3, 2, 0).unwrap();
        let mut valid = bytes[..6].to_vec();
        valid.extend([10, 1]);
        valid.extend(ring.basis().primes().next().unwrap().to_le_bytes());
        valid.extend(&tail);
        for bytes in [&bytes, &valid, &tail] {
            let _ = CollectiveKey::from_bytes(bytes);
            let _ = Contribution::from_bytes(&ring, bytes);
            let _ = KeyShare::from_bytes(&ring, bytes);
            let _ = ShareDeal::from_bytes(&ring, bytes);
            let _ = HolderShare::from_bytes(&ring, bytes);
            let _ = Ciphertext::from_bytes(&ring, bytes);
            let _ = PartialOpening::from_bytes(&ring, threshold, bytes);
            let _ = OpeningGuard::from_bytes(&ring, bytes);
            let _ = SecretKey::from_bytes(&ring, bytes);
        }
    }
}
