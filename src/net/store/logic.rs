//! The logic of the store, once for every database.

mod parties;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::sql::{Engine, Sql, Value, number, text};
use super::tables::{
    ALL, ATTEMPT, Attempt, ENTRY, FRAME, LEASE, META, OBJECT, PARTY, PLAN, RELEASED, SUM, attempt, copy, entries,
    entry_row, is_empty, party, party_row, payload_values, released, released_row, stored_payload,
};
use super::{
    AttemptRow, AttemptState, Enrolled, Enrolment, Lease, NewAttempt, NewEntry, NewParty, PartyRow, Payload, Reference,
    RoundRow, SqliteStore, Store, StoreError, StoredEntry, StoredPayload,
};
use crate::net::keys::Role;
use crate::net::objects::ObjectId;
use parties::{add_party, enrol, find_role};

impl<E: Engine> Store for E {
    fn place(&self) -> &str {
        Engine::place(self)
    }

    fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        public(name)?;
        self.read(|sql| get_meta(sql, name))
    }

    fn set_meta(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        public(name)?;
        guarded(self, |sql| META.put(sql, vec![name.into(), bytes.into()]))
    }

    fn create_meta(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        public(name)?;
        guarded(self, |sql| match get_meta(sql, name)? {
            None => META.put(sql, vec![name.into(), bytes.into()]),
            Some(known) if known == bytes => Ok(()),
            Some(_) => Err(StoreError::MetaDiffers(name.to_owned())),
        })
    }

    fn enrol(&self, enrolment: &Enrolment) -> Result<Enrolled, StoreError> {
        guarded(self, |sql| enrol(sql, enrolment))
    }

    fn add_party(&self, party: &NewParty) -> Result<(), StoreError> {
        guarded(self, |sql| match find_role(sql, party.role)? {
            Some(known) if known.party == *party => Ok(()),
            _ => add_party(sql, party),
        })
    }

    fn parties(&self) -> Result<Vec<PartyRow>, StoreError> {
        self.read(|sql| PARTY.scan(sql, &[])?.into_iter().map(party).collect())
    }

    fn revoke(&self, role: Role) -> Result<(), StoreError> {
        guarded(self, |sql| match find_role(sql, role)? {
            Some(known) => PARTY.put(sql, party_row(&known.party, true)?),
            None => Err(StoreError::UnknownParty(role)),
        })
    }

    fn begin(&self, attempt: &NewAttempt) -> Result<(), StoreError> {
        guarded(self, |sql| begin(sql, attempt))
    }

    fn mark(&self, round: u32, number: u32, state: AttemptState) -> Result<(), StoreError> {
        guarded(self, |sql| {
            let mut row = attempt(sql, round, number)?;
            if row.state == state {
                return Ok(());
            }
            if !row.state.may_become(state) || state == AttemptState::Released {
                return Err(StoreError::Transition { round, attempt: number, from: row.state, to: state });
            }
            row.state = state;
            ATTEMPT.put(sql, row.row())
        })
    }

    fn attempts(&self) -> Result<Vec<AttemptRow>, StoreError> {
        self.read(attempts)
    }

    fn attempt_plan(&self, round: u32, attempt: u32) -> Result<Vec<u8>, StoreError> {
        self.read(|sql| plan(sql, round, attempt))
    }

    fn append(&self, round: u32, attempt: u32, entries: &[NewEntry]) -> Result<(), StoreError> {
        guarded(self, |sql| append(sql, round, attempt, entries))
    }

    fn entries(&self, round: u32, number: u32) -> Result<Vec<StoredEntry>, StoreError> {
        self.read(|sql| {
            let row = attempt(sql, round, number)?;
            entries(ENTRY.scan(sql, &[round.into(), number.into()])?, row.dropped)
        })
    }

    fn has(&self, round: u32, attempt: u32, id: &[u8; 32]) -> Result<bool, StoreError> {
        self.read(|sql| has(sql, round, attempt, id))
    }

    fn drop_payloads(&self, round: u32) -> Result<Vec<ObjectId>, StoreError> {
        guarded(self, |sql| drop_payloads(sql, round))
    }

    fn release(
        &self,
        round: u32,
        attempt: u32,
        record_json: &str,
        checkpoint: Option<(ObjectId, u64)>,
    ) -> Result<(), StoreError> {
        let row = RoundRow { round, attempt, record: record_json.to_owned(), checkpoint };
        guarded(self, |sql| release(sql, &row))
    }

    fn rounds(&self) -> Result<Vec<RoundRow>, StoreError> {
        self.read(|sql| RELEASED.scan(sql, &[])?.into_iter().map(released).collect())
    }

    fn drop_checkpoints(&self, keep: u32) -> Result<Vec<ObjectId>, StoreError> {
        guarded(self, |sql| drop_checkpoints(sql, keep))
    }

    fn latest_checkpoint(&self) -> Result<Option<(u32, ObjectId, u64)>, StoreError> {
        self.read(|sql| {
            let clause = "WHERE checkpoint IS NOT NULL ORDER BY round DESC LIMIT 1";
            let row = RELEASED.select(sql, clause, &[])?.pop().map(released).transpose()?;
            Ok(row.and_then(|row| row.checkpoint.map(|(id, len)| (row.round, id, len))))
        })
    }

    fn put_sum(&self, round: u32, number: u32, sum: &Payload) -> Result<(), StoreError> {
        guarded(self, |sql| {
            let row = attempt(sql, round, number)?;
            if !row.state.is_open() {
                return Err(StoreError::Closed { round, attempt: number, state: row.state });
            }
            let mut values = vec![round.into(), number.into()];
            values.extend(payload_values(sum)?);
            SUM.put(sql, values)
        })
    }

    fn sum(&self, round: u32, attempt: u32) -> Result<Option<Payload>, StoreError> {
        self.read(|sql| sum(sql, round, attempt))
    }

    fn lease(&self, owner: &str, seconds: u64, now: u64) -> Result<Lease, StoreError> {
        let mine = self.fence().get();
        let lease = self.write(|sql| lease(sql, mine, owner, seconds, now))?;
        self.fence().set(Some(lease.fence));
        Ok(lease)
    }

    fn end_lease(&self) -> Result<(), StoreError> {
        let Some(fence) = self.fence().get() else { return Ok(()) };
        guarded(self, |sql| put_lease(sql, &Lease { owner: String::new(), fence, until: 0 }))?;
        self.fence().set(None);
        Ok(())
    }

    fn forget_lease(&self) {
        self.fence().set(None);
    }

    fn lease_holder(&self) -> Result<Option<Lease>, StoreError> {
        Ok(self.read(get_lease)?.filter(|lease| !lease.owner.is_empty()))
    }

    fn references(&self) -> Result<Vec<Reference>, StoreError> {
        self.read(references)
    }

    fn check(&self) -> Result<Vec<String>, StoreError> {
        let mut findings = self.integrity()?;
        self.read(|sql| check(sql, &mut findings))?;
        Ok(findings)
    }

    fn snapshot(&self, to: &Path) -> Result<(), StoreError> {
        Engine::snapshot(self, to)
    }

    fn is_empty(&self) -> Result<bool, StoreError> {
        self.read(is_empty)
    }

    fn load(&self, from: &Path) -> Result<(), StoreError> {
        let from = SqliteStore::open(from)?;
        guarded(self, |sql| {
            if !is_empty(sql)? {
                return Err(StoreError::NotEmpty { place: sql.place().to_owned() });
            }
            from.read(|rows| copy(rows, sql))
        })
    }
}

/// A write, unless another coordinator has taken over from this handle.
fn guarded<E: Engine, T>(
    engine: &E,
    body: impl FnOnce(&mut dyn Sql) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let mine = engine.fence().get();
    engine.write(|sql| {
        if let Some(mine) = mine {
            still_ours(get_lease(sql)?.as_ref(), mine)?;
        }
        body(sql)
    })
}

/// Refuses a handle whose fencing number is not the last one.
fn still_ours(lease: Option<&Lease>, mine: u64) -> Result<(), StoreError> {
    match lease {
        Some(lease) if lease.fence == mine => Ok(()),
        lease => {
            let (owner, fence) = lease.map_or((String::new(), 0), |lease| (lease.owner.clone(), lease.fence));
            Err(StoreError::LeaseLost { owner, fence, mine })
        }
    }
}

fn get_lease(sql: &mut dyn Sql) -> Result<Option<Lease>, StoreError> {
    let Some(mut row) = LEASE.get(sql, &[Value::Int(1)])? else { return Ok(None) };
    row.int::<i64>()?;
    Ok(Some(Lease { owner: row.text()?, fence: row.int()?, until: row.int()? }))
}

fn put_lease(sql: &mut dyn Sql, lease: &Lease) -> Result<(), StoreError> {
    let (fence, until) = (number("a fencing number", lease.fence)?, number("the end of a lease", lease.until)?);
    LEASE.put(sql, vec![Value::Int(1), text("the owner of a lease", &lease.owner)?, fence, until])
}

/// See [`Store::lease`].
fn lease(sql: &mut dyn Sql, mine: Option<u64>, owner: &str, seconds: u64, now: u64) -> Result<Lease, StoreError> {
    let held = get_lease(sql)?;
    let fence = match (mine, &held) {
        (Some(mine), held) => {
            still_ours(held.as_ref(), mine)?;
            mine
        }
        (None, Some(held)) if !held.owner.is_empty() && held.owner != owner && held.until > now => {
            return Err(StoreError::LeaseHeld { owner: held.owner.clone(), seconds: held.until - now });
        }
        (None, held) => held.as_ref().map_or(0, |held| held.fence).saturating_add(1),
    };
    let lease = Lease { owner: owner.to_owned(), fence, until: now.saturating_add(seconds) };
    put_lease(sql, &lease)?;
    Ok(lease)
}

/// Refuses a name of the store's own.
fn public(name: &str) -> Result<(), StoreError> {
    text("a name", name)?;
    if name.starts_with('.') { Err(StoreError::Reserved(name.to_owned())) } else { Ok(()) }
}

fn get_meta(sql: &mut dyn Sql, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
    let Some(mut row) = META.get(sql, &[name.into()])? else { return Ok(None) };
    row.text()?;
    row.bytes().map(Some)
}

/// See [`Store::begin`].
fn begin(sql: &mut dyn Sql, new: &NewAttempt) -> Result<(), StoreError> {
    let (round, number) = (new.round, new.attempt);
    let differs = |what| Err(StoreError::AttemptDiffers { round, attempt: number, what });
    match attempt(sql, round, number) {
        Ok(known) if known.input != new.input => return differs("input"),
        Ok(_) if plan(sql, round, number)? != new.plan => return differs("plan"),
        Ok(_) => return Ok(()),
        Err(StoreError::UnknownAttempt { .. }) => {}
        Err(error) => return Err(error),
    }
    if let Some(row) = RELEASED.get(sql, &[round.into()])? {
        return Err(StoreError::RoundReleased { round, attempt: released(row)?.attempt });
    }
    let row = Attempt { round, attempt: number, input: new.input, state: AttemptState::Begun, dropped: false };
    ATTEMPT.insert(sql, row.row())?;
    PLAN.insert(sql, vec![round.into(), number.into(), new.plan.as_slice().into()]).map(|_| ())
}

fn plan(sql: &mut dyn Sql, round: u32, attempt: u32) -> Result<Vec<u8>, StoreError> {
    let row = PLAN.get(sql, &[round.into(), attempt.into()])?;
    let mut row = row.ok_or(StoreError::UnknownAttempt { round, attempt })?;
    let _: (u32, u32) = (row.int()?, row.int()?);
    row.bytes()
}

fn attempts(sql: &mut dyn Sql) -> Result<Vec<AttemptRow>, StoreError> {
    let mut counts = BTreeMap::new();
    for row in sql.query("SELECT round, attempt, COUNT(*) FROM entry GROUP BY round, attempt", &[])? {
        if let [Value::Int(round), Value::Int(attempt), Value::Int(count)] = row[..] {
            counts.insert((round, attempt), u64::try_from(count).unwrap_or(0));
        }
    }
    let rows = ATTEMPT.scan(sql, &[])?.into_iter().map(|row| {
        let Attempt { round, attempt, input, state, dropped } = Attempt::read(row)?;
        let entries = counts.get(&(i64::from(round), i64::from(attempt))).copied().unwrap_or(0);
        Ok(AttemptRow { round, attempt, input, state, entries, dropped })
    });
    rows.collect()
}

fn has(sql: &mut dyn Sql, round: u32, attempt: u32, id: &[u8; 32]) -> Result<bool, StoreError> {
    let query = "SELECT seq FROM entry WHERE round = ?1 AND attempt = ?2 AND id = ?3";
    Ok(!sql.query(query, &[round.into(), attempt.into(), (*id).into()])?.is_empty())
}

/// See [`Store::append`].
fn append(sql: &mut dyn Sql, round: u32, number: u32, new: &[NewEntry]) -> Result<(), StoreError> {
    let row = attempt(sql, round, number)?;
    if !row.state.is_open() {
        return Err(StoreError::Closed { round, attempt: number, state: row.state });
    }
    let key = [round.into(), number.into()];
    // Only what the next row needs of the last: its body may be long.
    let query = "SELECT seq, seal FROM entry WHERE round = ?1 AND attempt = ?2 ORDER BY seq DESC LIMIT 1";
    let (mut seq, mut previous) = match sql.query(query, &key)?.pop().as_deref() {
        None => (0, [0; 32]),
        Some([Value::Int(seq), Value::Bytes(seal)]) => match (u64::try_from(*seq), seal.as_slice().try_into()) {
            (Ok(seq), Ok(seal)) => (seq + 1, seal),
            _ => return Err(bad_tail(sql, round, number)),
        },
        Some(_) => return Err(bad_tail(sql, round, number)),
    };
    for entry in new {
        if has(sql, round, number, &entry.id)? {
            return Err(StoreError::Duplicate { round, attempt: number, id: entry.id });
        }
        previous = ENTRY.insert(sql, entry_row((round, number, seq), previous, entry)?)?;
        seq += 1;
    }
    Ok(())
}

fn bad_tail(sql: &mut dyn Sql, round: u32, attempt: u32) -> StoreError {
    let detail = format!("the last row of round {round}, attempt {attempt} in table entry has no number or no hash");
    StoreError::Corrupt { place: sql.place().to_owned(), detail }
}

/// See [`Store::release`].
fn release(sql: &mut dyn Sql, new: &RoundRow) -> Result<(), StoreError> {
    let (round, number) = (new.round, new.attempt);
    let mut row = attempt(sql, round, number)?;
    if let Some(known) = RELEASED.get(sql, &[round.into()])?.map(released).transpose()? {
        let differs = |what| Err(StoreError::RecordDiffers { round, attempt: number, what });
        return match known {
            known if known.attempt != number => Err(StoreError::RoundReleased { round, attempt: known.attempt }),
            known if known.record != new.record => differs("record"),
            known if known.checkpoint != new.checkpoint => differs("checkpoint"),
            _ => Ok(()),
        };
    }
    if row.state != AttemptState::Charged {
        let (from, to) = (row.state, AttemptState::Released);
        return Err(StoreError::Transition { round, attempt: number, from, to });
    }
    row.state = AttemptState::Released;
    ATTEMPT.put(sql, row.row())?;
    RELEASED.insert(sql, released_row(new)?).map(|_| ())
}

fn sum(sql: &mut dyn Sql, round: u32, number: u32) -> Result<Option<Payload>, StoreError> {
    let key = [round.into(), number.into()];
    let Some(mut row) = SUM.get(sql, &key)? else { return Ok(None) };
    let dropped = attempt(sql, round, number)?.dropped;
    let _: (u32, u32) = (row.int()?, row.int()?);
    Ok(match stored_payload(&mut row, dropped)? {
        StoredPayload::Inline(bytes) => Some(Payload::Inline(bytes)),
        StoredPayload::Object { id, len } => Some(Payload::Object { id, len }),
        StoredPayload::Dropped { .. } => None,
    })
}

/// See [`Store::drop_payloads`].
fn drop_payloads(sql: &mut dyn Sql, round: u32) -> Result<Vec<ObjectId>, StoreError> {
    let rows = ATTEMPT.scan(sql, &[round.into()])?.into_iter().map(Attempt::read);
    let rows = rows.collect::<Result<Vec<_>, _>>()?;
    if let Some(open) = rows.iter().find(|row| row.state.is_open()) {
        return Err(StoreError::Unfinished { round, attempt: open.attempt, state: open.state });
    }
    for mut row in rows.into_iter().filter(|row| !row.dropped) {
        let key = [round.into(), row.attempt.into(), Value::Int(FRAME)];
        sql.execute("UPDATE entry SET body = NULL WHERE round = ?1 AND attempt = ?2 AND kind = ?3", &key)?;
        sql.execute("UPDATE attempt_sum SET body = NULL WHERE round = ?1 AND attempt = ?2", &key[..2])?;
        row.dropped = true;
        ATTEMPT.put(sql, row.row())?;
    }
    let mut gone = BTreeSet::new();
    for table in [&ENTRY, &SUM] {
        let query = format!("SELECT sha FROM {} WHERE round = ?1 AND place = ?2", table.name);
        for row in sql.query(&query, &[round.into(), Value::Int(OBJECT)])? {
            if let Some(Value::Bytes(sha)) = row.first() {
                gone.extend(sha.as_slice().try_into().ok().map(ObjectId));
            }
        }
    }
    for needed in references(sql)? {
        gone.remove(&needed.id);
    }
    Ok(gone.into_iter().collect())
}

/// See [`Store::drop_checkpoints`].
fn drop_checkpoints(sql: &mut dyn Sql, keep: u32) -> Result<Vec<ObjectId>, StoreError> {
    let mut gone = BTreeSet::new();
    let rows = RELEASED.select(sql, "WHERE checkpoint IS NOT NULL ORDER BY round DESC", &[])?;
    for row in rows.into_iter().skip(usize::try_from(keep).unwrap_or(usize::MAX)) {
        let mut row = released(row)?;
        gone.extend(row.checkpoint.take().map(|(id, _)| id));
        RELEASED.put(sql, released_row(&row)?)?;
    }
    for needed in references(sql)? {
        gone.remove(&needed.id);
    }
    Ok(gone.into_iter().collect())
}

/// See [`Store::references`].
fn references(sql: &mut dyn Sql) -> Result<Vec<Reference>, StoreError> {
    let mut out = Vec::new();
    for (table, what) in [(&ENTRY, "a message"), (&SUM, "the sum")] {
        let name = table.name;
        let query = format!(
            "SELECT t.round, t.attempt, t.sha, t.len FROM {name} t JOIN attempt a \
             ON a.round = t.round AND a.attempt = t.attempt WHERE t.place = ?1 AND a.dropped = 0"
        );
        for row in sql.query(&query, &[Value::Int(OBJECT)])? {
            if let [Value::Int(round), Value::Int(attempt), Value::Bytes(sha), Value::Int(len)] = &row[..]
                && let Ok(id) = sha.as_slice().try_into()
            {
                let by = format!("{what} of round {round}, attempt {attempt}");
                out.push(Reference { id: ObjectId(id), len: u64::try_from(*len).unwrap_or(0), by });
            }
        }
    }
    for row in RELEASED.select(sql, "WHERE checkpoint IS NOT NULL ORDER BY round", &[])? {
        let row = released(row)?;
        let by = format!("the checkpoint of round {}", row.round);
        out.extend(row.checkpoint.map(|(id, len)| Reference { id, len, by }));
    }
    Ok(out)
}

/// See [`Store::check`].
fn check(sql: &mut dyn Sql, findings: &mut Vec<String>) -> Result<(), StoreError> {
    for table in ALL.iter().filter(|table| table.name != ENTRY.name) {
        note(table.scan(sql, &[]), findings)?;
    }
    let Some(attempts) = note(attempts(sql), findings)? else { return Ok(()) };
    let rounds = RELEASED.scan(sql, &[]).and_then(|rows| rows.into_iter().map(released).collect::<Result<Vec<_>, _>>());
    let Some(rounds) = note(rounds, findings)? else { return Ok(()) };
    for row in &attempts {
        let (round, number) = (row.round, row.attempt);
        let rows = ENTRY.scan(sql, &[round.into(), number.into()]);
        note(rows.and_then(|rows| entries(rows, row.dropped)), findings)?;
        note(plan(sql, round, number), findings)?;
        note(sum(sql, round, number), findings)?;
        let recorded = rounds.iter().any(|r| (r.round, r.attempt) == (round, number));
        if recorded != (row.state == AttemptState::Released) {
            let has = if recorded { "has a record" } else { "has none" };
            findings.push(format!("round {round}, attempt {number} is {}, and {has}", row.state));
        }
        if row.dropped && row.state.is_open() {
            findings.push(format!("round {round}, attempt {number} is {} without its payloads", row.state));
        }
    }
    Ok(())
}

/// The result, or a finding where it is damage.
fn note<T>(result: Result<T, StoreError>, findings: &mut Vec<String>) -> Result<Option<T>, StoreError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(StoreError::Corrupt { detail, .. }) => {
            if !findings.contains(&detail) {
                findings.push(detail);
            }
            Ok(None)
        }
        Err(error @ StoreError::UnknownAttempt { .. }) => {
            findings.push(format!("{error}, or no plan of it"));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
