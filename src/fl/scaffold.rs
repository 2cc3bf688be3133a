//! SCAFFOLD (Karimireddy, Kale, Mohri, Reddi, Stich, Suresh 2020, Algorithm 1 with option II): control variates take the drift out of
//! local training.
//!
//! ```text
//! client i:  y <- y - eta (g_i(y) + c - c_i), K times from x;   c_i' = c_i - c + (x - y) / (K eta)
//! sends      y - x  and  c_i' - c_i
//! server:    x <- x + step(mean of y - x),    c <- c + (|S| / N) mean of c_i' - c_i
//! ```
//! S is who delivered, of N clients. Both vectors travel as one, `2 d` values long, under any protocol. A client keeps its `c_i` (zero at
//! first) when its vector was in a released sum, and only then. Without the controls local training stops where each client's own
//! steps cancel, which is not where the sum of their losses is least (their section 4).

use super::FlError;

/// `c - c_i`: what is added to every gradient of a client.
#[must_use]
pub fn correction(server: &[f32], own: Option<&[f32]>) -> Vec<f32> {
    match own {
        Some(own) => server.iter().zip(own).map(|(c, i)| c - i).collect(),
        None => server.to_vec(),
    }
}

/// What a client sends, `[delta | c_i' - c_i]`, and its new `c_i`, after `steps` steps of size `rate` that came to `delta`; a client of no
/// steps keeps what it had.
#[must_use]
pub fn outcome(delta: &[f32], server: &[f32], own: Option<&[f32]>, steps: u64, rate: f32) -> (Vec<f32>, Vec<f32>) {
    let scale = if steps > 0 { 1.0 / (steps as f64 * f64::from(rate)) } else { 0.0 };
    let mut sent = Vec::with_capacity(2 * delta.len());
    sent.extend_from_slice(delta);
    let mut kept = Vec::with_capacity(delta.len());
    for (i, (&moved, &c)) in delta.iter().zip(server).enumerate() {
        let before = own.and_then(|own| own.get(i)).copied().unwrap_or(0.0);
        // `(x - y) / (K eta) - c`, of no steps nothing.
        let change = if steps > 0 { (-f64::from(moved) * scale - f64::from(c)) as f32 } else { 0.0 };
        sent.push(change);
        kept.push(before + change);
    }
    (sent, kept)
}

/// The server's control after a round: `c + share change`, share the part of all clients that delivered.
///
/// # Errors
/// A control that is not finite, naming the parameter.
pub fn advance(control: &mut [f32], change: &[f32], share: f64) -> Result<(), FlError> {
    control.iter_mut().zip(change).for_each(|(c, &x)| *c = (f64::from(*c) + share * f64::from(x)) as f32);
    match control.iter().position(|c| !c.is_finite()) {
        None => Ok(()),
        Some(i) => Err(FlError::OutOfRange {
            name: "the control variate",
            expected: "finite (lower algorithm.learning_rate)".into(),
            found: format!("{} at parameter {i}", control[i]),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A loss of constant gradient g: K steps of eta along `g + c - c_i` come to `c_i' = g`, whatever the controls were.
    #[test]
    fn a_control_is_the_mean_gradient_of_the_steps() {
        let (g, c, own) = ([0.5f32, -2.0], [0.25f32, 1.0], [0.75f32, -0.5]);
        let (steps, rate) = (4, 0.125f32);
        for own in [Some(&own[..]), None] {
            let correction = correction(&c, own);
            let delta: Vec<f32> = g.iter().zip(&correction).map(|(g, x)| -(steps as f32) * rate * (g + x)).collect();
            let (sent, kept) = outcome(&delta, &c, own, steps, rate);
            assert_eq!(sent[..2], delta);
            for i in 0..2 {
                let before = own.map_or(0.0, |own| own[i]);
                assert!(
                    (kept[i] - g[i]).abs() < 1e-6 && (sent[2 + i] - (g[i] - before)).abs() < 1e-6,
                    "{sent:?} {kept:?}"
                );
            }
        }
        let (sent, kept) = outcome(&[0.0; 2], &c, Some(&own), 0, rate);
        assert_eq!((&sent[2..], &kept[..]), (&[0.0; 2][..], &own[..]));
    }

    #[test]
    fn the_servers_control_moves_by_the_share_of_those_who_delivered() {
        let mut control = [1.0, 0.0];
        advance(&mut control, &[4.0, -8.0], 0.25).unwrap();
        assert_eq!(control, [2.0, -2.0]);
        assert!(advance(&mut control, &[0.0, f32::INFINITY], 0.25).unwrap_err().to_string().contains("parameter 1"));
    }
}
