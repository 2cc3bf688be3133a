//! How many neighbors, which thresholds: computed from the clients, the corrupt, the lost and the probabilities of
//! failure that are asked for. Never a constant.
//!
//! n clients stand in a ring in random order; each has masks with the k nearest (k / 2 on either side: a Harary graph),
//! or with all others. At most f of them are corrupt, fixed before the order was drawn and in league with the server;
//! up to m honest ones may vanish. A client's secrets are t-shared among its neighbors and itself. With c and h the
//! largest number of corrupt clients among the k neighbors, and among the k / 2 on one side, of any honest client, and D
//! the number of neighbors that a survivor may have lost:
//!
//! | what must hold | condition |
//! |---|---|
//! | no two answers open both secrets of a client: an honest holder gives one share, a corrupt one both | `2 t > k + 1 + c` |
//! | survivors are connected by masks between honest clients, **whichever clients the server calls lost** | `D < k / 2 - h` |
//! | no two sets are signed by enough clients: an honest one signs one | `2 q > n + f` |
//! | secrets of the lost can be opened | `t <= k - D` |
//!
//! The second: if the honest survivors fell into two parts, there would be a gap of at least k / 2 consecutive clients in
//! the ring that are corrupt or lost; the survivor beside it has at least `k / 2 - h` lost neighbors on that side. Clients
//! check D for **every** survivor (the graph is public). With a server that is honest but curious, clients are lost
//! independently of the order: two disjoint gaps of k / 2 are needed, and
//! `P <= C(n, 2) (m + f)_k / (n)_k` (falling factorials); `t > c` is enough there, since one set is asked for.
//!
//! c, h and D are exact hypergeometric tails with a union over the clients: Bell et al. 2020 (section 3) bound the same
//! events. Privacy fails with probability at most `2^-lambda`, also where somebody tries `2^g` orders and picks one
//! (`grinding_bits`: 0 if nobody can choose the graph's seed). A complete graph needs none of this: c = f, always.

use std::fmt;

use super::super::SecAggError;
use crate::math::special::{ln_binomial, log_sum_exp};

/// What the server may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServerModel {
    /// Follows the protocol and looks at everything: one round less, nothing is signed about the survivors. Against any
    /// other server this protects nothing.
    SemiHonest,
    /// Does what it likes, in league with the corrupt clients.
    Malicious,
}

/// What a plan is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// n: clients of the cohort.
    pub clients: usize,
    /// f: clients that may be in league with the server.
    pub corrupt: usize,
    /// m: clients that may be lost at any time without the round being lost.
    pub dropouts: usize,
    /// The server.
    pub server: ServerModel,
    /// lambda: privacy fails with probability at most `2^-lambda` over the order of the clients.
    pub privacy_bits: u32,
    /// A round with at most m lost clients aborts with probability at most `2^-availability_bits`.
    pub availability_bits: u32,
    /// log2 of the number of orders that an attacker may try.
    pub grinding_bits: u32,
    /// Least number of survivors that are added up, at least `f + 2`: two honest ones.
    pub min_survivors: usize,
}

impl Request {
    /// 2^-40 for privacy, 2^-20 for a round that aborts, nobody chooses the order, two honest survivors.
    #[must_use]
    pub const fn new(clients: usize, corrupt: usize, dropouts: usize, server: ServerModel) -> Self {
        Self {
            clients,
            corrupt,
            dropouts,
            server,
            privacy_bits: 40,
            availability_bits: 20,
            grinding_bits: 0,
            min_survivors: corrupt.saturating_add(2),
        }
    }
}

/// Numbers of a session that all parties agree on; made by [`Plan::choose`] or [`Plan::complete`], so that every
/// condition of the table above holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    request: Request,
    degree: usize,
    threshold: usize,
    missing: usize,
    quorum: usize,
    min_survivors: usize,
    corrupt_neighbors: usize,
    privacy_failure_log2: f64,
    abort_log2: f64,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let r = &self.request;
        let server = match r.server {
            ServerModel::SemiHonest => "semi-honest server",
            ServerModel::Malicious => "malicious server",
        };
        write!(
            f,
            "masks, {server}, n = {}, up to {} corrupt, {} lost: k = {}{}, t = {} of {} shares (at most {} corrupt), \
             at most {} lost neighbors, at least {} survivors",
            r.clients,
            r.corrupt,
            r.dropouts,
            self.degree,
            if self.is_complete() { " (complete)" } else { "" },
            self.threshold,
            self.degree + 1,
            self.corrupt_neighbors,
            self.missing,
            self.min_survivors,
        )?;
        if self.quorum > 0 {
            write!(f, ", {} signatures", self.quorum)?;
        }
        if self.is_complete() {
            f.write_str(", no failure")
        } else {
            write!(
                f,
                "; privacy fails below 2^{:.1} ({} bits for choosing the order), a round aborts below 2^{:.1}",
                self.privacy_failure_log2, r.grinding_bits, self.abort_log2
            )
        }
    }
}

/// `log2 P[X >= x]` for every x in `0..=draws + 1`, X the marked among `draws` of `population` with `marked`.
///
/// Exact sums; errors of lgamma (about `1e-15 n ln n`) are covered by an allowance of 2^-10 upward.
fn tails(population: usize, marked: usize, draws: usize) -> Vec<f64> {
    let ln = |n: usize, k: usize| ln_binomial(n as u32, k as u32);
    let all = ln(population, draws);
    let mut terms = Vec::with_capacity(draws + 1);
    let mut tails = vec![f64::NEG_INFINITY; draws + 2];
    for x in (0..=draws.min(marked)).rev() {
        terms.push(ln(marked, x) + ln(population - marked, draws - x) - all);
        tails[x] = (log_sum_exp(&terms) * std::f64::consts::LOG2_E + 1.0 / 1024.0).min(0.0);
    }
    tails
}

/// The least x with `events P[X > x] <= 2^-bits`, and log2 of the left side.
fn bound(population: usize, marked: usize, draws: usize, events: usize, bits: f64) -> (usize, f64) {
    let tails = tails(population, marked, draws);
    let union = (events.max(1) as f64).log2();
    // The last tail is minus infinity: something is found.
    let x = (0..=draws).find(|&x| tails[x + 1] + union <= -bits).unwrap_or(draws);
    (x, tails[x + 1] + union)
}

/// `log2(2^a + 2^b)`.
fn log2_sum(a: f64, b: f64) -> f64 {
    let (high, low) = (a.max(b), a.min(b));
    if high == f64::NEG_INFINITY { high } else { high + (1.0 + (low - high).exp2()).log2() }
}

/// Largest cohort: the lists of a frame count in 32 bits, and the tails in `u32`.
pub const MAX_CLIENTS: usize = 1 << 20;

fn check(r: &Request) -> Result<(), SecAggError> {
    let range = |ok: bool, name, expected, found: usize| {
        if ok { Ok(()) } else { Err(SecAggError::OutOfRange { name, expected, found: found as u64 }) }
    };
    range((2..=MAX_CLIENTS).contains(&r.clients), "clients", "2 to 2^20", r.clients)?;
    range(r.corrupt <= r.clients - 2, "corrupt", "at most the clients less two honest ones", r.corrupt)?;
    range(r.dropouts <= r.clients, "dropouts", "at most the clients", r.dropouts)?;
    range(r.min_survivors >= r.corrupt + 2, "min_survivors", "at least corrupt + 2: two honest ones", r.min_survivors)?;
    let left = r.clients - r.dropouts;
    range(r.min_survivors <= left, "min_survivors", "at most the clients less the dropouts", r.min_survivors)?;
    range(r.privacy_bits >= 1 && r.privacy_bits <= 512, "privacy_bits", "1..=512", r.privacy_bits as usize)?;
    range(r.availability_bits <= 512, "availability_bits", "0..=512", r.availability_bits as usize)?;
    range(r.grinding_bits <= 512, "grinding_bits", "0..=512", r.grinding_bits as usize)?;
    range(
        quorum(r) <= left,
        "dropouts",
        "so few that more than half of the clients and the corrupt remain: (n + f) / 2 < n - dropouts",
        r.dropouts,
    )
}

/// Signatures of which two sets cannot both have enough.
fn quorum(r: &Request) -> usize {
    match r.server {
        ServerModel::SemiHonest => 0,
        ServerModel::Malicious => (r.clients + r.corrupt) / 2 + 1,
    }
}

impl Plan {
    /// The sparsest graph that does what is asked, a complete one if none does.
    ///
    /// # Errors
    /// Numbers out of range; more corrupt and lost clients than any graph bears.
    pub fn choose(request: &Request) -> Result<Self, SecAggError> {
        check(request)?;
        // Beyond a few hundred neighbors a complete graph is not worse by much, and the search stays short.
        for degree in (2..request.clients.saturating_sub(1).min(2048)).step_by(2) {
            if let Some(plan) = Self::sparse(request, degree) {
                return Ok(plan);
            }
        }
        Self::complete(request)
    }

    /// Every client with every other.
    ///
    /// # Errors
    /// Numbers out of range; more corrupt and lost clients than this bears.
    pub fn complete(request: &Request) -> Result<Self, SecAggError> {
        check(request)?;
        let (n, f) = (request.clients, request.corrupt);
        let threshold = match request.server {
            ServerModel::Malicious => (n + f) / 2 + 1,
            ServerModel::SemiHonest => (n - request.dropouts).max(f + 1).max(2),
        };
        if threshold > n - request.dropouts {
            return Err(SecAggError::OutOfRange {
                name: "dropouts",
                expected: "so few that the threshold of shares is reached without them",
                found: request.dropouts as u64,
            });
        }
        let min_survivors = request.min_survivors.max(threshold);
        Ok(Self {
            request: *request,
            degree: n - 1,
            threshold,
            missing: n - min_survivors,
            quorum: quorum(request),
            min_survivors,
            corrupt_neighbors: f,
            privacy_failure_log2: f64::NEG_INFINITY,
            abort_log2: f64::NEG_INFINITY,
        })
    }

    /// A ring with `degree` neighbors each, if that is enough.
    fn sparse(r: &Request, degree: usize) -> Option<Self> {
        let (n, f) = (r.clients, r.corrupt);
        let bits = f64::from(r.privacy_bits + r.grinding_bits) + 1.0;
        let (c, c_fails) = bound(n - 1, f, degree, n - f, bits);
        let (lost, abort_log2) = bound(n - 1, r.dropouts.min(n - 1), degree, n, f64::from(r.availability_bits));
        let (threshold, missing, other_fails) = match r.server {
            ServerModel::Malicious => {
                let (h, h_fails) = bound(n - 1, f, degree / 2, 2 * (n - f), bits);
                let threshold = (degree + 1 + c) / 2 + 1;
                let missing = (degree / 2).checked_sub(h + 1)?.min(degree.checked_sub(threshold)?);
                (threshold, missing, h_fails)
            }
            ServerModel::SemiHonest => {
                let apart = disconnected(n, f + r.dropouts, degree);
                if apart > -bits {
                    return None;
                }
                (degree.checked_sub(lost)?, lost, apart)
            }
        };
        // A threshold of 1 would make every share the secret itself.
        let fits = missing >= lost && threshold > c.max(1) && threshold <= degree - missing;
        fits.then(|| Self {
            request: *r,
            degree,
            threshold,
            missing,
            quorum: quorum(r),
            min_survivors: r.min_survivors.max(quorum(r)),
            corrupt_neighbors: c,
            privacy_failure_log2: log2_sum(c_fails, other_fails) + f64::from(r.grinding_bits),
            abort_log2,
        })
    }

    /// What it was made from.
    #[must_use]
    pub const fn request(&self) -> &Request {
        &self.request
    }

    /// k: neighbors of a client; n - 1 for a complete graph.
    #[must_use]
    pub const fn degree(&self) -> usize {
        self.degree
    }

    /// t: shares that open a secret, of the k + 1 that there are.
    #[must_use]
    pub const fn threshold(&self) -> usize {
        self.threshold
    }

    /// D: neighbors that a survivor may have lost.
    #[must_use]
    pub const fn missing(&self) -> usize {
        self.missing
    }

    /// q: signatures that a set of survivors needs; 0 with a server that is trusted to follow the protocol.
    #[must_use]
    pub const fn quorum(&self) -> usize {
        self.quorum
    }

    /// Least number of survivors that are added up.
    #[must_use]
    pub const fn min_survivors(&self) -> usize {
        self.min_survivors
    }

    /// c: the bound on corrupt neighbors behind the threshold.
    #[must_use]
    pub const fn corrupt_neighbors(&self) -> usize {
        self.corrupt_neighbors
    }

    /// log2 of the probability that privacy fails, negative infinity for a complete graph.
    #[must_use]
    pub const fn privacy_failure_log2(&self) -> f64 {
        self.privacy_failure_log2
    }

    /// log2 of the probability that a round with m lost clients aborts.
    #[must_use]
    pub const fn abort_log2(&self) -> f64 {
        self.abort_log2
    }

    /// True if every client is a neighbor of every other.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.degree + 1 == self.request.clients
    }
}

/// `log2(C(n, 2) (removed)_k / (n)_k)`: two gaps of k / 2 in a ring of n.
fn disconnected(n: usize, removed: usize, degree: usize) -> f64 {
    if removed < degree {
        return f64::NEG_INFINITY;
    }
    let product = |i: usize| ((removed - i) as f64 / (n - i) as f64).log2();
    let pairs = (n as f64 * (n as f64 - 1.0) / 2.0).log2();
    ((0..degree).map(product).sum::<f64>() + pairs + 1.0 / 1024.0).min(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails_are_those_of_a_small_urn() {
        // Four of ten are marked, three are drawn: 20, 60, 36, 4 of 120.
        let found = tails(10, 4, 3);
        for (x, expected) in [120.0, 100.0, 40.0, 4.0].into_iter().enumerate() {
            let exact = (expected / 120.0f64).log2();
            assert!(found[x] >= exact - 1e-12 && found[x] <= exact + 1.1 / 1024.0, "{x}: {} {exact}", found[x]);
        }
        assert_eq!(found[4], f64::NEG_INFINITY);
        assert_eq!(bound(10, 4, 3, 1, 4.0).0, 2);
        assert_eq!(bound(10, 4, 3, 1, 100.0), (3, f64::NEG_INFINITY));
        assert_eq!(bound(10, 0, 3, 5, 100.0).0, 0);
    }

    #[test]
    fn the_degree_grows_like_a_logarithm_and_every_condition_holds() {
        for server in [ServerModel::SemiHonest, ServerModel::Malicious] {
            let mut degrees = Vec::new();
            for n in [300usize, 1000, 3000, 10_000, 100_000] {
                let plan = Plan::choose(&Request::new(n, n / 20, n / 20, server)).unwrap();
                let (k, t, c) = (plan.degree, plan.threshold, plan.corrupt_neighbors);
                assert!(t > c && t <= k - plan.missing, "{plan}");
                if server == ServerModel::Malicious {
                    assert!(2 * t > k + 1 + c && 2 * plan.quorum > n + n / 20, "{plan}");
                }
                assert!(plan.privacy_failure_log2 <= -40.0 && plan.abort_log2 <= -20.0, "{plan}");
                degrees.push(k);
            }
            assert!(degrees.windows(2).all(|w| w[0] <= w[1]), "{degrees:?}");
            // 300 times the clients, fewer than twice the neighbors.
            assert!(degrees[4] < 2 * degrees[0], "{degrees:?}");
        }
    }

    /// Computed once more in exact integers (Python, binomials of whole numbers).
    #[test]
    fn plans_of_a_thousand_clients() {
        for (lost, server, expected) in [
            (50, ServerModel::SemiHonest, [30, 18, 12, 16]),
            (50, ServerModel::Malicious, [74, 50, 18, 23]),
            (100, ServerModel::SemiHonest, [46, 26, 20, 25]),
            (100, ServerModel::Malicious, [134, 90, 35, 44]),
        ] {
            let plan = Plan::choose(&Request::new(1000, lost, lost, server)).unwrap();
            assert_eq!([plan.degree, plan.threshold, plan.missing, plan.corrupt_neighbors], expected, "{plan}");
        }
    }

    #[test]
    fn more_bits_need_more_neighbors_and_few_clients_a_complete_graph() {
        let base = Request::new(1000, 50, 50, ServerModel::Malicious);
        let degree = |r: Request| Plan::choose(&r).unwrap().degree;
        assert!(degree(Request { privacy_bits: 80, ..base }) > degree(base));
        assert!(degree(Request { grinding_bits: 40, ..base }) == degree(Request { privacy_bits: 80, ..base }));
        assert!(degree(Request { corrupt: 150, min_survivors: 152, ..base }) > degree(base));
        assert!(degree(Request { dropouts: 100, ..base }) >= degree(base));
        assert!(degree(Request { server: ServerModel::SemiHonest, ..base }) < degree(base));
        let small = Plan::choose(&Request::new(10, 2, 3, ServerModel::Malicious)).unwrap();
        assert!(small.is_complete() && small.threshold == 7 && small.missing == 3 && small.quorum == 7, "{small}");
        assert!(small.to_string().contains("complete"));
    }

    #[test]
    fn what_no_graph_bears_is_refused() {
        let of = |n, f, m, server| Plan::choose(&Request::new(n, f, m, server)).map(|_| ());
        assert!(of(1, 0, 0, ServerModel::SemiHonest).is_err());
        assert!(of(10, 9, 0, ServerModel::SemiHonest).is_err());
        // f + 2 m < n.
        assert!(of(10, 3, 3, ServerModel::Malicious).is_ok());
        assert!(of(10, 3, 4, ServerModel::Malicious).is_err());
        assert!(of(10, 3, 5, ServerModel::SemiHonest).is_ok());
        assert!(of(10, 3, 6, ServerModel::SemiHonest).is_err());
        let low = Request { min_survivors: 4, ..Request::new(10, 3, 1, ServerModel::Malicious) };
        assert!(Plan::choose(&low).is_err());
        assert!(of(usize::MAX, 0, 0, ServerModel::Malicious).is_err());
    }
}
