//! What one aggregation with `oneshot` costs each party, and that its sum is exact.
//!
//! ```text
//! cargo run --release --example oneshot_cost -- [planned] [delivering] [coordinates] [bits] [holders] [needed] [corrupt]
//! RAYON_NUM_THREADS=1 cargo run --release --example oneshot_cost -- 1000 12 1000000 16 32 29 1
//! ```
//! The session is planned for `planned` clients; the last ones vanish, so that a few tell what each of many costs.

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

fn argument<T: std::str::FromStr>(place: usize, default: T) -> Result<T, Box<dyn Error>> {
    match std::env::args().nth(place) {
        None => Ok(default),
        Some(text) => text.parse().map_err(|_| format!("argument {place} is {text}, expected a number").into()),
    }
}

/// Runs and adds to a clock.
fn timed<T>(clock: &mut Duration, run: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let out = run();
    *clock += start.elapsed();
    out
}

fn main() -> Result<(), Box<dyn Error>> {
    let (planned, delivering) = (argument(1, 1000usize)?, argument(2, 12usize)?);
    let shape = VectorShape { len: argument(3, 1_000_000u32)?, bits: argument(4, 16u32)? };
    let holders = (argument(5, 32u16)?, argument(6, 29u16)?, argument(7, 1u16)?);
    let bound = 1u64 << (shape.bits - 1);
    let plan = Plan::choose(&Request::new(planned, shape, bound, holders))?;
    let backend = backend::open(Some(BackendKind::Simd))?;
    println!("{plan}\n{}", backend.describe());

    // In a deployment every party has its own secret; here one makes all of them.
    let secret = Secret::fresh()?;
    let cohort: Vec<u64> = (0..planned as u64).collect();
    let roster = Roster::new(cohort.iter().map(|&c| (c, Identity::simulated(&secret, c).public())))?;
    let session = Session::new(Setup {
        id: SessionId { session: [1; 16], round: 1, attempt: 0 },
        cohort,
        roster: Arc::new(roster),
        holders: (1..=holders.0).map(|j| simulated_holder(&secret, j).1).collect(),
        plan,
        deadlines: Some([1, 2]),
    })?;
    let holder = |number| {
        let identity = simulated_holder(&secret, number).0;
        OneshotHolder::new(&session, number, &identity, &simulated_channel(&secret, number), None)
    };
    let mut holders = (1..=holders.0).map(holder).collect::<Result<Vec<_>, _>>()?;
    let mut server = OneshotServer::new(&session, Arc::clone(&backend));
    let mask = (1u64 << shape.bits) - 1;
    let vector = |client: u64| -> Vec<u64> {
        let address = Address { client, ..Address::default() };
        let mut r = secret.derive(&[2; 16], address, Purpose::Synthetic, Cipher::ChaCha20).reader(0);
        (0..shape.len).map(|_| r.next_u64() & mask).collect()
    };

    let [mut fields, mut message, mut adding, mut relayed, mut answering, mut opening] = [Duration::ZERO; 6];
    let mut expected = vec![0u64; shape.len as usize];
    let mut bytes = 0;
    let announcements: Vec<_> = std::iter::from_fn(|| server.poll_transmit()).take(delivering).collect();
    for announced in announcements {
        let PartyId::Client(client) = announced.to else { continue };
        let words = vector(client);
        expected.iter_mut().zip(&words).for_each(|(sum, x)| *sum = sum.wrapping_add(*x) & mask);
        let mut packed = Vec::with_capacity(shape.packed_len());
        frame::pack(words.into_iter(), shape.bits, &mut packed);
        let identity = Identity::simulated(&secret, client);
        let mut party = OneshotClient::new(&session, client, &identity, &secret, Arc::clone(&backend))?;
        timed(&mut fields, || party.submit(&packed))?;
        timed(&mut message, || party.handle(PartyId::Server, &announced.frame))?;
        let Some(sent) = party.poll_transmit() else { return Err("a client says nothing".into()) };
        bytes = sent.frame.len();
        timed(&mut adding, || server.handle(PartyId::Client(client), &sent.frame))?;
        while let Some(relay) = server.poll_transmit() {
            let PartyId::Holder(j) = relay.to else { continue };
            timed(&mut relayed, || holders[usize::from(j) - 1].handle(PartyId::Server, &relay.frame))?;
        }
    }
    server.handle_timeout(1);
    let asked: Vec<_> = std::iter::from_fn(|| server.poll_transmit()).collect();
    let count = holders.len() as f64;
    for request in asked {
        let PartyId::Holder(j) = request.to else { continue };
        let party = &mut holders[usize::from(j) - 1];
        timed(&mut answering, || party.handle(PartyId::Server, &request.frame))?;
        let Some(answer) = party.poll_transmit() else { return Err("a holder says nothing".into()) };
        // The last answer opens the sum.
        let mut last = Duration::ZERO;
        timed(&mut last, || server.handle(request.to, &answer.frame))?;
        opening = opening.max(last);
    }
    let Some(Output::Sum { words, survivors }) = server.poll_output() else { return Err("no sum".into()) };
    assert_eq!(words, expected, "the sum is exact");
    println!("exact sum of {} survivors of {planned}, d = {}, b = {}", survivors.len(), shape.len, shape.bits);
    let ms = |time: Duration, times: f64| time.as_secs_f64() * 1e3 / times;
    let n = delivering as f64;
    println!("client: fields      {:8.2} ms", ms(fields, n));
    println!("client: message     {:8.2} ms (encrypt, share, seal, hash, sign)", ms(message, n));
    println!("client: bytes       {bytes:8} ({:.3} a coordinate)", bytes as f64 / f64::from(shape.len));
    println!("server: a client    {:8.2} ms (hash, verify, unpack, add)", ms(adding, n));
    println!("server: open, once  {:8.2} ms", ms(opening, 1.0));
    println!("holder: a client    {:8.3} ms (verify, unseal)", ms(relayed, n * count));
    println!("holder: answer      {:8.2} ms", ms(answering, count));
    Ok(())
}
