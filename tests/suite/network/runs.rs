//! Whole runs: the model is that of the simulation, whoever vanishes and whatever is stopped in between.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use veilsum::config::build::{Given, Seat, build, federate};
use veilsum::fl::replay::{Played, Replay};
use veilsum::net::client::Left;
use veilsum::net::server::{Ending, STORE, survivors};
use veilsum::net::store;
use veilsum::sim::{self, RunOptions, Silent};

use super::{Parties, Server, Town, joining, private, typed};

/// The weights of a simulation of the rounds that a store has.
pub(super) fn simulated(config: &str, store: &str) -> (Vec<f32>, Replay) {
    let store = store::open(store).unwrap();
    let attempts = store.attempts().unwrap().into_iter().map(|row| {
        let played = match survivors(&*store, row.round, row.attempt).unwrap() {
            Some(survivors) => Played::Released { survivors },
            None => Played::Abandoned,
        };
        (row.round, row.attempt, played)
    });
    let replay = Replay { attempts: attempts.collect() };
    let mut experiment = build(&typed(config), Path::new("."), Given::default()).unwrap();
    experiment.replay = Some(Arc::new(replay.clone()));
    let options = RunOptions { folder: None, resume: false, interrupt: &AtomicBool::new(false) };
    (sim::run(&experiment, &options, &mut Silent).unwrap().weights, replay)
}

pub(super) fn same_bits(a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len());
    let differing = a.iter().zip(b).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
    assert_eq!(differing, 0, "of {} weights", a.len());
}

/// Waits until a page of the server says so.
pub(super) fn until(what: &str, mut there: impl FnMut() -> bool) {
    let since = Instant::now();
    while !there() {
        assert!(since.elapsed() < Duration::from_secs(120), "{what} did not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_run_over_sockets_is_that_of_the_simulation() {
    let config = private(3, "");
    let town = Town::new();
    let server = town.serve(&config);
    let folders = [town.clients(0..12), town.holders(1..=3)].concat();
    let options = server.options(Some(7));
    let parties = Parties::join(options, folders);
    for outcome in parties.outcomes() {
        assert!(matches!(outcome, Ok(Left::Finished(_))), "{outcome:?}");
    }
    let served = server.served();
    assert!(matches!(served.ending, Ending::Finished(_)), "{:?}", served.ending);
    assert_eq!(served.result.as_ref().unwrap().rounds, 3);
    let (weights, replay) = simulated(&config, &town.path("state").join(STORE).display().to_string());
    same_bits(&served.result.as_ref().unwrap().weights, &weights);
    assert!(
        replay.attempts.iter().all(|(_, _, p)| matches!(p, Played::Released { survivors } if survivors.len() == 12))
    );
    // Nothing of the rounds is left but what is on record.
    let model = veilsum::model::weights::load(&town.path("state").join("model.safetensors")).unwrap();
    same_bits(&model.weights, &weights);
}

#[test]
fn clients_vanish_and_come_back_and_the_server_is_stopped_in_between() {
    let config = private(4, r#", "federation": {"phase_seconds": 8, "gather_seconds": 0.5}"#);
    let town = Town::new();
    let server = town.serve(&config);
    let steady = [town.clients(0..9), town.holders(1..=3)].concat();
    let fickle = town.clients(9..12);
    let mut options = server.options(Some(7));
    let first = Parties::join(options.clone(), steady.clone());
    let second = Parties::join(options.clone(), fickle.clone());
    let round = |n: u64| {
        move |status: &str| {
            let status: serde_json::Value = serde_json::from_str(status).unwrap();
            status["history"].as_array().is_some_and(|history| history.len() as u64 >= n)
        }
    };
    until("the first round", || round(1)(&server.page("/status.json")));
    for outcome in second.stopped() {
        assert_eq!(outcome.unwrap(), Left::Stopped);
    }
    until("the second round", || round(2)(&server.page("/status.json")));
    let served = server.drained();
    assert_eq!(served.ending, Ending::Drained);
    let before = served.result.as_ref().unwrap().rounds;
    assert!((2..4).contains(&before), "{before}");
    assert!(first.stopped().into_iter().all(|outcome| outcome.unwrap() == Left::Stopped));

    let server = town.serve(&config);
    options.address = server.options(None).address;
    let all = Parties::join(options, [steady, fickle].concat());
    for outcome in all.outcomes() {
        assert!(matches!(outcome, Ok(Left::Finished(_))), "{outcome:?}");
    }
    let served = server.served();
    assert_eq!(served.result.as_ref().unwrap().rounds, 4);
    let (weights, replay) = simulated(&config, &town.path("state").join(STORE).display().to_string());
    same_bits(&served.result.as_ref().unwrap().weights, &weights);
    let without =
        |p: &Played| matches!(p, Played::Released { survivors } if survivors.iter().all(|&client| client < 9));
    assert!(replay.attempts.iter().any(|(.., played)| without(played)), "{replay:?}");
}

/// Passes connections on to a server; the first ones are cut when the server has sent so many bytes on them. Counts all that it sends.
fn cutting(server: SocketAddr, cuts: usize, each: u64) -> (u16, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, sent) = (listener.local_addr().unwrap().port(), Arc::new(AtomicU64::new(0)));
    let counted = Arc::clone(&sent);
    std::thread::spawn(move || {
        for (turn, caller) in listener.incoming().flatten().enumerate() {
            let Ok(called) = TcpStream::connect(server) else { return };
            let most = if turn < cuts { each } else { u64::MAX };
            let (from, to, counted) = (caller.try_clone().unwrap(), called.try_clone().unwrap(), Arc::clone(&counted));
            std::thread::spawn(move || pass(from, to, u64::MAX, &AtomicU64::new(0)));
            std::thread::spawn(move || pass(called, caller, most, &counted));
        }
    });
    (port, sent)
}

/// Passes on so many bytes at most, then closes both.
fn pass(from: TcpStream, mut to: TcpStream, most: u64, counted: &AtomicU64) {
    let (mut from, mut some) = (from.take(most), [0; 1 << 14]);
    while let Ok(length @ 1..) = from.read(&mut some)
        && to.write_all(&some[..length]).is_ok()
    {
        counted.fetch_add(length as u64, Ordering::Relaxed);
    }
    drop(to.shutdown(Shutdown::Both));
    drop(from.into_inner().shutdown(Shutdown::Both));
}

/// One round of one client, whose model and update are more than a megabyte; and the bytes of the model.
fn lone() -> (String, u64) {
    let config = private(1, "").replace(r#""digits_mlp""#, r#"{"mlp": [64, 4000, 10]}"#);
    let config = config.replace(r#""clients": 12"#, r#""clients": 1"#).replace(r#""cohort": 12"#, r#""cohort": 1"#);
    let (begin, end) = (config.find(r#""privacy""#).unwrap(), config.find(r#""evaluation""#).unwrap());
    let plain = r#""privacy": {"mechanism": "none", "clip": 10.0}, "secagg": "plain", "#;
    ([&config[..begin], plain, &config[end..]].concat(), 4 * (64 * 4000 + 4000 + 4000 * 10 + 10))
}

/// That client takes part, through this port.
fn alone(town: &Town, port: u16) -> Parties {
    let allowing = r#"{"mechanisms": ["none"], "protocols": ["plain"], "min_cohort": 1}"#;
    let mut options = joining(port, Some(7));
    options.policy = Arc::new(serde_json::from_str(allowing).unwrap());
    Parties::join(options, town.clients(0..1))
}

/// Ends it all, with the model of the simulation.
fn ends_well(town: &Town, config: &str, client: Parties, server: Server) {
    for outcome in client.outcomes() {
        assert!(matches!(outcome, Ok(Left::Finished(_))), "{outcome:?}");
    }
    let (weights, _) = simulated(config, &town.path("state").join(STORE).display().to_string());
    same_bits(&server.served().result.as_ref().unwrap().weights, &weights);
}

/// With a line that breaks before all of the model is there, it would never be if each connection began anew.
#[test]
fn a_model_that_is_cut_off_on_its_way_goes_on_where_it_was() {
    let ((config, model), town) = (lone(), Town::new());
    let server = town.serve(&config);
    let (port, sent) = cutting(server.address, 6, model / 3);
    ends_well(&town, &config, alone(&town, port), server);
    let sent = sent.load(Ordering::Relaxed);
    assert!((model..2 * model).contains(&sent), "{sent} bytes came, of a model of {model}");
}

/// All of an update has come, and a disk that fails, or a kill, keeps it from its place: it is put there when it is asked for again.
#[test]
fn an_update_that_came_and_was_not_stored_is_not_lost() {
    let ((config, _), town) = (lone(), Town::new());
    let server = town.serve(&config);
    let objects = town.path("state").join("objects");
    let places: Vec<_> = (0..=255).map(|first: u8| objects.join(format!("{first:02x}"))).collect();
    // Where nothing can be: neither a folder nor a file is made at the place of a link that leads nowhere.
    let nowhere = |place: &Path| std::os::unix::fs::symlink("nowhere/at/all", place);
    let blocked: Vec<_> = places.iter().filter(|place| nowhere(place).is_ok()).collect();
    let client = alone(&town, server.address.port());
    let whole = || {
        let mut parts = std::fs::read_dir(objects.join("incoming")).unwrap().flatten();
        // 33 bits a value.
        parts.any(|part| part.metadata().is_ok_and(|found| found.len() > 33 * 300_000 / 8))
    };
    until("a whole update", whole);
    // It is told that this does not work now, and tries again.
    std::thread::sleep(Duration::from_secs(1));
    assert!(whole());
    blocked.into_iter().for_each(|place| std::fs::remove_file(place).unwrap());
    ends_well(&town, &config, client, server);
}

/// A key holder is told of one sum a round.
#[test]
fn groups_under_oneshot_are_refused_with_what_works() {
    let config = |secagg: &str, group: u32| {
        let (mut config, oneshot) = (private(1, ""), r#"{"oneshot": {"holders": 3, "corrupt_holders": 1}}"#);
        assert!(config.contains(oneshot));
        config = config
            .replace(oneshot, secagg)
            .replace(r#""cohort": 12,"#, &format!(r#""cohort": 12, "group_size": {group},"#));
        federate(&typed(&config), Path::new("."), Given::default(), Seat::Server)
            .map(|experiment| experiment.plan.rounds)
    };
    let refused = config(r#"{"oneshot": {"holders": 3, "corrupt_holders": 1}}"#, 4).unwrap_err().to_string();
    assert!(
        refused.contains("group_size is 4, expected absent under oneshot; groups have sums of their own"),
        "{refused}"
    );
    assert_eq!(config(r#""plain""#, 4).unwrap(), 1);
}
