//! What the chooser answers, against the table of the specification.

use veilsum::he::chooser::{Failure, Request, mphe, oneshot};
use veilsum::he::noise::Weights;
use veilsum::he::symmetric::Scheme;
use veilsum::he::{HeError, OpeningPlan, Threshold};

/// d = 10^6, n = 1000, K = t = 16, R = 1000, lambda = 40.
fn request(bound: u64) -> Request {
    Request {
        values: 1_000_000,
        bound,
        weight_sum: 1000,
        ciphertexts: Weights::equal(1000),
        threshold: Threshold::new(16, 16, 15).unwrap(),
        openings: 1000,
        lambda: 40,
        failure: Failure::Statistical,
        degree: None,
    }
}

#[test]
fn rows_of_the_first_set() {
    let found = oneshot(&Request { degree: Some(4096), ..request(1 << 15) }).unwrap();
    assert_eq!((found.ring.limbs(), found.layout.width, found.layout.slots, found.layout.offset), (3, 26, 3, 11));
    assert!((found.bits_per_value(1_000_000) - 30.2).abs() < 0.05, "{}", found.bits_per_value(1_000_000));
    assert!((-58.0..-56.0).contains(&found.log2_failure), "2^{}", found.log2_failure);
    assert!(found.security.bits >= 150.0 && found.security.is_safe(), "{:?}", found.security);
    assert!(found.bytes_per_value <= 4.0, "all told: {}", found.bytes_per_value);
    let found = oneshot(&Request { degree: Some(4096), ..request(1 << 7) }).unwrap();
    assert_eq!((found.ring.limbs(), found.layout.width, found.layout.slots, found.layout.offset), (3, 18, 4, 16));
    assert!((found.bits_per_value(1_000_000) - 22.9).abs() < 0.05, "{}", found.bits_per_value(1_000_000));
    assert_eq!(found.log2_failure, f64::NEG_INFINITY);
}

#[test]
fn rows_of_the_second_set() {
    for (bound, width, limbs, expansion) in
        [(1u64 << 15, 26, 5, 1.18), (1 << 7, 18, 6, 1.15), (1 << 23, 34, 4, 1.19), (1 << 31, 42, 5, 1.20)]
    {
        let request = Request { degree: Some(8192), failure: Failure::Never, ..request(bound) };
        let found = oneshot(&request).unwrap();
        assert_eq!(
            (found.layout.width, found.ring.limbs(), found.layout.offset >= 16),
            (width, limbs, true),
            "{found:?}"
        );
        let ratio = found.bits_per_value(1_000_000) / f64::from(width);
        assert!((ratio - expansion).abs() < 0.006, "{width}: {ratio}");
        assert_eq!(found.log2_failure, f64::NEG_INFINITY);
        let security = if limbs == 6 { 159.0 } else { 195.0 };
        assert!(found.security.bits >= security, "{:?}", found.security);
    }
}

/// Without a degree the fewest bytes win, and a statistical failure is taken where it saves a slot.
#[test]
fn the_fewest_bytes_win() {
    let found = oneshot(&request(1 << 15)).unwrap();
    assert_eq!((found.ring.degree(), found.layout.slots), (4096, 3));
    let never = oneshot(&Request { failure: Failure::Never, ..request(1 << 15) }).unwrap();
    assert!(never.bytes_per_value > found.bytes_per_value && never.ring.degree() == 8192);
    assert!(oneshot(&Request { values: 10, ..request(1 << 15) }).is_ok());
}

/// The key of one-shot encryption: a thousand openings of N coefficients in the field of 16 bits.
#[test]
fn the_key_set() {
    let found = oneshot(&Request { degree: Some(4096), ..request(1 << 15) }).unwrap().key;
    assert_eq!((found.ring.degree(), found.ring.limbs(), found.layout.width, found.layout.slots), (4096, 4, 16, 1));
    assert!((84..=85).contains(&found.layout.offset), "{found:?}");
    assert!(found.ring.log2_modulus() <= 109.0 && found.security.is_safe(), "{found:?}");
    assert!(found.flooding.log2_distance <= -40.0);
    // Another K, lambda or R is another offset.
    let offset = |request: Request| mphe(&request).unwrap().layout.offset;
    let key = Request { values: 4096, bound: 21, degree: Some(4096), ..request(1) };
    assert_eq!(offset(key), found.layout.offset);
    assert_eq!(offset(Request { lambda: 30, ..key }), found.layout.offset - 10);
    assert!((9..=11).contains(&(found.layout.offset - offset(Request { openings: 1, ..key }))));
    let fewer = Threshold::new(3, 3, 2).unwrap();
    assert!(offset(Request { threshold: fewer, ..key }) < found.layout.offset);
}

/// The round of the multi-party seed: n = 3, d = 199,658.
#[test]
fn a_vector_under_the_collective_key() {
    let request = Request {
        values: 199_658,
        weight_sum: 3,
        ciphertexts: Weights::equal(3),
        threshold: Threshold::new(3, 3, 2).unwrap(),
        openings: 100,
        ..request(1 << 15)
    };
    let found = mphe(&request).unwrap();
    assert!(found.security.is_safe() && found.security.bits >= 128.0);
    assert!(found.ciphertext_bytes < 2_000_000, "{found:?}");
    let room = found.ring.basis().floor_log2();
    assert!(found.layout.slots * found.layout.width + found.layout.offset <= room);
    OpeningPlan::of(&found, &request).unwrap();
}

#[test]
fn requests_without_a_set_name_the_nearest() {
    let says = |error: HeError, text: &str| assert!(error.to_string().contains(text), "{error}");
    says(oneshot(&Request { degree: Some(2048), bound: 1 << 40, ..request(1) }).unwrap_err(), "nearest safe: N = 4096");
    says(mphe(&Request { degree: Some(2048), ..request(1 << 15) }).unwrap_err(), "nearest safe: N = 8192");
    says(mphe(&Request { degree: Some(1024), ..request(1 << 31) }).unwrap_err(), "nearest safe: N = 8192");
    let huge = oneshot(&Request { bound: 1 << 60, ..request(1) }).unwrap_err();
    says(huge, "nearest safe: values of magnitude 9223372036854775");
    says(mphe(&Request { lambda: 96, openings: 1 << 36, ..request(1) }).unwrap_err(), "lambda = ");
    let heavy = Weights::new(1000, 100_000, 500).unwrap();
    says(oneshot(&Request { ciphertexts: heavy, ..request(1 << 7) }).unwrap_err(), "equal weights");
    for bad in [
        Request { values: 0, ..request(1) },
        Request { bound: 0, ..request(1) },
        Request { weight_sum: 999, ..request(1) },
        Request { openings: 0, ..request(1) },
        Request { lambda: 0, ..request(1) },
        Request { degree: Some(4097), ..request(1) },
    ] {
        assert!(oneshot(&bad).is_err() && mphe(&bad).is_err(), "{bad:?}");
    }
}

#[test]
fn the_broken_scheme_is_refused_by_name() {
    assert_eq!("oneshot".parse::<Scheme>(), Ok(Scheme::Oneshot));
    assert_eq!("mphe".parse::<Scheme>(), Ok(Scheme::Mphe));
    assert_eq!("symmetric".parse::<Scheme>(), Ok(Scheme::Symmetric));
    let broken = "she".parse::<Scheme>().unwrap_err();
    assert!(matches!(broken, HeError::Broken { .. }) && broken.to_string().contains("broken"), "{broken}");
    assert!(matches!("paillier".parse::<Scheme>(), Err(HeError::UnknownScheme { .. })));
}
