//! What all parties agree on: of a key set-up, and of a round under its key.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::certificate::SignedKey;
use super::plan::{Plan, Trust};
use super::wire::Place;
use crate::he::collective::KeySetup;
use crate::secagg::identity::{Domain, Roster, SIGNATURE_BYTES};
use crate::secagg::{SecAggError, SessionId, VectorShape};

/// The steps of a key set-up, each a request of the server and the holders' answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyPhase {
    /// Announcement; X25519 keys and commitments.
    Commit,
    /// Those of all holders; contributions opened, shares for every other holder encrypted to it.
    Share,
    /// All contributions, the shares for a holder; its signature of the finished key.
    Sign,
    /// The signatures of all.
    Certify,
}

/// All phases of a key set-up, in order.
pub const KEY_PHASES: [KeyPhase; 4] = [KeyPhase::Commit, KeyPhase::Share, KeyPhase::Sign, KeyPhase::Certify];

/// When a key set-up stops waiting for answers: [`KeyPhase::Commit`], `Share`, `Sign`, in milliseconds of the driver's
/// clock; holders wait for the certificate until the last.
pub type KeyDeadlines = [u64; 3];

/// What [`KeySession::new`] takes.
#[derive(Clone, Debug)]
pub struct KeyConfig {
    /// Identity of the key: every set-up has its own, also one that begins again.
    pub epoch: [u8; 16],
    /// What the common polynomial a is expanded from.
    pub seed: [u8; 32],
    /// What the key is for.
    pub plan: Plan,
    /// The pinned public keys of the holders 1..=K, and perhaps of others.
    pub holders: Arc<Roster>,
    /// Ascending; nothing waits for everybody.
    pub deadlines: Option<KeyDeadlines>,
}

/// A checked key set-up. One serves the server, all holders and, for its public part, all clients.
#[derive(Debug)]
pub struct KeySession {
    config: KeyConfig,
    setup: KeySetup,
    context: [u8; 32],
}

fn ascending(list: &[u64], name: &'static str, expected: &'static str) -> Result<(), SecAggError> {
    match list.windows(2).find(|w| w[0] >= w[1]) {
        Some(pair) => Err(SecAggError::OutOfRange { name, expected, found: pair[1] }),
        None => Ok(()),
    }
}

const LATER: &str = "later than that of the phase before";

impl KeySession {
    /// Checks a configuration.
    ///
    /// # Errors
    /// A holder whose key is not in the roster; deadlines that are not ascending.
    pub fn new(config: KeyConfig) -> Result<Arc<Self>, SecAggError> {
        if let Some(deadlines) = &config.deadlines {
            ascending(deadlines, "deadline", LATER)?;
        }
        let threshold = config.plan.threshold();
        let setup = KeySetup { ring: config.plan.ring().clone(), session: config.epoch, seed: config.seed, threshold };
        let holders: Vec<u64> = (1..=u64::from(threshold.holders())).collect();
        let mut hash = Sha256::new();
        hash.update(b"veilsum mphe key set-up v1");
        hash.update(config.epoch);
        hash.update(config.seed);
        hash.update(config.plan.digest());
        hash.update(config.holders.digest(&holders)?);
        let context = hash.finalize().into();
        Ok(Arc::new(Self { config, setup, context }))
    }

    /// What the key is for.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.config.plan
    }

    /// Ring, epoch, seed and thresholds.
    #[must_use]
    pub const fn setup(&self) -> &KeySetup {
        &self.setup
    }

    /// K.
    #[must_use]
    pub const fn holders(&self) -> u16 {
        self.setup.threshold.holders()
    }

    /// SHA-256 of everything but the deadlines: no signature, key or ciphertext holds under another.
    #[must_use]
    pub const fn context(&self) -> &[u8; 32] {
        &self.context
    }

    /// The pinned keys of the holders.
    #[must_use]
    pub fn roster(&self) -> &Roster {
        &self.config.holders
    }

    /// Session, round 0, attempt 0, and the shape of a polynomial: what the headers of the frames say.
    #[must_use]
    pub fn place(&self) -> Place {
        let ring = &self.setup.ring;
        Place {
            id: SessionId { session: self.config.epoch, round: 0, attempt: 0 },
            shape: VectorShape { len: ring.degree() as u32, bits: ring.limbs() as u32 },
        }
    }

    /// The end of a phase; of the last one that of signing.
    #[must_use]
    pub fn deadline(&self, phase: KeyPhase) -> Option<u64> {
        self.config.deadlines.map(|d| d[(phase as usize).min(d.len() - 1)])
    }

    /// Checks a holder's signature over a statement of `kind`.
    ///
    /// # Errors
    /// [`SecAggError::HolderSignature`].
    pub fn verify(
        &self,
        kind: u8,
        holder: u16,
        body: &[u8],
        signature: &[u8; SIGNATURE_BYTES],
    ) -> Result<(), SecAggError> {
        verify_holder(self.roster(), &self.context, kind, holder, body, signature)
    }
}

fn verify_holder(
    roster: &Roster,
    context: &[u8; 32],
    kind: u8,
    holder: u16,
    body: &[u8],
    signature: &[u8; SIGNATURE_BYTES],
) -> Result<(), SecAggError> {
    let domain = Domain { context: *context, kind, client: u64::from(holder) };
    roster.verify(&domain, body, signature).map_err(|_| SecAggError::HolderSignature { holder })
}

/// The steps of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Announcement; signed ciphertexts of the clients.
    Input,
    /// What the clients have signed, with the sum or its terms; the holders' signatures of it.
    Agree,
    /// A set of t holders that have signed the same; their parts of the opening. Once more for every further set.
    Open,
}

/// All phases of a round, in order.
pub const PHASES: [Phase; 3] = [Phase::Input, Phase::Agree, Phase::Open];

/// When the server stops waiting, in milliseconds of the driver's clock. A further set of holders gets as long as the
/// first had: `open - agree`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// For ciphertexts.
    pub input: u64,
    /// For the signatures of the holders.
    pub agree: u64,
    /// For the parts of the first set.
    pub open: u64,
}

/// What [`RoundSession::new`] takes.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Session, round, attempt.
    pub id: SessionId,
    /// The clients, ascending.
    pub cohort: Vec<u64>,
    /// The pinned public keys of these clients, and perhaps of others.
    pub roster: Arc<Roster>,
    /// The public key with the signatures of all holders.
    pub key: Arc<SignedKey>,
    /// Nothing waits for everybody.
    pub deadlines: Option<Deadlines>,
}

/// A checked round. One serves the server, the clients and the holders of a process.
#[derive(Debug)]
pub struct RoundSession {
    setup: Setup,
    min_survivors: usize,
    context: [u8; 32],
}

impl RoundSession {
    /// Checks a round in which as few clients may be added up as the plan of the key allows.
    ///
    /// # Errors
    /// Those of [`Self::with_survivors`].
    pub fn new(setup: Setup) -> Result<Arc<Self>, SecAggError> {
        let least = setup.key.session().plan().request().min_survivors as usize;
        Self::with_survivors(setup, least)
    }

    /// Checks a round in which at least `least` clients are added up: a key serves cohorts of several sizes, and what a
    /// round needs (noise enough, two honest clients) may be more than the least that the key was made for.
    ///
    /// # Errors
    /// Fewer than the least number of the key's plan; a cohort that is not ascending, of more clients than planned or fewer
    /// than would be opened, or with a client whose key is not in the roster; deadlines that are not ascending.
    pub fn with_survivors(setup: Setup, least: usize) -> Result<Arc<Self>, SecAggError> {
        let plan = setup.key.session().plan();
        if least < plan.request().min_survivors as usize {
            let (name, expected) = ("least number of survivors", "at least that of the key's plan");
            return Err(SecAggError::OutOfRange { name, expected, found: least as u64 });
        }
        let most = plan.request().clients as usize;
        if !(least..=most).contains(&setup.cohort.len()) {
            let found = setup.cohort.len() as u64;
            let expected = "the least number of survivors to the clients of the plan";
            return Err(SecAggError::OutOfRange { name: "cohort", expected, found });
        }
        ascending(&setup.cohort, "cohort", "ascending, every client once")?;
        if let Some(d) = &setup.deadlines {
            ascending(&[d.input, d.agree, d.open], "deadline", LATER)?;
        }
        let mut hash = Sha256::new();
        hash.update(b"veilsum mphe v1");
        hash.update(setup.id.session);
        hash.update(setup.id.round.to_le_bytes());
        hash.update(setup.id.attempt.to_le_bytes());
        hash.update(setup.key.session().context());
        hash.update(setup.key.key().digest());
        hash.update((setup.cohort.len() as u64).to_le_bytes());
        hash.update((least as u64).to_le_bytes());
        hash.update(setup.roster.digest(&setup.cohort)?);
        let context = hash.finalize().into();
        Ok(Arc::new(Self { setup, min_survivors: least, context }))
    }

    /// Session, round, attempt.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.setup.id
    }

    /// The clients, ascending. A client is called by its place in this list inside a frame.
    #[must_use]
    pub fn cohort(&self) -> &[u64] {
        &self.setup.cohort
    }

    /// The place of a client in the cohort.
    #[must_use]
    pub fn index(&self, client: u64) -> Option<usize> {
        self.setup.cohort.binary_search(&client).ok()
    }

    /// The public key.
    #[must_use]
    pub fn key(&self) -> &Arc<SignedKey> {
        &self.setup.key
    }

    /// What the key is for.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        self.setup.key.session().plan()
    }

    /// Shape of the vectors.
    #[must_use]
    pub fn shape(&self) -> VectorShape {
        self.plan().request().shape
    }

    /// The pinned keys of the clients.
    #[must_use]
    pub fn roster(&self) -> &Roster {
        &self.setup.roster
    }

    /// SHA-256 of everything but the deadlines.
    #[must_use]
    pub const fn context(&self) -> &[u8; 32] {
        &self.context
    }

    /// Least number of clients that are added up.
    #[must_use]
    pub const fn min_survivors(&self) -> usize {
        self.min_survivors
    }

    /// True if the holders get every ciphertext and add them themselves.
    #[must_use]
    pub fn holders_add(&self) -> bool {
        self.plan().request().trust == Trust::HonestRoster
    }

    /// What the headers of the frames say.
    #[must_use]
    pub fn place(&self) -> Place {
        Place { id: self.setup.id, shape: self.shape() }
    }

    /// What the holders' record of openings calls this round: a round is opened once, **whatever the attempt**, since
    /// the sums of two attempts with different survivors differ by a few clients.
    #[must_use]
    pub fn opening(&self) -> [u8; 16] {
        let mut hash = Sha256::new();
        hash.update(b"veilsum mphe opening v1");
        hash.update(self.setup.id.session);
        hash.update(self.setup.id.round.to_le_bytes());
        let mut out = [0; 16];
        out.copy_from_slice(&hash.finalize()[..16]);
        out
    }

    /// The deadlines.
    #[must_use]
    pub const fn deadlines(&self) -> Option<Deadlines> {
        self.setup.deadlines
    }

    /// The end of the opening by the last set that the plan has.
    #[must_use]
    pub fn last_deadline(&self) -> Option<u64> {
        let sets = self.plan().opening().sets();
        self.setup.deadlines.map(|d| d.agree.saturating_add((d.open - d.agree).saturating_mul(sets)))
    }

    /// What a signature of client `index` over a frame of `kind` is about.
    #[must_use]
    pub fn domain(&self, kind: u8, index: usize) -> Domain {
        Domain { context: self.context, kind, client: self.setup.cohort[index] }
    }

    /// Checks a holder's signature over a statement of `kind`.
    ///
    /// # Errors
    /// [`SecAggError::HolderSignature`].
    pub fn verify_holder(
        &self,
        kind: u8,
        holder: u16,
        body: &[u8],
        signature: &[u8; SIGNATURE_BYTES],
    ) -> Result<(), SecAggError> {
        verify_holder(self.setup.key.session().roster(), &self.context, kind, holder, body, signature)
    }
}
