//! The status as plain text, for `--once`.

use std::fmt::Write as _;

use crate::net::status::format::{self, count, counted};
use crate::net::status::{Part, Status, role_name};
use crate::report::terminal::{Align, Table};

/// Warnings at the end.
const WARNINGS: usize = 5;
/// Parties in the table; all are counted.
const PARTIES: usize = 30;

/// A summary of a page at most, each line a fact.
pub(super) fn text(status: &Status) -> String {
    let mut table = Table::new(["", ""]).with_align([Align::Left, Align::Left]);
    facts(status).into_iter().for_each(|(name, value)| table.push([name, value.as_str()]));
    // A list of facts has no headline.
    let mut out = table.to_string().lines().skip(2).fold(String::new(), |out, line| out + line + "\n");
    if !status.parties.is_empty() {
        out.push('\n');
        out.push_str(&parties(status));
    }
    let last = &status.warnings[status.warnings.len().saturating_sub(WARNINGS)..];
    if !last.is_empty() {
        let _ = writeln!(out, "\nwarnings, the last one first");
    }
    for warning in last.iter().rev() {
        let times = if warning.times > 1 { format!(" ({} times)", count(warning.times)) } else { String::new() };
        let _ = writeln!(out, "{}  {}{times}", format::moment(warning.at), warning.text);
    }
    out
}

fn facts(status: &Status) -> Vec<(&'static str, String)> {
    let (run, progress, totals, counts) = (&status.run, &status.progress, &status.totals, &status.party_counts);
    let left = status.seconds_to_go().map_or(String::new(), |left| format!(", about {} left", format::seconds(left)));
    let mut facts = vec![
        ("run", format!("{} (veilsum {}, session {})", run.name, run.version, run.session)),
        ("as of", format::moment(status.taken_at)),
        ("state", format!("{}: {}", status.state.label(), status.sentence)),
        ("rounds", format!("{} of {} done{left}", count(totals.rounds), count(run.rounds))),
    ];
    if progress.round > 0 {
        let ends = progress.seconds_left.map_or(String::new(), |s| format!("; {} left", format::seconds(s)));
        let words = format!(
            "{}, attempt {}: {} of {} delivered, {} needed{ends}",
            count(progress.round),
            count(progress.attempt),
            count(progress.delivered),
            count(progress.cohort),
            count(progress.threshold)
        );
        facts.push(("round", words));
    }
    facts.push(("model", format!("{}, {}", run.model, counted(run.parameters, "parameter", "parameters"))));
    if let Some(last) = status.evaluations.last() {
        let accuracy = last.accuracy.map(|a| format!("accuracy {}", format::percent(a)));
        let loss = last.loss.map(|l| format!("loss {}", format::loss(l)));
        let words: Vec<String> = [accuracy, loss].into_iter().flatten().collect();
        facts.push(("measured", format!("{} after round {}", words.join(", "), count(last.round))));
    }
    facts.push(("protection", format!("mechanism {}, protocol {}", status.privacy.mechanism, status.privacy.protocol)));
    match &status.privacy.guarantee {
        None => facts
            .push(("epsilon", "no guarantee: nothing bounds what the releases tell about a participant".to_owned())),
        Some(guarantee) => {
            let (public, server) = (format::epsilon(guarantee.public), format::epsilon(guarantee.server));
            let under = format::under(guarantee);
            facts.push(("epsilon", format!("{public} in the public view, {server} in the server's view, {under}")));
            let budget = guarantee.budget.map_or("none: what is spent is recorded and not limited".to_owned(), |b| {
                format!("epsilon {} in the {} view, {under}", format::limit(b.epsilon), b.view.name())
            });
            facts.push(("budget", budget));
        }
    }
    let mut who = format!("{} of {} clients connected", count(counts.clients_connected), count(counts.clients));
    if counts.holders > 0 {
        let _ = write!(who, ", {} of {} key holders", count(counts.holders_connected), count(counts.holders));
    }
    facts.push(("parties", who));
    let lost = totals.asked.saturating_sub(totals.survivors);
    let given_up = counted(totals.abandoned, "attempt", "attempts");
    facts.push(("dropouts", format!("{} of {} updates; {given_up} given up", count(lost), count(totals.asked))));
    facts.push(("traffic", format!("{} in, {} out", format::bytes(totals.bytes_in), format::bytes(totals.bytes_out))));
    facts.push(("messages", messages(status)));
    facts
}

fn messages(status: &Status) -> String {
    let counters = &status.counters;
    let refused: Vec<String> =
        counters.refused.iter().map(|(reason, n)| format!(", {} refused ({reason})", count(*n))).collect();
    let refused = if refused.is_empty() { ", none refused".to_owned() } else { refused.concat() };
    format!("{} taken, {}{refused}", count(counters.accepted), counted(counters.duplicates, "duplicate", "duplicates"))
}

fn parties(status: &Status) -> String {
    let headers = ["party", "name", "link", "this round", "last heard", "delivered", "missed", "in", "out"];
    let (l, r) = (Align::Left, Align::Right);
    let mut table = Table::new(headers).with_align([l, l, l, l, r, r, r, r, r]);
    for party in status.listed().into_iter().take(PARTIES) {
        table.push([
            role_name(party.role),
            format::one_line(&party.name, 32),
            if party.connected { "on" } else { "off" }.to_owned(),
            if party.part == Part::Idle { "-" } else { party.part.name() }.to_owned(),
            party.seconds_since_heard.map_or("never".to_owned(), |s| format!("{} ago", format::seconds(s))),
            count(party.rounds_delivered),
            count(party.rounds_missed),
            format::bytes(party.bytes_in),
            format::bytes(party.bytes_out),
        ]);
    }
    let all = status.party_counts.all();
    let more = all.saturating_sub(table.rows.len() as u64);
    if more > 0 { format!("{table}and {} more\n", count(more)) } else { table.to_string() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::net::status::sample;

    const NOW: Duration = Duration::from_secs(1_795_383_271);

    #[test]
    fn a_summary_has_the_facts_in_lines() {
        let text = text(&sample::long(NOW, 90, 24).snapshot(NOW));
        for words in [
            "\nstate       collecting updates: 15 of 24 clients have delivered; 16 are needed.\n",
            "\nround       91, attempt 1: 15 of 24 delivered, 16 needed; 42 s left\n",
            " in the public view, ",
            "the server's view, at delta 1e-5, neighbours: zero-out",
            "\nparties     22 of 24 clients connected, 3 of 3 key holders\n",
            "37 duplicates, 1 refused (bad-signature), 3 refused (wrong-round)",
            "\nclient 8   Charité 2",
            "the disk is 91 % full (4 times)\n",
        ] {
            assert!(text.contains(words), "{words} in {text}");
        }
        assert!(text.starts_with("run         ward-readmission-2026 (veilsum"));
    }

    #[test]
    fn odd_states_have_a_summary_too() {
        assert!(text(&Status::default()).contains("state       waiting for clients"));
        assert!(text(&sample::unprotected(NOW).snapshot(NOW)).contains("no guarantee"));
        assert!(text(&sample::long(NOW, 3, 5_000).snapshot(NOW)).contains("\nand 4,973 more\n"));
    }
}
