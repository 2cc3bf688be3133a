//! The tables, and what their rows mean.

use sha2::{Digest, Sha256};

use super::sql::{Fields, Row, Sql, Table, Value, number, optional, text};
use super::{
    AttemptState, EntryBody, NewEntry, NewParty, PartyRow, Payload, RoundRow, StoreError, StoredBody, StoredEntry,
    StoredPayload,
};
use crate::net::keys::Role;
use crate::net::objects::ObjectId;

/// Names and values.
pub(super) static META: Table = Table { name: "meta", columns: &["name", "value"], keys: 1, unsealed: 0 };
/// Parties.
pub(super) static PARTY: Table = Table {
    name: "party",
    columns: &["kind", "number", "identity", "channel", "samples", "name", "revoked"],
    keys: 2,
    unsealed: 0,
};
/// Enrolment tokens that were used, and by whom.
pub(super) static TOKEN: Table = Table { name: "token", columns: &["nonce", "kind", "number"], keys: 1, unsealed: 0 };
/// Attempts.
pub(super) static ATTEMPT: Table =
    Table { name: "attempt", columns: &["round", "attempt", "input", "state", "dropped"], keys: 2, unsealed: 0 };
/// Their plans.
pub(super) static PLAN: Table = Table { name: "plan", columns: &["round", "attempt", "plan"], keys: 2, unsealed: 0 };
/// Their entries. `previous` is the seal of the entry before, zeros in the first: no row can go or move unnoticed.
pub(super) static ENTRY: Table = Table {
    name: "entry",
    columns: &[
        "round",
        "attempt",
        "seq",
        "previous",
        "id",
        "kind",
        "sender_kind",
        "sender",
        "value",
        "place",
        "len",
        "sha",
        "body",
    ],
    keys: 3,
    unsealed: 1,
};
/// Their sums.
pub(super) static SUM: Table =
    Table { name: "attempt_sum", columns: &["round", "attempt", "place", "len", "sha", "body"], keys: 2, unsealed: 1 };
/// Released rounds.
pub(super) static RELEASED: Table = Table {
    name: "released",
    columns: &["round", "attempt", "record", "checkpoint", "checkpoint_len"],
    keys: 1,
    unsealed: 0,
};
/// The one lease.
pub(super) static LEASE: Table =
    Table { name: "lease", columns: &["id", "owner", "fence", "until"], keys: 1, unsealed: 0 };

/// All of them, so that a row comes behind those that it refers to.
pub(super) static ALL: [&Table; 9] = [&META, &PARTY, &TOKEN, &ATTEMPT, &PLAN, &ENTRY, &SUM, &RELEASED, &LEASE];

/// `kind` of an entry.
pub(super) const FRAME: i64 = 0;
const CLOCK: i64 = 1;
const NOTE: i64 = 2;
/// `place` of a payload: in `body`, or in the object store.
const INLINE: i64 = 0;
pub(super) const OBJECT: i64 = 1;

/// Kind and number of a party.
pub(super) fn role_values(role: Role) -> Result<[Value; 2], StoreError> {
    Ok(match role {
        Role::Server => [Value::Int(0), Value::Int(0)],
        Role::Client(n) => [Value::Int(1), number("the number of a client", n)?],
        Role::Holder(n) => [Value::Int(2), Value::Int(i64::from(n))],
    })
}

/// The next two columns as a party.
pub(super) fn role(fields: &mut Fields) -> Result<Role, StoreError> {
    let (kind, number): (i64, u64) = (fields.int()?, fields.int()?);
    match kind {
        0 => Ok(Role::Server),
        1 => Ok(Role::Client(number)),
        2 => u16::try_from(number).map(Role::Holder).map_err(|_| fields.wrong("a key holder's number beyond 65535")),
        _ => Err(fields.wrong("an unknown kind of party")),
    }
}

pub(super) fn party_row(party: &NewParty, revoked: bool) -> Result<Row, StoreError> {
    let [kind, number] = role_values(party.role)?;
    let channel = party.channel.map_or(Value::Null, Value::from);
    let samples = optional("the number of samples", party.samples)?;
    let name = text("the name of a party", &party.name)?;
    Ok(vec![kind, number, party.identity.into(), channel, samples, name, Value::Int(i64::from(revoked))])
}

pub(super) fn party(mut row: Fields) -> Result<PartyRow, StoreError> {
    let role = role(&mut row)?;
    let (identity, channel, samples) = (row.hash()?, row.maybe_hash()?, row.maybe()?);
    let (name, revoked) = (row.text()?, row.int::<i64>()? != 0);
    Ok(PartyRow { party: NewParty { role, identity, channel, samples, name }, revoked })
}

/// A row of [`ATTEMPT`].
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) round: u32,
    pub(super) attempt: u32,
    pub(super) input: [u8; 32],
    pub(super) state: AttemptState,
    pub(super) dropped: bool,
}

impl Attempt {
    pub(super) fn row(&self) -> Row {
        let state = match self.state {
            AttemptState::Begun => 0,
            AttemptState::Charged => 1,
            AttemptState::Released => 2,
            AttemptState::Abandoned => 3,
        };
        let dropped = Value::Int(i64::from(self.dropped));
        vec![self.round.into(), self.attempt.into(), self.input.into(), Value::Int(state), dropped]
    }

    pub(super) fn read(mut row: Fields) -> Result<Self, StoreError> {
        let (round, attempt, input) = (row.int()?, row.int()?, row.hash()?);
        let state = match row.int::<i64>()? {
            0 => AttemptState::Begun,
            1 => AttemptState::Charged,
            2 => AttemptState::Released,
            3 => AttemptState::Abandoned,
            _ => return Err(row.wrong("an unknown state")),
        };
        Ok(Self { round, attempt, input, state, dropped: row.int::<i64>()? != 0 })
    }
}

/// `place, len, sha, body` of bytes.
fn inline(bytes: &[u8]) -> [Value; 4] {
    let sha: [u8; 32] = Sha256::digest(bytes).into();
    // A length in memory is below 2^63.
    [Value::Int(INLINE), Value::Int(bytes.len() as i64), sha.into(), bytes.into()]
}

/// `place, len, sha, body` of a payload.
pub(super) fn payload_values(payload: &Payload) -> Result<[Value; 4], StoreError> {
    Ok(match payload {
        Payload::Inline(bytes) => inline(bytes),
        Payload::Object { id, len } => {
            [Value::Int(OBJECT), number("the length of an object", *len)?, id.0.into(), Value::Null]
        }
    })
}

/// `place, len, sha, body` as they were written; `dropped` says whether the body may be missing.
pub(super) fn stored_payload(row: &mut Fields, dropped: bool) -> Result<StoredPayload, StoreError> {
    let (place, len, sha256, body) = (row.int::<i64>()?, row.int::<u64>()?, row.hash()?, row.maybe_bytes()?);
    match (place, body) {
        (INLINE | OBJECT, None) if dropped => Ok(StoredPayload::Dropped { len, sha256 }),
        (OBJECT, None) => Ok(StoredPayload::Object { id: ObjectId(sha256), len }),
        (INLINE, Some(bytes)) => {
            let found: [u8; 32] = Sha256::digest(&bytes).into();
            if found != sha256 || bytes.len() as u64 != len {
                return Err(row.wrong("a body that does not match its hash"));
            }
            Ok(StoredPayload::Inline(bytes))
        }
        _ => Err(row.wrong("a body missing, or one too many")),
    }
}

/// The row of a new entry.
pub(super) fn entry_row(
    (round, attempt, seq): (u32, u32, u64),
    previous: [u8; 32],
    entry: &NewEntry,
) -> Result<Row, StoreError> {
    let nothing = || [Value::Null, Value::Null, Value::Null, Value::Null];
    let (kind, sender, value, payload) = match &entry.body {
        EntryBody::Frame { from, payload } => (FRAME, role_values(*from)?, Value::Null, payload_values(payload)?),
        EntryBody::Clock { millis } => (CLOCK, [Value::Null, Value::Null], number("a time", *millis)?, nothing()),
        EntryBody::Note { kind, bytes } => {
            (NOTE, [Value::Null, Value::Null], Value::Int(i64::from(*kind)), inline(bytes))
        }
    };
    let seq = number("the number of entries", seq)?;
    let mut row = vec![round.into(), attempt.into(), seq, previous.into(), entry.id.into(), Value::Int(kind)];
    row.extend(sender);
    row.push(value);
    row.extend(payload);
    Ok(row)
}

/// Entries as they were written, one after the other from the first.
pub(super) fn entries(rows: Vec<Fields>, dropped: bool) -> Result<Vec<StoredEntry>, StoreError> {
    let mut out = Vec::with_capacity(rows.len());
    let mut last = [0; 32];
    for (expected, mut row) in rows.into_iter().enumerate() {
        let (_, _): (u32, u32) = (row.int()?, row.int()?);
        let (seq, previous) = (row.int::<u64>()?, row.hash()?);
        if seq != expected as u64 || previous != last {
            return Err(row.wrong("another predecessor than the row before it: one is missing or out of order"));
        }
        last = row.seal;
        let (id, kind) = (row.hash()?, row.int::<i64>()?);
        out.push(StoredEntry { seq, id, body: stored_body(kind, &mut row, dropped)? });
    }
    Ok(out)
}

/// What follows the kind of an entry.
fn stored_body(kind: i64, row: &mut Fields, dropped: bool) -> Result<StoredBody, StoreError> {
    match kind {
        FRAME => {
            let from = role(row)?;
            row.maybe::<i64>()?;
            Ok(StoredBody::Frame { from, payload: stored_payload(row, dropped)? })
        }
        CLOCK | NOTE => {
            let _: (Option<i64>, Option<i64>) = (row.maybe()?, row.maybe()?);
            if kind == CLOCK {
                return Ok(StoredBody::Clock { millis: row.int()? });
            }
            let kind = row.int()?;
            match stored_payload(row, false)? {
                StoredPayload::Inline(bytes) => Ok(StoredBody::Note { kind, bytes }),
                _ => Err(row.wrong("a note elsewhere")),
            }
        }
        _ => Err(row.wrong("an unknown kind of entry")),
    }
}

pub(super) fn released_row(row: &RoundRow) -> Result<Row, StoreError> {
    let (id, len) = match row.checkpoint {
        Some((id, len)) => (id.0.into(), number("the length of a checkpoint", len)?),
        None => (Value::Null, Value::Null),
    };
    Ok(vec![row.round.into(), row.attempt.into(), text("a record", &row.record)?, id, len])
}

pub(super) fn released(mut row: Fields) -> Result<RoundRow, StoreError> {
    let (round, attempt, record) = (row.int()?, row.int()?, row.text()?);
    let checkpoint = match (row.maybe_hash()?, row.maybe()?) {
        (Some(id), Some(len)) => Some((ObjectId(id), len)),
        (None, None) => None,
        _ => return Err(row.wrong("half a checkpoint")),
    };
    Ok(RoundRow { round, attempt, record, checkpoint })
}

/// An attempt by its numbers.
pub(super) fn attempt(sql: &mut dyn Sql, round: u32, attempt: u32) -> Result<Attempt, StoreError> {
    match ATTEMPT.get(sql, &[round.into(), attempt.into()])? {
        Some(row) => Attempt::read(row),
        None => Err(StoreError::UnknownAttempt { round, attempt }),
    }
}

/// Copies all rows from one database to another, which has the empty tables of the same version.
pub(super) fn copy(from: &mut dyn Sql, to: &mut dyn Sql) -> Result<(), StoreError> {
    // Few at a time: a body may be long.
    const PAGE: u32 = 16;
    for table in ALL {
        let mut after = Vec::new();
        loop {
            let mut rows = table.page(from, &after, PAGE)?;
            let more = rows.len() == PAGE as usize;
            for row in &mut rows {
                row.pop();
                after = row.iter().take(table.keys).cloned().collect();
            }
            for row in rows {
                table.put(to, row)?;
            }
            if !more {
                break;
            }
        }
    }
    Ok(())
}

/// Whether a database has nothing but the version of its schema.
pub(super) fn is_empty(sql: &mut dyn Sql) -> Result<bool, StoreError> {
    for table in ALL {
        let rows = table.page(sql, &[], 2)?;
        let own = |row: &Row| matches!(row.first(), Some(Value::Text(name)) if name.starts_with('.'));
        if !rows.iter().all(own) {
            return Ok(false);
        }
    }
    Ok(true)
}
