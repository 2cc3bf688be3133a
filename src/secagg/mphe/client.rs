//! A client of `mphe`: one ciphertext, one signature, and it may go.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::session::{PHASES, Phase, RoundSession};
use super::statements;
use super::wire;
use crate::backend::Backend;
use crate::he::{Ciphertext, EncryptKeys};
use crate::math::prg::{Address, Cipher, Purpose, Secret};
use crate::secagg::frame;
use crate::secagg::identity::Identity;
use crate::secagg::traffic::Traffic;
use crate::secagg::{Output, Party, PartyId, SecAggError, Transmit, VectorShape};

/// Where a client stands.
enum Step {
    /// Waits for the announcement.
    Waiting,
    /// Was announced the round; waits for its own vector.
    Ready,
    /// Has sent its ciphertext, or has given up.
    Over,
}

/// A client of `mphe` with the vector that it wants added.
pub struct MpheClient {
    session: Arc<RoundSession>,
    index: usize,
    identity: Identity,
    secret: Secret,
    backend: Arc<dyn Backend>,
    message: Option<Zeroizing<Vec<u64>>>,
    step: Step,
    outbox: VecDeque<Vec<u8>>,
    output: Option<Output>,
    traffic: Traffic<{ PHASES.len() }>,
}

impl fmt::Debug for MpheClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MpheClient({}, ..)", self.session.cohort()[self.index])
    }
}

impl MpheClient {
    /// A client without a vector yet: [`Self::submit`] gives it. All it draws comes from `secret`, from all that the
    /// parties have agreed on, and from the vector.
    ///
    /// # Errors
    /// A client that is not in the cohort, or an identity that is not the one in the roster.
    pub fn new(
        session: &Arc<RoundSession>,
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
            message: None,
            step: Step::Waiting,
            outbox: VecDeque::new(),
            output: None,
            traffic: Traffic::default(),
        })
    }

    /// [`Self::new`] and [`Self::submit`].
    ///
    /// # Errors
    /// Those of both.
    pub fn packed(
        session: &Arc<RoundSession>,
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

    /// Gives the vector, packed (see [`Backend::pack`]): residues mod `2^b` of integers of `[-2^(b-1), 2^(b-1))` whose
    /// magnitude is at most B, **for certain**: clamped before the noise, and noise of finite support.
    ///
    /// # Errors
    /// Another length than the shape's, a one in an unused bit, a value beyond B (does not say which); a second vector.
    /// Nothing is sent then.
    pub fn submit(&mut self, packed: &[u8]) -> Result<(), SecAggError> {
        let shape = self.session.shape();
        frame::check_packed(packed, shape)?;
        if self.message.is_some() || matches!(self.step, Step::Over) {
            return Err(SecAggError::Duplicate { client: self.session.cohort()[self.index] });
        }
        let message = unwrapped(packed, shape, self.session.plan().request().bound)?;
        if matches!(self.step, Step::Ready) { self.send(&message) } else { self.keep(message) }
    }

    fn keep(&mut self, message: Zeroizing<Vec<u64>>) -> Result<(), SecAggError> {
        self.message = Some(message);
        Ok(())
    }

    /// True if only the vector is missing: [`Self::submit`] sends it on.
    #[must_use]
    pub const fn wants_vector(&self) -> bool {
        matches!(self.step, Step::Ready)
    }

    /// Bytes of each phase so far.
    #[must_use]
    pub const fn traffic(&self) -> &Traffic<{ PHASES.len() }> {
        &self.traffic
    }

    fn announced(&mut self, body: &[u8]) -> Result<(), SecAggError> {
        wire::exactly(body, 32)?;
        if body != self.session.context() {
            return Err(SecAggError::Context);
        }
        match self.message.take() {
            Some(message) => {
                let sent = self.send(&message);
                // What a kernel has refused may be tried again.
                if sent.is_err() {
                    self.message = Some(message);
                }
                sent
            }
            None => {
                self.step = Step::Ready;
                Ok(())
            }
        }
    }

    /// Encrypts, signs and is done.
    fn send(&mut self, message: &[u64]) -> Result<(), SecAggError> {
        let (session, layout) = (&self.session, &self.session.plan().choice().layout);
        let keys = encrypt_keys(session, self.index, &self.secret, message);
        let ciphertext = Ciphertext::encrypt(&*self.backend, session.key().key(), layout, &keys, message)?.to_bytes();
        let statement = statements::input(&statements::hash(&ciphertext), 1);
        let signature = self.identity.sign(&session.domain(wire::INPUT, self.index), &statement);
        let frame = session.place().frame(
            wire::INPUT,
            PartyId::Client(session.cohort()[self.index]),
            &[&ciphertext, &signature],
        );
        self.outbox.push_back(frame);
        self.step = Step::Over;
        self.output = Some(Output::Delivered);
        Ok(())
    }
}

/// `z + B` of every packed residue; in a time that depends on the length alone.
fn unwrapped(packed: &[u8], shape: VectorShape, bound: u64) -> Result<Zeroizing<Vec<u64>>, SecAggError> {
    let mut out = Zeroizing::new(vec![0u64; shape.len as usize]);
    let (top, greatest) = (shape.bits - 1, 2 * bound);
    let mut beyond = 0u64;
    frame::unpack(packed, shape, |j, residue| {
        // Minus 2^b for the upper half of the ring.
        let value = residue.wrapping_sub((residue >> top) << shape.bits).wrapping_add(bound);
        beyond |= u64::from(greatest.overflowing_sub(value).1);
        out[j] = value;
    });
    if beyond == 0 { Ok(out) } else { Err(SecAggError::Bound { bound }) }
}

/// The streams of one plaintext: `PRF(secret, session, hash(round's context | client | plaintext))`.
fn encrypt_keys(session: &RoundSession, index: usize, secret: &Secret, message: &[u64]) -> EncryptKeys {
    let (id, client) = (session.id(), session.cohort()[index]);
    let mut hash = Sha256::new();
    hash.update(b"veilsum mphe client v1");
    hash.update(session.context());
    hash.update(client.to_le_bytes());
    let mut piece = Zeroizing::new(Vec::with_capacity(8 * PIECE));
    for values in message.chunks(PIECE) {
        piece.clear();
        values.iter().for_each(|v| piece.extend_from_slice(&v.to_le_bytes()));
        hash.update(&*piece);
    }
    let context: [u8; 32] = hash.finalize().into();
    let mut base = Zeroizing::new([0; 32]);
    secret.derive_bound(&id.session, Purpose::MpheClient, &context, Cipher::ChaCha20).fill(0, &mut *base);
    let address = Address { client, round: id.round, attempt: id.attempt, copy: 0 };
    EncryptKeys::derive(&Secret::from_bytes(*base), &id.session, address)
}

/// Values hashed at a time.
const PIECE: usize = 512;

impl Party for MpheClient {
    fn handle(&mut self, from: PartyId, bytes: &[u8]) -> Result<(), SecAggError> {
        if from != PartyId::Server {
            return Err(SecAggError::UnknownSender { from });
        }
        let (kind, place) = (wire::kind(bytes)?, self.session.place());
        if kind != wire::ANNOUNCE {
            return Err(place.refuse(bytes, kind, matches!(self.step, Step::Waiting).then_some(wire::ANNOUNCE)));
        }
        let body = place.body(bytes, kind, PartyId::Client(self.session.cohort()[self.index]))?;
        if !matches!(self.step, Step::Waiting) {
            return Err(SecAggError::Late);
        }
        self.announced(body)?;
        self.traffic.receive(Phase::Input as usize, bytes.len());
        Ok(())
    }

    /// After the deadline of its phase the client gives up and wipes its vector.
    fn handle_timeout(&mut self, now: u64) {
        if self.poll_timeout().is_some_and(|deadline| now >= deadline) {
            self.step = Step::Over;
            self.message = None;
            self.output = Some(Output::Aborted { survivors: 0, threshold: self.session.min_survivors() });
        }
    }

    fn poll_timeout(&self) -> Option<u64> {
        if matches!(self.step, Step::Over) { None } else { self.session.deadlines().map(|d| d.input) }
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        let frame = self.outbox.pop_front()?;
        self.traffic.send(Phase::Input as usize, frame.len());
        Some(Transmit { to: PartyId::Server, frame })
    }

    fn poll_output(&mut self) -> Option<Output> {
        if self.outbox.is_empty() { self.output.take() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every residue of small rings, against the definition.
    #[test]
    fn residues_are_centred_and_the_bound_holds() {
        for bits in [1u32, 2, 3, 8, 63] {
            let half = 1i128 << (bits - 1);
            let samples: Vec<i128> =
                if bits < 9 { (-half..half).collect() } else { vec![-half, -half + 1, -1, 0, 1, half - 1] };
            for bound in [1u64, 2, 3, 1 << (bits - 1)].into_iter().filter(|&b| i128::from(b) <= half) {
                for &z in &samples {
                    let shape = VectorShape { len: 1, bits };
                    let residue = z.rem_euclid(1 << bits) as u64;
                    let mut packed = Vec::new();
                    frame::pack([residue].into_iter(), bits, &mut packed);
                    let found = unwrapped(&packed, shape, bound);
                    if z.unsigned_abs() <= u128::from(bound) {
                        assert_eq!(i128::from(found.unwrap()[0]), z + i128::from(bound), "{bits} {bound} {z}");
                    } else {
                        assert_eq!(found, Err(SecAggError::Bound { bound }), "{bits} {bound} {z}");
                    }
                }
            }
        }
    }
}
