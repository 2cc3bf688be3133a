//! The tables of the pages.

use std::fmt::Write as _;

use crate::net::status::format::{self, count, counted};
use crate::net::status::{Part, Party, Round, Status, role_name};
use crate::report::html::escape;

/// A cell: its class and its text, which is markup.
type Cell = (&'static str, String);

fn text(text: &str) -> Cell {
    ("", escape(text))
}

fn number(text: &str) -> Cell {
    ("r", escape(text))
}

/// A table below a headline; `note` is markup.
fn table(title: &str, note: &str, headers: &[(&'static str, &str)], rows: &[Vec<Cell>]) -> String {
    let mut out = format!(
        "<section class=\"card\">\n<h2>{}</h2>\n{note}<div class=\"scroll\"><table>\n<thead><tr>",
        escape(title)
    );
    for (class, header) in headers {
        let _ = write!(out, "<th scope=\"col\" class=\"{class}\">{}</th>", escape(header));
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        out.push_str("<tr>");
        for (class, cell) in row {
            let _ = write!(out, "<td class=\"{class}\">{cell}</td>");
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody>\n</table></div>\n</section>\n");
    out
}

/// Who takes part.
pub(super) fn parties(status: &Status) -> String {
    let counts = &status.party_counts;
    let (shown, all) = (status.parties.len() as u64, counts.all());
    if status.parties.is_empty() {
        return "<section class=\"card\">\n<h2>Parties</h2>\n<p class=\"nothing\">nobody is enrolled yet</p>\n</section>\n".to_owned();
    }
    let note = if shown < all {
        let all = counted(all, "party is", "parties are");
        format!("<p class=\"soft\">{all} enrolled; {} are shown, those of the present round first.</p>\n", count(shown))
    } else {
        String::new()
    };
    let headers = [
        ("", "party"),
        ("", "link"),
        ("", "this round"),
        ("r", "last heard"),
        ("r", "delivered"),
        ("r", "missed"),
        ("r", "in"),
        ("r", "out"),
    ];
    let rows: Vec<Vec<Cell>> = status.listed().into_iter().map(party).collect();
    table("Parties", &note, &headers, &rows)
}

fn party(party: &Party) -> Vec<Cell> {
    let role = role_name(party.role);
    let name = match party.name.trim() {
        "" => format!("<b>{role}</b>"),
        name => format!("<b>{}</b> <small>{role}</small>", escape(name)),
    };
    let link = if party.connected { ("good", "● on".to_owned()) } else { ("bad", "○ off".to_owned()) };
    let part = match party.part {
        Part::Idle => ("soft", "idle"),
        Part::Asked => ("busy", "asked"),
        Part::Delivered => ("good", "✓ delivered"),
        Part::Missing => ("bad", "✗ missing"),
    };
    let heard = party.seconds_since_heard.map_or("never".to_owned(), |s| format!("{} ago", format::seconds(s)));
    vec![
        ("name", name),
        link,
        (part.0, part.1.to_owned()),
        number(&heard),
        number(&count(party.rounds_delivered)),
        number(&count(party.rounds_missed)),
        number(&format::bytes(party.bytes_in)),
        number(&format::bytes(party.bytes_out)),
    ]
}

/// Finished rounds, the last one first; `folder` is where their pages lie.
pub(super) fn rounds_table(title: &str, status: &Status, rounds: &[Round], folder: &str) -> String {
    if rounds.is_empty() {
        return format!(
            "<section class=\"card\">\n<h2>{}</h2>\n<p class=\"nothing\">no round is finished yet</p>\n</section>\n",
            escape(title)
        );
    }
    let guarantee = status.privacy.guarantee.as_ref();
    let mut headers = vec![("", "round"), ("r", "accuracy"), ("r", "loss")];
    if guarantee.is_some() {
        headers.extend([("r", "ε public"), ("r", "ε server")]);
    }
    headers.extend([
        ("r", "in the sum"),
        ("r", "given up"),
        ("r", "in"),
        ("r", "out"),
        ("r", "time"),
        ("", "finished"),
    ]);
    let cells: Vec<Vec<Cell>> =
        rounds.iter().rev().map(|round| one_round(round, guarantee.is_some(), folder)).collect();
    let note = guarantee.map_or(String::new(), |g| {
        let words = format!(
            "ε is what all releases up to a round spent, in the public and in the server’s view, {}.",
            format::under(g)
        );
        format!("<p class=\"soft\">{}</p>\n", escape(&words))
    });
    table(title, &note, &headers, &cells)
}

fn one_round(round: &Round, private: bool, folder: &str) -> Vec<Cell> {
    let attempt = if round.attempt > 1 { format!(" <small>attempt {}</small>", round.attempt) } else { String::new() };
    let link = format!("<a href=\"{folder}{0}\">{1}</a>{attempt}", round.round, count(round.round));
    let mut cells = vec![
        ("key", link),
        number(&round.accuracy.map_or("–".to_owned(), format::percent)),
        number(&round.loss.map_or("–".to_owned(), format::loss)),
    ];
    if private {
        cells.extend([number(&format::epsilon(round.epsilon_public)), number(&format::epsilon(round.epsilon_server))]);
    }
    cells.extend([
        number(&format!("{} of {}", count(round.survivors), count(round.cohort))),
        number(&count(round.abandoned.len() as u64)),
        number(&format::bytes(round.bytes_in)),
        number(&format::bytes(round.bytes_out)),
        number(&format::seconds(round.seconds.total())),
        text(&format::moment(round.finished_at)),
    ]);
    cells
}

/// The attempts of a round that were given up; empty if there are none.
pub(super) fn abandoned(round: &Round) -> String {
    if round.abandoned.is_empty() {
        return String::new();
    }
    let headers = [("", "attempt"), ("", "delivered"), ("", "why")];
    let row = |a: &crate::net::status::Abandoned| {
        vec![text(&count(a.attempt)), text(&format!("{} of {}", count(a.delivered), count(a.cohort))), text(&a.reason)]
    };
    let note = "<p class=\"soft\">Nothing of these attempts was released.</p>\n";
    table("Attempts that were given up", note, &headers, &round.abandoned.iter().map(row).collect::<Vec<_>>())
}

/// The last warnings, the newest first; empty if there are none.
pub(super) fn warnings(status: &Status) -> String {
    if status.warnings.is_empty() {
        return String::new();
    }
    let mut out = String::from("<section class=\"card warnings\">\n<h2>Warnings</h2>\n<div class=\"scroll\"><ul>\n");
    for warning in status.warnings.iter().rev() {
        let times = if warning.times > 1 { format!(" ({} times)", count(warning.times)) } else { String::new() };
        let _ =
            writeln!(out, "<li><small>{}</small> {}{times}</li>", format::moment(warning.at), escape(&warning.text));
    }
    out.push_str("</ul></div>\n</section>\n");
    out
}

/// What came over the wire.
pub(super) fn counters(status: &Status) -> String {
    let counters = &status.counters;
    let mut facts = vec![
        ("Messages taken".to_owned(), count(counters.accepted)),
        ("Duplicates, without effect".to_owned(), count(counters.duplicates)),
    ];
    if counters.refused.is_empty() {
        facts.push(("Messages refused".to_owned(), "0".to_owned()));
    }
    facts.extend(counters.refused.iter().map(|(reason, n)| (format!("Refused: {reason}"), count(*n))));
    facts.extend([
        ("Parties enrolled".to_owned(), count(counters.enrolled)),
        ("Connections opened".to_owned(), count(counters.connections)),
        ("Warnings given".to_owned(), count(counters.warnings)),
    ]);
    let phases = super::times(&status.totals.seconds);
    format!(
        "<div class=\"two\">\n{}{}</div>\n",
        super::list("Over the wire since the server began", &facts),
        super::list("Time in all rounds", &phases)
    )
}
