//! A board as a status.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Current, Inner, Known};
use crate::net::keys::Role;
use crate::net::status::format::counted;
use crate::net::status::{FORMAT, PARTIES_SHOWN, Part, Party, Progress, State, Status};

impl Inner {
    pub(super) fn snapshot(&self, now: Duration) -> Status {
        let mut totals = self.totals;
        totals.seconds.add(&self.current.seconds);
        totals.seconds.spend(self.state, now.saturating_sub(self.since));
        Status {
            format: FORMAT,
            run: self.run.clone(),
            taken_at: now.as_secs_f64(),
            started_at: self.started.as_secs_f64(),
            state: self.state,
            sentence: if self.sentence.is_empty() { self.standard_sentence() } else { self.sentence.clone() },
            progress: Progress {
                round: self.current.round,
                attempt: self.current.attempt,
                cohort: self.current.cohort,
                delivered: self.current.delivered,
                threshold: self.current.threshold,
                seconds_in_phase: now.saturating_sub(self.since).as_secs_f64(),
                seconds_left: self.deadline.map(|at| at.saturating_sub(now).as_secs_f64()),
            },
            privacy: self.privacy.clone(),
            party_counts: self.counts,
            parties: self.shown(now),
            history: self.history.to_vec(),
            evaluations: self.evaluations.to_vec(),
            totals,
            counters: self.counters.clone(),
            warnings: self.warnings.iter().cloned().collect(),
        }
    }

    /// The parties of the page: those that the present round misses, others of its cohort, then the first ones.
    fn shown(&self, now: Duration) -> Vec<Party> {
        let known = |role: &Role| Some((*role, self.parties.get(role)?));
        let mut chosen: BTreeMap<Role, &Known> = BTreeMap::new();
        if self.parties.len() > PARTIES_SHOWN {
            let troubled = |party: &Known| {
                let part = self.part(party);
                part == Part::Missing || (part == Part::Asked && party.connections == 0)
            };
            let asked = || self.current.asked.iter().filter_map(known);
            chosen.extend(asked().filter(|(_, p)| troubled(p)).take(PARTIES_SHOWN));
            let left = PARTIES_SHOWN - chosen.len();
            chosen.extend(asked().filter(|(_, p)| !troubled(p)).take(left));
        }
        for (role, party) in &self.parties {
            if chosen.len() >= PARTIES_SHOWN {
                break;
            }
            chosen.insert(*role, party);
        }
        chosen
            .into_iter()
            .map(|(role, party)| Party {
                role,
                name: party.name.clone(),
                connected: party.connections > 0,
                seconds_since_heard: party.heard.map(|at| now.saturating_sub(at).as_secs_f64()),
                part: self.part(party),
                rounds_delivered: party.delivered,
                rounds_missed: party.missed,
                bytes_in: party.bytes_in,
                bytes_out: party.bytes_out,
            })
            .collect()
    }

    fn standard_sentence(&self) -> String {
        let Current { round, cohort, delivered, threshold, .. } = self.current;
        let connected = counted(self.counts.clients_connected, "client is", "clients are");
        match self.state {
            State::WaitingForClients => format!("{connected} connected; the next round begins when there are enough."),
            State::MakingKey => "The parties make the key under which updates are protected.".to_owned(),
            State::Collecting => {
                format!(
                    "{delivered} of {} delivered; {threshold} are needed.",
                    counted(cohort, "client has", "clients have")
                )
            }
            State::Opening => format!("The sum of {} is being opened.", counted(delivered, "update", "updates")),
            State::Releasing => format!("Round {round} is charged, and the model takes its step."),
            State::Evaluating => format!("The model is measured after round {round}."),
            State::Draining => "The server finishes what goes on and begins no further round.".to_owned(),
            State::Finished => format!("All {} are done.", counted(self.run.rounds, "round", "rounds")),
            State::StoppedByBudget => {
                "One more release would pass the privacy budget; no further round begins.".to_owned()
            }
            State::StandingBy => {
                "Another server coordinates this run; this one takes over when that one is gone.".to_owned()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::super::tests::{at, began, board};
    use super::*;

    #[test]
    fn of_many_parties_the_missing_ones_are_shown() {
        let (board, roles) = board(100_000);
        board.round_began(&began(1, 1), &roles, at(1));
        roles.iter().filter(|&&r| r != Role::Client(77_777)).for_each(|&r| board.delivered(r));
        board.phase(State::Opening, "", None, at(2));
        let status = board.snapshot(at(2));
        assert_eq!((status.parties.len(), status.party_counts.clients), (PARTIES_SHOWN, 100_000));
        assert_eq!((status.parties[0].role, status.progress.delivered), (Role::Client(0), 99_999));
        let last = status.parties.last().unwrap();
        assert_eq!((last.role, last.part), (Role::Client(77_777), Part::Missing));
    }

    #[test]
    fn a_status_comes_back_from_json() {
        let (board, roles) = board(2);
        board.round_began(&began(1, 1), &roles, at(1));
        board.charged(Some(0.1), None);
        board.round_finished(&Outcome { accuracy: Some(1.0 / 3.0), ..Outcome::default() }, at(2));
        let status = board.snapshot(at(3));
        let text = serde_json::to_string(&status).unwrap();
        assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), status);
    }

    #[test]
    fn threads_lose_no_count() {
        let (board, roles) = board(4);
        board.round_began(&began(1, 1), &roles, at(1));
        std::thread::scope(|scope| {
            for &role in &roles {
                let board = &board;
                scope.spawn(move || {
                    for second in 0..1_000 {
                        board.heard(role, 3, at(second));
                        board.accepted();
                        let _ = board.snapshot(at(second));
                    }
                    board.delivered(role);
                });
            }
        });
        let status = board.snapshot(at(2_000));
        assert_eq!((status.totals.bytes_in, status.counters.accepted, status.progress.delivered), (12_000, 4_000, 4));
    }
}
