//! The ledger: what is charged, what is refused, what is noticed, as a library and as a user runs it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use proptest::prelude::*;
use serde_json::Value;
use veilsum::privacy::accountant::Rule;
use veilsum::privacy::accountant::meter::Meter;
use veilsum::privacy::ledger::file::check;
use veilsum::privacy::ledger::tab::Costs;
use veilsum::privacy::ledger::{Cost, LedgerError, LedgerFile, Limit, Opening, Release};
use veilsum::privacy::{DpEvent, NeighboringRelation, View};

fn opening(principal: &str, limit: Option<(f64, View)>) -> Opening {
    let limit = limit.map(|(epsilon, view)| Limit { epsilon, view });
    Opening { principal: principal.into(), delta: 1e-5, limit }
}

fn gaussian(sigma: f64, rate: f64) -> Cost {
    let server = DpEvent::Gaussian { noise_multiplier: sigma };
    let public = DpEvent::PoissonSampled { rate, event: Box::new(server.clone()) };
    Cost { neighbors: NeighboringRelation::AddRemove, server, public, sampler_error: 1e-30 }
}

fn release(run: &str, round: u32, attempt: u32) -> Release {
    Release { run: run.into(), round, attempt, input: format!("{run}-{round}-{attempt}") }
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
    fn ledger(&self) -> PathBuf {
        self.0.path().join("ledger.jsonl")
    }
    fn head(&self) -> PathBuf {
        self.0.path().join("ledger.jsonl.head")
    }
    /// A ledger with two principals and ten releases.
    fn filled(&self) -> Vec<u8> {
        let mut file = LedgerFile::open(&self.ledger()).unwrap();
        file.enter(opening("a", None)).unwrap();
        file.enter(opening("b", Some((30.0, View::Server)))).unwrap();
        for principal in ["a", "b"] {
            let mut tab = file.book().tab(principal, gaussian(2.0, 0.1)).unwrap();
            (1..=5).for_each(|round| file.charge(&mut tab, release(principal, round, 0)).unwrap());
        }
        drop(file);
        std::fs::read(self.ledger()).unwrap()
    }
}

#[test]
fn totals_are_those_of_the_accountant_over_all_runs() {
    let place = Place::new();
    let mut file = LedgerFile::open(&place.ledger()).unwrap();
    file.enter(opening("p", None)).unwrap();
    for (run, sigma, rounds) in [("one", 2.0, 7), ("two", 3.0, 4), ("three", 2.0, 2)] {
        let mut tab = file.book().tab("p", gaussian(sigma, 0.1)).unwrap();
        (1..=rounds).for_each(|round| file.charge(&mut tab, release(run, round, 0)).unwrap());
    }
    let standing = &file.book().standings().unwrap()[0];
    assert_eq!((standing.releases, standing.runs), (13, 3));
    let [first, second] = [gaussian(2.0, 0.1), gaussian(3.0, 0.1)];
    let public = Meter::new(first.public.clone(), &[(second.public, 4)]).unwrap().epsilon(&[9], 1e-5).unwrap();
    let server = Meter::new(first.server, &[(second.server, 4)]).unwrap().epsilon(&[9], 1e-5).unwrap();
    assert!((standing.epsilon.public.unwrap() / public.epsilon - 1.0).abs() < 1e-12);
    assert!((standing.epsilon.server.unwrap() / server.epsilon - 1.0).abs() < 1e-12);
    assert!(public.epsilon < server.epsilon);
    // What a reader of the file finds is the same.
    drop(file);
    let read = check(&place.ledger()).unwrap();
    assert_eq!((read.entries, read.torn), (14, false));
    assert_eq!(read.book.standings().unwrap()[0].epsilon.public, standing_epsilon(&place));
}

fn standing_epsilon(place: &Place) -> Option<f64> {
    LedgerFile::open(&place.ledger()).unwrap().book().standings().unwrap()[0].epsilon.public
}

#[test]
fn a_limit_holds_in_its_view_over_all_runs_and_a_repeated_release_is_free() {
    let place = Place::new();
    let mut file = LedgerFile::open(&place.ledger()).unwrap();
    let cost = gaussian(4.0, 0.5);
    let allowed = Meter::new(cost.server.clone(), &[]).unwrap().epsilon(&[5], 1e-5).unwrap().epsilon;
    file.enter(opening("p", Some((allowed, View::Server)))).unwrap();
    for (run, rounds) in [("one", 3), ("two", 2)] {
        let mut tab = file.book().tab("p", cost.clone()).unwrap();
        (1..=rounds).for_each(|round| file.charge(&mut tab, release(run, round, 0)).unwrap());
    }
    let before = std::fs::read(place.ledger()).unwrap();
    let mut tab = file.book().tab("p", cost).unwrap();
    let next = tab.exceeds(1).unwrap().unwrap().next;
    assert!(next > allowed);
    match file.charge(&mut tab, release("three", 1, 0)) {
        Err(LedgerError::Overspent { next: told, limit, view: "server", .. }) => {
            assert_eq!((told, limit), (next, allowed));
        }
        other => panic!("{other:?}"),
    }
    // The same bits again; another plaintext under the same noise.
    file.charge(&mut tab, release("one", 2, 0)).unwrap();
    let reused = Release { input: "other".into(), ..release("one", 2, 0) };
    assert!(matches!(file.charge(&mut tab, reused), Err(LedgerError::Reused { round: 2, .. })));
    assert_eq!(std::fs::read(place.ledger()).unwrap(), before, "nothing is written of what is refused");
}

#[test]
fn a_crash_between_charge_and_release_is_not_charged_twice_and_a_torn_line_not_at_all() {
    let place = Place::new();
    let whole = place.filled();
    // The process died while it wrote the last entry, before the head knew of it.
    let last = whole[..whole.len() - 1].iter().rposition(|&b| b == b'\n').unwrap() + 1;
    let head = std::fs::read_to_string(place.head()).unwrap();
    let line = String::from_utf8(whole[last..].to_vec()).unwrap();
    let entry: Value = serde_json::from_str(&line).unwrap();
    let older = head
        .replace(&format!("{:>20}", 12), &format!("{:>20}", 11))
        .replace(entry["hash"].as_str().unwrap(), entry["previous"].as_str().unwrap());
    for cut in [last, last + 1, last + 40, whole.len() - 1] {
        std::fs::write(place.ledger(), &whole[..cut]).unwrap();
        std::fs::write(place.head(), &older).unwrap();
        let found = check(&place.ledger()).unwrap();
        assert_eq!((found.entries, found.torn), (11, cut > last));
        let mut file = LedgerFile::open(&place.ledger()).unwrap();
        let mut tab = file.book().tab("b", gaussian(2.0, 0.1)).unwrap();
        assert!(!tab.has(&release("b", 5, 0)).unwrap());
        file.charge(&mut tab, release("b", 5, 0)).unwrap();
        file.charge(&mut tab, release("b", 5, 0)).unwrap();
        drop(file);
        assert_eq!(check(&place.ledger()).unwrap().entries, 12);
    }
    // It died after the entry and before the head: the entry counts.
    std::fs::write(place.ledger(), &whole).unwrap();
    std::fs::write(place.head(), &older).unwrap();
    let file = LedgerFile::open(&place.ledger()).unwrap();
    assert!(file.book().tab("b", gaussian(2.0, 0.1)).unwrap().has(&release("b", 5, 0)).unwrap());
}

#[test]
fn damage_is_named_by_its_first_entry() {
    let place = Place::new();
    let whole = place.filled();
    let damaged = |bytes: &[u8]| {
        std::fs::write(place.ledger(), bytes).unwrap();
        match (check(&place.ledger()), LedgerFile::open(&place.ledger())) {
            (Err(LedgerError::Damaged { entry, .. }), Err(LedgerError::Damaged { entry: same, .. })) => {
                assert_eq!(entry, same);
                assert_eq!(std::fs::read(place.ledger()).unwrap(), bytes, "left as it is");
                entry
            }
            (other, _) => panic!("{other:?}"),
        }
    };
    let text = String::from_utf8(whole.clone()).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    assert_eq!(lines.len(), 12);
    let quieter = text.replacen("\"noise_multiplier\":2.0", "\"noise_multiplier\":9.0", 1);
    assert_eq!(damaged(quieter.as_bytes()), 2, "a number changed");
    assert_eq!(damaged(lines[..7].concat().as_bytes()), 7, "cut between two entries");
    assert_eq!(damaged(&whole[..whole.len() - 5]), 11, "cut within the last");
    assert_eq!(damaged([&lines[..4], &lines[5..]].concat().concat().as_bytes()), 4, "one removed");
    assert_eq!(damaged(b""), 0, "emptied");
    // Another ledger under the same name.
    let other = Place::new();
    let mut file = LedgerFile::open(&other.ledger()).unwrap();
    (0..12).for_each(|i| file.enter(opening(&format!("p{i}"), None)).unwrap());
    assert_eq!(damaged(&std::fs::read(other.ledger()).unwrap()), 11);
    // The head is gone, or is none.
    std::fs::write(place.ledger(), &whole).unwrap();
    std::fs::write(place.head(), "{\"entries\":").unwrap();
    assert!(matches!(check(&place.ledger()), Err(LedgerError::Io { .. })));
    std::fs::remove_file(place.head()).unwrap();
    let message = LedgerFile::open(&place.ledger()).unwrap_err().to_string();
    assert!(message.contains("ledger.jsonl.head"), "{message}");
}

#[test]
fn what_cannot_be_is_refused() {
    let place = Place::new();
    let mut file = LedgerFile::open(&place.ledger()).unwrap();
    for bad in [
        Opening { delta: 0.0, ..opening("p", None) },
        Opening { delta: 1.0, ..opening("p", None) },
        opening("p", Some((0.0, View::Public))),
        opening("p", Some((f64::NAN, View::Public))),
        opening("", None),
        opening("a\nb", None),
    ] {
        assert!(matches!(file.enter(bad.clone()), Err(LedgerError::Privacy(_))), "{bad:?}");
    }
    file.enter(opening("p", None)).unwrap();
    assert!(matches!(file.enter(opening("p", Some((9.0, View::Public)))), Err(LedgerError::Opened(_))));
    assert!(matches!(file.book().tab("q", gaussian(1.0, 0.1)), Err(LedgerError::Unknown { .. })));
    assert!(file.book().tab("p", gaussian(0.0, 0.1)).is_err(), "no noise");
    assert!(file.book().tab("p", Cost { sampler_error: f64::NAN, ..gaussian(1.0, 0.1) }).is_err());
    let mut tab = file.book().tab("p", gaussian(1.0, 0.1)).unwrap();
    file.charge(&mut tab, release("r", 1, 0)).unwrap();
    let other = Cost { neighbors: NeighboringRelation::ZeroOut, ..gaussian(1.0, 0.1) };
    assert!(file.book().tab("p", other).is_err(), "another neighbouring relation does not add up");
    assert!(matches!(LedgerFile::open(&place.ledger()), Err(LedgerError::Busy(_))), "one process at a time");
}

#[test]
fn rounds_of_different_cost_are_charged_each_at_its_own_and_a_limit_is_spent_to_the_last() {
    let place = Place::new();
    let mut file = LedgerFile::open(&place.ledger()).unwrap();
    let [loud, quiet] = [gaussian(2.0, 0.01), gaussian(1.5, 0.01)];
    let total = |a: u64, b: u64| {
        let meter = Meter::new(quiet.public.clone(), &[(loud.public.clone(), a)]).unwrap();
        meter.epsilon(&[b], 1e-5).unwrap()
    };
    // By losses eight quiet rounds are paid for; by divergences alone fewer would be.
    let limit = total(6, 8).epsilon;
    assert_eq!(total(6, 8).accountant, "pld");
    file.enter(opening("p", Some((limit, View::Public)))).unwrap();
    let stages = vec![(loud.clone(), 6), (quiet.clone(), 10)];
    let costs = |rule| Costs { stages: stages.clone(), rule, stride: 4 };
    let mut tab = file.book().tab("p", costs(Rule::Best)).unwrap();
    for round in 1..=14 {
        file.charge(&mut tab, release("r", round, 0)).unwrap();
        assert!(tab.state().unwrap().epsilon.public.unwrap() <= limit, "{round}");
    }
    // A round that ran again, of the first stage: it costs less than one of the second.
    assert_eq!(tab.exceeds(15).unwrap().unwrap().limit.epsilon, limit);
    assert!(matches!(file.charge(&mut tab, release("r", 15, 0)), Err(LedgerError::Overspent { .. })));
    assert!(tab.exceeds(3).unwrap().unwrap().next < tab.exceeds(15).unwrap().unwrap().next);
    let text = std::fs::read_to_string(place.ledger()).unwrap();
    let charges: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let noise = |entry: &Value| entry["server"]["gaussian"]["noise_multiplier"].as_f64().unwrap();
    let found: Vec<f64> = charges[1..].iter().map(noise).collect();
    assert_eq!(found, [vec![2.0; 6], vec![1.5; 8]].concat());
    // Whoever reads the file finds the same total, to the digit of the grid.
    let found = file.book().standings().unwrap()[0].epsilon.public.unwrap();
    assert!((found / limit - 1.0).abs() < 1e-9, "{found} {limit}");
    // Another run of the principal by divergences alone: they would be above the limit already.
    let tab = file.book().tab("p", costs(Rule::Rdp)).unwrap();
    assert!(tab.state().unwrap().epsilon.public.unwrap() > limit);
    let mixed = vec![(loud, 6), (Cost { neighbors: NeighboringRelation::ZeroOut, ..quiet }, 10)];
    assert!(file.book().tab("p", Costs { stages: mixed, rule: Rule::Best, stride: 1 }).is_err());
    assert!(file.book().tab("p", Costs { stages: Vec::new(), rule: Rule::Best, stride: 1 }).is_err());
}

#[test]
fn nothing_protected_has_no_finite_total() {
    let place = Place::new();
    let mut file = LedgerFile::open(&place.ledger()).unwrap();
    file.enter(opening("free", None)).unwrap();
    file.enter(opening("held", Some((1e9, View::Public)))).unwrap();
    let bare = Cost { server: DpEvent::NonPrivate, public: DpEvent::NonPrivate, ..gaussian(1.0, 1.0) };
    let mut tab = file.book().tab("free", bare.clone()).unwrap();
    file.charge(&mut tab, release("r", 1, 0)).unwrap();
    let mut tab = file.book().tab("held", bare).unwrap();
    assert!(matches!(file.charge(&mut tab, release("r", 1, 0)), Err(LedgerError::Overspent { .. })));
    drop(file);
    let standings = check(&place.ledger()).unwrap().book.standings().unwrap();
    assert_eq!((standings[0].releases, standings[0].epsilon.public), (1, None));
    assert_eq!((standings[1].releases, standings[1].epsilon.public), (0, Some(0.0)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]
    /// Whatever is charged in whatever order: totals never fall, never pass a limit, and survive the file.
    #[test]
    fn totals_grow_and_stay_below_the_limit(
        charges in prop::collection::vec((0usize..2, 0.5f64..8.0, 0.01f64..1.0, 1u32..4), 1..12),
        limit in 0.5f64..6.0,
    ) {
        let place = Place::new();
        let mut file = LedgerFile::open(&place.ledger()).unwrap();
        file.enter(opening("p0", Some((limit, View::Public)))).unwrap();
        file.enter(opening("p1", Some((limit, View::Server)))).unwrap();
        let mut last = [0.0f64; 2];
        for (i, (who, sigma, rate, rounds)) in charges.into_iter().enumerate() {
            // By Renyi divergences, whose totals are quick: losses are asked below.
            let costs = Costs { rule: Rule::Rdp, ..gaussian(sigma, rate).into() };
            let mut tab = file.book().tab(&format!("p{who}"), costs).unwrap();
            for round in 1..=rounds {
                let told = tab.exceeds(round).unwrap();
                let charged = file.charge(&mut tab, release(&format!("r{i}"), round, 0));
                prop_assert_eq!(told.is_some(), charged.is_err());
                let epsilon = tab.state().unwrap().epsilon;
                let now = if who == 0 { epsilon.public } else { epsilon.server }.unwrap();
                prop_assert!(now >= last[who] && now <= limit, "{} {} {}", last[who], now, limit);
                last[who] = now;
            }
        }
        drop(file);
        let standings = check(&place.ledger()).unwrap().book.standings().unwrap();
        let found = [standings[0].epsilon.public.unwrap(), standings[1].epsilon.server.unwrap()];
        for (found, last) in found.into_iter().zip(last) {
            prop_assert!(found <= last * (1.0 + 1e-12) && (found > 0.0) == (last > 0.0), "{found} {last}");
        }
    }
}

// As a user runs it.

fn veilsum(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_veilsum")).args(args).stdin(Stdio::null()).output().unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn open(ledger: &Path, principal: &str, epsilon: &str) {
    let args = ["ledger", "open", text(ledger), "--principal", principal, "--epsilon", epsilon, "--delta", "1e-5"];
    let output = veilsum(&args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A private run of at most eight rounds on the digits, with noise for epsilon 8 in 24 rounds.
fn train(out: &Path, more: &[&str]) -> Output {
    let mut args = vec!["train", "--json", "--out", text(out)];
    for set in [
        "data.name=digits",
        "model=digits_mlp",
        "cohort=150",
        "rounds=8",
        "evaluation.every=8",
        "checkpoint.every=4",
        "privacy.bits=16",
        "privacy.gamma=64",
        "privacy.target_epsilon=null",
        "privacy.mu=1000",
        "privacy.delta=1e-5",
    ] {
        args.extend(["--set", set]);
    }
    args.extend(more);
    veilsum(&args)
}

fn last_line(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().last().unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    serde_json::from_str(line).unwrap()
}

#[test]
fn runs_that_share_a_ledger_stop_before_its_limit() {
    let place = Place::new();
    let ledger = place.ledger();
    let folder = |name: &str| place.0.path().join(name);
    let shared = ["--ledger", text(&ledger), "--principal", "digits people"];
    // Nobody made it; nobody entered it.
    let absent = train(&folder("x"), &shared);
    assert_eq!(absent.status.code(), Some(2), "{}", String::from_utf8_lossy(&absent.stderr));
    assert!(!ledger.exists());
    open(&ledger, "others", "5");
    let unknown = train(&folder("y"), &shared);
    let message = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(unknown.status.code() == Some(2) && message.contains("others"), "{message}");
    // What eight rounds cost, and room for twelve.
    let alone = last_line(&train(&folder("alone"), &["--set", "seed=1"]));
    let eight = alone["epsilon"].as_f64().unwrap();
    open(&ledger, "digits people", &(1.25 * eight).to_string());
    let first = last_line(&train(&folder("first"), &[&shared[..], &["--set", "seed=2"]].concat()));
    assert_eq!(first["rounds"], 8);
    assert_eq!(first["ledger"]["principal"], "digits people");
    assert!((first["ledger"]["epsilon"]["public"].as_f64().unwrap() / eight - 1.0).abs() < 1e-9);
    let output = train(&folder("second"), &[&shared[..], &["--set", "seed=3"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let second = last_line(&output);
    assert!(second["rounds"].as_u64().unwrap() < 8, "{second}");
    assert!(second["ending"].as_str().unwrap().contains("ledger"), "{second}");
    // The first run again, with its seed: the same bits, nothing new to pay.
    let again = last_line(&train(&folder("again"), &[&shared[..], &["--set", "seed=2"]].concat()));
    assert_eq!(again["rounds"], first["rounds"]);
    let total = |run: &Value| run["ledger"]["epsilon"]["public"].as_f64().unwrap();
    assert!((total(&again) / total(&second) - 1.0).abs() < 1e-12, "{again} {second}");
    // Its seed on another problem: the same noise on other data.
    let reuse = [&shared[..], &["--set", "seed=2", "--set", "server.learning_rate=0.01"]].concat();
    let refused = train(&folder("reuse"), &reuse);
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(3) && message.contains("seed"), "{message}");
    let verified = veilsum(&["ledger", "verify", text(&ledger), "--json"]);
    let report = last_line(&verified);
    let rounds = 8 + second["rounds"].as_u64().unwrap();
    assert_eq!(report["entries"].as_u64().unwrap(), 2 + rounds);
    let principal = &report["principals"][0];
    assert_eq!(
        (principal["principal"].as_str(), principal["releases"].as_u64()),
        (Some("digits people"), Some(rounds))
    );
    assert!(principal["epsilon"]["public"].as_f64().unwrap() <= 1.25 * eight);
    // Another process has it.
    let held = LedgerFile::open(&ledger).unwrap();
    let busy = train(&folder("busy"), &[&shared[..], &["--set", "seed=4"]].concat());
    assert_eq!(busy.status.code(), Some(2), "{}", String::from_utf8_lossy(&busy.stderr));
    drop(held);
    // Somebody made a loss smaller.
    let bytes = std::fs::read_to_string(&ledger).unwrap();
    std::fs::write(&ledger, bytes.replacen("\"mu\":150000.0", "\"mu\":950000.0", 1)).unwrap();
    let damaged = veilsum(&["ledger", "verify", text(&ledger)]);
    let message = String::from_utf8_lossy(&damaged.stderr).into_owned();
    assert!(damaged.status.code() == Some(3) && message.contains("entry 2"), "{message}");
}

#[test]
fn a_run_keeps_a_ledger_of_its_own() {
    let place = Place::new();
    let run = place.0.path().join("run");
    let result = last_line(&train(&run, &["--set", "name=mine", "--set", "seed=1"]));
    let ledger = run.join("ledger.jsonl");
    let found = check(&ledger).unwrap();
    let standing = &found.book.standings().unwrap()[0];
    assert_eq!((standing.opening.principal.as_str(), standing.releases), ("mine", 8));
    assert!((standing.epsilon.public.unwrap() / result["epsilon"].as_f64().unwrap() - 1.0).abs() < 1e-9);
    assert_eq!(standing.epsilon.server, result["epsilon_server_view"].as_f64());
    // A folder of a version without ledgers gets one that knows what was released.
    std::fs::remove_file(&ledger).unwrap();
    std::fs::remove_file(run.join("ledger.jsonl.head")).unwrap();
    let resumed = veilsum(&["train", "--json", "--resume", text(&run)]);
    assert!(resumed.status.success(), "{}", String::from_utf8_lossy(&resumed.stderr));
    assert_eq!(check(&ledger).unwrap().book.standings().unwrap()[0].epsilon, standing.epsilon);
    // Without privacy there is nothing to charge, and no account to charge it to.
    let bare = place.0.path().join("bare");
    let none = ["--set", "privacy={\"mechanism\":\"none\",\"clip\":1.0}"];
    assert!(train(&bare, &none).status.success());
    assert!(!bare.join("ledger.jsonl").exists());
    let refused = train(&place.0.path().join("z"), &[&none[..], &["--ledger", "l", "--principal", "p"]].concat());
    assert_eq!(refused.status.code(), Some(2), "{}", String::from_utf8_lossy(&refused.stderr));
}
