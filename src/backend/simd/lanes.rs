//! Sixteen lanes of `f32` with the butterflies inside them: the small vector trait of the transform.

/// Sixteen `f32`.
pub(super) trait Lanes: Copy {
    /// Reads sixteen floats.
    fn load(x: &[f32; 16]) -> Self;
    /// Writes sixteen floats.
    fn store(self, x: &mut [f32; 16]);
    /// Lane by lane.
    fn add(self, other: Self) -> Self;
    /// Lane by lane.
    fn sub(self, other: Self) -> Self;
    /// Every lane times `factor`.
    fn scale(self, factor: f32) -> Self;
    /// `H_16` on the lanes: the stages h = 1, 2, 4, 8 in this order.
    fn hadamard(self) -> Self;
}

/// Plain arrays; the compiler picks the instructions.
#[derive(Clone, Copy)]
pub(super) struct Portable([f32; 16]);

impl Lanes for Portable {
    #[inline(always)]
    fn load(x: &[f32; 16]) -> Self {
        Self(*x)
    }

    #[inline(always)]
    fn store(self, x: &mut [f32; 16]) {
        *x = self.0;
    }

    #[inline(always)]
    fn add(mut self, other: Self) -> Self {
        for i in 0..16 {
            self.0[i] += other.0[i];
        }
        self
    }

    #[inline(always)]
    fn sub(mut self, other: Self) -> Self {
        for i in 0..16 {
            self.0[i] -= other.0[i];
        }
        self
    }

    #[inline(always)]
    fn scale(mut self, factor: f32) -> Self {
        for v in &mut self.0 {
            *v *= factor;
        }
        self
    }

    #[inline(always)]
    fn hadamard(mut self) -> Self {
        for h in [1, 2, 4, 8] {
            let x = self.0;
            for i in 0..16 {
                self.0[i] = if i & h == 0 { x[i] + x[i ^ h] } else { x[i ^ h] - x[i] };
            }
        }
        self
    }
}
