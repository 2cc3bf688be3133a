//! The weights that are on the device: sent when others come, and kept until then.

use std::sync::{Mutex, PoisonError};

/// What was last made of some weights.
#[derive(Debug)]
pub(super) struct Sent<T>(Mutex<Option<(Vec<f32>, T)>>);

impl<T> Default for Sent<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T: Clone> Sent<T> {
    /// What `send` made of weights with these bits, now or before.
    pub(super) fn get(&self, weights: &[f32], send: impl FnOnce() -> T) -> T {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, made)) = kept.as_ref().filter(|(known, _)| bits(known) == bits(weights)) {
            return made.clone();
        }
        // What the old ones took is free before the new ones are sent.
        *kept = None;
        let made = send();
        *kept = Some((weights.to_vec(), made.clone()));
        made
    }

    /// Forgets what was made.
    pub(super) fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Equal numbers may differ in what is made of them, and a NaN equals nothing.
fn bits(weights: &[f32]) -> &[u32] {
    bytemuck::cast_slice(weights)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn weights_are_sent_once_until_others_come() {
        let (sent, count) = (Sent::default(), Cell::new(0));
        let get = |weights: &[f32]| {
            sent.get(weights, || {
                count.set(count.get() + 1);
                weights.len()
            })
        };
        for _ in 0..3 {
            assert_eq!(get(&[1.0, f32::NAN]), 2);
        }
        assert_eq!(count.get(), 1);
        assert_eq!((get(&[]), get(&[0.0]), get(&[-0.0]), get(&[-0.0]), get(&[1.0, f32::NAN])), (0, 1, 1, 1, 2));
        assert_eq!(count.get(), 5);
        sent.forget();
        assert_eq!((get(&[1.0, f32::NAN]), count.get()), (2, 6));
    }
}
