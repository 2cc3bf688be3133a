//! How a round begins: its input, its attempt, its cohort, and what each group of it is asked.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::keys::RunKey;
use super::{Action, Collecting, Coordinator, Finish, RoundTask, State};
use crate::backend::Backend;
use crate::backend::simd::isa::Isa;
use crate::fl::FlError;
use crate::fl::asynchrony::Starts;
use crate::fl::cohort::{self, Sampling};
use crate::fl::notice::{Brief, Notice};
use crate::fl::spend::Attempt;
use crate::math::prg::{Purpose, StreamKey};
use crate::secagg::SessionId;

impl Coordinator {
    pub(super) fn next_round(&mut self) -> Result<Action, FlError> {
        if self.round >= self.plan.rounds {
            self.state = State::Finished;
            return Ok(Action::Finished(Finish::Complete));
        }
        let round = self.round + 1;
        if let Some(arrivals) = &mut self.arrivals {
            arrivals.advance(round);
        }
        let input = self.input(round);
        if self.spend.superseded(round, input) {
            return Err(FlError::Superseded { round });
        }
        let attempt = self.spend.begin(round, input);
        if let Some(stop) = self.spend.refuses(round, &attempt)? {
            self.state = State::Finished;
            return Ok(Action::Finished(Finish::Stopped(stop)));
        }
        let cohort = self.cohort(round, &attempt);
        if let Some(wanted) = self.wanted_key(round, &attempt, cohort.len())? {
            self.state = State::Keyless(Box::new(wanted.clone()));
            return Ok(Action::MakeKey(Box::new(wanted)));
        }
        let tasks = self.tasks(round, &attempt, &cohort)?;
        if let Some(key) = self.key.as_mut().filter(|_| !cohort.is_empty()) {
            key.begin(round);
        }
        self.parting.1.clear();
        let collecting = |task: &RoundTask| {
            let server = task.protocol.server(task, Arc::clone(&self.backend))?;
            Ok(Collecting { server, task: task.clone(), sum: None })
        };
        let groups = tasks.iter().map(collecting).collect::<Result<Vec<_>, FlError>>()?;
        self.told.clear();
        self.state = State::Collecting(groups);
        self.spend.begun(round, attempt.attempt);
        // The charge of an empty cohort, already summed, waits behind the record of the attempt.
        self.collect()?;
        Ok(Action::Begin(tasks))
    }

    fn input(&self, round: u32) -> [u8; 32] {
        let mut h = Sha256::new();
        // v3: clients train by other products, whose last bits differ.
        h.update(b"veilsum round v3");
        h.update(self.plan_digest);
        h.update(arithmetic(&*self.backend));
        h.update(round.to_le_bytes());
        h.update(bytemuck::cast_slice::<f32, u8>(&self.weights));
        if let Some(state) = &self.clip {
            h.update(state.clip.to_le_bytes());
        }
        if let Some(kept) = &self.kept {
            h.update(kept);
        }
        if let Some(arrivals) = &self.arrivals {
            arrivals.hash(&mut h);
        }
        if let Some(control) = &self.control {
            h.update(bytemuck::cast_slice::<f32, u8>(control));
        }
        h.finalize().into()
    }

    fn cohort(&self, round: u32, attempt: &Attempt) -> Vec<u64> {
        let plan = &self.plan;
        if let Some(arrivals) = &self.arrivals {
            return arrivals.cohort();
        }
        let draw = match plan.sampling {
            Sampling::RoundRobin => self.key(0, 0, Purpose::Cohort),
            _ => self.key(round, attempt.attempt, Purpose::Cohort),
        };
        cohort::draw(plan.sampling, plan.clients, plan.cohort, round, &draw)
    }

    /// The tasks of a round: one a group.
    fn tasks(&self, round: u32, attempt: &Attempt, cohort: &[u64]) -> Result<Vec<RoundTask>, FlError> {
        let key = self.key(round, attempt.attempt, Purpose::Groups);
        let groups = self.plan.grouping.deal(cohort, self.plan.sampling, &key);
        let starts = self.arrivals.as_ref().map(|arrivals| Arc::new(arrivals.starts(round, self.plan.rounds)));
        (0..).zip(groups).map(|(group, members)| self.task(round, attempt, (group, members), &starts)).collect()
    }

    fn task(
        &self,
        round: u32,
        attempt: &Attempt,
        (group, cohort): (u32, Vec<u64>),
        starts: &Option<Arc<Starts>>,
    ) -> Result<RoundTask, FlError> {
        let brief = Brief {
            id: self.group_id(round, attempt.attempt, group),
            group,
            cohort,
            weights: Arc::clone(&self.weights),
            control: self.control.clone(),
            starts: starts.clone(),
            clip: self.clip,
            signs: self.key(round, attempt.attempt, Purpose::Signs),
            graph: self.copied_key(round, attempt.attempt, Purpose::Graph, group),
            compression: self.key(round, attempt.attempt, Purpose::Compression),
            patience: self.patience(attempt.attempt),
            input: attempt.input,
        };
        brief.task(&self.plan, &self.directory, &self.secret, self.key.as_ref().map(RunKey::key))
    }

    fn group_id(&self, round: u32, attempt: u32, group: u32) -> SessionId {
        SessionId { session: self.plan.grouping.session(&self.plan.session, group), round, attempt }
    }

    /// What the clients of a group are told, who know the plan: everything else of the task they compute.
    #[must_use]
    pub fn notice(&self, task: &RoundTask) -> Notice {
        let SessionId { round, attempt, .. } = task.id;
        let public = |key: StreamKey| *key.expose();
        Notice {
            round,
            attempt,
            group: task.group,
            cohort: task.cohort.clone(),
            clip: self.clip.map(|state| state.clip),
            signs: public(self.key(round, attempt, Purpose::Signs)),
            graph: public(self.copied_key(round, attempt, Purpose::Graph, task.group)),
            compression: public(self.key(round, attempt, Purpose::Compression)),
            patience: task.patience,
            input: task.input,
        }
    }
}

/// What computes the floats of a round, on the clients' side and here. It is part of a round's input: of the same rows
/// another device, or the CPU, may make a fixed-point coordinate that differs in its last bit. The CPU's kernels give
/// the same bits with every instruction set and number of threads, but a trainer's products of matrices need not, so that
/// the best of the processor is named; a device, which a trainer may share, is named with its driver.
fn arithmetic(backend: &dyn Backend) -> String {
    let processor = Isa::best().name();
    backend.device().map_or_else(
        || format!("{} on {processor}", backend.kind().name()),
        |device| format!("{} beside {processor}", device.describe()),
    )
}
