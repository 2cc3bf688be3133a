//! Parties: who is enrolled under which number.

use super::get_meta;
use crate::net::keys::Role;
use crate::net::store::sql::{Sql, Value, number};
use crate::net::store::tables::{META, PARTY, TOKEN, party, party_row, role, role_values};
use crate::net::store::{Enrolled, Enrolment, NewParty, PartyRow, StoreError, Wanted};

pub(super) fn find_role(sql: &mut dyn Sql, role: Role) -> Result<Option<PartyRow>, StoreError> {
    PARTY.get(sql, &role_values(role)?)?.map(party).transpose()
}

/// Adds a party whose number and identity are free.
pub(super) fn add_party(sql: &mut dyn Sql, new: &NewParty) -> Result<(), StoreError> {
    if let Some(known) = find_role(sql, new.role)? {
        return Err(StoreError::NumberTaken { role: new.role, name: known.party.name });
    }
    if let Some(row) = PARTY.select(sql, "WHERE identity = ?1", &[new.identity.into()])?.pop() {
        let known = party(row)?.party;
        return Err(StoreError::IdentityTaken { role: known.role, name: known.name });
    }
    PARTY.insert(sql, party_row(new, false)?).map(|_| ())
}

/// See [`Store::enrol`].
pub(super) fn enrol(sql: &mut dyn Sql, new: &Enrolment) -> Result<Enrolled, StoreError> {
    let client = matches!(new.wanted, Wanted::Client(_));
    if let Some(mut token) = TOKEN.get(sql, &[new.nonce.as_slice().into()])? {
        token.bytes()?;
        let before = role(&mut token)?;
        let Some(known) = find_role(sql, before)? else { return Err(token.wrong("a party that is not there")) };
        return match before {
            _ if known.party.identity != new.identity => Err(StoreError::TokenUsed),
            Role::Client(number) if client => Ok(Enrolled { number }),
            Role::Holder(number) if !client => Ok(Enrolled { number: u64::from(number) }),
            role => Err(StoreError::IdentityTaken { role, name: known.party.name }),
        };
    }
    let number = match new.wanted {
        Wanted::Client(Some(number)) => number,
        Wanted::Holder(Some(number)) => u64::from(number),
        Wanted::Client(None) => lowest_free(sql, 1, new.limit)?,
        Wanted::Holder(None) => lowest_free(sql, 2, new.limit.min(1 << 16))?,
    };
    if number >= new.limit || (!client && number == 0) {
        return Err(StoreError::NumberBeyond { number, limit: new.limit });
    }
    let role = match u16::try_from(number) {
        _ if client => Role::Client(number),
        Ok(holder) => Role::Holder(holder),
        Err(_) => return Err(StoreError::NumberBeyond { number, limit: 1 << 16 }),
    };
    let (channel, samples, name) = (new.channel, new.samples, new.name.clone());
    add_party(sql, &NewParty { role, identity: new.identity, channel, samples, name })?;
    let [kind, number_value] = role_values(role)?;
    TOKEN.insert(sql, vec![new.nonce.as_slice().into(), kind, number_value])?;
    Ok(Enrolled { number })
}

/// The lowest number of a kind that nobody has. Numbers never become free again, so that the search goes on where
/// the last one ended.
fn lowest_free(sql: &mut dyn Sql, kind: i64, limit: u64) -> Result<u64, StoreError> {
    let name = format!(".free.{kind}");
    // Clients are counted from 0, key holders from 1.
    let first = u64::from(kind == 2);
    let hint = get_meta(sql, &name)?.and_then(|bytes| bytes.try_into().ok()).map_or(first, u64::from_be_bytes);
    let mut free = hint;
    'search: loop {
        let query = "SELECT number FROM party WHERE kind = ?1 AND number >= ?2 ORDER BY number LIMIT 256";
        let rows = sql.query(query, &[Value::Int(kind), number("a number", free)?])?;
        let full = rows.len() == 256;
        for row in rows {
            match row.first() {
                Some(Value::Int(taken)) if u64::try_from(*taken) == Ok(free) => free += 1,
                _ => break 'search,
            }
        }
        if !full {
            break;
        }
    }
    if free >= limit {
        return Err(StoreError::NoNumberLeft { limit });
    }
    if free != hint {
        META.put(sql, vec![name.as_str().into(), free.to_be_bytes().as_slice().into()])?;
    }
    Ok(free)
}
