//! A client whose training is somebody else's program.

use std::sync::{Mutex, PoisonError};

use crate::config::build::{Experiment, LocalWork};
use crate::fl::coordinator::RoundTask;
use crate::math::prg::{Address, Purpose};
use crate::net::NetError;
use crate::net::external::{ExternalError, ExternalTrainer, Job, Limits};
use crate::sim::work::encode_row;

/// The program of one client, started with its first round.
#[derive(Default)]
pub(super) struct Program(Mutex<Option<ExternalTrainer>>);

impl Program {
    /// The encoded vector of a round: what the program trains, clipped, noised and packed here. A program need not give the same
    /// twice: what is made of it is kept before it is sent.
    pub(super) fn vector(
        &self,
        command: &[String],
        experiment: &Experiment,
        task: &RoundTask,
        client: u64,
    ) -> Result<Option<Vec<u8>>, NetError> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let trainer = match &mut *running {
            Some(trainer) => trainer,
            none => none.insert(ExternalTrainer::start(command, &job(experiment, client)?, Limits::default())?),
        };
        let delta = trainer.delta(task.id.round, &task.weights);
        // What has ended is started again with the next round; what refuses may take the next.
        if delta.as_ref().is_err_and(|error| !matches!(error, ExternalError::Refused { .. })) {
            *running = None;
        }
        Ok(encode_row(experiment, task, client, delta?)?)
    }
}

fn job(experiment: &Experiment, client: u64) -> Result<Job, NetError> {
    let LocalWork::Delta(local) = experiment.work else {
        return Err(NetError::Unsupported {
            what: "another algorithm than fed_avg",
            instead: "fed_avg with --command",
        });
    };
    let Some(model) = experiment.model.clone() else {
        return Err(NetError::Unsupported {
            what: "a trainer of the server's own",
            instead: "a named model with --command",
        });
    };
    let address = Address { client, ..Address::default() };
    let key = experiment.secret.derive(&experiment.plan.session, address, Purpose::Batches, experiment.plan.cipher);
    Ok(Job { model, local, seed: key.reader(0).next_u64() })
}
