//! The state machine of attempts against a plain model in memory.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::check::{Open, frame, id};
use super::*;

/// What an attempt should be.
#[derive(Clone, Debug, PartialEq)]
struct Plain {
    input: u8,
    state: AttemptState,
    entries: Vec<u64>,
    dropped: bool,
}

#[derive(Clone, Debug)]
enum Step {
    Begin(u32, u32, u8),
    Mark(u32, u32, AttemptState),
    Append(u32, u32, Vec<u64>),
    Release(u32, u32, u8),
    Drop(u32),
}

#[derive(Default)]
struct Model {
    attempts: BTreeMap<(u32, u32), Plain>,
    released: BTreeMap<u32, (u32, u8)>,
}

impl Model {
    /// Does a step; whether it is allowed.
    fn step(&mut self, step: &Step) -> bool {
        use AttemptState::{Abandoned, Begun, Charged, Released};
        match step {
            Step::Begin(round, attempt, input) => match self.attempts.get(&(*round, *attempt)) {
                Some(known) => known.input == *input,
                None if self.released.contains_key(round) => false,
                None => {
                    let plain = Plain { input: *input, state: Begun, entries: vec![], dropped: false };
                    self.attempts.insert((*round, *attempt), plain);
                    true
                }
            },
            Step::Mark(round, attempt, to) => {
                let Some(row) = self.attempts.get_mut(&(*round, *attempt)) else { return false };
                let fine = row.state == *to || (row.state == Begun && matches!(to, Charged | Abandoned));
                if fine {
                    row.state = *to;
                }
                fine
            }
            Step::Append(round, attempt, ids) => {
                let Some(row) = self.attempts.get_mut(&(*round, *attempt)) else { return false };
                let mut entries = row.entries.clone();
                for id in ids {
                    if entries.contains(id) {
                        return false;
                    }
                    entries.push(*id);
                }
                let open = row.state == Begun || row.state == Charged;
                if open {
                    row.entries = entries;
                }
                open
            }
            Step::Release(round, attempt, record) => {
                let Some(row) = self.attempts.get_mut(&(*round, *attempt)) else { return false };
                if let Some(known) = self.released.get(round) {
                    return *known == (*attempt, *record);
                }
                let fine = row.state == Charged;
                if fine {
                    row.state = Released;
                    self.released.insert(*round, (*attempt, *record));
                }
                fine
            }
            Step::Drop(round) => {
                let mut rows: Vec<_> = self.attempts.iter_mut().filter(|(key, _)| key.0 == *round).collect();
                let fine = rows.iter().all(|(_, row)| row.state == Released || row.state == Abandoned);
                if fine {
                    rows.iter_mut().for_each(|(_, row)| row.dropped = true);
                }
                fine
            }
        }
    }
}

fn apply(store: &dyn Store, step: &Step) -> Result<(), StoreError> {
    match step {
        Step::Begin(round, attempt, input) => {
            store.begin(&NewAttempt { round: *round, attempt: *attempt, input: [*input; 32], plan: vec![] })
        }
        Step::Mark(round, attempt, to) => store.mark(*round, *attempt, *to),
        Step::Append(round, attempt, ids) => {
            let entries: Vec<NewEntry> = ids.iter().map(|n| frame(*n, b"payload")).collect();
            store.append(*round, *attempt, &entries)
        }
        Step::Release(round, attempt, record) => store.release(*round, *attempt, &record.to_string(), None),
        Step::Drop(round) => store.drop_payloads(*round).map(|_| ()),
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let at = || (1..3_u32, 0..2_u32);
    let state = prop_oneof![
        1 => Just(AttemptState::Begun),
        3 => Just(AttemptState::Charged),
        1 => Just(AttemptState::Released),
        1 => Just(AttemptState::Abandoned)
    ];
    let step = prop_oneof![
        3 => (at(), 0..8_u8).prop_map(|((r, a), i)| Step::Begin(r, a, i / 7)),
        3 => (at(), state).prop_map(|((r, a), s)| Step::Mark(r, a, s)),
        4 => (at(), prop::collection::vec(0..20_u64, 0..4)).prop_map(|((r, a), ids)| Step::Append(r, a, ids)),
        2 => (at(), 0..8_u8).prop_map(|((r, a), n)| Step::Release(r, a, n / 7)),
        1 => (1..3_u32).prop_map(Step::Drop),
    ];
    prop::collection::vec(step, 1..40)
}

/// Random steps do to a store what they do to the model. Every case has rounds of its own in the one database.
pub(super) fn agrees(open: Open<'_>) {
    let store = open();
    let case = std::cell::Cell::new(0);
    let mut runner = TestRunner::new(Config { cases: 24, failure_persistence: None, ..Config::default() });
    let result = runner.run(&steps(), |steps| {
        case.set(case.get() + 1);
        let shift = |round: u32| round + 10 * case.get();
        let mut model = Model::default();
        for step in &steps {
            let shifted = match step.clone() {
                Step::Begin(r, a, i) => Step::Begin(shift(r), a, i),
                Step::Mark(r, a, s) => Step::Mark(shift(r), a, s),
                Step::Append(r, a, ids) => Step::Append(shift(r), a, ids),
                Step::Release(r, a, n) => Step::Release(shift(r), a, n),
                Step::Drop(r) => Step::Drop(shift(r)),
            };
            let (allowed, done) = (model.step(&shifted), apply(&*store, &shifted));
            prop_assert_eq!(allowed, done.is_ok(), "{:?}: {:?}", step, done);
        }
        let last = shift(0);
        let found: Vec<AttemptRow> = store.attempts().unwrap().into_iter().filter(|row| row.round > last).collect();
        prop_assert_eq!(found.len(), model.attempts.len());
        for row in found {
            let plain = &model.attempts[&(row.round, row.attempt)];
            prop_assert_eq!((row.state, row.dropped, row.input), (plain.state, plain.dropped, [plain.input; 32]));
            let ids: Vec<[u8; 32]> = store.entries(row.round, row.attempt).unwrap().iter().map(|e| e.id).collect();
            prop_assert_eq!(ids, plain.entries.iter().map(|n| id(*n)).collect::<Vec<_>>());
        }
        let rounds = store.rounds().unwrap().into_iter().filter(|row| row.round > last);
        let rounds: BTreeMap<u32, (u32, String)> = rounds.map(|r| (r.round, (r.attempt, r.record))).collect();
        let plain = model.released.iter().map(|(round, (attempt, n))| (*round, (*attempt, n.to_string())));
        prop_assert_eq!(rounds, plain.collect());
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}
