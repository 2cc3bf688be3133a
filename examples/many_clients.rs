//! One aggregation with `oneshot` and very many clients in one process: each is made, speaks and is gone before the next, so
//! that what stays is the server and the key holders. Prints what they hold.
//!
//! ```text
//! cargo run --release --example many_clients -- [clients] [coordinates] [bits]
//! ```

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use veilsum::backend::{self, BackendKind};
use veilsum::math::prg::{Address, Cipher, Purpose, Secret};
use veilsum::secagg::identity::{Identity, Roster};
use veilsum::secagg::oneshot::{
    OneshotClient, OneshotHolder, OneshotServer, Plan, Request, Session, Setup, simulated_channel, simulated_holder,
};
use veilsum::secagg::{Output, Party, PartyId, SessionId, VectorShape, frame};

/// Key holders, those that open, and those that may be corrupt.
const HOLDERS: (u16, u16, u16) = (5, 4, 1);

fn argument<T: std::str::FromStr>(place: usize, default: T) -> Result<T, Box<dyn Error>> {
    match std::env::args().nth(place) {
        None => Ok(default),
        Some(text) => text.parse().map_err(|_| format!("argument {place} is {text}, expected a number").into()),
    }
}

/// A line of /proc/self/status in MiB, where there is one.
fn resident(name: &str) -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_suffix("kB")?.trim().parse::<u64>().ok());
    line.map_or("unknown".into(), |kib| format!("{} MiB", kib >> 10))
}

fn show(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let ms = |at: usize| times.get(at).map_or(0.0, |time| 1e3 * time.as_secs_f64());
    println!("{what:28} {:9.3} ms best, {:9.3} ms median", ms(0), ms(times.len() / 2));
}

fn main() -> Result<(), Box<dyn Error>> {
    let (n, d, bits) = (argument(1, 10_000usize)?, argument(2, 100_000u32)?, argument(3, 16u32)?);
    if !(1..=32).contains(&bits) {
        return Err(format!("{bits} bits, expected 1 to 32").into());
    }
    let shape = VectorShape { len: d, bits };
    let plan = Plan::choose(&Request::new(n, shape, 1 << (bits - 1), HOLDERS))?;
    println!("{plan}");
    let backend = backend::open(Some(BackendKind::Simd))?;
    println!("{}", backend.describe());

    // In a deployment every party has its own secret and identity; here one secret makes all of them.
    let secret = Secret::fresh()?;
    let cohort: Vec<u64> = (0..n as u64).collect();
    let identity = |client: u64| Identity::simulated(&secret, client);
    let roster = Arc::new(Roster::new(cohort.iter().map(|&client| (client, identity(client).public())))?);
    let keys: Vec<_> = (1..=HOLDERS.0).map(|holder| simulated_holder(&secret, holder)).collect();
    let session = Session::new(Setup {
        id: SessionId { session: [1; 16], round: 1, attempt: 0 },
        cohort,
        roster,
        holders: keys.iter().map(|(_, public)| *public).collect(),
        plan,
        deadlines: None,
    })?;
    let mut server = OneshotServer::new(&session, Arc::clone(&backend));
    let mut holders = Vec::new();
    for (holder, (identity, _)) in (1..).zip(&keys) {
        holders.push(OneshotHolder::new(&session, holder, identity, &simulated_channel(&secret, holder), None)?);
    }
    println!(
        "before the first client      {} resident, the server holds {} KiB",
        resident("VmRSS:"),
        server.held_bytes() >> 10
    );

    let mask = u64::MAX >> (64 - bits);
    let mut expected = vec![0u64; d as usize];
    let (mut held, mut clients, mut adds, mut shares) = (0, Vec::new(), Vec::new(), Vec::new());
    let mut opening = Duration::ZERO;
    while let Some(request) = server.poll_transmit() {
        match request.to {
            PartyId::Client(client) => {
                let address = Address { client, ..Address::default() };
                let mut random = secret.derive(&[2; 16], address, Purpose::Synthetic, Cipher::ChaCha20).reader(0);
                let mut packed = Vec::with_capacity(shape.packed_len());
                let values = expected.iter_mut().map(|sum| {
                    let value = random.next_u64() >> (64 - bits);
                    *sum = sum.wrapping_add(value) & mask;
                    value
                });
                frame::pack(values, bits, &mut packed);
                let identity = identity(client);
                let start = Instant::now();
                let mut machine =
                    OneshotClient::packed(&session, client, &identity, &secret, Arc::clone(&backend), &packed)?;
                machine.handle(PartyId::Server, &request.frame)?;
                let message = machine.poll_transmit().ok_or("a client says nothing")?;
                clients.push(start.elapsed());
                let start = Instant::now();
                server.handle(request.to, &message.frame)?;
                adds.push(start.elapsed());
            }
            PartyId::Holder(holder) => {
                let machine = &mut holders[usize::from(holder) - 1];
                let start = Instant::now();
                machine.handle(PartyId::Server, &request.frame)?;
                shares.push(start.elapsed());
                while let Some(answer) = machine.poll_transmit() {
                    println!("holder {holder} answers            {} resident", resident("VmRSS:"));
                    let start = Instant::now();
                    server.handle(request.to, &answer.frame)?;
                    opening += start.elapsed();
                }
            }
            PartyId::Server => {}
        }
        held = held.max(server.held_bytes());
    }
    let Some(Output::Sum { words, survivors }) = server.poll_output() else { return Err("no sum".into()) };
    if words != expected {
        return Err("the sum is not that of the vectors".into());
    }
    println!("exact sum of {} clients, d = {d}, b = {bits}", survivors.len());
    show("a client", clients);
    show("the server adds one", adds);
    show("a holder takes a share", shares);
    println!("the server opens             {:9.3} ms", 1e3 * opening.as_secs_f64());
    let kept = n * 4 * session.plan().share_len() * usize::from(HOLDERS.0);
    println!("the server held at most      {:.1} MiB", held as f64 / f64::from(1 << 20));
    println!("the holders' shares          {:.1} MiB ({} holders)", kept as f64 / f64::from(1 << 20), HOLDERS.0);
    println!("peak of the process          {}", resident("VmHWM:"));
    Ok(())
}
