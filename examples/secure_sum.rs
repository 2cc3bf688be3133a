//! One aggregation with `masks`: many clients in one process, some of which vanish, and what it costs.
//!
//! ```text
//! cargo run --release --example secure_sum -- [clients] [coordinates] [bits] [corrupt] [lost] [semi-honest|malicious]
//! ```
//! The clients that vanish do so after they have shared their keys, which is the most expensive moment for the server.
//! Times are those of one client or one lost client, on as many threads as the backend uses.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use veilsum::backend::{self, BackendKind};
use veilsum::math::prg::{Address, Cipher, Purpose, Secret};
use veilsum::secagg::identity::{Identity, Roster};
use veilsum::secagg::masks::{MasksClient, MasksServer, PHASES, Phase, Plan, Request, ServerModel, Session, Setup};
use veilsum::secagg::{Output, Party, PartyId, SessionId, VectorShape, frame};

fn argument<T: std::str::FromStr>(place: usize, default: T) -> Result<T, Box<dyn Error>> {
    match std::env::args().nth(place) {
        None => Ok(default),
        Some(text) => text.parse().map_err(|_| format!("argument {place} is {text}, expected a number").into()),
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let (n, d, bits) = (argument(1, 100usize)?, argument(2, 100_000u32)?, argument(3, 16u32)?);
    let (corrupt, lost) = (argument(4, n / 10)?, argument(5, n / 20)?);
    let server = match std::env::args().nth(6).as_deref() {
        None | Some("malicious") => ServerModel::Malicious,
        Some("semi-honest") => ServerModel::SemiHonest,
        Some(other) => return Err(format!("server model {other}, expected semi-honest or malicious").into()),
    };
    let plan = Plan::choose(&Request::new(n, corrupt, lost, server))?;
    println!("{plan}");
    let backend = backend::open(Some(BackendKind::Simd))?;
    println!("{}", backend.describe());

    // In a deployment every client has its own secret and identity; here one secret makes all of them.
    let secret = Secret::fresh()?;
    let cohort: Vec<u64> = (0..n as u64).collect();
    let identities: Vec<Identity> = cohort.iter().map(|&c| Identity::simulated(&secret, c)).collect();
    let roster = Arc::new(Roster::new(cohort.iter().zip(&identities).map(|(&c, i)| (c, i.public())))?);
    let shape = VectorShape { len: d, bits };
    let id = SessionId { session: [1; 16], round: 1, attempt: 0 };
    let seed = *Secret::fresh()?.expose();
    let session =
        Session::new(Setup { id, shape, cohort, roster, plan, graph_seed: seed, deadlines: Some([1, 2, 3, 4, 5]) })?;

    let mut clients = Vec::new();
    for (&client, identity) in session.cohort().iter().zip(&identities) {
        clients.push(MasksClient::new(&session, client, identity, &secret, Arc::clone(&backend))?);
    }
    let vector = |client: u64| -> Vec<u64> {
        let address = Address { client, ..Address::default() };
        let mut r = secret.derive(&[2; 16], address, Purpose::Synthetic, Cipher::ChaCha20).reader(0);
        (0..d).map(|_| r.next_u64() >> (64 - bits)).collect()
    };
    let mut party = MasksServer::new(&session, Arc::clone(&backend));
    let (mut spent, mut serving) = ([Duration::ZERO; PHASES.len()], [Duration::ZERO; PHASES.len()]);
    while party.phase().is_some() {
        while let Some(request) = party.poll_transmit() {
            // The last answer of a phase has brought the requests of the next one.
            let (PartyId::Client(client), Some(phase)) = (request.to, party.phase()) else { continue };
            let at = phase as usize;
            // The last ones vanish.
            if phase >= Phase::Input && client as usize >= n - lost {
                continue;
            }
            let machine = &mut clients[client as usize];
            if phase == Phase::Input {
                let mut packed = Vec::with_capacity(shape.packed_len());
                frame::pack(vector(client).into_iter(), bits, &mut packed);
                machine.submit(&packed)?;
            }
            let start = Instant::now();
            machine.handle(PartyId::Server, &request.frame)?;
            spent[at] += start.elapsed();
            while let Some(answer) = machine.poll_transmit() {
                let start = Instant::now();
                party.handle(PartyId::Client(client), &answer.frame)?;
                serving[at] += start.elapsed();
            }
        }
        // Nobody else answers.
        if let Some(phase) = party.phase() {
            let start = Instant::now();
            party.handle_timeout(phase as u64 + 1);
            serving[phase as usize] += start.elapsed();
        }
    }

    let Some(Output::Sum { words, survivors }) = party.poll_output() else { return Err("no sum".into()) };
    let mut expected = vec![0u64; d as usize];
    for &client in &survivors {
        expected.iter_mut().zip(vector(client)).for_each(|(sum, x)| *sum = sum.wrapping_add(x) & ((1u64 << bits) - 1));
    }
    assert_eq!(words, expected, "the sum is exact");
    println!("exact sum of {} survivors of {n}, d = {d}, b = {bits}", survivors.len());
    println!(
        "{:12} {:>14} {:>14} {:>16} {:>16}",
        "phase", "client ms", "server ms", "client sends B", "server sends B"
    );
    let (first, count) = (clients[0].traffic(), survivors.len() as f64);
    for phase in PHASES {
        let at = phase as usize;
        let to_one = party.traffic().sent[at].bytes / party.traffic().sent[at].frames.max(1);
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let name = format!("{phase:?}").to_lowercase();
        println!(
            "{name:12} {:14.3} {:14.1} {:16} {to_one:16}",
            ms(spent[at]) / count,
            ms(serving[at]),
            first.sent[at].bytes
        );
    }
    println!("client sends {} bytes, {:.3} a coordinate", first.bytes_sent(), first.bytes_sent() as f64 / f64::from(d));
    Ok(())
}
