//! The pages of the status: complete without any script, readable on a phone, light and dark.
//!
//! All text from outside is escaped, and all numbers are formatted for people; programs read `/status.json`.

mod cards;
mod figures;
mod style;
mod tables;

use std::fmt::Write as _;

use self::cards::{head, privacy, progress, tiles};
pub use self::style::STYLE;
use self::tables::{abandoned, counters, parties, rounds_table, warnings};
use crate::net::status::format::{self, count, counted};
use crate::net::status::{PhaseSeconds, Round, Status};
use crate::report::html::escape;

/// Seconds after which a page loads itself again ...
const RELOAD: u32 = 5;
/// ... and after which it does once the run is over.
const RELOAD_LATE: u32 = 60;
/// Finished rounds on the dashboard.
const LAST: usize = 10;

/// What an epsilon means, in a sentence for those who have never met one.
pub const MEANING: &str = "Epsilon bounds what the releases can tell about one participant: any result is at most \
    e^epsilon times as likely with their contribution as without it, and the other way round, up to a slack of delta. \
    Smaller is safer; 0 would tell nothing.";

/// The dashboard.
#[must_use]
pub fn dashboard(status: &Status) -> String {
    let mut body = head(status);
    let _ = write!(body, "<div class=\"two\">\n{}{}</div>\n", progress(status), privacy(status));
    body.push_str(&tiles(status));
    body.push_str(&pictures(status));
    body.push_str(&warnings(status));
    body.push_str(&parties(status));
    let last = &status.history[status.history.len().saturating_sub(LAST)..];
    body.push_str(&rounds_table("Last rounds", status, last, "rounds/"));
    if status.totals.rounds > last.len() as u64 {
        let _ =
            writeln!(body, "<p class=\"more\"><a href=\"rounds\">all {} rounds</a></p>", count(status.totals.rounds));
    }
    body.push_str(&counters(status));
    body.push_str(&foot(status));
    document(&status.run.name, reload(status), &body)
}

/// The charts, from the first finished round on.
fn pictures(status: &Status) -> String {
    if status.history.is_empty() {
        let words = "The curves begin with the first finished round.";
        return format!("<section class=\"card\"><p class=\"nothing\">{words}</p></section>\n");
    }
    let charts = [
        figures::accuracy(status),
        figures::epsilons(status),
        figures::participation(status),
        figures::times(status),
        figures::traffic(status),
        figures::losses(status),
    ];
    format!("<div class=\"two\">\n{}</div>\n", charts.concat())
}

/// All rounds that are kept.
#[must_use]
pub fn rounds(status: &Status) -> String {
    let mut body =
        format!("<p class=\"over\"><a href=\"./\">← {}</a></p>\n<h1>Rounds</h1>\n", escape(&status.run.name));
    let (shown, all) = (status.history.len() as u64, status.totals.rounds);
    if shown < all {
        let _ = writeln!(
            body,
            "<p>{} of {} finished rounds are kept: the last ones, and of those before every n-th.</p>",
            count(shown),
            count(all)
        );
    }
    let table = rounds_table("Finished rounds, the last one first", status, &status.history, "rounds/");
    let _ = writeln!(body, "<div class=\"all\">{table}</div>");
    document(&format!("rounds of {}", status.run.name), None, &body)
}

/// The page of round `number`; `None` if no such round is kept.
#[must_use]
pub fn round(status: &Status, number: u64) -> Option<String> {
    let place = status.history.iter().position(|r| r.round == number)?;
    let round = &status.history[place];
    let beside = |place: Option<usize>, sign: [&str; 2]| {
        let neighbour = place.and_then(|p| status.history.get(p))?;
        Some(format!(" <a href=\"{0}\">{1}round {0}{2}</a>", neighbour.round, sign[0], sign[1]))
    };
    let before = beside(place.checked_sub(1), ["← ", ""]).unwrap_or_default();
    let after = beside(place.checked_add(1), ["", " →"]).unwrap_or_default();
    let between = if before.is_empty() || after.is_empty() { "" } else { " ·" };
    let name = escape(&status.run.name);
    let mut body = format!(
        "<p class=\"over\"><a href=\"../\">← {name}</a></p>\n<h1>Round {number} of {}</h1>\n<p class=\"more\">{before}{between}{after}</p>\n",
        count(status.run.rounds)
    );
    body.push_str(&list("Result", &round_facts(status, round)));
    body.push_str(&list("Time", &times(&round.seconds)));
    body.push_str(&abandoned(round));
    Some(document(&format!("round {number} of {}", status.run.name), None, &body))
}

/// The answer where there is no page for a round; `asked` is what was asked for.
#[must_use]
pub fn no_round(status: &Status, asked: &str) -> String {
    let progress = &status.progress;
    let why = match asked.parse::<u64>() {
        Err(_) => "A round is asked for by its number, such as rounds/1.".to_owned(),
        Ok(n) if n == progress.round && status.history.last().is_none_or(|r| r.round != n) => {
            format!("Round {n} goes on: it has a page when it is finished.")
        }
        Ok(n) if n == 0 || n > progress.round => {
            let last = status.history.last().map_or(0, |r| r.round);
            format!("Round {n} has not been; the last finished round is {last}.")
        }
        Ok(n) => {
            format!("Round {n} is no longer kept: of a long run the last rounds are, and of those before every n-th.")
        }
    };
    let body = format!(
        "<p class=\"over\"><a href=\"../\">← {}</a></p>\n<h1>No such page</h1>\n<p>{}</p>\n",
        escape(&status.run.name),
        escape(&why)
    );
    document("no such round", None, &body)
}

fn round_facts(status: &Status, round: &Round) -> Vec<(String, String)> {
    let fact = |name: &str, value: String| (name.to_owned(), value);
    let mut facts = vec![
        fact("Finished", format::moment(round.finished_at)),
        fact("Attempt", count(round.attempt)),
        fact("Accuracy", round.accuracy.map_or("not measured".to_owned(), format::percent)),
        fact("Loss", round.loss.map_or("not measured".to_owned(), format::loss)),
    ];
    if let Some(guarantee) = &status.privacy.guarantee {
        let under = format::under(guarantee);
        facts.push(fact("Epsilon so far, public view", format!("{}, {under}", format::epsilon(round.epsilon_public))));
        facts
            .push(fact("Epsilon so far, server’s view", format!("{}, {under}", format::epsilon(round.epsilon_server))));
    }
    let lost = round.cohort.saturating_sub(round.survivors);
    facts.extend([
        fact(
            "Updates in the sum",
            format!("{} of {}, {} dropped out", count(round.survivors), count(round.cohort), count(lost)),
        ),
        fact("Needed", count(round.threshold)),
        fact("Connected at its end", counted(round.connected, "client", "clients")),
        fact("Came in", format::bytes(round.bytes_in)),
        fact("Went out", format::bytes(round.bytes_out)),
    ]);
    facts
}

fn times(seconds: &PhaseSeconds) -> Vec<(String, String)> {
    let phases = PhaseSeconds::NAMES.iter().zip(seconds.values());
    let mut facts: Vec<(String, String)> =
        phases.map(|(name, value)| ((*name).to_owned(), format::seconds(value))).collect();
    facts.push(("together".to_owned(), format::seconds(seconds.total())));
    facts
}

/// Names and values below a headline.
fn list(title: &str, facts: &[(String, String)]) -> String {
    let fact =
        |(name, value): &(String, String)| format!("<div><dt>{}</dt><dd>{}</dd></div>\n", escape(name), escape(value));
    format!(
        "<section class=\"card\">\n<h2>{}</h2>\n<dl class=\"facts\">\n{}</dl>\n</section>\n",
        escape(title),
        facts.iter().map(fact).collect::<String>()
    )
}

fn foot(status: &Status) -> String {
    let reload = reload(status).unwrap_or(RELOAD);
    format!(
        "<footer>\n<p>As of {}; this page loads itself again every {reload} s. For programs: <a href=\"status.json\">status.json</a>, \
         <a href=\"metrics\">metrics</a>, <a href=\"healthz\">healthz</a>.</p>\n<p>Who reads this page sees which clients take part, \
         and so has the server’s view of the releases: the public epsilon does not bound what they learn.</p>\n</footer>\n",
        format::moment(status.taken_at)
    )
}

const fn reload(status: &Status) -> Option<u32> {
    Some(if status.state.is_final() { RELOAD_LATE } else { RELOAD })
}

/// A complete document.
fn document(title: &str, reload: Option<u32>, body: &str) -> String {
    let refresh = reload.map_or(String::new(), |s| format!("<meta http-equiv=\"refresh\" content=\"{s}\">\n"));
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, \
         initial-scale=1\">\n<meta name=\"color-scheme\" content=\"light dark\">\n{refresh}<title>{} · veilsum</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n",
        escape(title)
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::net::status::board::Board;
    use crate::net::status::{PARTIES_SHOWN, sample};

    const NOW: Duration = Duration::from_secs(1_795_383_271);

    fn all() -> [(&'static str, Board); 6] {
        [
            ("empty", sample::empty(NOW)),
            ("early", sample::early(NOW)),
            ("long", sample::long(NOW, 90, 24)),
            ("big", sample::long(NOW, 2_000, 5_000)),
            ("finished", sample::finished(NOW)),
            ("unprotected", sample::unprotected(NOW)),
        ]
    }

    /// Every tag is closed in the order in which tags are opened, and attributes are quoted.
    fn well_formed(html: &str) {
        let mut open: Vec<&str> = Vec::new();
        let mut rest = html.strip_prefix("<!DOCTYPE html>").unwrap();
        while let Some(start) = rest.find('<') {
            let end = start + rest[start..].find('>').unwrap();
            let tag = &rest[start + 1..end];
            assert!(!tag.contains('<') && tag.matches('"').count().is_multiple_of(2), "<{tag}>");
            let name = tag.trim_matches('/').split([' ', '\n']).next().unwrap();
            if let Some(closed) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(closed));
            } else if !tag.ends_with('/') && name != "meta" {
                open.push(name);
            }
            rest = &rest[end + 1..];
        }
        assert!(open.is_empty(), "{open:?}");
    }

    #[test]
    fn every_page_is_whole_and_runs_nothing() {
        for (name, board) in all() {
            let status = board.snapshot(NOW);
            let last = status.history.last().map_or(0, |r| r.round);
            let pages =
                [Some(dashboard(&status)), Some(rounds(&status)), round(&status, last), Some(no_round(&status, "<x>"))];
            for html in pages.into_iter().flatten() {
                well_formed(&html);
                let lower = html.to_lowercase();
                for forbidden in [
                    "<script", "<img", "<link", "<iframe", "<form", "@import", "url(", " src=", " style=", "http://",
                    "https://", "nan", "onload",
                ] {
                    assert!(
                        !lower.contains(forbidden) || (forbidden == "nan" && !html.contains("NaN")),
                        "{name}: {forbidden}"
                    );
                }
                assert!(html.len() < 2_000_000, "{name}: {} bytes", html.len());
            }
        }
    }

    #[test]
    fn a_hostile_name_is_text() {
        let mut status = sample::early(NOW).snapshot(NOW);
        let bad = "\"><script>alert(1)</script>";
        (status.run.name, status.run.session, status.run.model, status.sentence) =
            (bad.into(), bad.into(), bad.into(), bad.into());
        status.privacy.mechanism = bad.into();
        let guarantee = status.privacy.guarantee.as_mut().unwrap();
        (guarantee.neighbours, guarantee.accountant) = (bad.into(), bad.into());
        status.counters.refused.insert(bad.into(), 1);
        status.warnings.push(crate::net::status::Warning { at: 0.0, times: 1, text: bad.into() });
        status.history[0].abandoned.push(crate::net::status::Abandoned { reason: bad.into(), ..Default::default() });
        for html in [dashboard(&status), rounds(&status), round(&status, 1).unwrap(), no_round(&status, bad)] {
            well_formed(&html);
            assert!(!html.contains("<script"));
        }
        let html = dashboard(&status);
        assert!(html.contains("<b>&lt;script&gt;alert(1)&lt;/script&gt;</b> <small>client 1</small>"));
    }

    #[test]
    fn every_number_of_the_status_is_on_the_dashboard() {
        let status = sample::long(NOW, 90, 24).snapshot(NOW);
        let html = dashboard(&status);
        let (progress, totals, counters) = (&status.progress, &status.totals, &status.counters);
        let guarantee = status.privacy.guarantee.as_ref().unwrap();
        let mut words = vec![
            format!("90 of {} rounds done", status.run.rounds),
            format!("{} of {} clients delivered", progress.delivered, progress.cohort),
            format!("Round {}, attempt {}", progress.round, progress.attempt),
            format!("shows the {} that", progress.threshold),
            format!("In this state for {}; {} left", format::seconds(18.0), format::seconds(42.0)),
            format!("{} of {}", format::epsilon(guarantee.public), format::limit(guarantee.budget.unwrap().epsilon)),
            format!("<b>{}</b>", format::epsilon(guarantee.server)),
            format::under(guarantee).replace('\'', "&#39;"),
            "7,850 trained parameters".to_owned(),
            "accountant: rdp".to_owned(),
            format::percent(status.evaluations.last().unwrap().accuracy.unwrap()),
            format::bytes(totals.bytes_in),
            format::bytes(totals.bytes_out),
            format!("of {} updates; {} attempts given up", count(totals.asked), totals.abandoned),
            format!("<dd>{}</dd>", count(counters.accepted)),
            "Duplicates, without effect</dt><dd>37<".to_owned(),
            "Refused: wrong-round</dt><dd>3<".to_owned(),
            format!("Connections opened</dt><dd>{}<", counters.connections),
            format!("Warnings given</dt><dd>{}<", counters.warnings),
            "the disk is 91 % full (4 times)".to_owned(),
        ];
        words.extend(totals.seconds.values().map(|s| format!("<dd>{}</dd>", format::seconds(s))));
        for party in &status.parties {
            words.push(format!("<b>{}</b>", party.name));
            words.push(format::bytes(party.bytes_in));
        }
        for round in &status.history[80..] {
            words.push(format!("<a href=\"rounds/{0}\">{0}</a>", round.round));
            words.push(format!("{} of {}", round.survivors, round.cohort));
            words.push(format::epsilon(round.epsilon_server));
        }
        for word in words {
            assert!(html.contains(&word), "{word}");
        }
    }

    #[test]
    fn no_epsilon_stands_without_its_meaning() {
        let unprotected = dashboard(&sample::unprotected(NOW).snapshot(NOW));
        assert!(unprotected.contains("no guarantee") && !unprotected.contains('ε') && !unprotected.contains("Epsilon"));
        let mut status = sample::finished(NOW).snapshot(NOW);
        status.privacy.guarantee.as_mut().unwrap().server = None;
        let html = dashboard(&status);
        assert!(html.contains("<b>infinite</b>") && html.contains("at delta 1e-5, neighbours: zero-out"));
        assert!(round(&status, 7).unwrap().contains(", at delta 1e-5, neighbours: zero-out"));
    }

    #[test]
    fn of_many_parties_the_first_are_listed_and_all_counted() {
        let status = sample::long(NOW, 30, 5_000).snapshot(NOW);
        let html = dashboard(&status);
        assert!(html.contains("5,003 parties are enrolled; 200 are shown"));
        assert_eq!(html.matches("<td class=\"name\"><b>").count(), PARTIES_SHOWN);
        let (asked, idle) = (html.find(">asked<").unwrap(), html.find(">idle<").unwrap());
        assert!(asked < idle);
    }

    #[test]
    fn a_round_has_a_page_with_its_neighbours() {
        let status = sample::long(NOW, 60, 20).snapshot(NOW);
        let html = round(&status, 58).unwrap();
        assert!(
            html.contains("href=\"57\"") && html.contains("href=\"59\"") && html.contains("Nothing of these attempts")
        );
        assert!(!round(&status, 1).unwrap().contains("href=\"0\"") && !round(&status, 60).unwrap().contains("→"));
        assert!(round(&status, 61).is_none() && no_round(&status, "61").contains("Round 61 goes on"));
        assert!(no_round(&status, "62").contains("Round 62 has not been; the last finished round is 60"));
        assert!(no_round(&status, "x").contains("by its number"));
    }
}
