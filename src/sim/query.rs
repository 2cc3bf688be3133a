//! A query on a table, charged to a ledger before it is answered.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::SimError;
use crate::config::ConfigError;
use crate::config::build::session_of;
use crate::data::cells;
use crate::fl::FlError;
use crate::math::prg::{Address, Cipher, Purpose, Secret, StreamReader};
use crate::privacy::accountant::{EpsilonReport, Rule};
use crate::privacy::ledger::{Cost, LedgerError, LedgerFile, Release, Totals};
use crate::privacy::mechanism::PrivacyError;
use crate::privacy::query::counts::CountNoise;
use crate::privacy::query::select::{Selection, Sensitivity, quantile_scores, quantile_sensitivity, select};
use crate::privacy::query::{PureBudget, response, select as selection, sparse};
use crate::privacy::{DpEvent, NeighboringRelation};

/// Most candidates of a selection and cells of a histogram.
pub const MAX_CANDIDATES: usize = 1 << 20;

/// What is asked. Categories are given, and public: a list read off the data would tell who is in them.
#[derive(Clone, Debug, PartialEq)]
pub enum Question {
    /// How many records.
    Count {
        /// Its noise.
        noise: CountNoise,
    },
    /// How many records of each category.
    Histogram {
        /// Noise of each count.
        noise: CountNoise,
        /// The categories.
        values: Vec<String>,
    },
    /// A candidate near the `a/b` quantile of the numbers in the column.
    Quantile {
        /// a and b.
        quantile: (u32, u32),
        /// The candidates.
        candidates: Vec<f64>,
        /// How it is drawn.
        method: Selection,
        /// Its price.
        budget: PureBudget,
    },
    /// The category with the most records.
    Select {
        /// The categories.
        values: Vec<String>,
        /// How it is drawn.
        method: Selection,
        /// Its price.
        budget: PureBudget,
    },
    /// The first categories whose counts reach a threshold.
    Above {
        /// The categories, in the order in which they are asked.
        values: Vec<String>,
        /// The threshold.
        threshold: i64,
        /// After so many the list ends.
        positives: u64,
        /// Its price.
        budget: PureBudget,
    },
    /// Every record's own randomized answer.
    Respond {
        /// The categories.
        values: Vec<String>,
        /// The price of an answer.
        budget: PureBudget,
    },
}

/// A question about a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// The table: comma-separated, the first line has the names of the columns.
    pub table: PathBuf,
    /// The column that is asked about; a count needs none.
    pub column: Option<String>,
    /// Only records with these values in these columns.
    pub filter: Vec<(String, String)>,
    /// What is asked.
    pub question: Question,
    /// At which the epsilon is stated, where no ledger has its own.
    pub delta: f64,
    /// A ledger and a principal in it.
    pub ledger: Option<(PathBuf, String)>,
}

/// What was released, and what it cost.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The release itself.
    pub result: Value,
    /// Epsilon of this release.
    pub report: EpsilonReport,
    /// What neighbours are.
    pub neighbors: NeighboringRelation,
    /// Standard deviation of a count's noise.
    pub noise_std: Option<f64>,
    /// The principal's totals, with this release.
    pub totals: Option<Totals>,
}

impl Question {
    fn event(&self) -> DpEvent {
        match self {
            Self::Count { noise } | Self::Histogram { noise, .. } => noise.event(),
            Self::Quantile { budget, .. } | Self::Select { budget, .. } => selection::event(*budget),
            Self::Above { budget, .. } => sparse::event(*budget),
            Self::Respond { values, budget } => response::event(*budget, values.len() as u64),
        }
    }

    fn neighbors(&self) -> NeighboringRelation {
        match self {
            Self::Respond { .. } => NeighboringRelation::ReplaceOne,
            _ => NeighboringRelation::AddRemove,
        }
    }

    fn noise(&self) -> Option<CountNoise> {
        match self {
            Self::Count { noise } | Self::Histogram { noise, .. } => Some(*noise),
            _ => None,
        }
    }

    fn categories(&self) -> Option<&[String]> {
        match self {
            Self::Histogram { values, .. }
            | Self::Select { values, .. }
            | Self::Above { values, .. }
            | Self::Respond { values, .. } => Some(values),
            Self::Count { .. } | Self::Quantile { .. } => None,
        }
    }

    /// What can be wrong before any record is read.
    fn validate(&self) -> Result<(), PrivacyError> {
        let bad = |name, expected: String, found: String| Err(PrivacyError::OutOfRange { name, expected, found });
        if let Some(noise) = self.noise() {
            noise.validate()?;
        }
        if let Some(values) = self.categories() {
            let mut sorted: Vec<&String> = values.iter().collect();
            sorted.sort();
            if let Some(twice) = sorted.windows(2).find(|w| w[0] == w[1]) {
                return bad("values", "each category once".into(), format!("{} twice", twice[0]));
            }
            if values.is_empty() || values.len() > MAX_CANDIDATES {
                return bad("values", format!("1 to {MAX_CANDIDATES} categories"), values.len().to_string());
            }
        }
        match self {
            Self::Respond { values, .. } if values.len() < 2 => {
                bad("values", "2 categories or more".into(), values.len().to_string())
            }
            Self::Above { positives, .. } if !(1..=sparse::MAX_POSITIVES).contains(positives) => {
                bad("positives", format!("1 to {}", sparse::MAX_POSITIVES), positives.to_string())
            }
            Self::Quantile { quantile: (a, b), .. } if *a == 0 || a >= b || *b > 1_000_000 => {
                bad("quantile", "a fraction in (0, 1) with a denominator of at most 10^6".into(), format!("{a}/{b}"))
            }
            Self::Quantile { candidates, .. } if candidates.is_empty() || candidates.len() > MAX_CANDIDATES => {
                bad("candidates", format!("1 to {MAX_CANDIDATES}"), candidates.len().to_string())
            }
            _ => Ok(()),
        }
    }
}

/// Answers a query. The order protects privacy: what it costs is durable in the ledger before any noise is drawn.
///
/// # Errors
/// A question that makes no sense, a table that cannot be read, a ledger that refuses.
pub fn run(query: &Query) -> Result<Answer, SimError> {
    query.question.validate().map_err(FlError::from)?;
    let records = read(query)?;
    let event = query.question.event();
    let secret = Secret::fresh().map_err(ConfigError::from)?;
    let session = session_of(&secret);
    let (delta, totals) = match &query.ledger {
        Some((file, principal)) => charge(query, file, principal, &session)?,
        None => (query.delta, None),
    };
    let report = Rule::Best.epsilon(&event, 1, delta).map_err(FlError::from)?;
    let key = secret.derive(&session, Address::default(), Purpose::Draws, Cipher::ChaCha20);
    let result = answer(&query.question, &records, &mut key.reader(0)).map_err(FlError::from)?;
    let noise_std = query.question.noise().map(CountNoise::std);
    Ok(Answer { result, report, neighbors: query.question.neighbors(), noise_std, totals })
}

/// The asked cell of every record that passes the filter; empty cells for a count.
fn read(query: &Query) -> Result<Vec<String>, SimError> {
    let mut columns: Vec<&str> = query.filter.iter().map(|(column, _)| column.as_str()).collect();
    columns.extend(query.column.as_deref());
    let rows = cells::read(&query.table, &columns).map_err(ConfigError::from)?;
    let passes = |row: &Vec<String>| query.filter.iter().zip(row).all(|((_, value), cell)| value == cell);
    Ok(rows.into_iter().filter(passes).map(|mut row| row.pop().unwrap_or_default()).collect())
}

/// Makes the charge durable; the principal's delta and totals.
fn charge(query: &Query, file: &Path, principal: &str, session: &[u8; 16]) -> Result<(f64, Option<Totals>), SimError> {
    if !file.exists() {
        return Err(LedgerError::Absent(file.to_owned()).into());
    }
    let mut ledger = LedgerFile::open(file)?;
    let event = query.question.event();
    let cost = Cost {
        neighbors: query.question.neighbors(),
        server: event.clone(),
        public: event,
        // The samplers are exact.
        sampler_error: 0.0,
    };
    let mut tab = ledger.book().tab(principal, cost)?;
    // Of the question alone: the hash goes into a file that others may read.
    let asked = Sha256::digest(format!("{:?} {:?} {:?}", query.column, query.filter, query.question));
    let release = Release { run: hex::encode(session), round: 1, attempt: 0, input: hex::encode(asked) };
    ledger.charge(&mut tab, release)?;
    Ok((tab.delta(), Some(tab.state()?.epsilon)))
}

fn count_by(values: &[String], records: &[String]) -> Vec<i64> {
    let places: std::collections::HashMap<&str, usize> =
        values.iter().enumerate().map(|(i, value)| (value.as_str(), i)).collect();
    let mut counts = vec![0i64; values.len()];
    for record in records {
        if let Some(&i) = places.get(record.as_str()) {
            counts[i] += 1;
        }
    }
    counts
}

fn answer(question: &Question, records: &[String], reader: &mut StreamReader) -> Result<Value, PrivacyError> {
    Ok(match question {
        Question::Count { noise } => {
            let mut count = [records.len() as i64];
            noise.add(&mut count, reader)?;
            json!({"count": count[0]})
        }
        Question::Histogram { noise, values } => {
            let mut counts = count_by(values, records);
            noise.add(&mut counts, reader)?;
            let cells = values.iter().zip(counts).map(|(value, count)| (value.clone(), json!(count)));
            json!({"counts": Value::Object(cells.collect())})
        }
        Question::Quantile { quantile, candidates, method, budget } => {
            let numbers: Vec<f64> = records.iter().map(|cell| cell.parse().unwrap_or(f64::NAN)).collect();
            let scores = quantile_scores(&numbers, candidates, *quantile);
            let found = select(&scores, quantile_sensitivity(*quantile), *method, *budget, reader)?;
            json!({"value": candidates[found]})
        }
        Question::Select { values, method, budget } => {
            // One record moves one count, and up: all move in one direction.
            let sensitivity = Sensitivity { most: 1, monotone: true };
            let found = select(&count_by(values, records), sensitivity, *method, *budget, reader)?;
            json!({"value": values[found]})
        }
        Question::Above { values, threshold, positives, budget } => {
            let told = sparse::above(&count_by(values, records), *threshold, *positives, *budget, reader)?;
            let found: Vec<&String> =
                values.iter().zip(&told).filter(|(_, above)| **above).map(|(value, _)| value).collect();
            json!({"above": found, "asked": told.len()})
        }
        Question::Respond { values, budget } => respond(values, *budget, records, reader)?,
    })
}

/// Randomized answers. A record whose value is no category has no answer to give and gives one at random: so many answers
/// as records, whatever their values are.
fn respond(
    values: &[String],
    budget: PureBudget,
    records: &[String],
    reader: &mut StreamReader,
) -> Result<Value, PrivacyError> {
    let (k, mut counts) = (values.len() as u64, vec![0u64; values.len()]);
    let mut answers = Vec::with_capacity(records.len());
    for record in records {
        let answer = match values.iter().position(|value| value == record) {
            Some(truth) => response::respond(truth as u64, k, budget, reader)?,
            None => reader.below(k),
        };
        counts[answer as usize] += 1;
        answers.push(values[answer as usize].as_str());
    }
    let estimates = response::estimate(&counts, budget.epsilon());
    let estimates = values.iter().cloned().zip(estimates.into_iter().map(|e| json!(e)));
    Ok(json!({"answers": answers, "estimates": Value::Object(estimates.collect())}))
}
