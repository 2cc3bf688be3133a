//! What a run has to show of DP-SGD on its clients: the epsilon of a sample, and all that gives it a meaning.

use serde_json::{Value, json};

use super::curve;
use crate::config::build::Experiment;
use crate::fl::dp_sgd::Divisor;
use crate::fl::samples::VIEW;
use crate::privacy::mechanism::Mechanism;
use crate::report::svg::{Chart, Series, line_chart};
use crate::sim::samples::GradientRecord;
use crate::sim::{RoundRecord, RunResult};

/// The sample level of a result; `null` where clients do not run DP-SGD.
pub(in crate::sim) fn json(experiment: &Experiment, result: &RunResult) -> Value {
    let (Some(level), Some(spent)) = (&experiment.plan.samples, &result.epsilon.samples) else { return Value::Null };
    let p = level.local.params();
    let batch_size = if let Divisor::Public(size) = p.divisor { Some(size) } else { None };
    json!({
        "epsilon": spent.report.epsilon.is_finite().then_some(spent.report.epsilon),
        "delta": spent.report.delta,
        "view": VIEW,
        "neighboring": level.neighbors(),
        "accountant": spent.report.accountant,
        "order": spent.report.order,
        "certified": level.local.mechanism().certified(),
        "target_epsilon": level.epsilon_budget,
        "steps": spent.steps,
        "steps_a_round": p.steps,
        "sampling_rate": p.rate,
        "batch_size": batch_size,
        "clip": p.clip,
        "noise_multiplier": p.noise_multiplier,
        "isolate": p.isolate,
        "clipping": p.clipping,
        "event": level.event(),
        "gradients": GradientRecord::from(&result.gradients),
    })
}

/// The lines of the summary.
pub(super) fn rows(experiment: &Experiment, result: &RunResult) -> Vec<(&'static str, String)> {
    let (Some(level), Some(spent)) = (&experiment.plan.samples, &result.epsilon.samples) else { return Vec::new() };
    let p = level.local.params();
    let seen = GradientRecord::from(&result.gradients);
    let divisor = match p.divisor {
        Divisor::Public(size) => format!("divided by {size}, a public constant"),
        Divisor::Shard => "divided by its expected size".into(),
    };
    vec![
        ("epsilon (of a sample)", format!("{:.4} at delta {:e}", spent.report.epsilon, spent.report.delta)),
        ("... seen by", VIEW.into()),
        ("... neighbours", level.neighbors().into()),
        ("... accountant", format!("{}, {} steps of one client", spent.report.accountant, spent.steps)),
        (
            "DP-SGD",
            format!(
                "{} steps a round, rate {}, sum of a mini-batch {divisor}, C {}, noise {:.4} C",
                p.steps, p.rate, p.clip, p.noise_multiplier
            ),
        ),
        (
            "... gradients",
            format!("{} in this process, {:.1} % clipped, {} zeroed", seen.rows, 100.0 * seen.clipped, seen.zeroed),
        ),
    ]
}

/// The curve of epsilon.
pub(super) fn chart(experiment: &Experiment, history: &[RoundRecord]) -> Option<(String, String)> {
    let level = experiment.plan.samples.as_ref()?;
    let mut chart = Chart::new("Privacy of a sample spent", "round", "epsilon");
    chart.series.push(Series::line("one sample", curve(history, |r| r.sample_epsilon)));
    chart.y_range = Some((0.0, level.epsilon_budget.unwrap_or(0.0)));
    if let Some(budget) = level.epsilon_budget {
        chart.levels.push(("budget".into(), budget));
    }
    let caption = format!(
        "Epsilon of one sample up to each round at delta {:e}, in the view of {VIEW}; neighbours: {}.",
        level.delta,
        level.neighbors()
    );
    Some((caption, line_chart(&chart)))
}

/// What the model file says of it.
pub(in crate::sim) fn metadata(experiment: &Experiment, result: &RunResult) -> Vec<(String, String)> {
    let (Some(level), Some(spent)) = (&experiment.plan.samples, &result.epsilon.samples) else { return Vec::new() };
    [
        ("sample_epsilon", spent.report.epsilon.to_string()),
        ("sample_delta", spent.report.delta.to_string()),
        ("sample_neighbors", level.neighbors().to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}
