//! The status for monitors: the text format 0.0.4 of Prometheus
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
//!
//! Names begin with `veilsum_` and end in their base unit; counters end in `_total` and never fall while the server runs.
//! There is no series by client: 100,000 clients make as many lines as two.

use std::fmt::Write as _;

use crate::net::status::format::delta;
use crate::net::status::{Guarantee, PhaseSeconds, State, Status};

/// Labels and value of one line.
type Sample<'a> = (Vec<(&'a str, &'a str)>, f64);

/// All metrics of `status`.
#[must_use]
pub fn text(status: &Status) -> String {
    let mut out = Text::default();
    run(&mut out, status);
    progress(&mut out, status);
    if let Some(guarantee) = &status.privacy.guarantee {
        privacy(&mut out, guarantee);
    }
    model(&mut out, status);
    parties(&mut out, status);
    traffic(&mut out, status);
    out.0
}

fn run(out: &mut Text, status: &Status) {
    let run = &status.run;
    let info = vec![
        ("version", run.version.as_str()),
        ("run", &run.name),
        ("session", &run.session),
        ("model", &run.model),
        ("mechanism", &status.privacy.mechanism),
        ("protocol", &status.privacy.protocol),
    ];
    out.family("info", "gauge", "What runs; always 1.", &[(info, 1.0)]);
    out.gauge("start_time_seconds", "When the server began, Unix seconds.", status.started_at);
    let states: Vec<Sample<'_>> =
        State::ALL.iter().map(|s| (vec![("state", s.name())], f64::from(u8::from(*s == status.state)))).collect();
    out.family("state", "gauge", "What the server does: 1 for the present state, 0 for all others.", &states);
}

fn progress(out: &mut Text, status: &Status) {
    let progress = &status.progress;
    out.gauge("rounds_planned", "Rounds that are planned.", status.run.rounds as f64);
    out.gauge("round", "The present round, from 1; 0 before the first.", progress.round as f64);
    out.gauge("attempt", "The present attempt of the round, from 1.", progress.attempt as f64);
    out.gauge("cohort_clients", "Clients that were asked in the present attempt.", progress.cohort as f64);
    out.gauge("delivered_clients", "Clients that have delivered in the present attempt.", progress.delivered as f64);
    out.gauge("threshold_clients", "Clients that have to deliver for a release.", progress.threshold as f64);
    if let Some(left) = progress.seconds_left {
        out.gauge("phase_remaining_seconds", "Seconds until the present phase ends by itself.", left);
    }
    let totals = &status.totals;
    out.counter("rounds_finished_total", "Rounds that were released.", totals.rounds as f64);
    out.counter("attempts_abandoned_total", "Attempts of which nothing was released.", totals.abandoned as f64);
    out.counter(
        "updates_asked_total",
        "Updates that were asked for in attempts that were released.",
        totals.asked as f64,
    );
    out.counter("updates_released_total", "Updates that are in the released sums.", totals.survivors as f64);
    let names = PhaseSeconds::NAMES;
    let phases: Vec<Sample<'_>> =
        names.iter().zip(totals.seconds.values()).map(|(name, value)| (vec![("phase", *name)], value)).collect();
    out.family("phase_seconds_total", "counter", "Where the time went.", &phases);
}

fn privacy(out: &mut Text, guarantee: &Guarantee) {
    let delta = delta(guarantee.delta);
    let neighbours = guarantee.neighbours.as_str();
    let labels = |view| vec![("view", view), ("delta", delta.as_str()), ("neighbours", neighbours)];
    let infinite = |epsilon: Option<f64>| epsilon.unwrap_or(f64::INFINITY);
    let views = [(labels("public"), infinite(guarantee.public)), (labels("server"), infinite(guarantee.server))];
    out.family("epsilon", "gauge", "Epsilon of all releases so far, by the view of those it is about.", &views);
    if let Some(budget) = guarantee.budget {
        let sample = [(labels(budget.view.name()), budget.epsilon)];
        out.family("epsilon_budget", "gauge", "The most epsilon that may be spent.", &sample);
    }
}

fn model(out: &mut Text, status: &Status) {
    out.gauge("model_parameters", "Trained parameters of the model.", status.run.parameters as f64);
    let last = |of: fn(&crate::net::status::Evaluation) -> Option<f64>| status.evaluations.iter().rev().find_map(of);
    if let Some(accuracy) = last(|e| e.accuracy) {
        out.gauge("accuracy_ratio", "Correct answers of the model when it was measured last, from 0 to 1.", accuracy);
    }
    if let Some(loss) = last(|e| e.loss) {
        out.gauge("loss", "Loss of the model when it was measured last.", loss);
    }
}

fn parties(out: &mut Text, status: &Status) {
    let counts = &status.party_counts;
    let by_kind = |clients: u64, holders: u64| {
        [(vec![("role", "client")], clients as f64), (vec![("role", "holder")], holders as f64)]
    };
    out.family("parties", "gauge", "Parties that are enrolled.", &by_kind(counts.clients, counts.holders));
    let connected = by_kind(counts.clients_connected, counts.holders_connected);
    out.family("parties_connected", "gauge", "Parties that have a connection.", &connected);
    let counters = &status.counters;
    out.counter("enrolled_total", "Parties that were enrolled since the server began.", counters.enrolled as f64);
    out.counter("connections_total", "Connections that were opened.", counters.connections as f64);
}

fn traffic(out: &mut Text, status: &Status) {
    out.counter("received_bytes_total", "Bytes that came from the parties.", status.totals.bytes_in as f64);
    out.counter("sent_bytes_total", "Bytes that were sent to the parties.", status.totals.bytes_out as f64);
    let counters = &status.counters;
    out.counter("messages_accepted_total", "Messages that were taken.", counters.accepted as f64);
    let duplicates = "Messages that had come before and changed nothing.";
    out.counter("messages_duplicate_total", duplicates, counters.duplicates as f64);
    let refused: Vec<Sample<'_>> =
        counters.refused.iter().map(|(reason, count)| (vec![("reason", reason.as_str())], *count as f64)).collect();
    out.family("messages_refused_total", "counter", "Messages that were refused, by reason.", &refused);
    out.counter("warnings_total", "Warnings that were given.", counters.warnings as f64);
}

/// The text as it grows.
#[derive(Default)]
struct Text(String);

impl Text {
    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.family(name, "gauge", help, &[(Vec::new(), value)]);
    }

    fn counter(&mut self, name: &str, help: &str, value: f64) {
        self.family(name, "counter", help, &[(Vec::new(), value)]);
    }

    /// All lines of one name; they have to stand together.
    fn family(&mut self, name: &str, kind: &str, help: &str, samples: &[Sample<'_>]) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP veilsum_{name} {help}\n# TYPE veilsum_{name} {kind}");
        for (labels, value) in samples {
            let labels: Vec<String> = labels.iter().map(|(key, text)| format!("{key}=\"{}\"", escape(text))).collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            let _ = writeln!(self.0, "veilsum_{name}{labels} {}", number(*value));
        }
    }
}

/// A label's value: backslash, quotation mark and line feed are escaped.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn number(value: f64) -> String {
    match value {
        v if v.is_nan() => "NaN".to_owned(),
        v if v.is_infinite() => if v > 0.0 { "+Inf" } else { "-Inf" }.to_owned(),
        v => format!("{v}"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::net::status::sample;

    const NOW: Duration = Duration::from_secs(1_795_383_271);

    /// Reads the format strictly: name with labels to value, and the type of each family.
    fn parse(text: &str) -> (BTreeMap<String, f64>, BTreeMap<String, String>) {
        let (mut values, mut types) = (BTreeMap::new(), BTreeMap::new());
        let mut family = String::new();
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                family = help.split(' ').next().unwrap().to_owned();
                assert!(help.len() > family.len() + 1);
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert_eq!(name, family);
                assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} twice");
            } else {
                let (name, value) = line.rsplit_once(' ').unwrap();
                assert_eq!(name.split('{').next().unwrap(), family);
                let value = if value == "+Inf" { f64::INFINITY } else { value.parse().unwrap() };
                assert!(values.insert(name.to_owned(), value).is_none(), "{name} twice");
            }
        }
        (values, types)
    }

    #[test]
    fn every_name_has_a_type_and_its_value() {
        let status = sample::long(NOW, 60, 20).snapshot(NOW);
        let (values, types) = parse(&text(&status));
        for (name, kind) in &types {
            assert!(name.starts_with("veilsum_"));
            assert_eq!(name.ends_with("_total"), kind == "counter", "{name}");
        }
        assert_eq!(values["veilsum_rounds_finished_total"], 60.0);
        assert_eq!(values["veilsum_received_bytes_total"], status.totals.bytes_in as f64);
        assert_eq!(values["veilsum_parties{role=\"client\"}"], 20.0);
        assert_eq!(values["veilsum_messages_refused_total{reason=\"wrong-round\"}"], 3.0);
        assert_eq!(values["veilsum_state{state=\"collecting\"}"], 1.0);
        let states = values.iter().filter(|(name, _)| name.starts_with("veilsum_state"));
        assert_eq!(states.map(|(_, v)| v).sum::<f64>(), 1.0);
        let guarantee = status.privacy.guarantee.unwrap();
        let epsilon =
            format!("veilsum_epsilon{{view=\"public\",delta=\"1e-5\",neighbours=\"{}\"}}", guarantee.neighbours);
        assert_eq!(Some(values[&epsilon]), guarantee.public);
    }

    #[test]
    fn labels_are_escaped_and_infinity_is_written() {
        let mut status = sample::early(NOW).snapshot(NOW);
        status.run.name = "a\"b\\c\nd".into();
        status.privacy.guarantee.as_mut().unwrap().server = None;
        let text = text(&status);
        assert!(text.contains("run=\"a\\\"b\\\\c\\nd\","));
        assert!(text.lines().any(|l| l.starts_with("veilsum_epsilon{view=\"server\"") && l.ends_with(" +Inf")));
        parse(&text);
        status.privacy.guarantee = None;
        assert!(!super::text(&status).contains("epsilon"));
    }
}
