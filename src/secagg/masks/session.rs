//! What all parties of one aggregation agree on before it begins.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::graph::Graph;
use super::plan::{Plan, ServerModel};
use crate::secagg::accumulator::check_shape;
use crate::secagg::identity::{Domain, Roster};
pub use crate::secagg::traffic::Count;
use crate::secagg::wire::Place;
pub use crate::secagg::wire::bitmap;
use crate::secagg::{SecAggError, SessionId, VectorShape, traffic};

/// The steps of the protocol, each a request of the server and the clients' answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Announcement; public keys.
    Keys,
    /// The neighbors' keys; encrypted shares.
    Shares,
    /// The shares of the neighbors; the masked vector.
    Input,
    /// The set of survivors; its signatures. Left out with a server that is trusted to follow the protocol.
    Consistency,
    /// Proof that enough have signed; the shares of the survivors' self masks and of the keys of the lost.
    Unmask,
}

/// All phases, in order.
pub const PHASES: [Phase; 5] = [Phase::Keys, Phase::Shares, Phase::Input, Phase::Consistency, Phase::Unmask];

/// When the server stops waiting in each phase, in milliseconds of the driver's clock.
pub type Deadlines = [u64; PHASES.len()];

/// What [`Session::new`] takes.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Session, round, attempt.
    pub id: SessionId,
    /// Shape of the vectors.
    pub shape: VectorShape,
    /// The clients, ascending.
    pub cohort: Vec<u64>,
    /// The pinned public keys of these clients, and perhaps of others.
    pub roster: Arc<Roster>,
    /// Degree and thresholds.
    pub plan: Plan,
    /// Public randomness of the graph. The plan's probabilities hold if it was fixed after the corrupt clients were, up
    /// to the choices that `grinding_bits` allows for.
    pub graph_seed: [u8; 32],
    /// Ascending; nothing waits for everybody.
    pub deadlines: Option<Deadlines>,
}

/// A checked setup with its graph. One serves the server and all clients of a process.
#[derive(Debug)]
pub struct Session {
    setup: Setup,
    graph: Graph,
    context: [u8; 32],
}

impl Session {
    /// Checks a setup and draws the graph.
    ///
    /// # Errors
    /// A cohort that is not ascending, of another size than the plan's, or with a client whose key is not in the roster; a
    /// width outside 1..=63; deadlines that are not ascending.
    pub fn new(setup: Setup) -> Result<Arc<Self>, SecAggError> {
        check_shape(setup.shape)?;
        let n = setup.plan.request().clients;
        if setup.cohort.len() != n {
            let found = setup.cohort.len() as u64;
            return Err(SecAggError::OutOfRange { name: "cohort", expected: "as many clients as the plan has", found });
        }
        let ascending = |list: &[u64], name, expected| match list.windows(2).find(|w| w[0] >= w[1]) {
            Some(pair) => Err(SecAggError::OutOfRange { name, expected, found: pair[1] }),
            None => Ok(()),
        };
        ascending(&setup.cohort, "cohort", "ascending, every client once")?;
        if let Some(deadlines) = &setup.deadlines {
            ascending(deadlines, "deadline", "later than that of the phase before")?;
        }
        let context = context(&setup)?;
        let graph = Graph::new(n, setup.plan.degree(), &setup.graph_seed);
        Ok(Arc::new(Self { setup, graph, context }))
    }

    /// Session, round, attempt.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.setup.id
    }

    /// Shape of the vectors.
    #[must_use]
    pub fn shape(&self) -> VectorShape {
        self.setup.shape
    }

    /// What headers of this round say.
    #[must_use]
    pub fn place(&self) -> Place {
        Place { id: self.id(), shape: self.shape() }
    }

    /// The clients, ascending. A client is called by its place in this list on the wire.
    #[must_use]
    pub fn cohort(&self) -> &[u64] {
        &self.setup.cohort
    }

    /// Degree and thresholds.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.setup.plan
    }

    /// Who has masks with whom.
    #[must_use]
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The pinned keys.
    #[must_use]
    pub fn roster(&self) -> &Roster {
        &self.setup.roster
    }

    /// SHA-256 of everything above but the deadlines: no signature, key or ciphertext holds under another.
    #[must_use]
    pub fn context(&self) -> &[u8; 32] {
        &self.context
    }

    /// The end of a phase.
    #[must_use]
    pub fn deadline(&self, phase: Phase) -> Option<u64> {
        self.setup.deadlines.map(|d| d[phase as usize])
    }

    /// The place of a client in the cohort.
    #[must_use]
    pub fn index(&self, client: u64) -> Option<usize> {
        self.setup.cohort.binary_search(&client).ok()
    }

    /// True if the set of survivors is signed before anything is opened.
    #[must_use]
    pub fn checks_consistency(&self) -> bool {
        self.setup.plan.request().server == ServerModel::Malicious
    }

    /// What a signature of member `index` over a frame of `kind` is about.
    #[must_use]
    pub fn domain(&self, kind: u8, index: usize) -> Domain {
        Domain { context: self.context, kind, client: self.setup.cohort[index] }
    }

    /// Identity of a set of clients that have shared their keys: part of every mask.
    #[must_use]
    pub fn view(&self, sharers: &[bool]) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(b"veilsum masks view v1");
        hash.update(self.context);
        hash.update(bitmap(sharers));
        hash.finalize().into()
    }

    /// Checks a set of clients that shared keys, as `me` is told it.
    ///
    /// # Errors
    /// See [`Self::check_survivors`].
    pub fn check_sharers(&self, me: usize, set: &[bool]) -> Result<(), SecAggError> {
        if !set[me] {
            return Err(SecAggError::List { list: "set", position: me, found: me as u64 });
        }
        let (found, limit) = (set.iter().filter(|&&s| s).count(), self.plan().min_survivors());
        if found < limit {
            return Err(SecAggError::Survivors { what: "their number", found, limit });
        }
        let (found, limit) = (self.graph.most_missing(set), self.plan().missing());
        if found > limit {
            return Err(SecAggError::Survivors { what: "the lost neighbors of one of them", found, limit });
        }
        Ok(())
    }

    /// Checks a set of survivors, as `me` is told it: all have shared keys, there are enough, and none is nearly cut off.
    ///
    /// # Errors
    /// A set without `me`, with someone who has not shared keys, below the least number, or with a member that has lost
    /// more neighbors than the plan allows.
    pub fn check_survivors(&self, me: usize, sharers: &[bool], set: &[bool]) -> Result<(), SecAggError> {
        if let Some(i) = (0..set.len()).find(|&i| set[i] && !sharers[i]) {
            return Err(SecAggError::List { list: "set", position: i, found: i as u64 });
        }
        self.check_sharers(me, set)
    }
}

fn context(setup: &Setup) -> Result<[u8; 32], SecAggError> {
    let plan = &setup.plan;
    let mut hash = Sha256::new();
    // v1 took 32 bits of keystream for a value of any width: its masks do not cancel with those of v2.
    hash.update(b"veilsum masks v2");
    hash.update(setup.id.session);
    hash.update(setup.id.round.to_le_bytes());
    hash.update(setup.id.attempt.to_le_bytes());
    hash.update(setup.shape.len.to_le_bytes());
    hash.update(setup.shape.bits.to_le_bytes());
    hash.update([u8::from(plan.request().server == ServerModel::Malicious)]);
    for number in
        [setup.cohort.len(), plan.degree(), plan.threshold(), plan.missing(), plan.quorum(), plan.min_survivors()]
    {
        hash.update((number as u64).to_le_bytes());
    }
    hash.update(setup.graph_seed);
    hash.update(setup.roster.digest(&setup.cohort)?);
    Ok(hash.finalize().into())
}

/// What one machine has sent and has accepted, by [`Phase`].
pub type Traffic = traffic::Traffic<{ PHASES.len() }>;
