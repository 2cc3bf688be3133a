//! What was acknowledged survives `kill -9`.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::{begin, frame, id};
use crate::net::store::open;

/// Names the test of this module that runs as a child.
fn this_test(name: &str) -> String {
    let module = module_path!();
    format!("{}::{name}", module.split_once("::").map_or(module, |(_, rest)| rest))
}

const CHILD: &str = "VEILSUM_TEST_STORE_CHILD";

/// Not a test of its own: appends until it is killed, and says what is acknowledged.
#[test]
fn child_appends() {
    let Ok(address) = std::env::var(CHILD) else { return };
    let store = open(&address).unwrap();
    store.lease("server", 30, 1).unwrap();
    let before = store.entries(1, 0).unwrap().len() as u64;
    for n in before.. {
        store.append(1, 0, &[frame(n, &[n as u8; 3000])]).unwrap();
        println!("acknowledged {n}");
    }
}

/// Kills a process that appends to the store at an address, again and again.
pub(crate) fn survives_kill(address: &str) {
    begin(&*open(address).unwrap(), 1, 0);
    let mut total = 0;
    for turn in 0..6 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &this_test("child_appends"), "--nocapture"])
            .env(CHILD, address)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let number = |line: &str| line.rsplit_once("acknowledged ").and_then(|(_, n)| n.parse::<u64>().ok());
        let mut last = None;
        while last.is_none_or(|n| n < total + 5 + 7 * turn) {
            last = number(&lines.next().expect("the child ended by itself").unwrap()).or(last);
        }
        child.kill().unwrap();
        // What it had said before it died counts as well.
        last = lines.map_while(Result::ok).filter_map(|line| number(&line)).last().or(last);
        child.wait().unwrap();
        let acknowledged = last.unwrap() + 1;
        let store = open(address).unwrap();
        let entries = store.entries(1, 0).unwrap();
        // One more may be there that it had no time to say.
        assert!((acknowledged..=acknowledged + 1).contains(&(entries.len() as u64)), "{acknowledged}");
        for (n, entry) in entries.iter().enumerate() {
            assert_eq!(entry.id, id(n as u64));
        }
        total = entries.len() as u64;
    }
}
