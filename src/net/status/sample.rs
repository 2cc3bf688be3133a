//! Made-up federations to look at, for tests: an early run, a long one, a finished one, an empty one.

use std::time::Duration;

use crate::net::keys::Role;
use crate::net::status::board::{Began, Board, Outcome};
use crate::net::status::{Budget, Guarantee, Privacy, Run, State, View};

/// A run of `rounds` that are planned.
fn board(name: &str, rounds: u64, epsilon: f64, now: Duration) -> Board {
    let run = Run {
        name: name.into(),
        version: "0.1.0".into(),
        session: "5f0c2be9d1a7443882b06f1f7d3c9e10".into(),
        rounds,
        model: "logistic-regression".into(),
        parameters: 7_850,
    };
    let guarantee = Guarantee {
        neighbours: "zero-out (one client's contribution is zeroed, all noise shares remain)".into(),
        delta: 1e-5,
        accountant: "rdp".into(),
        public: Some(0.0),
        server: Some(0.0),
        budget: Some(Budget { epsilon, view: View::Public }),
    };
    let privacy = Privacy { mechanism: "smm".into(), protocol: "masks".into(), guarantee: Some(guarantee) };
    Board::new(run, privacy, now)
}

/// Numbers that look like chance and are the same in every run.
fn chance(seed: u64) -> f64 {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x1234_5678_9abc_def1);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((x ^ (x >> 31)) >> 11) as f64 / 9_007_199_254_740_992.0
}

fn name_of(client: u64) -> String {
    let places =
        ["Charité", "St. Thomas", "Inselspital", "Rigshospitalet", "AKH Wien", "Karolinska", "UZ Leuven", "Oslo"];
    let place = places[client as usize % places.len()];
    if client < places.len() as u64 {
        place.to_owned()
    } else {
        format!("{place} {}", client / places.len() as u64 + 1)
    }
}

/// Plays one round from `now`; the time at its end.
fn round(board: &Board, number: u64, cohort: &[Role], share_missing: f64, now: Duration) -> Duration {
    let seconds = Duration::from_secs_f64;
    let threshold = (cohort.len() as u64 * 2).div_ceil(3);
    let mut now = now + seconds(0.5 + 2.0 * chance(number));
    let mut attempt = 1;
    if number % 41 == 17 && cohort.len() > 3 {
        board.round_began(&Began { round: number, attempt, threshold, deadline: None }, cohort, now);
        cohort.iter().take(cohort.len() / 2).for_each(|&role| board.delivered(role));
        now += seconds(30.0);
        let reason =
            format!("{} of {} delivered before the deadline, {threshold} are needed", cohort.len() / 2, cohort.len());
        board.attempt_abandoned(&reason, now);
        board.warn(&format!("round {number}, attempt 1 was given up: {reason}"), now);
        attempt = 2;
    }
    board.round_began(&Began { round: number, attempt, threshold, deadline: None }, cohort, now);
    let mut survivors = 0;
    for (place, &role) in cohort.iter().enumerate() {
        board.sent(role, 7_850 * 4 + 310);
        if chance(number * 1_000_003 + place as u64) >= share_missing {
            board.heard(role, 9_012, now);
            board.accepted();
            board.delivered(role);
            survivors += 1;
        }
    }
    now += seconds(3.0 + 2.0 * chance(number + 7));
    board.phase(State::Opening, "", None, now);
    now += seconds(0.6 + 0.3 * chance(number + 8));
    board.phase(State::Releasing, "", None, now);
    board.charged(Some(0.21 * (number as f64).sqrt()), Some(0.55 * (number as f64).sqrt()));
    now += seconds(0.12);
    board.phase(State::Evaluating, "", None, now);
    let accuracy = 0.1 + 0.83 * (1.0 - (-(number as f64) / 25.0).exp()) + 0.01 * (chance(number + 9) - 0.5);
    now += seconds(0.4);
    let measured = number % 2 == 1;
    let (accuracy, loss) = (measured.then_some(accuracy), measured.then_some(2.3 * (1.05 - accuracy)));
    board.round_finished(&Outcome { survivors, accuracy, loss }, now);
    now
}

/// Clients 0 to `number`, enrolled; each ninth is not connected.
fn clients(board: &Board, number: u64, now: Duration) -> Vec<Role> {
    for client in 0..number {
        board.enrolled(Role::Client(client), &name_of(client));
        if client % 9 != 8 {
            board.connected(Role::Client(client), now);
        }
    }
    (0..number).map(Role::Client).collect()
}

/// A run without any guarantee, at its third round.
#[must_use]
pub fn unprotected(now: Duration) -> Board {
    let mut time = now.saturating_sub(Duration::from_secs(60));
    let privacy = Privacy { mechanism: "none".into(), protocol: "plain".into(), guarantee: None };
    let run = Run {
        name: "baseline".into(),
        version: "0.1.0".into(),
        session: "0a1b".into(),
        rounds: 9,
        model: "linear".into(),
        parameters: 11,
    };
    let board = Board::new(run, privacy, time);
    let roles = clients(&board, 5, time);
    for number in 1..=3 {
        time = round(&board, number, &roles, 0.0, time);
    }
    board.phase(State::WaitingForClients, "", None, time);
    board
}

/// Before the first client.
#[must_use]
pub fn empty(now: Duration) -> Board {
    board("ward-readmission", 200, 3.0, now)
}

/// In the third round of two clients, one of them with a hostile name.
#[must_use]
pub fn early(now: Duration) -> Board {
    let began = now.saturating_sub(Duration::from_secs(40));
    let board = board("first-steps", 20, 3.0, began);
    let roles = clients(&board, 2, began);
    board.enrolled(Role::Client(1), "<script>alert(1)</script>");
    let end = (1..=2).fold(began, |time, number| round(&board, number, &roles, 0.0, time));
    board.round_began(
        &Began { round: 3, attempt: 1, threshold: 2, deadline: Some(now + Duration::from_secs(42)) },
        &roles,
        end,
    );
    board.delivered(roles[0]);
    board
}

/// A run of `rounds` with `number` clients, dropouts, abandoned attempts, refused messages and holders, in the middle of a
/// round.
#[must_use]
pub fn long(now: Duration, rounds: u64, number: u64) -> Board {
    let mut time = now.saturating_sub(Duration::from_secs(8 * rounds));
    let board = board("ward-readmission-2026", rounds + rounds / 3, 0.21 * (1.6 * rounds as f64).sqrt(), time);
    let roles = clients(&board, number, time);
    for holder in 1..=3 {
        board.enrolled(Role::Holder(holder), &format!("key holder {holder}"));
        board.connected(Role::Holder(holder), time);
    }
    let cohort = |at: u64| -> Vec<Role> {
        let size = roles.len().min(40).max(roles.len() / 50);
        (0..size).map(|i| roles[(at as usize * 7 + i * (roles.len() / size)) % roles.len()]).collect()
    };
    for number in 1..=rounds {
        let missing = if (rounds / 2..rounds / 2 + rounds / 10).contains(&number) { 0.3 } else { 0.06 };
        time = round(&board, number, &cohort(number), missing, time);
    }
    (0..37).for_each(|_| board.duplicate());
    (0..3).for_each(|_| board.refused("wrong-round"));
    board.refused("bad-signature");
    board.warn("client 12 sent a frame with a bad signature; it was refused", time);
    (0..4).for_each(|_| board.warn("the disk is 91 % full", time));
    let asked = cohort(rounds + 1);
    let began = now.saturating_sub(Duration::from_secs(18));
    let deadline = Some(now + Duration::from_secs(42));
    let threshold = (asked.len() as u64 * 2).div_ceil(3);
    board.round_began(&Began { round: rounds + 1, attempt: 1, threshold, deadline }, &asked, began);
    for &role in asked.iter().take(asked.len() * 5 / 8) {
        board.heard(role, 9_012, now.saturating_sub(Duration::from_secs(3)));
        board.delivered(role);
    }
    board
}

/// All rounds are done.
#[must_use]
pub fn finished(now: Duration) -> Board {
    let mut time = now.saturating_sub(Duration::from_secs(3_000));
    let board = board("ward-readmission", 120, 3.0, time);
    let roles = clients(&board, 12, time);
    for number in 1..=120 {
        time = round(&board, number, &roles, 0.08, time);
    }
    roles.iter().for_each(|&role| board.disconnected(role));
    board.phase(State::Finished, "", None, time);
    board
}
