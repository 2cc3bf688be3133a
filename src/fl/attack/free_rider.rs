//! Free rider: takes the model and trains nothing; sends zero, or noise that looks like an update.
//!
//! `strength round^-decay N(0, I)`: Fraboni, Vidal, Lorenzi 2021, *Free-rider Attacks on Model Aggregation in Federated
//! Learning*, section 3 (plain with strength 0, disguised with noise that decays as training converges). Sees nothing. A free
//! rider that repeats the last global step (Lin, Du, Liu 2019) is not here.

use super::gaussian::noise;
use super::{Attack, AttackError, Sight, View};
use crate::backend::{Backend, Rows};
use crate::math::prg::StreamKey;

/// Free rider.
#[derive(Clone, Copy, Debug)]
pub struct FreeRider {
    /// Standard deviation of a coordinate in round 1, finite and >= 0.
    pub strength: f64,
    /// Power of the round by which it falls, finite and >= 0.
    pub decay: f64,
}

impl Attack for FreeRider {
    fn name(&self) -> &'static str {
        "free-rider"
    }

    fn sees(&self) -> Sight {
        Sight::Nothing
    }

    fn forge(&self, _: &dyn Backend, view: &View<'_>, key: &StreamKey) -> Result<Rows, AttackError> {
        if self.strength == 0.0 {
            return view.repeated(&vec![0.0; view.dim]);
        }
        let round = f64::from(view.round.max(1));
        noise(self.strength * libm::pow(round, -self.decay), view, key)
    }
}
