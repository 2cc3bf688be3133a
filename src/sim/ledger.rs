//! The ledger that a run charges: the one that its config names, or one of its own in the run folder.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::SimError;
use crate::config::build::{Experiment, LedgerAccount};
use crate::fl::coordinator::Charge;
use crate::fl::plan::Plan;
use crate::fl::spend::{Attempt, RunKey};
use crate::privacy::View;
use crate::privacy::ledger::tab::{Costs, Tab};
use crate::privacy::ledger::{LedgerError, LedgerFile, Limit, Opening, Totals};

/// Name of a run's own ledger in its folder.
pub const LEDGER: &str = "ledger.jsonl";

/// A ledger, open for one run.
#[derive(Debug)]
pub struct RunLedger {
    file: LedgerFile,
    tab: Tab,
    path: PathBuf,
    run: RunKey,
}

/// Where the principal of a run stands after it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LedgerState {
    /// The ledger.
    pub file: PathBuf,
    /// Whose loss.
    pub principal: String,
    /// Of all releases in the ledger, at `delta`.
    pub epsilon: Totals,
    /// The principal's delta.
    pub delta: f64,
    /// The most that it may lose.
    pub limit: Option<Limit>,
}

impl RunLedger {
    /// Opens the ledger of a private run. One of its own is made on first use, with the run's target as its limit;
    /// `charged` are then the releases that an older version of the program made without a ledger. `costs` are
    /// those of the plan.
    ///
    /// # Errors
    /// Those of the ledger; a principal that the named ledger does not have.
    pub fn open(
        experiment: &Experiment,
        folder: Option<&Path>,
        charged: &[(u32, Attempt)],
        costs: &Costs,
    ) -> Result<Option<Self>, SimError> {
        let plan = &experiment.plan;
        if !plan.is_private() {
            return Ok(None);
        }
        match (&experiment.ledger, folder) {
            (Some(LedgerAccount { file, principal }), _) => {
                if !file.exists() {
                    return Err(LedgerError::Absent(file.clone()).into());
                }
                Self::account(LedgerFile::open(file)?, file, principal, (plan, costs)).map(Some)
            }
            (None, Some(folder)) => {
                let path = folder.join(LEDGER);
                let mut file = LedgerFile::open(&path)?;
                let fresh = file.book().is_empty();
                if fresh {
                    file.enter(own(&experiment.name, plan))?;
                }
                let mut ledger = Self::account(file, &path, &experiment.name, (plan, costs))?;
                if fresh {
                    for (round, attempt) in charged {
                        ledger.file.charge(&mut ledger.tab, ledger.run.release(*round, attempt))?;
                    }
                }
                Ok(Some(ledger))
            }
            (None, None) => Ok(None),
        }
    }

    /// Enters charges that were made where another ledger was at hand: on the machine of a coordinator that was taken over from. One
    /// that led to no release yet is entered if there is room for it; whoever releases it is asked again.
    ///
    /// # Errors
    /// Those of [`LedgerFile::charge`], also where the ledger has no room for what was released.
    pub fn catch_up(&mut self, charged: &[(u32, Attempt)], released: &BTreeSet<(u32, u32)>) -> Result<(), SimError> {
        for (round, attempt) in charged {
            match self.file.charge(&mut self.tab, self.run.release(*round, attempt)) {
                Err(LedgerError::Overspent { .. }) if !released.contains(&(*round, attempt.attempt)) => {}
                charged => charged?,
            }
        }
        Ok(())
    }

    fn account(
        file: LedgerFile,
        path: &Path,
        principal: &str,
        (plan, costs): (&Plan, &Costs),
    ) -> Result<Self, SimError> {
        let tab = file.book().tab(principal, costs.clone())?;
        Ok(Self { file, tab, path: path.to_owned(), run: RunKey::of(plan)? })
    }

    /// What the principal has lost, for the coordinator to ask.
    #[must_use]
    pub fn tab(&self) -> Tab {
        self.tab.clone()
    }

    /// Makes a charge durable; the same again is free.
    ///
    /// # Errors
    /// Those of [`LedgerFile::charge`]: nothing may be released then.
    pub fn charge(&mut self, charge: &Charge) -> Result<(), SimError> {
        let attempt = Attempt { attempt: charge.attempt, input: charge.input, charged: true, abandoned: false };
        Ok(self.file.charge(&mut self.tab, self.run.release(charge.round, &attempt))?)
    }

    /// Where the principal stands.
    ///
    /// # Errors
    /// None for events that were accepted when the ledger was opened.
    pub fn state(&self) -> Result<LedgerState, SimError> {
        Ok(LedgerState {
            file: self.path.clone(),
            principal: self.tab.principal().to_owned(),
            epsilon: self.tab.state()?.epsilon,
            delta: self.tab.delta(),
            limit: self.tab.limit(),
        })
    }
}

/// The principal of a run's own ledger.
fn own(name: &str, plan: &Plan) -> Opening {
    let limit = plan.epsilon_budget.map(|epsilon| Limit { epsilon, view: View::Public });
    Opening { principal: name.to_owned(), delta: plan.delta, limit }
}
