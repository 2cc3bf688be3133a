//! `veilsum query`.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use serde_json::{Map, Value, json};

use super::sample::fraction;
use super::{Exit, Failure, number};
use crate::privacy::query::PureBudget;
use crate::privacy::query::counts::CountNoise;
use crate::privacy::query::select::Selection;
use crate::sim::query::{self, Answer, MAX_CANDIDATES, Query, Question};

/// Arguments of `veilsum query`.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Questions about a table that you hold, answered privately: exact integer noise and exact coins.\n\n\
        The table is comma-separated; its first line names the columns. One record is one line: epsilon is about adding or \
        removing one (respond: about another answer of one). Categories and candidates are yours to give: a list read off \
        the data would tell who is in them. With a ledger the price is on record before the answer exists, and a question \
        that its principal cannot afford is not answered.",
    after_help = "Examples:
  veilsum query count visits.csv --where ward=7 --epsilon 0.5
  veilsum query histogram visits.csv --column outcome --values home,moved,died --sigma 4 --delta 1e-6
  veilsum query quantile visits.csv --column age --quantile 1/2 --low 0 --high 120 --step 1 --epsilon 0.5
  veilsum query select visits.csv --column drug --values a,b,c --epsilon 1 --ledger study.jsonl --principal ward-7
  veilsum query above visits.csv --column code --values I10,I20,I21 --threshold 100 --positives 1 --epsilon 1
  veilsum query respond visits.csv --column smoker --values yes,no --epsilon 1.5 --json

Exit codes: 0 success, 1 a failure while running, 2 bad usage or input file, 3 refused by the ledger."
)]
pub struct Args {
    /// What is asked.
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// How many records.
    Count(Count),
    /// How many records of each category.
    Histogram(Histogram),
    /// A value near a quantile of a column of numbers.
    Quantile(Quantile),
    /// The most frequent category.
    Select(Select),
    /// The first categories with at least so many records (sparse vector).
    Above(Above),
    /// A randomized answer for every record, and what they say of all.
    Respond(Respond),
}

#[derive(Debug, clap::Args)]
struct Common {
    /// The table; it may be compressed (gz).
    file: PathBuf,
    /// Only records with this value in this column; may be repeated.
    #[arg(long = "where", value_name = "COLUMN=VALUE")]
    filter: Vec<String>,
    /// The delta at which epsilon is stated, where no ledger has its own.
    #[arg(long, default_value_t = 1e-9)]
    delta: f64,
    /// Charge the answer to a principal of this ledger before it is made.
    #[arg(long, value_name = "FILE", requires = "principal")]
    ledger: Option<PathBuf>,
    /// Whose privacy it is: a name in the ledger.
    #[arg(long, value_name = "NAME", requires = "ledger")]
    principal: Option<String>,
    /// A JSON object on stdout.
    #[arg(long)]
    json: bool,
}

/// Noise of counts.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Noise {
    /// Discrete Laplace noise of scale 1 / epsilon: pure epsilon-DP. A decimal or a fraction.
    #[arg(long)]
    epsilon: Option<String>,
    /// Discrete Gaussian noise of this standard deviation, in records.
    #[arg(long)]
    sigma: Option<f64>,
}

#[derive(Debug, clap::Args)]
struct Count {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    noise: Noise,
}

#[derive(Debug, clap::Args)]
struct Histogram {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    of: Categories,
    #[command(flatten)]
    noise: Noise,
}

/// A column and its categories.
#[derive(Debug, clap::Args)]
struct Categories {
    /// The column.
    #[arg(long)]
    column: String,
    /// Its categories, separated by commas; other values are left out.
    #[arg(long, value_delimiter = ',', required = true)]
    values: Vec<String>,
}

#[derive(Debug, clap::Args)]
#[command(allow_negative_numbers = true)]
struct Quantile {
    #[command(flatten)]
    common: Common,
    /// The column. Cells that are no numbers do not count.
    #[arg(long)]
    column: String,
    /// Which quantile: a fraction or a decimal in (0, 1).
    #[arg(long)]
    quantile: String,
    /// The first candidate.
    #[arg(long)]
    low: f64,
    /// No candidate is above it.
    #[arg(long)]
    high: f64,
    /// Distance of two candidates.
    #[arg(long)]
    step: f64,
    /// The price, pure epsilon-DP: a decimal or a fraction.
    #[arg(long)]
    epsilon: String,
    /// How it is drawn.
    #[arg(long, value_enum, default_value_t = Method::PermuteAndFlip)]
    method: Method,
}

#[derive(Debug, clap::Args)]
struct Select {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    of: Categories,
    /// The price, pure epsilon-DP: a decimal or a fraction.
    #[arg(long)]
    epsilon: String,
    /// How it is drawn.
    #[arg(long, value_enum, default_value_t = Method::PermuteAndFlip)]
    method: Method,
}

#[derive(Debug, clap::Args)]
#[command(allow_negative_numbers = true)]
struct Above {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    of: Categories,
    /// How many records are enough.
    #[arg(long)]
    threshold: i64,
    /// The list ends after so many categories above.
    #[arg(long, default_value_t = 1)]
    positives: u64,
    /// The price, pure epsilon-DP: a decimal or a fraction.
    #[arg(long)]
    epsilon: String,
}

#[derive(Debug, clap::Args)]
struct Respond {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    of: Categories,
    /// The price of an answer, pure epsilon-DP: a decimal or a fraction.
    #[arg(long)]
    epsilon: String,
}

/// How a selection is drawn.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Method {
    /// The best expected score at this price.
    PermuteAndFlip,
    /// The exponential mechanism.
    Exponential,
}

impl From<Method> for Selection {
    fn from(method: Method) -> Self {
        match method {
            Method::PermuteAndFlip => Self::PermuteAndFlip,
            Method::Exponential => Self::Exponential,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// See the exit codes in its help.
pub fn run(args: Args) -> Result<(), Failure> {
    let (name, json, query) = match args.command {
        Command::Count(c) => {
            ("count", c.common.json, query_of(c.common, None, Question::Count { noise: c.noise.law()? })?)
        }
        Command::Histogram(h) => {
            let question = Question::Histogram { noise: h.noise.law()?, values: h.of.values };
            ("histogram", h.common.json, query_of(h.common, Some(h.of.column), question)?)
        }
        Command::Quantile(q) => {
            let question = q.question()?;
            ("quantile", q.common.json, query_of(q.common, Some(q.column), question)?)
        }
        Command::Select(s) => {
            let (budget, method) = (budget(&s.epsilon)?, s.method.into());
            let question = Question::Select { values: s.of.values, method, budget };
            ("select", s.common.json, query_of(s.common, Some(s.of.column), question)?)
        }
        Command::Above(a) => {
            let (threshold, positives, budget) = (a.threshold, a.positives, budget(&a.epsilon)?);
            let question = Question::Above { values: a.of.values, threshold, positives, budget };
            ("above", a.common.json, query_of(a.common, Some(a.of.column), question)?)
        }
        Command::Respond(r) => {
            let question = Question::Respond { values: r.of.values, budget: budget(&r.epsilon)? };
            ("respond", r.common.json, query_of(r.common, Some(r.of.column), question)?)
        }
    };
    let object = describe(name, &query, &query::run(&query)?);
    if json {
        println!("{}", Value::Object(object));
    } else {
        print(&object);
    }
    Ok(())
}

fn usage(message: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Usage, message)
}

fn budget(text: &str) -> Result<PureBudget, Failure> {
    let (n, d) = fraction("epsilon", text)?;
    let part = |value: i64| u64::try_from(value).unwrap_or(0);
    Ok(PureBudget::new(part(n), part(d))?)
}

impl Noise {
    fn law(&self) -> Result<CountNoise, Failure> {
        Ok(match (&self.epsilon, self.sigma) {
            (Some(epsilon), _) => CountNoise::Laplace(budget(epsilon)?),
            (None, Some(sigma)) => CountNoise::Gaussian { sigma },
            (None, None) => return Err(usage("a count needs --epsilon or --sigma")),
        })
    }
}

impl Quantile {
    fn question(&self) -> Result<Question, Failure> {
        let (a, b) = fraction("quantile", &self.quantile)?;
        let part = |value: i64| u32::try_from(value).unwrap_or(0);
        let steps = ((self.high - self.low) / self.step).floor();
        if !(self.step > 0.0 && self.low.is_finite() && steps >= 0.0 && steps < MAX_CANDIDATES as f64) {
            let message = format!(
                "--low {}, --high {}, --step {}: expected at least one and at most {MAX_CANDIDATES} candidates from low to high",
                self.low, self.high, self.step
            );
            return Err(usage(message));
        }
        let candidates = (0..=steps as u32).map(|i| self.low + f64::from(i) * self.step).collect();
        let (quantile, method) = ((part(a), part(b)), self.method.into());
        Ok(Question::Quantile { quantile, candidates, method, budget: budget(&self.epsilon)? })
    }
}

fn query_of(common: Common, column: Option<String>, question: Question) -> Result<Query, Failure> {
    let pair = |text: &String| {
        let (column, value) = text.split_once('=')?;
        Some((column.trim().to_owned(), value.trim().to_owned()))
    };
    let wrong = |text: &String| usage(format!("--where {text}: expected COLUMN=VALUE"));
    let filter = common.filter.iter().map(|text| pair(text).ok_or_else(|| wrong(text))).collect::<Result<_, _>>()?;
    let ledger = common.ledger.zip(common.principal);
    Ok(Query { table: common.file, column, filter, question, delta: common.delta, ledger })
}

fn describe(name: &str, query: &Query, answer: &Answer) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("query".into(), json!(name));
    if let Value::Object(result) = &answer.result {
        object.extend(result.clone());
    }
    let mut put = |key: &str, value: Value| object.insert(key.to_owned(), value);
    if let Some(std) = answer.noise_std {
        put("noise_std", json!(std));
    }
    put("epsilon", number(answer.report.epsilon));
    put("delta", json!(answer.report.delta));
    put("accountant", json!(answer.report.accountant));
    put("neighboring", json!(answer.neighbors.name()));
    if let (Some((file, principal)), Some(totals)) = (&query.ledger, &answer.totals) {
        put("ledger", json!({"file": file, "principal": principal, "epsilon": totals}));
    }
    object
}

fn print(object: &Map<String, Value>) {
    let width = object.keys().map(String::len).max().unwrap_or(0);
    for (key, value) in object {
        match value {
            Value::String(text) => println!("{key:width$}  {text}"),
            Value::Object(cells) if ["counts", "estimates"].contains(&key.as_str()) => {
                println!("{key}");
                cells.iter().for_each(|(cell, value)| println!("  {cell}: {value}"));
            }
            Value::Array(answers) if key == "answers" => {
                println!("{key:width$}  {} (--json prints them)", answers.len())
            }
            other => println!("{key:width$}  {other}"),
        }
    }
}
