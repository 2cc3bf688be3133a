//! What stands above the charts: name and state, progress, privacy, the figures that matter most.

use std::fmt::Write as _;

use super::MEANING;
use crate::net::status::format::{self, count, counted};
use crate::net::status::{Guarantee, State, Status};
use crate::report::html::escape;

/// Name, state and sentence.
pub(super) fn head(status: &Status) -> String {
    let run = &status.run;
    let session: String = run.session.chars().take(16).collect();
    let dots = if run.session.chars().count() > 16 { "…" } else { "" };
    format!(
        "<header>\n<p class=\"over\">veilsum {} · session <span title=\"{}\">{}{dots}</span></p>\n<h1>{}</h1>\n\
         <p class=\"state\"><b class=\"badge {}\">{}</b> {}</p>\n</header>\n",
        escape(&run.version),
        escape(&run.session),
        escape(&session),
        escape(&run.name),
        badge(status.state),
        status.state.label(),
        escape(&status.sentence),
    )
}

/// The class of a state's colour.
const fn badge(state: State) -> &'static str {
    match state {
        State::WaitingForClients | State::Draining | State::StandingBy => "calm",
        State::MakingKey | State::Collecting | State::Opening | State::Releasing | State::Evaluating => "busy",
        State::Finished => "good",
        State::StoppedByBudget => "warn",
    }
}

/// How far the run and the round are.
pub(super) fn progress(status: &Status) -> String {
    let (p, rounds, done) = (&status.progress, status.run.rounds, status.totals.rounds);
    let mut out = String::from("<section class=\"card\">\n<h2>Progress</h2>\n");
    let left = status.seconds_to_go().map_or(String::new(), |left| format!(", about {} left", format::seconds(left)));
    let run = format!("{} of {} done{left}", count(done), counted(rounds, "round", "rounds"));
    out.push_str(&meter("Run", &run, share(done, rounds), None, "s0"));
    if p.round == 0 {
        out.push_str("<p class=\"soft\">The first round has not begun.</p>\n");
    } else {
        let words = format!("{} of {} delivered", count(p.delivered), counted(p.cohort, "client", "clients"));
        let name = format!("Round {}, attempt {}", count(p.round), count(p.attempt));
        let need = (p.cohort > 0).then(|| share(p.threshold, p.cohort));
        if p.cohort > 0 {
            out.push_str(&meter(&name, &words, share(p.delivered, p.cohort), need, "s2"));
            let _ = writeln!(
                out,
                "<p class=\"soft\">The mark shows the {} that have to deliver for a release.</p>",
                count(p.threshold)
            );
        } else {
            let _ = writeln!(out, "<p class=\"soft\">{name} was the last one before the server began anew.</p>");
        }
    }
    let mut since = format!("In this state for {}", format::seconds(p.seconds_in_phase));
    if let Some(left) = p.seconds_left {
        let _ = write!(since, "; {} left until it ends by itself", format::seconds(left));
    }
    let _ = writeln!(out, "<p>{since}.</p>\n<dl class=\"facts\">");
    let parameters = counted(status.run.parameters, "trained parameter", "trained parameters");
    for (name, value) in [
        ("Model", format!("{}, {parameters}", status.run.model)),
        ("Mechanism", status.privacy.mechanism.clone()),
        ("Secure aggregation", status.privacy.protocol.clone()),
    ] {
        let _ = writeln!(out, "<div><dt>{name}</dt><dd>{}</dd></div>", escape(&value));
    }
    out.push_str("</dl>\n</section>\n");
    out
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { (part as f64 / whole as f64).min(1.0) }
}

/// A bar with its words above it, and a mark on it.
fn meter(name: &str, words: &str, filled: f64, mark: Option<f64>, class: &str) -> String {
    let at = |share: f64| format!("{:.2}%", share.clamp(0.0, 1.0) * 100.0);
    let mark = mark
        .map_or(String::new(), |m| format!("<line class=\"mark\" x1=\"{0}\" x2=\"{0}\" y1=\"0\" y2=\"14\"/>", at(m)));
    format!(
        "<div class=\"meter\"><p><span>{}</span><b>{}</b></p><svg width=\"100%\" height=\"14\" aria-hidden=\"true\">\
         <rect class=\"track\" width=\"100%\" y=\"2\" height=\"10\" rx=\"5\"/><rect class=\"{class}\" width=\"{}\" y=\"2\" \
         height=\"10\" rx=\"5\"/>{mark}</svg></div>\n",
        escape(name),
        escape(words),
        at(filled)
    )
}

/// What is guaranteed, and how much of the budget is spent.
pub(super) fn privacy(status: &Status) -> String {
    let privacy = &status.privacy;
    let mut out = String::from("<section class=\"card\">\n<h2>Privacy</h2>\n");
    match &privacy.guarantee {
        None => {
            let _ = writeln!(
                out,
                "<p><b class=\"badge warn\">no guarantee</b> The mechanism adds no noise that is accounted: what is released may tell anything about a participant.</p>"
            );
        }
        Some(guarantee) => {
            out.push_str(&spent(guarantee));
            let what =
                format!("Every epsilon here is {}; accountant: {}.", format::under(guarantee), guarantee.accountant);
            let _ = writeln!(out, "<p class=\"soft\">{}</p>\n<p class=\"soft\">{MEANING}</p>", escape(&what));
        }
    }
    out.push_str("</section>\n");
    out
}

fn spent(guarantee: &Guarantee) -> String {
    let mut out = String::new();
    let views = [
        ("public", "Public view: who sees the releases only", guarantee.public),
        ("server", "Server’s view: who knows the cohorts", guarantee.server),
    ];
    for (class, (view, name, epsilon)) in ["s0", "s1"].into_iter().zip(views) {
        let value = format::epsilon(epsilon);
        out.push_str(&match guarantee.budget.filter(|b| b.view.name() == view) {
            Some(budget) => {
                let filled = epsilon.map_or(1.0, |e| e / budget.epsilon);
                meter(name, &format!("{value} of {}", format::limit(budget.epsilon)), filled, None, class)
            }
            None => format!("<div class=\"meter\"><p><span>{name}</span><b>{value}</b></p></div>\n"),
        });
    }
    if guarantee.budget.is_none() {
        out.push_str("<p class=\"soft\">The run has no budget: what is spent is recorded and not limited.</p>\n");
    }
    out
}

/// The figures that matter most.
pub(super) fn tiles(status: &Status) -> String {
    let counts = &status.party_counts;
    let last = status.evaluations.last();
    let after = |what: &str| last.map_or(what.to_owned(), |e| format!("after round {}", count(e.round)));
    let accuracy = last.and_then(|e| e.accuracy).map_or("–".to_owned(), format::percent);
    let loss = last.and_then(|e| e.loss).map_or(String::new(), |l| format!(", loss {}", format::loss(l)));
    let totals = &status.totals;
    let lost = totals.asked.saturating_sub(totals.survivors);
    let rate = if totals.asked == 0 { "–".to_owned() } else { format::percent(lost as f64 / totals.asked as f64) };
    let mut tiles = vec![
        ("Accuracy", accuracy, after("not measured yet") + &loss),
        ("Clients connected", count(counts.clients_connected), format!("of {} enrolled", count(counts.clients))),
    ];
    if counts.holders > 0 {
        tiles.push(("Key holders connected", count(counts.holders_connected), format!("of {}", count(counts.holders))));
    }
    let given_up = counted(totals.abandoned, "attempt", "attempts");
    tiles.extend([
        ("Dropouts so far", rate, format!("{} of {} updates; {given_up} given up", count(lost), count(totals.asked))),
        ("Traffic in", format::bytes(totals.bytes_in), format!("{} out", format::bytes(totals.bytes_out))),
        (
            "Running for",
            format::seconds(status.taken_at - status.started_at),
            format!("since {}", format::moment(status.started_at)),
        ),
    ]);
    let tile = |(name, value, note): &(&str, String, String)| {
        let small = if value.chars().count() > 12 { " class=\"long\"" } else { "" };
        format!("<div><dt>{name}</dt><dd{small}>{}</dd><dd class=\"note\">{}</dd></div>\n", escape(value), escape(note))
    };
    format!("<dl class=\"tiles\">\n{}</dl>\n", tiles.iter().map(tile).collect::<String>())
}
