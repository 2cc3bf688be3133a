//! Pairs of discrete laws: outcomes listed with their masses, sorted by loss, and summed from both ends.

use super::curve::{LossCurve, Mass};
use super::gaussian::Direction;
use crate::math::double::Double;
use crate::privacy::IntegerNoise;
use crate::privacy::accountant::pmf::Law;

/// An outcome that both P and Q can produce.
#[derive(Clone, Copy, Debug)]
pub struct Atom {
    /// `ln(p/q)`.
    pub loss: f64,
    /// Its mass under P.
    pub p: f64,
    /// Its mass under Q.
    pub q: f64,
}

/// Two discrete laws.
#[derive(Clone, Debug, Default)]
pub struct Pair {
    /// Outcomes of both, in ascending order of loss.
    pub atoms: Vec<Atom>,
    /// P's mass of what Q cannot produce.
    pub only_p: f64,
    /// Q's mass of what P cannot produce.
    pub only_q: f64,
    /// Bound on the mass, of P and Q together, of all other outcomes.
    pub left_out: f64,
    /// Bound on the relative error of each mass.
    pub error: f64,
}

impl Pair {
    /// Integer noise moved by `shift` > 0, against the noise; `None` where the table would be too long.
    pub fn shifted(noise: IntegerNoise, shift: u64) -> Option<Self> {
        if let IntegerNoise::DiscreteLaplace { scale } = noise {
            return Self::discrete_laplace(scale, shift);
        }
        let law = Law::for_losses(noise, shift)?;
        let (mass, shift) = (&law.mass, shift as usize);
        let atom = |(&p, &q): (&f64, &f64)| Atom { loss: libm::log(p / q), p, q };
        let atoms = mass.iter().zip(mass.iter().skip(shift)).map(atom).collect();
        // The first `shift` outcomes are Q's alone, as many at the end P's.
        let alone = mass.iter().take(shift).fold(Double::ZERO, |sum, &m| sum + Double::new(m)).value();
        let pair = Self { atoms, error: law.error, ..Self::default() };
        Some(if law.bounded {
            Self { only_p: alone, only_q: alone, ..pair }
        } else {
            Self { left_out: 2.0 * alone + 4.0 * law.tail, ..pair }
        })
    }

    /// All outcomes up to 0 have the loss `-shift/scale`, all from `shift` on its opposite: `shift + 1` atoms in all. With
    /// `t = e^(-1/scale)` the masses are `1/(1+t)` at an end, `(1-t)/(1+t) t^k` between.
    fn discrete_laplace(scale: f64, shift: u64) -> Option<Self> {
        if shift > (1 << 19) {
            return None;
        }
        let (t, last) = (libm::exp(-1.0 / scale), shift as f64);
        let power = |k: f64| libm::exp(-k / scale);
        let inner = -libm::expm1(-1.0 / scale) / (1.0 + t);
        let end = 1.0 / (1.0 + t);
        let atom = |k: u64| {
            let k = k as f64;
            let (p, q) = match k {
                0.0 => (end * power(last), end),
                k if k == last => (end, end * power(last)),
                k => (inner * power(last - k), inner * power(k)),
            };
            Atom { loss: (2.0 * k - last) / scale, p, q }
        };
        let error = f64::EPSILON * (8.0 + 2.0 * last / scale);
        Some(Self { atoms: (0..=shift).map(atom).collect(), error, ..Self::default() })
    }

    /// One of `categories` answers, the true one `e^epsilon` times as likely as each other.
    pub fn randomized_response(epsilon: f64, categories: u64) -> Self {
        let others = (categories - 1) as f64;
        let less = libm::exp(-epsilon);
        let likely = 1.0 / (1.0 + others * less);
        let unlikely = less / (1.0 + others * less);
        let same = (categories - 2) as f64 * unlikely;
        let atom = |loss: f64, p: f64, q: f64| Atom { loss, p, q };
        let atoms = vec![atom(-epsilon, unlikely, likely), atom(0.0, same, same), atom(epsilon, likely, unlikely)];
        Self { atoms, error: f64::EPSILON * (8.0 + epsilon), ..Self::default() }
    }
}

/// A discrete pair in one direction, under Poisson sampling: `(1-q) Q + q P` and Q, in either order.
///
/// A loss L becomes `ln(1 - q + q e^L)`, or the opposite of it.
#[derive(Debug)]
pub struct AtomCurve {
    /// Ascending.
    losses: Vec<f64>,
    /// Masses `(p, q)` of the first i outcomes, and of all from i on.
    below: Vec<(f64, f64)>,
    above: Vec<(f64, f64)>,
    infinite: f64,
    left_out: f64,
    error: f64,
    loss_error: f64,
}

impl AtomCurve {
    /// `rate` in (0, 1].
    pub fn new(pair: &Pair, rate: f64, direction: Direction) -> Self {
        let mixed = |atom: &Atom| (1.0 - rate) * atom.q + rate * atom.p;
        let lost = |loss: f64| if rate == 1.0 { loss } else { sampled_loss(loss, rate) };
        // What only one side can produce has a finite loss where sampling may leave the contribution out.
        let absent = Atom { loss: libm::log1p(-rate), p: (1.0 - rate) * pair.only_q, q: pair.only_q };
        let absent = (rate < 1.0 && pair.only_q > 0.0).then_some(absent);
        let atoms = pair.atoms.iter();
        let (atoms, never, infinite): (Vec<Atom>, f64, f64) = match direction {
            Direction::Remove => {
                let sampled = atoms.map(|a| Atom { loss: lost(a.loss), p: mixed(a), q: a.q });
                let never = if absent.is_none() { pair.only_q } else { 0.0 };
                (absent.into_iter().chain(sampled).collect(), never, rate * pair.only_p)
            }
            Direction::Add => {
                let sampled = atoms.rev().map(|a| Atom { loss: -lost(a.loss), p: a.q, q: mixed(a) });
                let infinite = if absent.is_none() { pair.only_q } else { 0.0 };
                let absent = absent.map(|a| Atom { loss: -a.loss, p: a.q, q: a.p });
                (sampled.chain(absent).collect(), rate * pair.only_p, infinite)
            }
        };
        let steepest = atoms.iter().map(|a| a.loss.abs()).fold(0.0, f64::max);
        let below = running(atoms.iter(), never);
        let mut above = running(atoms.iter().rev(), 0.0);
        above.reverse();
        Self {
            losses: atoms.iter().map(|a| a.loss).collect(),
            below,
            above,
            infinite,
            left_out: pair.left_out,
            error: pair.error + 4.0 * f64::EPSILON,
            loss_error: f64::EPSILON * (16.0 + 4.0 * steepest),
        }
    }

    fn mass(&self, (p, q): (f64, f64)) -> Mass {
        let error = |mass: f64| if mass > 0.0 { 2.0 * f64::EPSILON * mass + self.left_out } else { 0.0 };
        Mass { p, q, p_error: error(p), q_error: error(q) }
    }

    /// How many losses are at most `epsilon`.
    fn rank(&self, epsilon: f64) -> usize {
        self.losses.partition_point(|&loss| loss <= epsilon)
    }
}

/// `ln(1 - q + q e^L)`, to a few units of 1 in the last place.
fn sampled_loss(loss: f64, rate: f64) -> f64 {
    if loss > 700.0 {
        loss + libm::log(rate)
    } else if loss > 0.0 {
        libm::log1p(rate * libm::expm1(loss))
    } else {
        libm::log(1.0 - rate + rate * libm::exp(loss))
    }
}

/// Sums of none, one, ... all of these, Q's beginning at `first_q`.
fn running<'a>(atoms: impl Iterator<Item = &'a Atom>, first_q: f64) -> Vec<(f64, f64)> {
    let (mut p, mut q) = (Double::ZERO, Double::new(first_q));
    let mut sums = vec![(0.0, first_q)];
    for atom in atoms {
        p = p + Double::new(atom.p);
        q = q + Double::new(atom.q);
        sums.push((p.value(), q.value()));
    }
    sums
}

impl LossCurve for AtomCurve {
    fn above(&self, epsilon: f64) -> Mass {
        self.mass(self.above[self.rank(epsilon)])
    }

    fn below(&self, epsilon: f64) -> Mass {
        self.mass(self.below[self.rank(epsilon)])
    }

    fn infinite(&self) -> f64 {
        self.infinite
    }

    fn left_out(&self) -> f64 {
        self.left_out
    }

    fn mass_error(&self) -> f64 {
        self.error
    }

    fn loss_error(&self) -> f64 {
        self.loss_error
    }

    fn greatest(&self) -> f64 {
        if self.left_out > 0.0 {
            return f64::INFINITY;
        }
        self.losses.last().copied().unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(pair: &Pair) -> (f64, f64) {
        let sum = |f: fn(&Atom) -> f64| pair.atoms.iter().map(f).sum::<f64>();
        (sum(|a| a.p) + pair.only_p, sum(|a| a.q) + pair.only_q)
    }

    #[test]
    fn both_laws_of_each_pair_sum_to_one() {
        for pair in [
            Pair::shifted(IntegerNoise::Skellam { mu: 3.0 }, 4).unwrap(),
            Pair::shifted(IntegerNoise::DiscreteGaussian { sigma: 2.0 }, 3).unwrap(),
            Pair::shifted(IntegerNoise::CenteredBinomial { trials: 9 }, 2).unwrap(),
            Pair::shifted(IntegerNoise::CenteredBinomial { trials: 3 }, 7).unwrap(),
            Pair::shifted(IntegerNoise::DiscreteLaplace { scale: 2.0 }, 1).unwrap(),
            Pair::shifted(IntegerNoise::DiscreteLaplace { scale: 0.7 }, 9).unwrap(),
            Pair::randomized_response(1.1, 2),
            Pair::randomized_response(3.0, 17),
        ] {
            let (p, q) = total(&pair);
            assert!((p - 1.0).abs() < 1e-12 && (q - 1.0).abs() < 1e-12, "{pair:?}");
            assert!(pair.atoms.windows(2).all(|w| w[0].loss <= w[1].loss));
            let loss = |a: &Atom| a.p == 0.0 || (libm::log(a.p / a.q) - a.loss).abs() < 1e-12;
            assert!(pair.atoms.iter().all(loss) && pair.left_out < 1e-50, "{pair:?}");
        }
        let apart = Pair::shifted(IntegerNoise::CenteredBinomial { trials: 3 }, 7).unwrap();
        assert!(apart.atoms.is_empty() && (apart.only_p - 1.0).abs() < 1e-12);
    }

    #[test]
    fn edges_of_a_bounded_law() {
        // Two coins, 1/4 1/2 1/4, moved by one.
        let pair = Pair::shifted(IntegerNoise::CenteredBinomial { trials: 2 }, 1).unwrap();
        let (remove, add) = (AtomCurve::new(&pair, 0.5, Direction::Remove), AtomCurve::new(&pair, 0.5, Direction::Add));
        assert!((remove.infinite() - 0.125).abs() < 1e-15 && add.infinite() == 0.0);
        // Added: the outcome that P cannot produce has loss ln 2.
        let top = add.above(0.6);
        assert!((top.p - 0.25).abs() < 1e-14 && (top.q - 0.125).abs() < 1e-14, "{top:?}");
        let all = remove.below(5.0);
        assert!((all.p - 0.875).abs() < 1e-14 && (all.q - 1.0).abs() < 1e-14, "{all:?}");
    }
}
