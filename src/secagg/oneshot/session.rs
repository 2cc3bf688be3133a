//! What all parties of one aggregation agree on before it begins.

use std::collections::BTreeSet;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::plan::{Plan, Weighting};
use crate::he::chooser::Failure;
use crate::math::prg::{Cipher, StreamKey};
use crate::secagg::channel::check_public;
use crate::secagg::identity::{Domain, Roster};
use crate::secagg::wire::Place;
use crate::secagg::{SecAggError, SessionId, VectorShape, traffic};

/// The steps of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Announcement; ciphertexts and shares, which go on to the holders.
    Input,
    /// The set of survivors; the holders' sums.
    Open,
}

/// All phases, in order.
pub const PHASES: [Phase; 2] = [Phase::Input, Phase::Open];

/// When the server stops waiting in each phase, in milliseconds of the driver's clock.
pub type Deadlines = [u64; PHASES.len()];

/// A holder's public keys, pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HolderKeys {
    /// Checks its signatures.
    pub identity: [u8; 32],
    /// X25519: shares are sealed to it.
    pub channel: [u8; 32],
}

/// What [`Session::new`] takes.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Session, round, attempt.
    pub id: SessionId,
    /// The clients, ascending.
    pub cohort: Vec<u64>,
    /// The pinned public keys of these clients, and perhaps of others.
    pub roster: Arc<Roster>,
    /// The pinned keys of holders 1 to K.
    pub holders: Vec<HolderKeys>,
    /// Ring, layout, thresholds.
    pub plan: Plan,
    /// Ascending; nothing waits for everybody.
    pub deadlines: Option<Deadlines>,
}

/// A checked setup. One serves all parties of a process.
#[derive(Debug)]
pub struct Session {
    setup: Setup,
    holders: Roster,
    context: [u8; 32],
    expand: StreamKey,
}

impl Session {
    /// Checks a setup.
    ///
    /// # Errors
    /// A cohort that is not ascending, of another size than the plan's, or with a client whose key is not in the roster;
    /// another number of holders than the plan's, a key of theirs that is there twice, of small or low order; deadlines that
    /// are not ascending.
    pub fn new(setup: Setup) -> Result<Arc<Self>, SecAggError> {
        let request = setup.plan.request();
        let range = |name, expected, found| Err(SecAggError::OutOfRange { name, expected, found });
        if setup.cohort.len() != request.clients {
            return range("cohort", "as many clients as the plan has", setup.cohort.len() as u64);
        }
        if setup.holders.len() != usize::from(request.holders) {
            return range("holders", "as many as the plan has", setup.holders.len() as u64);
        }
        for (list, name, expected) in [
            (&setup.cohort[..], "cohort", "ascending, every client once"),
            (setup.deadlines.as_ref().map_or(&[][..], |d| &d[..]), "deadline", "later than that of the phase before"),
        ] {
            if let Some(pair) = list.windows(2).find(|w| w[0] >= w[1]) {
                return range(name, expected, pair[1]);
            }
        }
        let mut channels = BTreeSet::new();
        for (holder, keys) in (1..).zip(&setup.holders) {
            check_public(&keys.channel)?;
            if !channels.insert(keys.channel) {
                return range("holders", "a channel key of its own for each", holder);
            }
        }
        let holders = Roster::new((1..).zip(setup.holders.iter().map(|keys| keys.identity)))?;
        let context = context(&setup)?;
        let mut hash = Sha256::new();
        hash.update(b"veilsum oneshot expand v1");
        hash.update(context);
        let expand = StreamKey::from_bytes(hash.finalize().into(), Cipher::ChaCha20);
        Ok(Arc::new(Self { setup, holders, context, expand }))
    }

    /// Session, round, attempt.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.setup.id
    }

    /// Shape of the sum.
    #[must_use]
    pub fn shape(&self) -> VectorShape {
        self.plan().request().shape
    }

    /// Shape of what clients hand over, see [`Plan::input_shape`].
    #[must_use]
    pub fn input_shape(&self) -> VectorShape {
        self.plan().input_shape()
    }

    /// The clients, ascending. A client is called by its place in this list on the wire.
    #[must_use]
    pub fn cohort(&self) -> &[u64] {
        &self.setup.cohort
    }

    /// What headers of this round say.
    #[must_use]
    pub fn place(&self) -> Place {
        Place { id: self.id(), shape: self.input_shape() }
    }

    /// Ring, layout, thresholds.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.setup.plan
    }

    /// The clients' pinned keys.
    #[must_use]
    pub fn roster(&self) -> &Roster {
        &self.setup.roster
    }

    /// The holders' pinned signing keys, by their numbers.
    #[must_use]
    pub fn holder_roster(&self) -> &Roster {
        &self.holders
    }

    /// The pinned keys of holders 1 to K.
    #[must_use]
    pub fn holders(&self) -> &[HolderKeys] {
        &self.setup.holders
    }

    /// SHA-256 of everything above but the deadlines: no signature, key or ciphertext holds under another.
    #[must_use]
    pub fn context(&self) -> &[u8; 32] {
        &self.context
    }

    /// The stream of the public polynomials a_j: a hash of the context, which nobody chooses freely.
    #[must_use]
    pub fn expand(&self) -> &StreamKey {
        &self.expand
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

    /// What a signature of `author` (a client, or a holder's number) under a frame of `kind` is about.
    #[must_use]
    pub fn domain(&self, kind: u8, author: u64) -> Domain {
        Domain { context: self.context, kind, client: author }
    }
}

fn context(setup: &Setup) -> Result<[u8; 32], SecAggError> {
    let (plan, request, layout) = (&setup.plan, setup.plan.request(), setup.plan.vector().layout);
    let mut hash = Sha256::new();
    hash.update(b"veilsum oneshot v1");
    hash.update(setup.id.session);
    hash.update(setup.id.round.to_le_bytes());
    hash.update(setup.id.attempt.to_le_bytes());
    hash.update(request.shape.len.to_le_bytes());
    hash.update(request.shape.bits.to_le_bytes());
    hash.update(request.bound.to_le_bytes());
    hash.update([u8::from(request.failure == Failure::Never)]);
    for number in [request.clients, request.corrupt_clients, request.min_survivors, plan.vector().ring.degree()] {
        hash.update((number as u64).to_le_bytes());
    }
    for number in [request.holders, request.needed, request.corrupt_holders, plan.packing().secrets()] {
        hash.update(number.to_le_bytes());
    }
    for number in [layout.width, layout.slots, layout.offset] {
        hash.update(number.to_le_bytes());
    }
    plan.vector().ring.basis().primes().for_each(|p| hash.update(p.to_le_bytes()));
    match &request.weights {
        Weighting::Equal => hash.update([0]),
        Weighting::Inside(weights) => {
            hash.update([1]);
            weights.iter().for_each(|w| hash.update(w.to_le_bytes()));
        }
        Weighting::Server(weights) => {
            hash.update([2]);
            weights.iter().for_each(|w| hash.update(w.to_le_bytes()));
        }
    }
    for keys in &setup.holders {
        hash.update(keys.identity);
        hash.update(keys.channel);
    }
    hash.update(setup.roster.digest(&setup.cohort)?);
    Ok(hash.finalize().into())
}

/// What one machine has sent and has accepted, by [`Phase`].
pub type Traffic = traffic::Traffic<{ PHASES.len() }>;
