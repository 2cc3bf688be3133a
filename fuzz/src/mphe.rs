//! The key set-up that the targets of `mphe` share.

use std::sync::{Arc, LazyLock};

use veilsum::backend::scalar::Scalar;
use veilsum::he::Threshold;
use veilsum::math::prg::Secret;
use veilsum::secagg::VectorShape;
use veilsum::secagg::identity::{Identity, Roster};
use veilsum::secagg::mphe::{Epochs, KeyConfig, KeyHolder, KeyServer, KeySession, Plan, Request, Trust};

/// K.
const HOLDERS: u16 = 3;

/// Three clients, three holders of whom all open.
#[must_use]
pub fn plan() -> Plan {
    static PLAN: LazyLock<Plan> = LazyLock::new(|| {
        let threshold = Threshold::new(HOLDERS, HOLDERS, 0).unwrap();
        let shape = VectorShape { len: 5, bits: 16 };
        Plan::choose(Request { rounds: 4, ..Request::new(shape, 3, threshold, Trust::SemiHonestServer) }).unwrap()
    });
    PLAN.clone()
}

/// The identity of a key holder.
#[must_use]
pub fn identity(holder: u16) -> Identity {
    Identity::simulated(&Secret::from_seed(4242), u64::from(holder))
}

/// The session of the set-up.
#[must_use]
pub fn key_session(plan: &Plan) -> Arc<KeySession> {
    let roster = Roster::new((1..=HOLDERS).map(|j| (u64::from(j), identity(j).public()))).unwrap();
    KeySession::new(KeyConfig {
        epoch: [9; 16],
        seed: [7; 32],
        plan: plan.clone(),
        holders: Arc::new(roster),
        deadlines: Some([20, 40, 60]),
    })
    .unwrap()
}

/// Its server and holders.
#[must_use]
pub fn key_parties(plan: &Plan) -> (KeyServer, Vec<KeyHolder>) {
    let session = key_session(plan);
    let holder = |j| {
        let secret = Secret::from_seed(90_000 + u64::from(j));
        KeyHolder::new(&session, j, &identity(j), &secret, &Scalar, &mut Epochs::new()).unwrap()
    };
    (KeyServer::new(&session), (1..=HOLDERS).map(holder).collect())
}
