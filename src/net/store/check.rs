//! What every store has to do: one list of tests, run against each database.

mod kill;

use std::sync::Arc;

use super::*;
pub(super) use kill::survives_kill;

/// Opens a database, the same one at every call.
pub(super) type Open<'a> = &'a dyn Fn() -> Arc<dyn Store>;

/// A name and what it checks.
type Check = (&'static str, fn(Open<'_>));

/// All of them; each gets an empty database.
const ALL: &[Check] = &[
    ("meta", meta),
    ("enrolment", enrolment),
    ("offline parties", offline_parties),
    ("lowest free number", lowest_free_number),
    ("attempts", attempts),
    ("entries in order", entries_in_order),
    ("a batch is all or nothing", batch),
    ("release", release),
    ("checkpoints go", checkpoints_go),
    ("payloads go", payloads_go),
    ("sums", sums),
    ("lease", lease),
    ("fencing", fencing),
    ("numbers out of range", ranges),
    ("concurrent readers", readers),
    ("concurrent writers", writers),
    ("snapshot", snapshot),
    ("load", load),
    ("model of the state machine", super::model::agrees),
];

/// Runs all of them, each on a database that `fresh` gives.
pub(super) fn run(fresh: &mut dyn FnMut() -> Box<dyn Fn() -> Arc<dyn Store>>) {
    for (name, check) in ALL {
        eprintln!("  {name}");
        let open = fresh();
        check(&*open);
        assert_eq!(open().check().unwrap(), Vec::<String>::new(), "{name}");
    }
}

pub(super) fn id(n: u64) -> [u8; 32] {
    ObjectId::of(&n.to_le_bytes()).0
}

pub(super) fn frame(n: u64, bytes: &[u8]) -> NewEntry {
    NewEntry { id: id(n), body: EntryBody::Frame { from: Role::Client(n), payload: Payload::Inline(bytes.to_vec()) } }
}

pub(super) fn begin(store: &dyn Store, round: u32, attempt: u32) {
    store.begin(&NewAttempt { round, attempt, input: [7; 32], plan: b"plan".to_vec() }).unwrap();
}

fn enrolment_of(nonce: u8, identity: u8, wanted: Wanted) -> Enrolment {
    let (nonce, identity) = ([nonce; 16], [identity; 32]);
    Enrolment { nonce, wanted, identity, channel: None, samples: Some(100), name: "ward".to_owned(), limit: 3 }
}

fn meta(open: Open<'_>) {
    let store = open();
    assert_eq!(store.meta("a").unwrap(), None);
    store.set_meta("a", b"1").unwrap();
    store.set_meta("a", b"2").unwrap();
    store.create_meta("b", b"").unwrap();
    store.create_meta("b", b"").unwrap();
    assert!(matches!(store.create_meta("b", b"x"), Err(StoreError::MetaDiffers(name)) if name == "b"));
    assert!(matches!(store.set_meta(".schema", b"x"), Err(StoreError::Reserved(_))));
    let again = open();
    assert_eq!((again.meta("a").unwrap(), again.meta("b").unwrap()), (Some(b"2".to_vec()), Some(Vec::new())));
}

fn enrolment(open: Open<'_>) {
    let store = open();
    let first = enrolment_of(1, 1, Wanted::Client(None));
    assert_eq!(store.enrol(&first).unwrap().number, 0);
    // A retry, also after a restart; another identity with the token; another token with the identity.
    assert_eq!(open().enrol(&first).unwrap().number, 0);
    let thief = Enrolment { identity: [9; 32], ..first.clone() };
    assert!(matches!(store.enrol(&thief), Err(StoreError::TokenUsed)));
    let twice = Enrolment { nonce: [9; 16], ..first.clone() };
    let error = store.enrol(&twice).unwrap_err();
    assert!(matches!(error, StoreError::IdentityTaken { role: Role::Client(0), .. }));
    assert!(error.to_string().contains("client 0 (`ward`)"), "{error}");
    let taken = enrolment_of(2, 2, Wanted::Client(Some(0)));
    assert!(matches!(store.enrol(&taken), Err(StoreError::NumberTaken { role: Role::Client(0), .. })));
    let beyond = enrolment_of(2, 2, Wanted::Client(Some(3)));
    assert!(matches!(store.enrol(&beyond), Err(StoreError::NumberBeyond { number: 3, limit: 3 })));
    // What was refused took nothing: neither the token nor the identity.
    let holder = Enrolment { channel: Some([5; 32]), ..enrolment_of(2, 2, Wanted::Holder(Some(2))) };
    assert_eq!(store.enrol(&holder).unwrap().number, 2);
    assert!(matches!(
        store.enrol(&Enrolment { wanted: Wanted::Client(None), ..holder.clone() }),
        Err(StoreError::IdentityTaken { role: Role::Holder(2), .. })
    ));
    let rows = store.parties().unwrap();
    assert_eq!(rows.iter().map(|r| r.party.role).collect::<Vec<_>>(), [Role::Client(0), Role::Holder(2)]);
    assert_eq!((rows[1].party.channel, rows[0].party.samples, rows[0].revoked), (Some([5; 32]), Some(100), false));
}

fn offline_parties(open: Open<'_>) {
    let store = open();
    let party =
        NewParty { role: Role::Client(4), identity: [1; 32], channel: None, samples: None, name: String::new() };
    store.add_party(&party).unwrap();
    store.add_party(&party).unwrap();
    let other = NewParty { identity: [2; 32], ..party.clone() };
    assert!(matches!(store.add_party(&other), Err(StoreError::NumberTaken { .. })));
    let moved = NewParty { role: Role::Client(5), ..party.clone() };
    assert!(matches!(store.add_party(&moved), Err(StoreError::IdentityTaken { role: Role::Client(4), .. })));
    assert!(matches!(store.revoke(Role::Holder(4)), Err(StoreError::UnknownParty(Role::Holder(4)))));
    store.revoke(Role::Client(4)).unwrap();
    store.revoke(Role::Client(4)).unwrap();
    assert_eq!(open().parties().unwrap(), [PartyRow { party, revoked: true }]);
    // The number stays taken.
    assert!(matches!(store.add_party(&other), Err(StoreError::NumberTaken { .. })));
}

fn lowest_free_number(open: Open<'_>) {
    let store = open();
    let any = |n: u16, limit| {
        let identity = id(u64::from(n));
        let mut nonce = [0; 16];
        nonce[..2].copy_from_slice(&n.to_le_bytes());
        store.enrol(&Enrolment { nonce, identity, limit, ..enrolment_of(0, 0, Wanted::Client(None)) })
    };
    let fixed = |n: u64| {
        let identity = id(1_000_000 + n);
        let party = NewParty { role: Role::Client(n), identity, channel: None, samples: None, name: String::new() };
        store.add_party(&party).unwrap();
    };
    fixed(1);
    // More than a page of the search.
    (3..300).for_each(fixed);
    let got: Vec<u64> = (0..4).map(|n| any(n, 400).unwrap().number).collect();
    assert_eq!(got, [0, 2, 300, 301]);
    assert!(matches!(any(4, 302), Err(StoreError::NoNumberLeft { limit: 302 })));
    fixed(302);
    assert_eq!(any(5, 400).unwrap().number, 303);
    // Holders have numbers of their own.
    let holder = Enrolment { nonce: [77; 16], identity: [78; 32], ..enrolment_of(0, 0, Wanted::Holder(None)) };
    assert_eq!(store.enrol(&holder).unwrap().number, 1);
}

fn attempts(open: Open<'_>) {
    let store = open();
    let new = NewAttempt { round: 1, attempt: 0, input: [7; 32], plan: b"plan".to_vec() };
    store.begin(&new).unwrap();
    store.begin(&new).unwrap();
    let input = NewAttempt { input: [8; 32], ..new.clone() };
    assert!(matches!(store.begin(&input), Err(StoreError::AttemptDiffers { what: "input", .. })));
    let plan = NewAttempt { plan: b"plan2".to_vec(), ..new.clone() };
    assert!(matches!(store.begin(&plan), Err(StoreError::AttemptDiffers { what: "plan", .. })));
    assert!(matches!(
        store.mark(1, 0, AttemptState::Released),
        Err(StoreError::Transition { from: AttemptState::Begun, to: AttemptState::Released, .. })
    ));
    store.mark(1, 0, AttemptState::Charged).unwrap();
    store.mark(1, 0, AttemptState::Charged).unwrap();
    // A release comes with its record, and what has cost something is not abandoned.
    assert!(matches!(store.mark(1, 0, AttemptState::Released), Err(StoreError::Transition { .. })));
    assert!(matches!(store.mark(1, 0, AttemptState::Abandoned), Err(StoreError::Transition { .. })));
    assert!(matches!(store.mark(1, 1, AttemptState::Begun), Err(StoreError::UnknownAttempt { round: 1, attempt: 1 })));
    begin(&*store, 1, 1);
    store.mark(1, 1, AttemptState::Abandoned).unwrap();
    assert!(matches!(store.append(1, 1, &[frame(1, b"x")]), Err(StoreError::Closed { .. })));
    store.append(1, 0, &[frame(1, b"x")]).unwrap();
    let rows = open().attempts().unwrap();
    let row =
        |attempt, state, entries| AttemptRow { round: 1, attempt, input: [7; 32], state, entries, dropped: false };
    assert_eq!(rows, [row(0, AttemptState::Charged, 1), row(1, AttemptState::Abandoned, 0)]);
    assert_eq!(store.attempt_plan(1, 0).unwrap(), b"plan");
    assert!(store.attempt_plan(2, 0).is_err());
}

fn entries_in_order(open: Open<'_>) {
    let store = open();
    begin(&*store, 1, 0);
    begin(&*store, 1, 1);
    let big = Payload::Object { id: ObjectId([3; 32]), len: 1 << 40 };
    let body = |n: u64| match n % 4 {
        0 => EntryBody::Frame { from: Role::Client(n), payload: Payload::Inline(vec![n as u8; n as usize * 100]) },
        1 => EntryBody::Frame { from: Role::Holder(9), payload: big.clone() },
        2 => EntryBody::Clock { millis: 1_700_000_000_000 + n },
        _ => EntryBody::Note { kind: 255, bytes: vec![] },
    };
    let expected: Vec<StoredBody> = (0..12).map(|n| stored(body(n))).collect();
    let new = |n| NewEntry { id: id(n), body: body(n) };
    store.append(1, 0, &[new(0), new(1), new(2)]).unwrap();
    store.append(1, 0, &[]).unwrap();
    store.append(1, 1, &[new(0)]).unwrap();
    (3..12).for_each(|n| store.append(1, 0, &[new(n)]).unwrap());
    let got = open().entries(1, 0).unwrap();
    assert_eq!(got.iter().map(|e| e.seq).collect::<Vec<_>>(), (0..12).collect::<Vec<_>>());
    assert_eq!(got.iter().map(|e| e.id).collect::<Vec<_>>(), (0..12).map(id).collect::<Vec<_>>());
    assert_eq!(got.into_iter().map(|e| e.body).collect::<Vec<_>>(), expected);
    assert!(store.has(1, 0, &id(11)).unwrap() && !store.has(1, 1, &id(11)).unwrap());
    assert!(matches!(store.entries(2, 0), Err(StoreError::UnknownAttempt { .. })));
}

fn stored(body: EntryBody) -> StoredBody {
    match body {
        EntryBody::Frame { from, payload: Payload::Inline(bytes) } => {
            StoredBody::Frame { from, payload: StoredPayload::Inline(bytes) }
        }
        EntryBody::Frame { from, payload: Payload::Object { id, len } } => {
            StoredBody::Frame { from, payload: StoredPayload::Object { id, len } }
        }
        EntryBody::Clock { millis } => StoredBody::Clock { millis },
        EntryBody::Note { kind, bytes } => StoredBody::Note { kind, bytes },
    }
}

fn batch(open: Open<'_>) {
    let store = open();
    begin(&*store, 1, 0);
    store.append(1, 0, &[frame(1, b"a")]).unwrap();
    for twice in [[frame(2, b"b"), frame(1, b"c")], [frame(2, b"b"), frame(2, b"b")]] {
        assert!(matches!(store.append(1, 0, &twice), Err(StoreError::Duplicate { .. })));
    }
    let unknown = store.append(1, 1, &[frame(2, b"b")]);
    assert!(matches!(unknown, Err(StoreError::UnknownAttempt { .. })));
    assert_eq!(open().entries(1, 0).unwrap().len(), 1);
    store.append(1, 0, &[frame(2, b"b")]).unwrap();
    assert_eq!(open().entries(1, 0).unwrap().len(), 2);
}

fn release(open: Open<'_>) {
    let store = open();
    begin(&*store, 1, 0);
    begin(&*store, 1, 1);
    let model = Some((ObjectId([4; 32]), 99));
    assert!(matches!(store.release(1, 0, "{}", None), Err(StoreError::Transition { from: AttemptState::Begun, .. })));
    store.mark(1, 0, AttemptState::Charged).unwrap();
    store.mark(1, 1, AttemptState::Charged).unwrap();
    store.release(1, 0, "{\"a\":1}", model).unwrap();
    store.release(1, 0, "{\"a\":1}", model).unwrap();
    store.mark(1, 0, AttemptState::Released).unwrap();
    assert!(matches!(store.release(1, 0, "{}", model), Err(StoreError::RecordDiffers { what: "record", .. })));
    assert!(matches!(
        store.release(1, 0, "{\"a\":1}", None),
        Err(StoreError::RecordDiffers { what: "checkpoint", .. })
    ));
    assert!(matches!(store.release(1, 1, "{}", None), Err(StoreError::RoundReleased { attempt: 0, .. })));
    let late = NewAttempt { round: 1, attempt: 2, input: [7; 32], plan: vec![] };
    assert!(matches!(store.begin(&late), Err(StoreError::RoundReleased { round: 1, attempt: 0 })));
    assert!(matches!(store.append(1, 0, &[frame(1, b"x")]), Err(StoreError::Closed { .. })));
    begin(&*store, 2, 0);
    store.mark(2, 0, AttemptState::Charged).unwrap();
    store.release(2, 0, "{}", None).unwrap();
    let again = open();
    assert_eq!(again.latest_checkpoint().unwrap(), Some((1, ObjectId([4; 32]), 99)));
    let rows = again.rounds().unwrap();
    assert_eq!(rows[0], RoundRow { round: 1, attempt: 0, record: "{\"a\":1}".to_owned(), checkpoint: model });
    assert_eq!(rows.len(), 2);
}

fn checkpoints_go(open: Open<'_>) {
    let store = open();
    for round in 1..5 {
        begin(&*store, round, 0);
        store.mark(round, 0, AttemptState::Charged).unwrap();
        // The model of round 4 is that of round 1 again, and round 3 kept none.
        let model = Some((ObjectId([(round % 3) as u8; 32]), 99)).filter(|_| round != 3);
        store.release(round, 0, "{}", model).unwrap();
    }
    assert_eq!(store.drop_checkpoints(3).unwrap(), []);
    assert_eq!(store.drop_checkpoints(1).unwrap(), [ObjectId([2; 32])]);
    assert_eq!(store.drop_checkpoints(1).unwrap(), []);
    assert_eq!(open().latest_checkpoint().unwrap(), Some((4, ObjectId([1; 32]), 99)));
    assert_eq!(store.rounds().unwrap().len(), 4);
}

fn payloads_go(open: Open<'_>) {
    let store = open();
    let object = |n: u64, object: u8| {
        let payload = Payload::Object { id: ObjectId([object; 32]), len: 10 };
        NewEntry { id: id(n), body: EntryBody::Frame { from: Role::Client(n), payload } }
    };
    begin(&*store, 1, 0);
    let note = NewEntry { id: id(9), body: EntryBody::Note { kind: 1, bytes: b"kept".to_vec() } };
    store.append(1, 0, &[frame(1, b"secret"), object(2, 20), object(3, 21), object(4, 22), note]).unwrap();
    store.put_sum(1, 0, &Payload::Object { id: ObjectId([23; 32]), len: 5 }).unwrap();
    begin(&*store, 2, 0);
    store.append(2, 0, &[object(1, 21)]).unwrap();
    assert!(matches!(store.drop_payloads(1), Err(StoreError::Unfinished { attempt: 0, .. })));
    assert_eq!(store.references().unwrap().len(), 5);
    store.mark(1, 0, AttemptState::Charged).unwrap();
    // An object that is the checkpoint, or that another round has as well, stays.
    store.release(1, 0, "{}", Some((ObjectId([22; 32]), 10))).unwrap();
    let gone = vec![ObjectId([20; 32]), ObjectId([23; 32])];
    assert_eq!(store.drop_payloads(1).unwrap(), gone);
    assert_eq!(open().drop_payloads(1).unwrap(), gone);
    assert_eq!(store.drop_payloads(7).unwrap(), []);
    let entries = store.entries(1, 0).unwrap();
    let dropped = |sha256, len| StoredPayload::Dropped { len, sha256 };
    let expected = [dropped(ObjectId::of(b"secret").0, 6), dropped([20; 32], 10)];
    for (n, (entry, expected)) in entries.iter().zip(expected).enumerate() {
        let from = Role::Client(n as u64 + 1);
        assert_eq!(entry.body, StoredBody::Frame { from, payload: expected });
    }
    assert_eq!(entries[4].body, StoredBody::Note { kind: 1, bytes: b"kept".to_vec() });
    assert!(store.attempts().unwrap()[0].dropped);
    assert_eq!(store.sum(1, 0).unwrap(), None);
    let needed: Vec<ObjectId> = store.references().unwrap().into_iter().map(|r| r.id).collect();
    assert_eq!(needed, [ObjectId([21; 32]), ObjectId([22; 32])]);
    // An abandoned round may go as well.
    store.mark(2, 0, AttemptState::Abandoned).unwrap();
    assert_eq!(store.drop_payloads(2).unwrap(), [ObjectId([21; 32])]);
}

fn sums(open: Open<'_>) {
    let store = open();
    begin(&*store, 1, 0);
    assert_eq!(store.sum(1, 0).unwrap(), None);
    let large = Payload::Inline(vec![5; 1 << 20]);
    store.put_sum(1, 0, &Payload::Inline(vec![1])).unwrap();
    store.put_sum(1, 0, &large).unwrap();
    assert_eq!(open().sum(1, 0).unwrap(), Some(large));
    assert!(matches!(store.put_sum(1, 1, &Payload::Inline(vec![])), Err(StoreError::UnknownAttempt { .. })));
    store.mark(1, 0, AttemptState::Abandoned).unwrap();
    assert!(matches!(store.put_sum(1, 0, &Payload::Inline(vec![])), Err(StoreError::Closed { .. })));
}

fn lease(open: Open<'_>) {
    let (first, second) = (open(), open());
    assert_eq!(first.lease_holder().unwrap(), None);
    let lease = first.lease("a", 30, 1000).unwrap();
    assert_eq!(lease, Lease { owner: "a".to_owned(), fence: 1, until: 1030 });
    assert_eq!(first.lease("a", 30, 1010).unwrap().until, 1040);
    let held = second.lease("b", 30, 1020).unwrap_err();
    assert!(matches!(&held, StoreError::LeaseHeld { owner, seconds: 20 } if owner == "a"), "{held}");
    // It has expired, and nobody has taken it.
    assert_eq!(first.lease("a", 30, 2000).unwrap().fence, 1);
    first.end_lease().unwrap();
    assert_eq!(second.lease_holder().unwrap(), None);
    assert_eq!(second.lease("b", 30, 2001).unwrap().fence, 2);
    assert_eq!(second.lease_holder().unwrap().unwrap().owner, "b");
    second.end_lease().unwrap();
    second.end_lease().unwrap();
    assert_eq!(first.lease("a", 30, 2002).unwrap().fence, 3);
}

fn fencing(open: Open<'_>) {
    let (first, second, command) = (open(), open(), open());
    first.lease("a", 30, 1000).unwrap();
    begin(&*first, 1, 0);
    assert_eq!(second.lease("b", 30, 1030).unwrap().fence, 2);
    // The first one only paused: nothing that it writes is taken any more, whatever the clock says.
    let lost = first.append(1, 0, &[frame(1, b"x")]).unwrap_err();
    assert!(matches!(&lost, StoreError::LeaseLost { owner, fence: 2, mine: 1 } if owner == "b"), "{lost}");
    assert!(matches!(first.lease("a", 30, 9999), Err(StoreError::LeaseLost { .. })));
    assert!(matches!(first.end_lease(), Err(StoreError::LeaseLost { .. })));
    assert!(first.entries(1, 0).unwrap().is_empty());
    second.append(1, 0, &[frame(1, b"x")]).unwrap();
    // It may stand by, and is one of many.
    first.forget_lease();
    assert!(matches!(first.lease("a", 30, 1031), Err(StoreError::LeaseHeld { seconds: 29, .. })));
    // A command beside the server never had a lease.
    command.set_meta("a", b"1").unwrap();
    // A server that was killed begins again under its name at once.
    let again = open();
    assert_eq!(again.lease("b", 30, 1031).unwrap().fence, 3);
    assert!(matches!(second.set_meta("a", b"2"), Err(StoreError::LeaseLost { fence: 3, mine: 2, .. })));
    again.set_meta("a", b"3").unwrap();
}

fn ranges(open: Open<'_>) {
    let store = open();
    begin(&*store, u32::MAX, u32::MAX);
    let clock = |millis| NewEntry { id: id(millis), body: EntryBody::Clock { millis } };
    let most = i64::MAX as u64;
    store.append(u32::MAX, u32::MAX, &[clock(most)]).unwrap();
    assert!(matches!(store.append(u32::MAX, u32::MAX, &[clock(most + 1)]), Err(StoreError::Range { .. })));
    assert_eq!(store.entries(u32::MAX, u32::MAX).unwrap()[0].body, StoredBody::Clock { millis: most });
    let odd = "it's \u{1F600} \"quoted\"; DROP TABLE party; --?1$1";
    let party =
        NewParty { role: Role::Client(most), identity: [1; 32], channel: None, samples: None, name: odd.to_owned() };
    store.add_party(&party).unwrap();
    assert_eq!(store.parties().unwrap()[0].party, party);
    let huge = NewParty { role: Role::Client(u64::MAX), identity: [2; 32], ..party };
    assert!(matches!(store.add_party(&huge), Err(StoreError::Range { .. })));
    assert!(matches!(store.set_meta("a\0", b""), Err(StoreError::Text { .. })));
}

fn readers(open: Open<'_>) {
    let store = open();
    begin(&*store, 1, 0);
    let flag = std::sync::atomic::AtomicBool::new(false);
    let (done, writer) = (&flag, &store);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(move || {
                let mut seen = 0;
                while !done.load(std::sync::atomic::Ordering::SeqCst) {
                    // Two at a time are accepted: nobody sees one of them.
                    let found = writer.entries(1, 0).unwrap().len();
                    assert!(found >= seen && found.is_multiple_of(2), "{found} after {seen}");
                    seen = found;
                }
            });
        }
        for n in 0..40 {
            store.append(1, 0, &[frame(2 * n, &[1; 5000]), frame(2 * n + 1, b"b")]).unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::SeqCst);
    });
    assert_eq!(store.entries(1, 0).unwrap().len(), 80);
}

fn writers(open: Open<'_>) {
    begin(&*open(), 1, 0);
    std::thread::scope(|scope| {
        for worker in 0..3 {
            let store = open();
            scope.spawn(move || {
                for n in 0..10 {
                    store.append(1, 0, &[frame(worker * 10 + n, b"x")]).unwrap();
                    let wanted = Wanted::Client(None);
                    let (mut nonce, identity) = ([0; 16], id(worker * 10 + n));
                    nonce[0] = (worker * 10 + n) as u8;
                    store.enrol(&Enrolment { nonce, identity, limit: 30, ..enrolment_of(0, 0, wanted) }).unwrap();
                }
            });
        }
    });
    assert_eq!(open().entries(1, 0).unwrap().len(), 30);
    assert_eq!(open().parties().unwrap().len(), 30);
}

/// Everything that a store says of itself.
pub(super) fn content(store: &dyn Store) -> Result<String, StoreError> {
    let mut out = format!(
        "{:?} {:?} {:?} {:?} {:?}",
        store.meta("a")?,
        store.parties()?,
        store.rounds()?,
        store.references()?,
        store.lease_holder()?
    );
    for row in store.attempts()? {
        let (round, attempt) = (row.round, row.attempt);
        let (plan, entries) = (store.attempt_plan(round, attempt)?, store.entries(round, attempt)?);
        out += &format!("{row:?} {plan:?} {entries:?} {:?}", store.sum(round, attempt)?);
    }
    Ok(out)
}

/// One of everything.
pub(super) fn fill(store: &dyn Store) {
    store.set_meta("a", b"value").unwrap();
    store.enrol(&enrolment_of(1, 1, Wanted::Client(None))).unwrap();
    store.enrol(&Enrolment { channel: Some([8; 32]), ..enrolment_of(2, 2, Wanted::Holder(Some(1))) }).unwrap();
    store.revoke(Role::Client(0)).unwrap();
    for round in 1..4 {
        begin(store, round, 0);
        let note = NewEntry { id: id(9), body: EntryBody::Note { kind: 1, bytes: vec![1; 300] } };
        let clock = NewEntry { id: id(10), body: EntryBody::Clock { millis: 12345 } };
        store.append(round, 0, &[frame(1, &[round as u8; 6000]), note, clock, frame(2, b"short")]).unwrap();
        store.put_sum(round, 0, &Payload::Inline(vec![3; 5000])).unwrap();
    }
    for round in 1..3 {
        store.mark(round, 0, AttemptState::Charged).unwrap();
        store.release(round, 0, "{\"loss\":0.5}", None).unwrap();
    }
    store.drop_payloads(1).unwrap();
}

fn snapshot(open: Open<'_>) {
    let store = open();
    fill(&*store);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("copy.db");
    store.snapshot(&path).unwrap();
    let expected = content(&*store).unwrap();
    begin(&*store, 9, 0);
    assert!(store.snapshot(&path).is_err(), "a copy replaces nothing");
    let copy = SqliteStore::open(&path).unwrap();
    assert_eq!(content(&copy).unwrap(), expected);
    assert_eq!(Store::check(&copy).unwrap(), Vec::<String>::new());
    // The copy can be worked with.
    copy.append(3, 0, &[frame(7, b"more")]).unwrap();
}

fn load(open: Open<'_>) {
    let folder = tempfile::tempdir().unwrap();
    let (source, path) = (SqliteStore::open(&folder.path().join("a.db")).unwrap(), folder.path().join("copy.db"));
    fill(&source);
    for n in 0..40 {
        source.append(3, 0, &[frame(100 + n, &[n as u8; 50])]).unwrap();
    }
    source.snapshot(&path).unwrap();
    let store = open();
    store.load(&path).unwrap();
    assert_eq!(content(&*store).unwrap(), content(&source).unwrap());
    assert!(matches!(store.load(&path), Err(StoreError::NotEmpty { .. })));
    // Tokens and free numbers came along.
    let retry = enrolment_of(1, 1, Wanted::Client(None));
    assert_eq!(store.enrol(&retry).unwrap().number, 0);
    assert_eq!(store.enrol(&enrolment_of(3, 3, Wanted::Client(None))).unwrap().number, 1);
}

#[test]
fn an_address_is_a_file_or_a_url() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db").display().to_string();
    assert_eq!(super::open(&path).unwrap().place(), path);
    for wrong in ["", "mysql://host/db", "sqlite://s.db"] {
        assert!(matches!(super::open(wrong), Err(StoreError::Address(_))), "{wrong}");
    }
    let refused = super::open("postgres://u:secret@db.example/x?sslmode=disable").map(|_| ()).unwrap_err();
    assert!(matches!(&refused, StoreError::Plaintext { host } if host == "db.example"), "{refused}");
}
