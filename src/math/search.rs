//! Where a condition on the real line changes.

/// Narrows `(low, high)` in `steps` halvings to where `holds`, true up to some point and false behind it, changes: `holds`
/// was seen at the low end returned and not at the high one, except at an end of the range given.
#[must_use]
pub fn bisect((mut low, mut high): (f64, f64), steps: u32, holds: impl Fn(f64) -> bool) -> (f64, f64) {
    for _ in 0..steps {
        let middle = 0.5 * (low + high);
        if holds(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    (low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_close_in_on_the_change() {
        let (low, high) = bisect((0.0, 4.0), 60, |x| x * x < 2.0);
        assert!(low * low < 2.0 && high * high >= 2.0 && high - low < 1e-15);
        assert_eq!(bisect((1.0, 2.0), 3, |_| true), (1.875, 2.0));
        assert_eq!(bisect((1.0, 2.0), 3, |_| false), (1.0, 1.125));
    }
}
