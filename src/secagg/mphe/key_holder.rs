//! A key holder during the set-up of a key.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::certificate::SignedKey;
use super::checks::{judge_contribution, judge_roll, read_roll, verified};
use super::fault::{KeyFault, Misdeed};
use super::material::HolderKeys;
use super::session::{KEY_PHASES, KeyPhase, KeySession};
use super::statements;
use super::wire::{self, Entry, Reader, Signature};
use crate::backend::Backend;
use crate::he::{CollectiveKey, Contribution, HolderShare, KeyCeremony, KeyShare, ShareDeal};
use crate::math::prg::{Cipher, Purpose, Secret};
use crate::secagg::channel::{Agreement, PrivateKey, Route};
use crate::secagg::identity::{Domain, Identity, SIGNATURE_BYTES};
use crate::secagg::traffic::Traffic;
use crate::secagg::{Output, Party, PartyId, SecAggError, Transmit};

/// Purposes of a route.
const SHARE: u8 = 1;
const PAIR: u8 = 2;

/// Epochs that a holder has begun. To be on record before anything is sent: a set-up that began again under the same
/// epoch would repeat its contribution, which others have seen by then and could choose theirs after.
pub type Epochs = BTreeSet<[u8; 16]>;

/// What a holder has drawn.
struct Own {
    channel: PrivateKey,
    share: KeyShare,
    contribution: Contribution,
    /// Coefficients of the shares.
    sharing: Secret,
    /// Flooding of the answers.
    answers: Secret,
}

/// Another holder, once its key is known.
struct Peer {
    holder: u16,
    agreement: Agreement,
}

/// Where a holder stands.
enum Step {
    /// Waits for the announcement.
    Waiting(Own),
    /// Has committed.
    Committed(Own),
    /// Has opened its contribution and dealt its shares.
    Shared { kept: ShareDeal, answers: Secret, peers: Vec<Peer>, ceremony: KeyCeremony, view: [u8; 32] },
    /// Has signed the key.
    Signed { key: CollectiveKey, share: HolderShare, answers: Secret, pairs: BTreeMap<u16, Secret> },
    /// Has its keys, or has given up.
    Over,
}

impl Step {
    const fn expects(&self) -> Option<(u8, KeyPhase)> {
        Some(match self {
            Self::Waiting(_) => (wire::BEGIN, KeyPhase::Commit),
            Self::Committed(_) => (wire::ROLL, KeyPhase::Share),
            Self::Shared { .. } => (wire::DELIVERY, KeyPhase::Sign),
            Self::Signed { .. } => (wire::CERTIFICATE, KeyPhase::Certify),
            Self::Over => return None,
        })
    }
}

/// A key holder in a key set-up. [`Self::take_keys`] gives what it will answer with.
pub struct KeyHolder {
    session: Arc<KeySession>,
    holder: u16,
    identity: Identity,
    step: Step,
    outbox: VecDeque<(KeyPhase, Vec<u8>)>,
    output: Option<Output>,
    keys: Option<HolderKeys>,
    fault: Option<KeyFault>,
    traffic: Traffic<{ KEY_PHASES.len() }>,
}

impl fmt::Debug for KeyHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyHolder({}, ..)", self.holder)
    }
}

/// What an answer of the server is taken as.
enum Heard {
    Done,
    /// Holder and misdeed, proved by what the holder has signed.
    Accuse(u16, Misdeed),
}

impl KeyHolder {
    /// Holder `holder` in a set-up whose epoch is not among `epochs`, and is among them afterwards. All it draws comes
    /// from `secret` and from all that the parties have agreed on.
    ///
    /// # Errors
    /// An unknown holder, an identity that is not the one in the roster, an epoch that was begun before; those of the
    /// backend.
    pub fn new(
        session: &Arc<KeySession>,
        holder: u16,
        identity: &Identity,
        secret: &Secret,
        backend: &dyn Backend,
        epochs: &mut Epochs,
    ) -> Result<Self, SecAggError> {
        let setup = session.setup();
        setup.threshold.check(holder)?;
        if session.roster().key(u64::from(holder)) != Some(identity.public()) {
            return Err(SecAggError::Holder { holder, problem: "has another key in the roster" });
        }
        if !epochs.insert(setup.session) {
            return Err(SecAggError::UsedEpoch);
        }
        let draw = |purpose| {
            let mut out = Zeroizing::new([0; 32]);
            secret.derive_bound(&setup.session, purpose, session.context(), Cipher::ChaCha20).fill(0, &mut *out);
            out
        };
        let sharing = Secret::from_bytes(*draw(Purpose::HolderKey));
        let (share, contribution) = KeyShare::generate(backend, setup, holder, &sharing)?;
        let own = Own {
            channel: PrivateKey::from_bytes(*draw(Purpose::SetupChannel)),
            share,
            contribution,
            sharing,
            answers: Secret::from_bytes(*draw(Purpose::HolderAnswers)),
        };
        Ok(Self {
            session: Arc::clone(session),
            holder,
            identity: identity.clone(),
            step: Step::Waiting(own),
            outbox: VecDeque::new(),
            output: None,
            keys: None,
            fault: None,
            traffic: Traffic::default(),
        })
    }

    /// What the holder answers openings with, once.
    #[must_use]
    pub const fn take_keys(&mut self) -> Option<HolderKeys> {
        self.keys.take()
    }

    /// Why there is no key, as far as this holder knows.
    #[must_use]
    pub const fn fault(&self) -> Option<&KeyFault> {
        self.fault.as_ref()
    }

    /// Bytes of each phase so far, in the order of [`KEY_PHASES`].
    #[must_use]
    pub const fn traffic(&self) -> &Traffic<{ KEY_PHASES.len() }> {
        &self.traffic
    }

    fn sign(&self, kind: u8, body: &[u8]) -> Signature {
        let domain = Domain { context: *self.session.context(), kind, client: u64::from(self.holder) };
        self.identity.sign(&domain, body)
    }

    fn push(&mut self, phase: KeyPhase, kind: u8, parts: &[&[u8]]) {
        let frame = self.session.place().frame(kind, PartyId::Holder(self.holder), parts);
        self.outbox.push_back((phase, frame));
    }

    fn give_up(&mut self, fault: KeyFault) {
        self.step = Step::Over;
        self.fault = Some(fault);
        self.output = Some(Output::Aborted { survivors: 0, threshold: usize::from(self.session.holders()) });
    }

    fn route(&self, from: u16, to: u16, purpose: u8) -> Route {
        Route { context: *self.session.context(), from: u64::from(from), to: u64::from(to), purpose }
    }

    fn begin(&mut self, body: &[u8]) -> Result<Heard, SecAggError> {
        wire::exactly(body, 32)?;
        if body != self.session.context() {
            return Err(SecAggError::Context);
        }
        let Step::Waiting(own) = std::mem::replace(&mut self.step, Step::Over) else { return Err(SecAggError::Late) };
        let entry = own_entry(&self.session, &own).bytes();
        let signature = self.sign(wire::COMMIT, &entry);
        self.push(KeyPhase::Commit, wire::COMMIT, &[&entry, &signature]);
        self.step = Step::Committed(own);
        Ok(Heard::Done)
    }

    /// Checks the keys and commitments of all, opens the own contribution and deals the shares.
    fn roll(&mut self, body: &[u8]) -> Result<Heard, SecAggError> {
        let Step::Committed(own) = &self.step else { return Err(SecAggError::Late) };
        let entries = read_roll(&self.session, body)?;
        let me = usize::from(self.holder) - 1;
        if entries[me] != own_entry(&self.session, own) {
            return Err(SecAggError::Holder { holder: self.holder, problem: "has sent another key and commitment" });
        }
        let mut ceremony = KeyCeremony::new(self.session.setup().clone());
        if let Some((holder, misdeed)) = judge_roll(&entries, &mut ceremony) {
            return Ok(Heard::Accuse(holder, misdeed));
        }
        let view = statements::view(self.session.context(), &entries);
        let mut peers = Vec::new();
        for (holder, entry) in (1..).zip(&entries).filter(|(holder, _)| *holder != self.holder) {
            peers.push(Peer { holder, agreement: own.channel.agree(&entry.channel)? });
        }
        let (parts, kept) = self.shares(own, &peers, &view)?;
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        self.push(KeyPhase::Share, wire::SHARES, &parts);
        if let Step::Committed(own) = std::mem::replace(&mut self.step, Step::Over) {
            self.step = Step::Shared { kept, answers: own.answers, peers, ceremony, view };
        }
        Ok(Heard::Done)
    }

    /// The contribution and the encrypted shares, each with its signature; and the share that this holder keeps.
    fn shares(&self, own: &Own, peers: &[Peer], view: &[u8; 32]) -> Result<(Vec<Vec<u8>>, ShareDeal), SecAggError> {
        let setup = self.session.setup();
        let contribution = own.contribution.to_bytes(&setup.ring);
        let signature = self.sign(wire::SHARES, &statements::deal(view, 0, &contribution)).to_vec();
        let mut parts = vec![contribution, signature];
        let mut deals = own.share.deal(setup, &own.sharing)?;
        for peer in peers {
            let route = self.route(self.holder, peer.holder, SHARE);
            let deal = deals[usize::from(peer.holder) - 1].to_bytes(&setup.ring);
            let sealed = peer.agreement.seal(&route, &deal);
            let signature = self.sign(wire::SHARES, &statements::deal(view, peer.holder, &sealed)).to_vec();
            parts.extend([sealed, signature]);
        }
        Ok((parts, deals.swap_remove(usize::from(self.holder) - 1)))
    }

    /// Checks all contributions and the shares for this holder, and signs the key.
    fn delivery(&mut self, body: &[u8]) -> Result<Heard, SecAggError> {
        let Step::Shared { kept, answers, peers, ceremony, view } = &self.step else { return Err(SecAggError::Late) };
        let (setup, session) = (self.session.setup(), &self.session);
        let (open_len, sealed_len) = (wire::contribution_len(&setup.ring), wire::sealed_len(&setup.ring));
        wire::exactly(body, usize::from(session.holders()) * open_len + peers.len() * sealed_len)?;
        let (opened, sealed) = body.split_at(usize::from(session.holders()) * open_len);
        // All signatures first: what is wrong behind a good one is its author's doing, else the server's.
        let opened: Vec<&[u8]> = (1..)
            .zip(opened.chunks_exact(open_len))
            .map(|(dealer, piece)| verified(session, view, dealer, 0, piece))
            .collect::<Result<_, _>>()?;
        let sealed: Vec<&[u8]> = peers
            .iter()
            .zip(sealed.chunks_exact(sealed_len))
            .map(|(peer, piece)| verified(session, view, peer.holder, self.holder, piece))
            .collect::<Result<_, _>>()?;
        let mut ceremony = ceremony.clone();
        for (dealer, bytes) in (1..).zip(&opened) {
            if judge_contribution(session, dealer, bytes, &mut ceremony).is_none() {
                return Ok(Heard::Accuse(dealer, Misdeed::Contribution));
            }
        }
        let mut deals = vec![kept.clone()];
        for (peer, sealed) in peers.iter().zip(sealed) {
            let Some(deal) = self.unseal(peer, sealed) else {
                return Ok(Heard::Accuse(peer.holder, Misdeed::Share));
            };
            deals.push(deal);
        }
        let share = HolderShare::new(&setup.ring, setup.threshold, &setup.session, self.holder, &deals)?;
        // Whoever has contributed last, nobody in particular is to blame: all were committed.
        let Ok(key) = ceremony.finish() else { return Ok(Heard::Accuse(0, Misdeed::Cancelled)) };
        let pairs = peers.iter().map(|peer| (peer.holder, self.pair_secret(peer, view))).collect();
        let signature = self.sign(wire::SIGN, &statements::key(&key.digest()));
        let answers = answers.clone();
        self.push(KeyPhase::Sign, wire::SIGN, &[&signature]);
        self.step = Step::Signed { key, share, answers, pairs };
        Ok(Heard::Done)
    }

    /// The share of a dealer, if it is one.
    fn unseal(&self, peer: &Peer, sealed: &[u8]) -> Option<ShareDeal> {
        let setup = self.session.setup();
        let bytes = peer.agreement.open(&self.route(peer.holder, self.holder, SHARE), sealed).ok()?;
        let deal = ShareDeal::from_bytes(&setup.ring, &bytes).ok()?;
        let fits = deal.dealer() == peer.holder && deal.holder() == self.holder && *deal.session() == setup.session;
        fits.then_some(deal)
    }

    /// What this holder and another one mask their parts with; both make the same.
    fn pair_secret(&self, peer: &Peer, view: &[u8; 32]) -> Secret {
        let (low, high) = (self.holder.min(peer.holder), self.holder.max(peer.holder));
        Secret::from_bytes(*peer.agreement.derive(&self.route(low, high, PAIR), view))
    }

    fn certificate(&mut self, body: &[u8]) -> Result<Heard, SecAggError> {
        wire::exactly(body, usize::from(self.session.holders()) * SIGNATURE_BYTES)?;
        let Step::Signed { key, .. } = &self.step else { return Err(SecAggError::Late) };
        let signed = SignedKey::new(&self.session, key.clone(), body.as_chunks().0.to_vec())?;
        if let Step::Signed { share, answers, pairs, .. } = std::mem::replace(&mut self.step, Step::Over) {
            self.keys = Some(HolderKeys { key: Arc::new(signed), share, answers, pairs });
            self.output = Some(Output::Delivered);
        }
        Ok(Heard::Done)
    }

    /// Says whom this holder found cheating, and gives up.
    fn accuse(&mut self, phase: KeyPhase, accused: u16, misdeed: Misdeed) {
        let statement = statements::complaint(accused, misdeed as u8);
        let signature = self.sign(wire::COMPLAINT, &statement);
        self.push(phase, wire::COMPLAINT, &[&statement, &signature]);
        let holders = if accused == 0 { Vec::new() } else { vec![accused] };
        self.give_up(KeyFault { phase, holders, misdeed, accuser: Some(self.holder) });
    }

    fn ended(&mut self, body: &[u8], phase: KeyPhase) -> Result<(), SecAggError> {
        let mut reader = Reader::new(body);
        let (accused, [misdeed]) = (u16::from_le_bytes(reader.array()?), reader.array()?);
        reader.end()?;
        let holders = if accused == 0 { Vec::new() } else { vec![accused] };
        let misdeed = Misdeed::from_byte(misdeed).unwrap_or(Misdeed::Ended);
        self.give_up(KeyFault { phase, holders, misdeed, accuser: None });
        Ok(())
    }
}

fn own_entry(session: &KeySession, own: &Own) -> Entry {
    Entry { channel: own.channel.public(), commitment: own.contribution.commitment(session.setup()).digest }
}

impl Party for KeyHolder {
    fn handle(&mut self, from: PartyId, bytes: &[u8]) -> Result<(), SecAggError> {
        if from != PartyId::Server {
            return Err(SecAggError::UnknownSender { from });
        }
        let (found, place, me) = (wire::kind(bytes)?, self.session.place(), PartyId::Holder(self.holder));
        let expected = self.step.expects();
        let phase = match expected {
            Some((_, phase)) if found == wire::ABORT => {
                self.ended(place.body(bytes, found, me)?, phase)?;
                self.traffic.receive(phase as usize, bytes.len());
                return Ok(());
            }
            Some((kind, phase)) if kind == found => phase,
            _ => return Err(place.refuse(bytes, found, expected.map(|(kind, _)| kind))),
        };
        let body = place.body(bytes, found, me)?;
        let heard = match phase {
            KeyPhase::Commit => self.begin(body)?,
            KeyPhase::Share => self.roll(body)?,
            KeyPhase::Sign => self.delivery(body)?,
            KeyPhase::Certify => self.certificate(body)?,
        };
        self.traffic.receive(phase as usize, bytes.len());
        if let Heard::Accuse(holder, misdeed) = heard {
            self.accuse(phase, holder, misdeed);
        }
        Ok(())
    }

    /// After the last deadline the holder gives up and wipes what it holds.
    fn handle_timeout(&mut self, now: u64) {
        if let Some((_, phase)) = self.step.expects()
            && self.poll_timeout().is_some_and(|deadline| now >= deadline)
        {
            self.outbox.clear();
            self.give_up(KeyFault { phase, holders: Vec::new(), misdeed: Misdeed::Silent, accuser: None });
        }
    }

    /// One more phase behind the last: the certificate is on its way when the server's time is over.
    fn poll_timeout(&self) -> Option<u64> {
        let last = self.session.deadline(KeyPhase::Sign)?;
        let before = self.session.deadline(KeyPhase::Share)?;
        if matches!(self.step, Step::Over) { None } else { Some(last.saturating_add(last - before)) }
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        let (phase, frame) = self.outbox.pop_front()?;
        self.traffic.send(phase as usize, frame.len());
        Some(Transmit { to: PartyId::Server, frame })
    }

    fn poll_output(&mut self) -> Option<Output> {
        if self.outbox.is_empty() { self.output.take() } else { None }
    }
}
