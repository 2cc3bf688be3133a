//! Why the symmetric homomorphic scheme of asynchronous learning is not offered: its secret p falls to a lattice of
//! three dimensions.
//!
//! ```text
//! key: p, L      public: N = p q      Enc(m) = (r L + m)(1 + r' p) mod N
//! ```
//! Mod p a ciphertext is `x = r L + m`: some hundreds of bits, where p has 2048. So `c - x` and N have the divisor p, and
//! x is found as a small root mod an unknown divisor (Howgrave-Graham, Approximate integer common divisors, CaLC 2001):
//! the polynomials `N`, `X - c` and `X (X - c)` are 0 mod p at x, and so is every integer combination. LLL finds one with
//! `|a_0| + |a_1| R + |a_2| R^2 < p` for R the bound of x, about where `R < N^(1/6)`; it is then 0 at x over the integers.
//! Its root gives `p = gcd(c - x, N)`. No structure of N, L or the messages is used.

use num_bigint::{BigInt, BigUint, Sign};
use num_integer::Integer;
use num_traits::{One, Signed, Zero};
use veilsum::math::prg::{Cipher, StreamKey};

/// Primes above SHA-256("p 0") | SHA-256("p 1") | ... and the same of q, with the two highest bits set.
const TOY_P: &str = "d09ef3d0cc91ac75f8a64c217ebd52602338ee08e2dfba047df58f659dc87601";
const TOY_Q: &str = "dc53d246bed082d056eeed1d90ed5e8902d01a315b3715294bd036b28550948d";
const REAL_P: &str = "d09ef3d0cc91ac75f8a64c217ebd52602338ee08e2dfba047df58f659dc875d585051de8facc43b399eb4e35d65dd6dd99e3cfb0\
    42b0fa9e26c52543322f628be6f8074ea60086f246e267c400bd3cca0789778122c7df32e9c85995bcf1b2e98f765c00228f28a0\
    1473ab448cefa45146427c588024d0d9eb53b45bc21fa914899f51516b28f31b9ae3c804f53b79483741a44009d9d7d0ed603bf3\
    dba89b20211b170a7a7183ba597fa4fc01e1dab5c8c64fd11d2598a9f1279c5a121340762cb95cba4a0cabf39939228610f79654\
    75394e87e5343ad4a52a84c00a02cd37e6bd47e76ad1f3d458757b7f929021d04136a38c1319a89efe83e35e0bd496b9";
const REAL_Q: &str = "dc53d246bed082d056eeed1d90ed5e8902d01a315b3715294bd036b2855092990e7f34f702876e765cf7d3bec4d57fd754a2ef58\
    ec338b596cc62bfd439ff7ef8ae9e1385b5fe12a442f70a7fe29baa16028cdaae85b84e1f5617e2e71306297cd0cece8d2b194cc\
    c989a38bad961c919aa72175c45a53e5f96e6577f25dd9c56fc368663a5105c9638bdbd98cf995efc14de9720ee6b9fa00d7495e\
    b519b6e8190a9bf74ae7780780e0de89cac8f7feb852c4b7af25a1e7fc6f1657c96e425259ec959c91bcfb29bc1a4806041c8c7a\
    9cfbb935c47814df2fa855b9ed63de1a3d7ee4447e7aa366a695be16b2228365c5ccc6430d564bde72f2faf7cc0fa571";

type Row = [BigInt; 3];

fn dot(a: &Row, b: &Row) -> BigInt {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// `round(a / b)` for b > 0.
fn nearest(a: &BigInt, b: &BigInt) -> BigInt {
    let (top, bottom): (BigInt, BigInt) = (a * 2u32 + b, b * 2u32);
    top.div_floor(&bottom)
}

/// Gram determinants d_0 = 1, d_1, ..., and `lambda_ij = d_(j+1) mu_ij` of integral Gram-Schmidt (Cohen, A Course in
/// Computational Algebraic Number Theory, algorithm 2.6.7).
fn gram_schmidt(basis: &[Row; 3]) -> ([BigInt; 4], [[BigInt; 3]; 3]) {
    let mut d: [BigInt; 4] = std::array::from_fn(|_| BigInt::one());
    let mut lambda: [[BigInt; 3]; 3] = Default::default();
    for i in 0..3 {
        for j in 0..=i {
            let mut u = dot(&basis[i], &basis[j]);
            for k in 0..j {
                u = (&d[k + 1] * u - &lambda[i][k] * &lambda[j][k]) / &d[k];
            }
            if j < i {
                lambda[i][j] = u;
            } else {
                d[i + 1] = u;
            }
        }
    }
    (d, lambda)
}

/// LLL of three vectors with delta = 3/4, exact; the number of swaps beside the basis.
fn lll(mut basis: [Row; 3]) -> ([Row; 3], usize) {
    let (mut k, mut swaps) = (1, 0);
    while k < 3 {
        for j in (0..k).rev() {
            let (d, lambda) = gram_schmidt(&basis);
            let q = nearest(&lambda[k][j], &d[j + 1]);
            let other = basis[j].clone();
            basis[k].iter_mut().zip(&other).for_each(|(x, y)| *x -= &q * y);
        }
        let (d, lambda) = gram_schmidt(&basis);
        // Lovasz: 4 (d_(k+1) d_(k-1) + lambda^2) >= 3 d_k^2.
        let l = &lambda[k][k - 1];
        if (&d[k + 1] * &d[k - 1] + l * l) * 4u32 >= &d[k] * &d[k] * 3u32 {
            k += 1;
        } else {
            basis.swap(k, k - 1);
            swaps += 1;
            k = (k - 1).max(1);
        }
    }
    (basis, swaps)
}

/// Integer roots of `a0 + a1 x + a2 x^2`.
fn roots([a0, a1, a2]: &Row) -> Vec<BigInt> {
    if a2.is_zero() {
        return if a1.is_zero() { vec![] } else { vec![-a0 / a1] };
    }
    let discriminant: BigInt = a1 * a1 - a0 * a2 * 4u32;
    if discriminant.is_negative() {
        return vec![];
    }
    let root = discriminant.sqrt();
    [-a1 + &root, -a1 - &root].into_iter().map(|top| top / (a2 * 2u32)).collect()
}

/// p from one ciphertext c and N, with the number of LLL swaps; nothing if x is not below `2^bits`.
fn recover(c: &BigUint, n: &BigUint, bits: u32) -> Option<(BigUint, usize)> {
    let (c, n) = (BigInt::from(c.clone()), BigInt::from(n.clone()));
    let r = BigInt::one() << bits;
    let zero = BigInt::zero;
    let basis = [[n.clone(), zero(), zero()], [-c.clone(), r.clone(), zero()], [zero(), -&c * &r, &r * &r]];
    let (reduced, swaps) = lll(basis);
    let polynomials = reduced.map(|[a0, a1, a2]| [a0, a1 / &r, a2 / (&r * &r)]);
    let candidates = polynomials.iter().flat_map(roots);
    let found = candidates.map(|x| (&c - x).gcd(&n)).find(|g| !g.is_one() && *g != n);
    found.and_then(|g| g.to_biguint()).map(|p| (p, swaps))
}

/// A uniform integer of this many bits.
fn random(key: &StreamKey, at: u64, bits: u64) -> BigUint {
    let mut bytes = vec![0u8; bits.div_ceil(8) as usize];
    key.fill(at, &mut bytes);
    BigUint::from_bytes_le(&bytes) % (BigUint::one() << bits)
}

/// Enc(m) with r and L of `small` bits, r' of the size of p.
fn encrypt(m: u64, p: &BigUint, n: &BigUint, small: u64) -> BigUint {
    let key = StreamKey::from_bytes([42; 32], Cipher::ChaCha20);
    let (r, l) = (random(&key, 0, small), random(&key, 1000, small) | BigUint::one());
    let blind = random(&key, 2000, p.bits() - 1);
    (r * l + m) * (blind * p + 1u32) % n
}

fn attack(p: &str, q: &str, small: u64) {
    let number = |hex: &str| BigUint::parse_bytes(hex.as_bytes(), 16).unwrap();
    let (p, q) = (number(p), number(q));
    let n = &p * &q;
    let c = encrypt(123_456, &p, &n, small);
    let (found, swaps) = recover(&c, &n, 2 * small as u32 + 1).expect("p falls");
    assert_eq!(found, p);
    assert!(swaps < 20_000, "{swaps}");
    // With p, every plaintext is small noise away: x = c mod p is r L + m over the integers.
    let x = &c % &found;
    assert!(x.bits() <= 2 * small);
    // The same search among integers without such a divisor finds nothing.
    let key = StreamKey::from_bytes([43; 32], Cipher::ChaCha20);
    let unrelated = random(&key, 0, n.bits() - 1);
    assert_eq!(recover(&unrelated, &n, 2 * small as u32 + 1), None);
    assert_ne!(BigInt::from(found).sign(), Sign::NoSign);
}

/// p of 256 bits, `r L` of 64.
#[test]
fn one_ciphertext_gives_the_key_of_a_toy() {
    attack(TOY_P, TOY_Q, 32);
}

/// p and q of 2048 bits, r and L of 160: the sizes that are recommended for it.
#[test]
fn one_ciphertext_gives_the_key_at_full_size() {
    attack(REAL_P, REAL_Q, 160);
}
