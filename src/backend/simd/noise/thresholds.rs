//! Draws from a table of 128-bit thresholds without comparing every threshold with every uniform.
//!
//! A draw is `#{k : U >= 2 T_k}` with U the 128 bits of the coordinate (`U >= 2T` says `U >> 1 >= T`). In
//! complements, `N = !U` without its lowest bit and `L_k = !(2 T_k)`, which is odd, it is `#{k : N < L_k}`.
//!
//! 1. *Narrow.* [`key`] maps 128-bit numbers to 31 bits and keeps their order (`N <= L` gives
//!    `key(N) <= key(L)`), with enough resolution that the thresholds of a law have different keys. Hence
//!    `key(N) < key(L_k)` counts for certain, `key(N) > key(L_k)` does not, and only a threshold with the very
//!    same key is left open. `c = #{k : key(N) < key(L_k)}` is found among the sorted keys in three levels.
//! 2. *Decide.* The thresholds `L_c ..` that may have that key (one, in the table of a law) are fetched and
//!    compared in all their 128 bits.
//! 3. *Repeat.* Thresholds that rounded to the same number (they do near the end of a wide table) are kept once;
//!    a draw beyond one of them is raised by the others.
//!
//! The outcome is that of comparing all of them, bit for bit. Nothing is secret about the table; the index of
//! a lane is, and is used in register permutes alone: every lane reads every word of the table in the same
//! order, whatever it looks for.

use crate::backend::simd::chacha::{BLOCKS, Vertical, store_coordinates};
use crate::backend::simd::lanes::{Machine, NativeU32};
use crate::sample::table::NoiseTable;

/// Subtrees of the first level, and of each of them.
const TOP: usize = 8;
const MIDDLE: usize = 4;
/// Buckets of the third level.
const BUCKETS: usize = TOP * MIDDLE;
/// Coordinates drawn together: four words of each of sixteen blocks.
pub(super) const DRAWN: usize = 4 * BLOCKS;

/// 32 words for one lookup.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Row([u32; BUCKETS]);

/// A table in the form that the search takes. `L_k` are its different limits, the largest first.
pub(in crate::backend::simd) struct Thresholds {
    /// The last key of each subtree but the last one.
    top: [u32; TOP - 1],
    /// The last key of each part but the last one, of subtree i at i.
    middle: [[u32; 16]; MIDDLE - 1],
    /// Key j of bucket i at `[j][i]`, but for the last one of each.
    bottom: Vec<Row>,
    /// Limb i of `L_k` at `[k / 32][i][k % 32]`, zero beyond the last threshold: `N < 0` never counts.
    leaves: Vec<[Row; 4]>,
    /// Most limits that share a key.
    candidates: usize,
    /// Index of each limit that stands for several thresholds, and how many more than one.
    repeated: Vec<[u32; 2]>,
}

/// A floating-point number of base `2^16`: the number of leading zero halfwords, up to 7, and the first 28 of
/// the 32 bits from there on. At least 12 of these are significant.
const fn key(n: u128) -> u32 {
    let zeros = if n == 0 { 7 } else { n.leading_zeros() / 16 };
    let first = ((n << (16 * zeros)) >> 100) as u32;
    ((7 - zeros) << 28) + first
}

impl Thresholds {
    pub(super) fn new(table: &NoiseTable) -> Self {
        let mut limits: Vec<u128> = table.thresholds.iter().map(|&t| !(t << 1)).collect();
        limits.sort_unstable_by(|a, b| b.cmp(a));
        let runs = limits.chunk_by(|a, b| a == b).map(<[u128]>::len).enumerate();
        let repeated = runs.filter(|(_, n)| *n > 1).map(|(k, n)| [k as u32, n as u32 - 1]).collect();
        limits.dedup();
        let keys: Vec<u32> = limits.iter().map(|&l| key(l)).collect();
        let key = |i: usize| keys.get(i).copied().unwrap_or(0);
        let size = (keys.len() + 1).div_ceil(BUCKETS);
        let candidates = keys.chunk_by(|a, b| a == b).map(<[u32]>::len).max().unwrap_or(0);
        let mut leaves = vec![[Row([0; BUCKETS]); 4]; (keys.len() + candidates).div_ceil(BUCKETS).max(1)];
        for (k, limit) in limits.iter().enumerate() {
            for (i, row) in leaves[k / BUCKETS].iter_mut().enumerate() {
                row.0[k % BUCKETS] = (limit >> (32 * i)) as u32;
            }
        }
        let subtree = |i: usize, j: usize| if i < TOP { key((i * MIDDLE + j + 1) * size - 1) } else { 0 };
        Self {
            top: std::array::from_fn(|i| key((i + 1) * MIDDLE * size - 1)),
            middle: std::array::from_fn(|j| std::array::from_fn(|i| subtree(i, j))),
            bottom: (0..size - 1).map(|j| Row(std::array::from_fn(|i| key(i * size + j)))).collect(),
            leaves,
            candidates,
            repeated,
        }
    }

    /// The draws of the 64 coordinates whose uniforms are the sixteen blocks: coordinate `4 l + g` from words
    /// `4 g ..` of lane l.
    #[inline(always)]
    pub(super) fn draw<M: Machine>(&self, stream: &Vertical, out: &mut [u32; DRAWN]) {
        for l in (0..BLOCKS).step_by(M::NativeU32::LANES) {
            let mut counts = [M::NativeU32::splat(0); 4];
            [counts[0], counts[1]] = self.pair(stream, 0, l);
            [counts[2], counts[3]] = self.pair(stream, 2, l);
            store_coordinates(counts, l, out);
        }
    }

    /// The draws from words `4 g ..` and `4 (g + 1) ..` of the lanes from l on.
    #[inline(always)]
    fn pair<N: NativeU32>(&self, stream: &Vertical, g: usize, l: usize) -> [N; 2] {
        let mut limbs = [[N::splat(0); 4]; 2];
        let mut keys = [N::splat(0); 2];
        let mut signs = [N::splat(0); 2];
        for i in 0..2 {
            for (limb, words) in limbs[i].iter_mut().zip(&stream.0[4 * (g + i)..]) {
                // SAFETY: l + LANES <= 16.
                let word = unsafe { N::load(words.as_ptr().add(l)) };
                *limb = word.xor(N::splat(u32::MAX));
            }
            signs[i] = limbs[i][0].xor(N::splat(1)).shl(31);
            limbs[i][0] = limbs[i][0].and(N::splat(u32::MAX - 1));
            keys[i] = lane_keys(limbs[i]);
        }
        let mut counts = self.narrow(keys);
        let first = counts;
        for candidate in 0..self.candidates {
            let candidate = N::splat(candidate as u32);
            let limits = self.fetch([first[0].add(candidate), first[1].add(candidate)]);
            for i in 0..2 {
                counts[i] = counts[i].add(less(limbs[i], limits[i]));
            }
        }
        let found = counts;
        for &[index, more] in &self.repeated {
            for i in 0..2 {
                let beyond = N::splat(0).increment_where_below(N::splat(index), found[i]);
                counts[i] = counts[i].add(N::splat(0).sub(beyond).and(N::splat(more)));
            }
        }
        [counts[0].negate_where_negative(signs[0]), counts[1].negate_where_negative(signs[1])]
    }

    /// `#{k : key < key(L_k)}`.
    #[inline(always)]
    fn narrow<N: NativeU32>(&self, keys: [N; 2]) -> [N; 2] {
        let mut index = [N::splat(0); 2];
        for separator in self.top {
            let separator = N::splat(separator);
            for i in 0..2 {
                index[i] = index[i].increment_where_below(keys[i], separator);
            }
        }
        let mut next = [index[0].shl(2), index[1].shl(2)];
        for row in &self.middle {
            for i in 0..2 {
                next[i] = next[i].increment_where_below(keys[i], N::lookup16(row, index[i]));
            }
        }
        let size = N::splat(self.bottom.len() as u32 + 1);
        let mut counts = [next[0].mul_lo(size), next[1].mul_lo(size)];
        for row in &self.bottom {
            for i in 0..2 {
                counts[i] = counts[i].increment_where_below(keys[i], N::lookup32(&row.0, next[i]));
            }
        }
        counts
    }

    /// The limbs of `L_index`: every lane reads all of them.
    #[inline(always)]
    fn fetch<N: NativeU32>(&self, index: [N; 2]) -> [[N; 4]; 2] {
        let mut limits = [[N::splat(0); 4]; 2];
        let rows = [index[0].shr(BUCKETS.ilog2()), index[1].shr(BUCKETS.ilog2())];
        for (r, leaves) in self.leaves.iter().enumerate() {
            let wanted = N::splat(r as u32);
            for j in 0..4 {
                for i in 0..2 {
                    limits[i][j] = rows[i].where_equal(wanted, N::lookup32(&leaves[j].0, index[i]), limits[i][j]);
                }
            }
        }
        limits
    }
}

/// [`key`] of every lane.
#[inline(always)]
fn lane_keys<N: NativeU32>(limbs: [N; 4]) -> N {
    let [n0, n1, n2, n3] = limbs;
    let zero = N::splat(0);
    let (mut a, mut b, mut prefix) = (n3, n2, N::splat(7 << 28));
    let mut above = n3;
    for (next, after, value) in [(n2, n1, 5 << 28), (n1, n0, 3 << 28), (n0, zero, 1 << 28)] {
        a = above.where_equal(zero, next, a);
        b = above.where_equal(zero, after, b);
        prefix = above.where_equal(zero, N::splat(value), prefix);
        above = above.or(next);
    }
    let high = a.shr(16);
    let shifted = a.shl(16).or(b.shr(16));
    let prefix = high.where_equal(zero, prefix.sub(N::splat(1 << 28)), prefix);
    high.where_equal(zero, shifted, a).shr(4).add(prefix)
}

/// 1 where `a < b`, numbers of four limbs, the lowest first.
#[inline(always)]
fn less<N: NativeU32>(a: [N; 4], b: [N; 4]) -> N {
    let zero = N::splat(0);
    let mut result = zero.increment_where_less(a[0], b[0]);
    for i in 1..4 {
        result = a[i].where_equal(b[i], result, zero.increment_where_less(a[i], b[i]));
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_the_order() {
        let mut numbers: Vec<u128> = (0..128)
            .flat_map(|s| [1u128 << s, (1 << s) - 1, (1 << s) + 1, 0xdead_beef_0123_4567_89ab_cdef_5555_aaaau128 >> s])
            .chain([0, u128::MAX, u128::MAX - 1])
            .collect();
        numbers.sort_unstable();
        assert!(numbers.iter().map(|&n| key(n)).is_sorted());
        assert_eq!((key(0), key(u128::MAX)), (0, (1 << 31) - 1));
    }

    /// One candidate is all that is ever fetched for the laws in use.
    #[test]
    fn the_limits_of_a_law_have_different_keys() {
        for mu in [1e-60, 1e-9, 0.01, 0.5, 5.95, 595.0, 1428.0, 1e5, 1.2e7] {
            assert!(Thresholds::new(&NoiseTable::skellam(mu).unwrap()).candidates <= 1, "{mu}");
        }
        for sigma in [0.01, 0.1, 1.0, 50.0, 4096.0] {
            assert!(Thresholds::new(&NoiseTable::discrete_gaussian(sigma).unwrap()).candidates <= 1, "{sigma}");
        }
    }
}
