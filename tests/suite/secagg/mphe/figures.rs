//! What set-up and rounds cost, one thread (time that it computes, whatever else the machine does):
//! `RAYON_NUM_THREADS=1 cargo test --release --test suite mphe::figures -- --ignored --nocapture`.

use std::time::Instant;

use veilsum::he::Threshold;
use veilsum::secagg::mphe::{KEY_PHASES, PHASES, Plan, Request, Trust};
use veilsum::secagg::{Output, Party, PartyId, VectorShape};

use super::world::{self, Keys, Round};
use crate::secagg::net;

/// Milliseconds that all threads of this process have been computing, where the system says; else those that have passed.
/// On a machine with other work the first are what the same takes alone.
fn milliseconds(start: Instant) -> f64 {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else { return 1e3 * start.elapsed().as_secs_f64() };
    let of = |thread: std::fs::DirEntry| -> Option<f64> {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    };
    threads.flatten().filter_map(of).sum::<f64>() / 1e6
}

/// Adds the milliseconds of what `f` does.
fn timed<T>(total: &mut f64, f: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let before = milliseconds(start);
    let out = f();
    *total += milliseconds(start) - before;
    out
}

/// Plays a set-up in steps: time of all holders and of the server.
fn set_up(plan: &Plan) -> Keys {
    let session = world::key_session(plan, 1, false);
    let mut times = [0.0; 2];
    let [of_holders, of_server] = &mut times;
    let mut server = timed(of_server, || veilsum::secagg::mphe::KeyServer::new(&session));
    let mut holders = timed(of_holders, || world::key_holders(&session));
    while server.phase().is_some() {
        while let Some(t) = timed(of_server, || server.poll_transmit()) {
            let PartyId::Holder(j) = t.to else { panic!("{}", t.to) };
            timed(of_holders, || holders[usize::from(j) - 1].handle(PartyId::Server, &t.frame)).unwrap();
        }
        for (j, holder) in (1..).zip(&mut holders) {
            while let Some(t) = timed(of_holders, || holder.poll_transmit()) {
                timed(of_server, || server.handle(PartyId::Holder(j), &t.frame)).unwrap();
            }
        }
    }
    while let Some(t) = server.poll_transmit() {
        let PartyId::Holder(j) = t.to else { panic!("{}", t.to) };
        timed(of_holders, || holders[usize::from(j) - 1].handle(PartyId::Server, &t.frame)).unwrap();
    }
    let bytes: Vec<u64> = KEY_PHASES.iter().map(|&p| holders[0].traffic().sent[p as usize].bytes).collect();
    println!("  set-up: {:.0} ms all holders, {:.0} ms server; a holder sends {bytes:?} bytes", times[0], times[1]);
    Keys {
        key: std::sync::Arc::new(server.take_key().unwrap()),
        holders: holders.iter_mut().map(|h| h.take_keys().unwrap()).collect(),
    }
}

/// Plays a round in steps and prints what every part takes.
fn round(keys: &Keys) {
    let session = world::round(keys, 1, 0, false);
    let mut round = Round::new(keys, session, 1);
    let [mut encrypt, mut add, mut agree, mut answer, mut open] = [0.0; 5];
    let inputs = timed(&mut encrypt, || round.inputs());
    for (i, frame) in inputs.iter().enumerate() {
        timed(&mut add, || round.server.handle(PartyId::Client(net::id(i)), frame)).unwrap();
    }
    let n = round.clients.len() as f64;
    while round.server.phase().is_some() {
        let frames: Vec<_> = std::iter::from_fn(|| round.server.poll_transmit()).collect();
        for t in frames {
            let PartyId::Holder(j) = t.to else { panic!("{}", t.to) };
            let holder = &mut round.holders[usize::from(j) - 1];
            let of = if t.frame[3] == veilsum::secagg::mphe::wire::REQUEST { &mut agree } else { &mut answer };
            timed(of, || holder.handle(PartyId::Server, &t.frame)).unwrap();
            let part = holder.poll_transmit().unwrap().frame;
            timed(&mut open, || round.server.handle(t.to, &part)).unwrap();
        }
    }
    let all = (encrypt + add + agree + answer + open) / 1e3;
    let Some(Output::Sum { survivors, words }) = round.server.poll_output() else {
        panic!("{:?}", round.server.fault())
    };
    let same = Output::Sum { words, survivors: survivors.clone() } == round.plain(&survivors);
    assert!(same, "bit-equal to plain");
    let holders = round.holders.len() as f64;
    println!("  round: {all:.3} s; encrypt {:.1} ms a client, add {:.1} ms a client", encrypt / n, add / n);
    println!(
        "         holders: agree {:.1} ms, answer {:.1} ms each; server takes and opens {open:.1} ms",
        agree / holders,
        answer / round.session.plan().threshold().needed() as f64
    );
    let sent: Vec<u64> = PHASES.iter().map(|&p| round.server.traffic().sent[p as usize].bytes).collect();
    println!(
        "         a client sends {} bytes ({:.2} a value); the server sends {sent:?}",
        round.clients[0].traffic().bytes_sent(),
        round.clients[0].traffic().bytes_sent() as f64 / f64::from(round.session.shape().len)
    );
}

#[test]
#[ignore = "prints figures; run in release"]
fn figures() {
    let all = |k| Threshold::new(k, k, k - 1).unwrap();
    let shape = |len| VectorShape { len, bits: 16 };
    let mut requests = vec![
        (
            "the seed's round: n = 3, d = 199,658, K = t = 3",
            Request::new(shape(199_658), 3, all(3), Trust::SemiHonestServer),
        ),
        (
            "the same, 2 of 3 holders",
            Request::new(shape(199_658), 3, Threshold::new(3, 2, 0).unwrap(), Trust::SemiHonestServer),
        ),
        ("the same, honest roster, K = t = 3", Request::new(shape(199_658), 3, all(3), Trust::HonestRoster)),
        ("K = t = 16, d = 4096, n = 8", Request::new(shape(4096), 8, all(16), Trust::SemiHonestServer)),
        (
            "K = 16, t = 11, d = 4096, n = 8",
            Request::new(shape(4096), 8, Threshold::new(16, 11, 5).unwrap(), Trust::SemiHonestServer),
        ),
        ("d = 10^6, n = 4, K = t = 3", Request::new(shape(1_000_000), 4, all(3), Trust::SemiHonestServer)),
        (
            "d = 10^6, n = 4, 11 of 16 holders",
            Request::new(shape(1_000_000), 4, Threshold::new(16, 11, 5).unwrap(), Trust::SemiHonestServer),
        ),
    ];
    let eleven = Threshold::new(16, 11, 5).unwrap();
    for (name, degree) in [("the same, N = 16384", 16_384), ("the same, N = 8192", 8192)] {
        let request = Request::new(shape(1_000_000), 4, eleven, Trust::SemiHonestServer);
        requests.push((name, Request { degree: Some(degree), ..request }));
    }
    // The numbers are those of a run: a thousand rounds under a key.
    requests.iter_mut().for_each(|(_, r)| r.rounds = 1000);
    for (name, request) in requests {
        let plan = Plan::choose(request).unwrap();
        println!("{name}\n  {plan}");
        let keys = set_up(&plan);
        round(&keys);
    }
}
