//! What `veilsum account` prints: one JSON object, or a line a key.

use serde_json::{Map, Value, json};

use super::args::{Args, SamplingName};
use super::noise::Noise;
use super::parameters::{parameters, row_parameters};
use super::value_name;
use crate::cli::number;
use crate::privacy::accountant::EpsilonReport;
use crate::privacy::calibrate::Schedule;
use crate::privacy::{NeighboringRelation, View};

/// What is known of a mechanism's use.
pub(super) struct Findings<'a> {
    /// How often it is used; of a course, at its first cohort.
    pub(super) schedule: &'a Schedule,
    /// The noise.
    pub(super) noise: &'a Noise,
    /// What it costs.
    pub(super) report: &'a EpsilonReport,
    /// The coordinate bound to enforce, where there is one.
    pub(super) l_inf: Option<f64>,
    /// Epsilon to those who know the cohorts, where they are drawn.
    pub(super) server: Option<f64>,
    /// Ring width, wrap rate, and the width at which one in a thousand wraps.
    pub(super) wrap: Option<(u32, f64, u32)>,
}

/// The JSON object.
pub(super) fn describe(args: &Args, findings: &Findings<'_>) -> Map<String, Value> {
    let &Findings { schedule, noise, report, l_inf, server, wrap } = findings;
    let sampled = args.population.is_some() || args.sampling == SamplingName::RandomAllocation;
    let view = if sampled || args.server_mu.is_some() { View::Public } else { View::Server };
    let mut object = Map::new();
    let mut put = |key: &str, value: Value| object.insert(key.to_owned(), value);
    put("epsilon", number(report.epsilon));
    put("epsilon_low", report.epsilon_low.map_or(Value::Null, number));
    put("delta", json!(report.delta));
    put("order", json!(report.order));
    put("l_inf", json!(l_inf));
    put("accountant", json!(report.accountant));
    put("neighboring", json!(noise.neighboring()));
    put("view", json!(view));
    if let Some(epsilon) = server {
        put("epsilon_server_view", number(epsilon));
    }
    put("mechanism", json!(value_name(args.mechanism)));
    match noise {
        Noise::Skellam { gamma, .. } => {
            for (key, value) in row_parameters(noise, args) {
                put(key, value);
            }
            put("gamma", json!(gamma));
        }
        Noise::Plain { multiplier, event, .. } => {
            put("noise_multiplier", json!(multiplier));
            for (key, value) in parameters(event, args.cohort, args.clip) {
                put(key, value);
            }
        }
    }
    if noise.is_clipped() {
        put("clip", json!(args.clip));
    }
    put("server_mu", json!(args.server_mu));
    put("groups", json!(args.groups));
    put("colluding", json!(args.colluding));
    put("cohort", json!(args.cohort));
    put("population", json!(args.population));
    put("rounds", json!(schedule.rounds));
    put("sampling_rate", json!(schedule.rate));
    put("sampling", json!(sampled.then(|| value_name(args.sampling))));
    // Every bound behind every accountant is proved or enclosed.
    put("certified", json!(true));
    if let Some(target) = args.target_epsilon {
        put("target_epsilon", json!(target));
    }
    if let Some(dim) = args.dim {
        put("dim", json!(dim));
    }
    if let Some((bits, rate, needed)) = wrap {
        put("bits", json!(bits));
        put("predicted_wrap", json!(rate));
        put("bits_for_wrap_1e-3", json!(needed));
    }
    object
}

/// One aligned line a key; the keys of the JSON object with their meaning spelled out.
pub(super) fn print_table(object: &Map<String, Value>) {
    let width = object.keys().map(String::len).max().unwrap_or(0);
    for (key, value) in object.iter().filter(|(_, value)| !value.is_null()) {
        let text = match (key.as_str(), value) {
            ("neighboring", Value::String(name)) if name == "zero-out" => {
                NeighboringRelation::ZeroOut.name().to_owned()
            }
            ("neighboring", Value::String(name)) if name == "replace-one" => {
                NeighboringRelation::ReplaceOne.name().to_owned()
            }
            ("neighboring", Value::String(_)) => NeighboringRelation::AddRemove.name().to_owned(),
            ("view", Value::String(name)) if name == "server" => {
                "server (knows the cohort; no amplification)".to_owned()
            }
            ("view", Value::String(_)) if object.contains_key("server_mu") && !object["server_mu"].is_null() => {
                "public (sees only what the server publishes, with its noise)".to_owned()
            }
            ("view", Value::String(_)) => "public (sees only releases; amplified by sampling)".to_owned(),
            ("certified", Value::Bool(false)) => "no".to_owned(),
            ("certified", Value::Bool(true)) => "yes".to_owned(),
            (_, Value::String(text)) => text.clone(),
            (_, other) => other.to_string(),
        };
        println!("{key:width$}  {text}");
    }
}
