//! The parties of the lattice protocols: clients, server, and key holders beside them.

use std::sync::Arc;

use super::protocols::{
    Aggregation, KEY_SETUP, MPHE, Names, ONESHOT, PhaseCount, each, failed, of, refused, talk, with_clients,
};
use super::run::{Played, RunArgs, TrustName};
use crate::backend::Backend;
use crate::cli::{Exit, Failure};
use crate::he::OpeningGuard;
use crate::he::shamir::Threshold;
use crate::secagg::identity::Identity;
use crate::secagg::local::Lost;
use crate::secagg::mphe::{self, Epochs, KeyHolder, KeyServer, MpheClient, MpheServer, simulated};
use crate::secagg::oneshot::{self, OneshotClient, OneshotHolder, OneshotServer};
use crate::secagg::{Party, PartyId};

/// One sum under a collective key, and the set-up of the key before it.
pub(super) fn mphe(
    args: &RunArgs,
    what: &Aggregation<'_>,
    lost: &Lost,
    backend: &Arc<dyn Backend>,
) -> Result<Played, Failure> {
    let names = Names::new(what)?;
    let needed = args.threshold.unwrap_or(args.holders.saturating_add(args.corrupt_holders) / 2 + 1);
    let threshold =
        Threshold::new(args.holders, needed, args.corrupt_holders).map_err(|e| Failure::new(Exit::Usage, e))?;
    let trust = match args.trust {
        TrustName::SemiHonestServer => mphe::Trust::SemiHonestServer,
        TrustName::HonestRoster => mphe::Trust::HonestRoster,
    };
    let n = u32::try_from(names.cohort.len()).map_err(refused)?;
    let request = mphe::Request::new(what.shape, n, threshold, trust);
    let plan = mphe::Plan::choose(mphe::Request {
        bound: what.bound,
        min_survivors: args.min_clients,
        rounds: args.rounds,
        lambda: args.lambda,
        degree: args.degree,
        ..request
    });
    let plan = plan.map_err(refused)?;
    let parameters = plan.to_string();
    let (keys, mut phases) = match key(args, what, &names, &plan, lost, &**backend)? {
        Ok(made) => made,
        Err((fault, phases)) => return Ok(Played { output: None, parameters, fault: Some(fault), phases }),
    };
    let session = mphe::RoundSession::new(mphe::Setup {
        id: names.id,
        cohort: names.cohort.clone(),
        roster: Arc::clone(&names.roster),
        key: Arc::clone(keys[0].key()),
        deadlines: Some(mphe::Deadlines { input: 1, agree: 2, open: 3 }),
    });
    let session = session.map_err(refused)?;
    let mut clients = each(what, |client, packed| {
        let identity = Identity::simulated(what.secret, client);
        MpheClient::packed(&session, client, &identity, &of(what.secret, client), Arc::clone(backend), packed)
    })?;
    let holder = |keys: &mphe::HolderKeys| {
        simulated::round_holder(&session, keys, OpeningGuard::default(), what.secret, Arc::clone(backend))
    };
    let mut holders = keys.iter().map(holder).collect::<Result<Vec<_>, _>>().map_err(failed)?;
    let mut server = MpheServer::new(&session, Arc::clone(backend));
    let mut parties = with_clients(&mut server, &mut clients);
    parties.extend((1..).zip(&mut holders).map(|(j, p)| (PartyId::Holder(j), p as &mut dyn Party)));
    let (output, round) = talk(&mut parties, lost, MPHE)?;
    phases.extend(round);
    Ok(Played { output, parameters, fault: server.fault().map(ToString::to_string), phases })
}

/// One sum, every client under a key of its own, shares of which go to the holders.
pub(super) fn oneshot(
    args: &RunArgs,
    what: &Aggregation<'_>,
    lost: &Lost,
    backend: &Arc<dyn Backend>,
) -> Result<Played, Failure> {
    let names = Names::new(what)?;
    let needed = args.threshold.unwrap_or(oneshot::plan::least_needed(args.holders, args.corrupt_holders));
    let plan = oneshot::Plan::choose(&oneshot::Request {
        corrupt_clients: (args.min_clients as usize).saturating_sub(2),
        min_survivors: args.min_clients as usize,
        ..oneshot::Request::new(
            names.cohort.len(),
            what.shape,
            what.bound,
            (args.holders, needed, args.corrupt_holders),
        )
    });
    let plan = plan.map_err(refused)?;
    if plan.input_shape() != what.shape {
        let message = format!("--bound is {}, expected at most 2^(bits - 1) for oneshot", what.bound);
        return Err(Failure::new(Exit::Usage, message));
    }
    let parameters = plan.to_string();
    let keys: Vec<_> = (1..=args.holders).map(|j| oneshot::simulated_holder(what.secret, j)).collect();
    let session = oneshot::Session::new(oneshot::Setup {
        id: names.id,
        cohort: names.cohort.clone(),
        roster: Arc::clone(&names.roster),
        holders: keys.iter().map(|(_, public)| *public).collect(),
        plan,
        deadlines: Some([1, 2]),
    });
    let session = session.map_err(refused)?;
    let mut clients = each(what, |client, packed| {
        let identity = Identity::simulated(what.secret, client);
        OneshotClient::packed(&session, client, &identity, &of(what.secret, client), Arc::clone(backend), packed)
    })?;
    let holder = |(j, (identity, _)): (u16, &(Identity, oneshot::HolderKeys))| {
        OneshotHolder::new(&session, j, identity, &oneshot::simulated_channel(what.secret, j), None)
    };
    let mut holders = (1..).zip(&keys).map(holder).collect::<Result<Vec<_>, _>>().map_err(failed)?;
    let mut server = OneshotServer::new(&session, Arc::clone(backend));
    let mut parties = with_clients(&mut server, &mut clients);
    parties.extend((1..).zip(&mut holders).map(|(j, p)| (PartyId::Holder(j), p as &mut dyn Party)));
    let (output, phases) = talk(&mut parties, lost, ONESHOT)?;
    let left = format!("fewer than {} clients or than {needed} key holders are left", args.min_clients);
    Ok(Played { output, parameters, fault: Some(left), phases })
}

/// The holders' keys, or why there are none; with what was sent.
type Made = Result<(Vec<mphe::HolderKeys>, Vec<PhaseCount>), (String, Vec<PhaseCount>)>;

fn key(
    args: &RunArgs,
    what: &Aggregation<'_>,
    names: &Names,
    plan: &mphe::Plan,
    lost: &Lost,
    backend: &dyn Backend,
) -> Result<Made, Failure> {
    let drawn = (names.id.session, names.public);
    let session = simulated::key_session(what.secret, plan.clone(), drawn, Some([1, 2, 3])).map_err(refused)?;
    let holder = |j| simulated::key_holder(&session, j, what.secret, backend, &mut Epochs::new());
    let mut holders = (1..=args.holders).map(holder).collect::<Result<Vec<_>, _>>().map_err(failed)?;
    let mut server = KeyServer::new(&session);
    let mut parties: Vec<(PartyId, &mut dyn Party)> = vec![(PartyId::Server, &mut server)];
    parties.extend((1..).zip(&mut holders).map(|(j, p)| (PartyId::Holder(j), p as &mut dyn Party)));
    let (_, phases) = talk(&mut parties, lost, KEY_SETUP)?;
    let keys: Vec<mphe::HolderKeys> = holders.iter_mut().filter_map(KeyHolder::take_keys).collect();
    if keys.len() < usize::from(args.holders) {
        let fault = server.fault().map_or_else(|| "a key holder has no key".to_owned(), ToString::to_string);
        return Ok(Err((fault, phases)));
    }
    Ok(Ok((keys, phases)))
}
