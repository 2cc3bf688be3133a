//! A client of `oneshot`: says one thing, and may vanish.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::fields::Message;
use super::keys::{self, MessageKeys};
use super::session::{Phase, Session, Traffic};
use super::statements::{Statement, Tree, ciphertext_hash};
use super::wire;
use crate::backend::{Backend, EncryptJob, LatticeSecret};
use crate::he::oneshot::key_fields;
use crate::math::packed::{FIELD, SHARE_BITS};
use crate::math::prg::{Secret, StreamKey};
use crate::sample::uniform;
use crate::secagg::identity::Identity;
use crate::secagg::{Output, Party, PartyId, SecAggError, Transmit, VectorShape, frame};

/// Where a client stands.
enum Step {
    /// Waits for the announcement, for its vector, or for both.
    Waiting { announced: bool, vector: Option<Vector> },
    /// Its message is to be sent.
    Sending(Vec<u8>),
    /// Nothing left to say.
    Over,
}

/// What it wants added.
struct Vector {
    message: Message,
    hash: Zeroizing<[u8; 32]>,
}

/// A client of `oneshot` with the vector that it wants added.
pub struct OneshotClient {
    session: Arc<Session>,
    index: usize,
    identity: Identity,
    secret: Secret,
    backend: Arc<dyn Backend>,
    step: Step,
    output: Option<Output>,
    traffic: Traffic,
}

impl fmt::Debug for OneshotClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OneshotClient({}, ..)", self.session.cohort()[self.index])
    }
}

impl OneshotClient {
    /// A client without a vector yet: see [`Self::submit`].
    ///
    /// All it draws comes from `secret`, what the session agrees on, and a hash of the vector: the same arguments give the
    /// same bytes, other data other randomness.
    ///
    /// # Errors
    /// A client that is not in the cohort, or an identity that is not the one in the roster.
    pub fn new(
        session: &Arc<Session>,
        client: u64,
        identity: &Identity,
        secret: &Secret,
        backend: Arc<dyn Backend>,
    ) -> Result<Self, SecAggError> {
        let Some(index) = session.index(client) else {
            return Err(SecAggError::UnknownSender { from: PartyId::Client(client) });
        };
        if session.roster().key(client) != Some(identity.public()) {
            return Err(SecAggError::Identity { client, problem: "has another key in the roster" });
        }
        Ok(Self {
            session: Arc::clone(session),
            index,
            identity: identity.clone(),
            secret: secret.clone(),
            backend,
            step: Step::Waiting { announced: false, vector: None },
            output: None,
            traffic: Traffic::default(),
        })
    }

    /// The same with its vector: see [`Self::submit`].
    ///
    /// # Errors
    /// Those of [`Self::new`] and [`Self::submit`].
    pub fn packed(
        session: &Arc<Session>,
        client: u64,
        identity: &Identity,
        secret: &Secret,
        backend: Arc<dyn Backend>,
        packed: &[u8],
    ) -> Result<Self, SecAggError> {
        let mut party = Self::new(session, client, identity, secret, backend)?;
        party.submit(packed)?;
        Ok(party)
    }

    /// The vector that is to be added, packed: integers of magnitude [`super::Plan::bound`] at most, its own weight
    /// included where it is inside, as residues mod `2^bits` of [`Session::input_shape`].
    ///
    /// # Errors
    /// Another number of bytes, a one in an unused bit, an integer above the bound (nothing was sent then); a second vector.
    pub fn submit(&mut self, packed: &[u8]) -> Result<(), SecAggError> {
        let Step::Waiting { announced, vector: None } = self.step else {
            return Err(SecAggError::Duplicate { client: self.session.cohort()[self.index] });
        };
        let message = Message::new(&self.session, self.index, packed, &*self.backend)?;
        let vector = Vector { message, hash: keys::vector_hash(packed) };
        self.step = if announced {
            Step::Sending(self.encrypt(&vector)?)
        } else {
            Step::Waiting { announced, vector: Some(vector) }
        };
        Ok(())
    }

    /// True if only the vector is missing: [`Self::submit`] sends it on.
    #[must_use]
    pub const fn wants_vector(&self) -> bool {
        matches!(self.step, Step::Waiting { announced: true, .. })
    }

    /// Shape of the vector that is asked for.
    #[must_use]
    pub fn input_shape(&self) -> VectorShape {
        self.session.input_shape()
    }

    /// Bytes of each phase so far.
    #[must_use]
    pub const fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// The one message.
    fn encrypt(&self, vector: &Vector) -> Result<Vec<u8>, SecAggError> {
        let (session, plan) = (&*self.session, self.session.plan());
        let ring = &plan.vector().ring;
        let keys = MessageKeys::new(session, self.index, &self.secret, &vector.hash);
        let secret = LatticeSecret::sample(&*self.backend, ring.basis(), &keys.secret)?;
        let job = EncryptJob {
            basis: ring.basis(),
            params: plan.kernel(),
            secret: &secret,
            expand: session.expand(),
            error: &keys.error,
            message: vector.message.buffer(),
        };
        let ciphertext = self.backend.encrypt(&job)?;
        let ciphertext = self.backend.pack(&ciphertext, wire::RESIDUE_BITS)?;
        let sealed = self.seal(&secret, &keys)?;
        let statement = Statement {
            weight: plan.weight(self.index),
            channel: keys.channel.public(),
            hash: ciphertext_hash(session, &ciphertext),
            root: Tree::new(sealed.chunks_exact(wire::sealed_bytes(plan))).root(),
        };
        let domain = session.domain(wire::INPUT, session.cohort()[self.index]);
        let signature = self.identity.sign(&domain, &statement.bytes());
        let to = PartyId::Client(session.cohort()[self.index]);
        let stated = &statement.bytes()[..wire::STATED];
        Ok(wire::frame(session, wire::INPUT, to, &[stated, &ciphertext, &sealed, &signature]))
    }

    /// The shares of the secret polynomial, each sealed to its holder, one behind the other.
    fn seal(&self, secret: &LatticeSecret, keys: &MessageKeys) -> Result<Vec<u8>, SecAggError> {
        let (session, plan) = (&*self.session, self.session.plan());
        let shares = deal(session, &*self.backend, secret, &keys.shares)?;
        let mut out = Vec::with_capacity(usize::from(plan.request().holders) * wire::sealed_bytes(plan));
        for ((holder, pinned), share) in (1..).zip(session.holders()).zip(shares.chunks_exact(plan.share_len())) {
            let mut packed = Zeroizing::new(Vec::with_capacity(wire::share_bytes(plan)));
            frame::pack(share.iter().map(|&x| u64::from(x)), SHARE_BITS, &mut packed);
            let route = keys::share_route(session, self.index, holder);
            out.extend_from_slice(&keys.channel.agree(&pinned.channel)?.seal(&route, &packed));
        }
        Ok(out)
    }
}

/// The packed shares of `s + 21`, `[K x columns]`; coefficient `z columns + c` is secret z of column c, zeros fill the last
/// ones up.
fn deal(
    session: &Session,
    backend: &dyn Backend,
    secret: &LatticeSecret,
    key: &StreamKey,
) -> Result<Zeroizing<Vec<u32>>, SecAggError> {
    let plan = session.plan();
    let (packing, columns) = (plan.packing(), plan.share_len());
    let fields = key_fields(backend, &plan.vector().ring, secret)?;
    let mut secrets = Zeroizing::new(vec![0u32; usize::from(packing.secrets()) * columns]);
    secrets.iter_mut().zip(&*fields).for_each(|(s, &field)| *s = field as u32);
    let mut random = Zeroizing::new(vec![0u32; usize::from(packing.hidden()) * columns]);
    uniform::residues(key, 0, FIELD, &mut random).map_err(crate::he::HeError::from)?;
    Ok(packing.deal(&secrets, &random)?)
}

impl Party for OneshotClient {
    fn handle(&mut self, from: PartyId, bytes: &[u8]) -> Result<(), SecAggError> {
        if from != PartyId::Server {
            return Err(SecAggError::UnknownSender { from });
        }
        let party = PartyId::Client(self.session.cohort()[self.index]);
        let body = wire::body(&self.session, bytes, wire::ANNOUNCE, party, 32)?;
        if body != self.session.context() {
            return Err(SecAggError::Context);
        }
        let Step::Waiting { announced: false, vector } = &self.step else { return Err(SecAggError::Late) };
        self.step = match vector {
            Some(vector) => Step::Sending(self.encrypt(vector)?),
            None => Step::Waiting { announced: true, vector: None },
        };
        self.traffic.receive(Phase::Input as usize, bytes.len());
        Ok(())
    }

    /// At the end of the first phase the client gives up and wipes what it holds.
    fn handle_timeout(&mut self, now: u64) {
        if self.poll_timeout().is_some_and(|deadline| now >= deadline) {
            self.step = Step::Over;
            let threshold = self.session.plan().request().min_survivors;
            self.output = Some(Output::Aborted { survivors: 0, threshold });
        }
    }

    fn poll_timeout(&self) -> Option<u64> {
        if matches!(self.step, Step::Over) { None } else { self.session.deadline(Phase::Input) }
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        let Step::Sending(frame) = &mut self.step else { return None };
        let frame = std::mem::take(frame);
        self.step = Step::Over;
        self.output = Some(Output::Delivered);
        self.traffic.send(Phase::Input as usize, frame.len());
        Some(Transmit { to: PartyId::Server, frame })
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.output.take()
    }
}
