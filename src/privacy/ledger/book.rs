//! What the entries add up to, per principal.

use std::collections::BTreeMap;

use super::chain::Entry;
use super::tab::{Costs, Tab};
use super::{Body, Charge, Cost, LedgerError, Opening, Release, Totals};
use crate::privacy::accountant::rdp::validate;
use crate::privacy::mechanism::PrivacyError;
use crate::privacy::{DpEvent, NeighboringRelation};

/// The accounts of all principals.
#[derive(Clone, Debug, Default)]
pub struct Book {
    accounts: BTreeMap<String, Account>,
}

/// Where a principal stands.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Standing {
    /// Name, delta and limit.
    #[serde(flatten)]
    pub opening: Opening,
    /// Releases on record.
    pub releases: u64,
    /// Runs that made them.
    pub runs: usize,
    /// The neighbouring relation of all of them; `None` before the first.
    pub neighbors: Option<NeighboringRelation>,
    /// Epsilon of all of them together.
    pub epsilon: Totals,
}

/// One principal's releases.
#[derive(Clone, Debug)]
pub(super) struct Account {
    pub(super) opening: Opening,
    pub(super) public: Vec<(DpEvent, u64)>,
    pub(super) server: Vec<(DpEvent, u64)>,
    /// Sum of the total variation distances of all releases.
    pub(super) sampler_error: f64,
    neighbors: Option<NeighboringRelation>,
    releases: Vec<Release>,
}

impl Account {
    fn new(opening: Opening) -> Self {
        Self {
            opening,
            public: Vec::new(),
            server: Vec::new(),
            sampler_error: 0.0,
            neighbors: None,
            releases: Vec::new(),
        }
    }

    fn add(&mut self, release: &Release, cost: &Cost) {
        count(&mut self.public, &cost.public);
        count(&mut self.server, &cost.server);
        self.sampler_error += cost.sampler_error;
        self.neighbors = Some(cost.neighbors);
        self.releases.push(release.clone());
    }

    /// Whether the release is on record. An error if its attempt is, with another input.
    pub(super) fn has(&self, release: &Release) -> Result<bool, LedgerError> {
        let same = |known: &&Release| {
            (&known.run, known.round, known.attempt) == (&release.run, release.round, release.attempt)
        };
        match self.releases.iter().find(same) {
            None => Ok(false),
            Some(known) if known.input == release.input => Ok(true),
            Some(_) => {
                Err(LedgerError::Reused { run: release.run.clone(), round: release.round, attempt: release.attempt })
            }
        }
    }

    /// Epsilons of different neighbouring relations do not add up.
    pub(super) fn check_neighbors(&self, relation: NeighboringRelation) -> Result<(), PrivacyError> {
        match self.neighbors {
            Some(known) if known != relation => Err(PrivacyError::OutOfRange {
                name: "neighboring relation",
                expected: format!("{}, as of the principal's other releases", known.name()),
                found: relation.name().to_owned(),
            }),
            _ => Ok(()),
        }
    }
}

fn count(groups: &mut Vec<(DpEvent, u64)>, event: &DpEvent) {
    match groups.iter_mut().find(|(known, _)| known == event) {
        Some((_, count)) => *count += 1,
        None => groups.push((event.clone(), 1)),
    }
}

impl Book {
    /// Adds up the entries of a chain.
    ///
    /// # Errors
    /// Number and problem of the first entry that makes no sense after those before it.
    pub fn of(entries: &[Entry]) -> Result<Self, (u64, String)> {
        let mut book = Self::default();
        for entry in entries {
            book.add(&entry.body).map_err(|e| (entry.entry, format!("makes no sense here: {e}")))?;
        }
        Ok(book)
    }

    /// True if no principal was opened.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty()
    }

    /// Takes an entry in.
    pub(super) fn add(&mut self, body: &Body) -> Result<(), LedgerError> {
        match body {
            Body::Open(opening) => {
                self.check_opening(opening)?;
                self.accounts.insert(opening.principal.clone(), Account::new(opening.clone()));
            }
            Body::Charge(charge) => {
                let Charge { principal, release, cost, .. } = &**charge;
                check_cost(cost)?;
                if self.account(principal)?.has(release)? {
                    return Err(PrivacyError::OutOfRange {
                        name: "release",
                        expected: "a release that is not charged yet".into(),
                        found: format!("round {}, attempt {} again", release.round, release.attempt),
                    }
                    .into());
                }
                self.account(principal)?.check_neighbors(cost.neighbors)?;
                if let Some(account) = self.accounts.get_mut(principal) {
                    account.add(release, cost);
                }
            }
        }
        Ok(())
    }

    /// Whether a principal may be opened like this.
    pub(super) fn check_opening(&self, opening: &Opening) -> Result<(), LedgerError> {
        validate::delta(opening.delta)?;
        if let Some(limit) = &opening.limit {
            validate::positive("epsilon", limit.epsilon)?;
        }
        if opening.principal.is_empty() || opening.principal.chars().any(char::is_control) {
            return Err(PrivacyError::OutOfRange {
                name: "principal",
                expected: "a name without control characters".into(),
                found: format!("{:?}", opening.principal),
            }
            .into());
        }
        match self.accounts.contains_key(&opening.principal) {
            true => Err(LedgerError::Opened(opening.principal.clone())),
            false => Ok(()),
        }
    }

    pub(super) fn account(&self, principal: &str) -> Result<&Account, LedgerError> {
        self.accounts.get(principal).ok_or_else(|| {
            let names: Vec<&str> = self.accounts.keys().map(String::as_str).collect();
            let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            LedgerError::Unknown { name: principal.to_owned(), known }
        })
    }

    /// What the releases of a run will take `principal` to.
    ///
    /// # Errors
    /// [`LedgerError::Unknown`] principal; no cost; one of another neighbouring relation than that of earlier releases or
    /// of the other stages, or that the accountant does not know.
    pub fn tab(&self, principal: &str, costs: impl Into<Costs>) -> Result<Tab, LedgerError> {
        let costs = costs.into();
        let account = self.account(principal)?;
        let Some((first, _)) = costs.stages.first() else {
            let (expected, found) = ("at least one".to_owned(), "none".to_owned());
            return Err(PrivacyError::OutOfRange { name: "stages", expected, found }.into());
        };
        for (cost, _) in &costs.stages {
            check_cost(cost)?;
            account.check_neighbors(cost.neighbors)?;
            if cost.neighbors != first.neighbors {
                let (expected, found) = (first.neighbors.name().to_owned(), cost.neighbors.name().to_owned());
                return Err(PrivacyError::OutOfRange { name: "neighboring relation", expected, found }.into());
            }
        }
        Tab::new(account.clone(), costs)
    }

    /// Where every principal stands, by name.
    ///
    /// # Errors
    /// An event that the accountant does not know.
    pub fn standings(&self) -> Result<Vec<Standing>, LedgerError> {
        self.accounts.values().map(standing).collect()
    }
}

fn check_cost(cost: &Cost) -> Result<(), PrivacyError> {
    validate::non_negative("sampler_error", cost.sampler_error)
}

fn standing(account: &Account) -> Result<Standing, LedgerError> {
    let mut runs: Vec<&str> = account.releases.iter().map(|r| r.run.as_str()).collect();
    runs.sort_unstable();
    runs.dedup();
    let free = Cost {
        neighbors: account.neighbors.unwrap_or(NeighboringRelation::ZeroOut),
        server: DpEvent::Composed(Vec::new()),
        public: DpEvent::Composed(Vec::new()),
        sampler_error: 0.0,
    };
    Ok(Standing {
        opening: account.opening.clone(),
        releases: account.releases.len() as u64,
        runs: runs.len(),
        neighbors: account.neighbors,
        epsilon: Tab::new(account.clone(), free.into())?.state()?.epsilon,
    })
}
