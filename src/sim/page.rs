//! What a run has to show: one JSON object, and one page with curves.

pub(super) mod samples;

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Ending, RoundRecord, RunResult};
use crate::config::build::Experiment;
use crate::fl::coordinator::Finish;
use crate::fl::plan::{Later, NoisePlacement, Plan};
use crate::fl::spend::Stop;
use crate::privacy::ledger::Totals;
use crate::privacy::ledger::tab::Excess;
use crate::privacy::mechanism::{Mechanism, NoiseLaw};
use crate::report::html::{self, RunReport};
use crate::report::svg::{Chart, Series, line_chart};
use crate::report::terminal::Table;

/// The result as one JSON object. Epsilons without privacy are `null`.
#[must_use]
pub fn result_json(experiment: &Experiment, result: &RunResult) -> Value {
    let plan = &experiment.plan;
    let finite = |x: f64| x.is_finite().then_some(x);
    let encode = plan.encode_params().ok();
    let mu_total = match plan.mechanism.noise() {
        NoiseLaw::Skellam { mu } => Some(mu),
        _ => None,
    };
    let mut all = json!({
        "name": experiment.name,
        "accuracy": result.evaluation.map(|e| e.accuracy),
        "loss": result.evaluation.map(|e| e.loss),
        "epsilon": finite(result.epsilon.public.epsilon),
        "delta": result.epsilon.public.delta,
        "delta_sampler": result.epsilon.delta_sampler,
        "view": "public",
        "neighboring": plan.mechanism.neighboring().name(),
        "epsilon_server_view": finite(result.epsilon.server.epsilon),
        "delta_sampler_server_view": result.epsilon.delta_sampler_server_view,
        "accountant": result.epsilon.public.accountant,
        "order": result.epsilon.public.order,
        "certified": plan.mechanism.certified(),
        "mechanism": plan.mechanism.name(),
        "noise": placement(plan.placement),
        "server_share": plan.server_share,
        "gamma": encode.map(|e| e.gamma),
        "clip": experiment.clip,
        "matrix": matrix(plan),
        "bits": encode.map(|e| e.bits),
        "mu_total": mu_total,
        "noise_std": plan.mechanism.noise().variance().sqrt() * plan.mechanism.unit(),
        "stages": stages(plan),
        "predicted_wrap_rate": experiment.predicted_wrap,
        "compression": plan.compression,
        "values": plan.shape().map(|shape| shape.len).ok(),
        "ring_bits": plan.shape().map(|shape| shape.bits).ok(),
        "bytes_up": result.bytes_up,
        "cohort": plan.cohort,
        "population": plan.clients,
        "sampling_rate": plan.sampling_rate(),
        "rounds": result.rounds,
        "ending": ending(&result.ending),
        "zeroed_rows": result.clients.zeroed,
        "sample_level": samples::json(experiment, result),
        "ledger": result.ledger,
        "device_lost": result.device_lost,
        "seconds": result.seconds,
        "peak_memory_mib": peak_memory_mib(),
    });
    // Beside the others, of which the macro takes so many.
    all["accuracy_best"] = json!(accuracies(result, 1).reduce(f64::max));
    all["accuracy_last_10"] = json!(mean(accuracies(result, result.rounds.saturating_sub(9))));
    all["attack_success"] = json!(result.history.iter().rev().find_map(|round| round.attack_success));
    all
}

/// What the evaluations from some round on found.
fn accuracies(result: &RunResult, from: u32) -> impl Iterator<Item = f64> + '_ {
    result.history.iter().filter(move |round| round.round >= from).filter_map(|round| round.accuracy)
}

/// The mean; `None` of nothing.
fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0u32), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

/// Rounds and noise of each stage; `null` where all rounds are alike.
fn stages(plan: &Plan) -> Option<Vec<Value>> {
    let stage = |(mechanism, rounds): (&Arc<dyn Mechanism>, u64)| {
        let noise = mechanism.noise();
        let mu_total = if let NoiseLaw::Skellam { mu } = noise { Some(mu) } else { None };
        json!({ "rounds": rounds, "noise_std": noise.variance().sqrt() * mechanism.unit(), "mu_total": mu_total })
    };
    (!plan.later.is_empty()).then(|| plan.stages().map(stage).collect())
}

/// The matrix of correlated noise, with its errors for noise of standard deviation 1; `null` where there is none.
fn matrix(plan: &Plan) -> Value {
    plan.mechanism.correlation().map_or(Value::Null, |correlation| {
        json!({
            "participation": correlation.participation,
            "sensitivity": correlation.strategy.sensitivity(correlation.participation).ok(),
            "prefix_error": correlation.strategy.prefix_error(),
            "buffers": correlation.strategy.buffers(),
        })
    })
}

fn placement(placement: NoisePlacement) -> &'static str {
    match placement {
        NoisePlacement::PerClient => "per_client",
        NoisePlacement::Aggregate => "aggregate",
    }
}

/// How a run ended, in words.
#[must_use]
pub fn ending(ending: &Ending) -> String {
    match ending {
        Ending::Finished(Finish::Complete) => "complete".into(),
        Ending::Finished(Finish::Stopped(Stop::Budget { next, budget })) => {
            format!("stopped by the budget: one more round would cost epsilon {next:.4} of {budget}")
        }
        Ending::Finished(Finish::Stopped(Stop::Ledger(Excess { next, limit }))) if next.is_infinite() => format!(
            "stopped by the ledger: with one more round nothing is proved in the {} view, since the error of the noise's tables, times e^epsilon, leaves its share of delta (the limit is epsilon {})",
            limit.view.name(),
            limit.epsilon,
        ),
        Ending::Finished(Finish::Stopped(Stop::Ledger(Excess { next, limit }))) => format!(
            "stopped by the ledger: one more round would take its principal to epsilon {next:.4} of {} in the {} view",
            limit.epsilon,
            limit.view.name()
        ),
        Ending::Finished(Finish::Stopped(Stop::Samples { next, budget })) => format!(
            "stopped by the budget of the samples: one more attempt of a round would cost a sample epsilon {next:.4} of {budget}"
        ),
        Ending::Interrupted => "interrupted".into(),
    }
}

/// Largest resident memory of this process so far, where the system tells.
#[must_use]
pub fn peak_memory_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024)
}

/// The table of a run: name and value, for the terminal and the page.
#[must_use]
pub fn summary(experiment: &Experiment, result: &RunResult) -> Vec<(String, String)> {
    let plan = &experiment.plan;
    let private = plan.is_private();
    let mut rows = Vec::new();
    let mut row = |name: &str, value: String| rows.push((name.to_string(), value));
    if let Some(e) = result.evaluation {
        row("test accuracy", format!("{:.2} %", 100.0 * e.accuracy));
        row("test loss", format!("{:.4}", e.loss));
    }
    if private {
        let public = &result.epsilon.public;
        row("epsilon (public view)", format!("{:.4} at delta {:e}", public.epsilon, public.delta));
        row("epsilon (server's view)", format!("{:.4}", result.epsilon.server.epsilon));
        row("neighbours", plan.mechanism.neighboring().name().into());
        row("accountant", public.accountant.clone());
        row("certified", if plan.mechanism.certified() { "yes".into() } else { "no: a bound is only computed".into() });
    } else if plan.samples.is_none() {
        row("epsilon", "infinite: nothing is protected".into());
    } else {
        row("epsilon (of a client)", "infinite: the vectors have no noise".into());
    }
    for (name, value) in samples::rows(experiment, result) {
        row(name, value);
    }
    row("mechanism", format!("{}, noise {}", plan.mechanism.name(), placement(plan.placement)));
    if let Ok(encode) = plan.encode_params() {
        if private {
            let noise = plan.mechanism.noise();
            row(
                "noise",
                format!(
                    "{noise}; standard deviation {:.3} C on the sum",
                    noise.variance().sqrt() * plan.mechanism.unit() / experiment.clip
                ),
            );
            if plan.server_share > 0.0 {
                let of_server = 100.0 * plan.server_share;
                row("... of which the server adds", format!("{of_server} %; its own view has the clients' part alone"));
            }
            for Later { from, mechanism } in &plan.later {
                let noise = mechanism.noise();
                let std = noise.variance().sqrt() * mechanism.unit() / experiment.clip;
                row(&format!("... from round {from} on"), format!("{noise}; {std:.3} C"));
            }
        }
        row("ring", format!("{} bits, gamma {:.4}, C {}", encode.bits, encode.gamma, experiment.clip));
    }
    if let Some(wrap) = experiment.predicted_wrap {
        row("predicted wraps", format!("{wrap:.2e} of the coordinates"));
    }
    if let Some(compression) = &plan.compression {
        let kept = if compression.error_feedback() { ", error feedback" } else { "" };
        row(
            "compression",
            format!("{}: {} of {} values{kept}", compression.name(), compression.size(plan.dim), plan.dim),
        );
    }
    if let Some(bytes) = result.bytes_up {
        row("upload", format!("{bytes:.0} bytes a client and round"));
    }
    row("cohort", format!("{} of {} clients expected ({:?})", plan.cohort, plan.clients, plan.sampling));
    let arrived: Vec<_> = result.history.iter().filter_map(|round| round.arrived).collect();
    if let (Some(staleness), Some(last)) = (mean(arrived.iter().map(|a| a.staleness)), arrived.last()) {
        let (copies, dropped) = arrived.iter().fold((0, 0), |(c, d), a| (c + a.copies, d + a.dropped));
        row(
            "asynchrony",
            format!(
                "mean staleness {staleness:.2}, {copies} stand-ins, {dropped} updates too old, {:.0} ticks",
                last.time
            ),
        );
    }
    row("rounds", format!("{} of {} ({})", result.rounds, plan.rounds, ending(&result.ending)));
    // A ledger of the run's own says nothing new.
    if let (Some(ledger), Some(_)) = (&result.ledger, &experiment.ledger) {
        let number = |epsilon: Option<f64>| epsilon.map_or("infinite".into(), |e| format!("{e:.4}"));
        let Totals { public, server } = ledger.epsilon;
        let limit = ledger.limit.map_or("no limit".into(), |l| format!("limit {} ({})", l.epsilon, l.view.name()));
        row("ledger", format!("{}: `{}`", ledger.file.display(), ledger.principal));
        row(
            "... in all its runs",
            format!("epsilon {} (public), {} (server); {limit}", number(public), number(server)),
        );
    }
    if result.clients.zeroed > 0 {
        row("rows zeroed by NaN or infinity", result.clients.zeroed.to_string());
    }
    row("time", format!("{:.1} s", result.seconds));
    if let Some(mib) = peak_memory_mib() {
        row("peak memory", format!("{mib} MiB"));
    }
    rows
}

/// The page of a run.
#[must_use]
pub fn render(experiment: &Experiment, result: &RunResult) -> String {
    let mut charts = vec![accuracy_chart(&result.history)];
    if experiment.plan.is_private() {
        charts.push(epsilon_chart(&result.history, experiment.plan.epsilon_budget));
    }
    charts.extend(samples::chart(experiment, &result.history));
    charts.push(loss_chart(&result.history));
    let mut notes = experiment.notes.clone();
    notes.push(
        "Epsilon in the public view holds against whoever sees only the models; in the server's view, against whoever also knows each cohort.".into(),
    );
    html::page(&RunReport {
        title: format!("veilsum: {}", experiment.name),
        summary: summary(experiment, result),
        notes,
        charts,
        tables: vec![("Rounds that were evaluated".into(), rounds_table(&result.history))],
    })
}

fn curve(history: &[RoundRecord], of: impl Fn(&RoundRecord) -> Option<f64>) -> Vec<(f64, f64)> {
    history.iter().filter_map(|r| Some((f64::from(r.round), of(r)?))).collect()
}

fn accuracy_chart(history: &[RoundRecord]) -> (String, String) {
    let mut chart = Chart::new("Test accuracy", "round", "accuracy (%)");
    chart.series.push(Series::line("accuracy", curve(history, |r| r.accuracy.map(|a| 100.0 * a))));
    ("Accuracy on the test set after each evaluated round.".into(), line_chart(&chart))
}

fn loss_chart(history: &[RoundRecord]) -> (String, String) {
    let mut chart = Chart::new("Test loss", "round", "cross entropy (nats)");
    chart.series.push(Series::line("loss", curve(history, |r| r.loss)));
    ("Mean cross entropy on the test set.".into(), line_chart(&chart))
}

fn epsilon_chart(history: &[RoundRecord], budget: Option<f64>) -> (String, String) {
    let mut chart = Chart::new("Privacy spent", "round", "epsilon");
    chart.series.push(Series::line("public view", curve(history, |r| r.epsilon)));
    chart.y_range = Some((0.0, budget.unwrap_or(0.0)));
    if let Some(budget) = budget {
        chart.levels.push(("budget".into(), budget));
    }
    ("Epsilon of all releases up to each round, in the view of the public.".into(), line_chart(&chart))
}

fn rounds_table(history: &[RoundRecord]) -> Table {
    let mut table = Table::new(["round", "accuracy", "loss", "epsilon", "server's view", "seconds"]);
    let number = |x: Option<f64>, digits: usize| x.map_or("-".to_string(), |v| format!("{v:.digits$}"));
    for r in history.iter().filter(|r| r.accuracy.is_some()) {
        table.push([
            r.round.to_string(),
            number(r.accuracy.map(|a| 100.0 * a), 2),
            number(r.loss, 4),
            number(r.epsilon, 4),
            number(r.epsilon_server_view, 2),
            format!("{:.1}", r.seconds),
        ]);
    }
    table
}
