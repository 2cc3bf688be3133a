//! ALIE, "a little is enough": `mean + z std` of the honest vectors in every coordinate, from every client.
//!
//! Baruch, Baruch, Goldberg 2019, *A Little Is Enough: Circumventing Defenses For Distributed Learning*, Algorithm 3. With n
//! clients of which m are Byzantine, `s = floor(n/2 + 1) - m` honest ones have to be farther from the mean than the forged
//! vectors for these to be in a majority, and z is the largest number with `Phi(z) < (n - m - s) / (n - m)`. Few Byzantine
//! clients get a small z, of which it may be negative. A `strength` replaces z; a negative one goes to the other side.
//!
//! Sees the honest vectors (the paper estimates the moments from the Byzantine clients' own data, which is weaker). The
//! standard deviation is the one by n - m - 1.

use super::statistics::{mean, shifted, std};
use super::{Attack, AttackError, Sight, View};
use crate::backend::{Backend, Rows};
use crate::math::prg::StreamKey;
use crate::math::special::normal_tail_quantile;

/// A little is enough.
#[derive(Clone, Copy, Debug)]
pub struct Alie {
    /// z; absent: the paper's, from the numbers of clients.
    pub strength: Option<f64>,
}

/// The paper's z. Errors: as many Byzantine clients as give a majority by themselves, where z has no limit, or no
/// honest client.
pub fn z_max(clients: usize, byzantine: usize) -> Result<f64, AttackError> {
    let honest = clients.saturating_sub(byzantine);
    let supporters = (clients / 2 + 1).saturating_sub(byzantine);
    if honest == 0 || supporters == 0 {
        let expected = format!("fewer Byzantine clients than a majority of {clients}, or a strength");
        return Err(AttackError::OutOfRange { attack: "alie", name: "count", expected, found: byzantine as f64 });
    }
    if supporters >= honest {
        // Of two clients every honest one would have to be farther: z is minus infinity.
        let expected = "more than 2, or a strength".into();
        return Err(AttackError::OutOfRange { attack: "alie", name: "clients", expected, found: clients as f64 });
    }
    Ok(normal_tail_quantile(supporters as f64 / honest as f64))
}

impl Attack for Alie {
    fn name(&self) -> &'static str {
        "alie"
    }

    fn sees(&self) -> Sight {
        Sight::Honest
    }

    fn forge(&self, backend: &dyn Backend, view: &View<'_>, _: &StreamKey) -> Result<Rows, AttackError> {
        let honest = view.honest_rows(self.name(), backend)?;
        let z = match self.strength {
            Some(z) => z,
            None => z_max(honest.rows + view.count, view.count)?,
        };
        let mean = mean(&honest)?;
        view.repeated(&shifted(&mean, z, &std(&honest, &mean)?))
    }
}
