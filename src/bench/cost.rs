//! What a call has to do at least: bytes to move and lane operations to execute.
//!
//! A cost is the floor of any implementation on a machine of this kind, not a count of what ours does:
//! inputs are read once and outputs written once, a butterfly is one addition an output, a keystream byte
//! is the rounds of its cipher. What a kernel does beyond that (permutes, address arithmetic, a second pass
//! over memory) is what its `fraction_of_limit` shows.

/// Lane operations a byte of ChaCha20: 10 double rounds of 8 quarter rounds of 12 operations (4 additions,
/// 4 xors, 4 rotations) and 16 final additions make 64 bytes (RFC 8439, section 2.3).
pub const CHACHA20: f64 = (10.0 * 8.0 * 12.0 + 16.0) / 64.0;
/// The same of ChaCha8, with 4 double rounds.
pub const CHACHA8: f64 = (4.0 * 8.0 * 12.0 + 16.0) / 64.0;

/// The ways in which bytes move; each has a bandwidth of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Motion {
    /// Only read.
    Read,
    /// Only written.
    Write,
    /// Read here and written there; both sides count.
    Copy,
    /// Read and written back in place; both ways count.
    Update,
}

impl Motion {
    /// All of them, in the order of `Cost::bytes`.
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Copy, Self::Update];

    /// The name in results.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Copy => "copy",
            Self::Update => "update",
        }
    }
}

/// The kinds of 32-bit lane operations; each has a port limit of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Addition, multiplication or fused multiply-add of `f32`.
    Float,
    /// Addition, comparison, minimum, shift or logic of `u32`.
    Word,
    /// Product of two `u32` (either half, or the 64-bit product).
    Product,
    /// Addition, xor and rotation in equal parts, as in ChaCha.
    Chacha,
}

impl Operation {
    /// All of them, in the order of `Cost::operations`.
    pub const ALL: [Self; 4] = [Self::Float, Self::Word, Self::Product, Self::Chacha];

    /// The name in results.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Float => "floats",
            Self::Word => "words",
            Self::Product => "products",
            Self::Chacha => "chacha",
        }
    }
}

/// The least that one call has to do. Built from numbers an element: `Cost::of(n).update(8.0).float(1.0)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// What `ns_per_element` counts.
    pub elements: f64,
    /// Bytes a call, by [`Motion`].
    pub bytes: [f64; 4],
    /// Lane operations a call, by [`Operation`].
    pub operations: [f64; 4],
    /// True if an element is a noise sample.
    pub samples: bool,
    /// Number theoretic transforms a call.
    pub ntts: f64,
}

impl Cost {
    /// A call on `elements` elements that costs nothing yet.
    #[must_use]
    pub fn of(elements: usize) -> Self {
        Self { elements: elements as f64, bytes: [0.0; 4], operations: [0.0; 4], samples: false, ntts: 0.0 }
    }

    fn bytes(mut self, motion: Motion, per_element: f64) -> Self {
        self.bytes[motion as usize] += per_element * self.elements;
        self
    }

    fn operations(mut self, operation: Operation, per_element: f64) -> Self {
        self.operations[operation as usize] += per_element * self.elements;
        self
    }

    /// Bytes an element that are only read.
    #[must_use]
    pub fn read(self, per_element: f64) -> Self {
        self.bytes(Motion::Read, per_element)
    }

    /// Bytes an element that are only written.
    #[must_use]
    pub fn write(self, per_element: f64) -> Self {
        self.bytes(Motion::Write, per_element)
    }

    /// Bytes an element, both sides, from one place to another.
    #[must_use]
    pub fn copy(self, per_element: f64) -> Self {
        self.bytes(Motion::Copy, per_element)
    }

    /// Bytes an element, both ways, in place.
    #[must_use]
    pub fn update(self, per_element: f64) -> Self {
        self.bytes(Motion::Update, per_element)
    }

    /// Float operations an element.
    #[must_use]
    pub fn float(self, per_element: f64) -> Self {
        self.operations(Operation::Float, per_element)
    }

    /// Word operations an element.
    #[must_use]
    pub fn word(self, per_element: f64) -> Self {
        self.operations(Operation::Word, per_element)
    }

    /// 32-bit products an element.
    #[must_use]
    pub fn product(self, per_element: f64) -> Self {
        self.operations(Operation::Product, per_element)
    }

    /// Keystream bytes an element; `per_byte` is [`CHACHA20`] or [`CHACHA8`].
    #[must_use]
    pub fn keystream(self, bytes: f64, per_byte: f64) -> Self {
        self.operations(Operation::Chacha, bytes * per_byte)
    }

    /// An element is a noise sample.
    #[must_use]
    pub fn samples(self) -> Self {
        Self { samples: true, ..self }
    }

    /// A call makes this many transforms.
    #[must_use]
    pub fn ntts(self, count: usize) -> Self {
        Self { ntts: count as f64, ..self }
    }

    /// All bytes that move.
    #[must_use]
    pub fn total_bytes(&self) -> f64 {
        self.bytes.iter().sum()
    }

    /// All lane operations.
    #[must_use]
    pub fn total_operations(&self) -> f64 {
        self.operations.iter().sum()
    }

    /// Bytes that the call touches: the working set that decides which cache it runs in.
    #[must_use]
    pub fn footprint(&self) -> f64 {
        // What is updated in place crosses the bus twice and lies in memory once.
        self.total_bytes() - self.bytes[Motion::Update as usize] / 2.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_an_element_add_up_to_numbers_a_call() {
        let cost = Cost::of(10).update(8.0).read(4.0).float(3.0).keystream(2.0, CHACHA8);
        assert_eq!(cost.bytes, [40.0, 0.0, 0.0, 80.0]);
        assert_eq!((cost.total_bytes(), cost.footprint()), (120.0, 80.0));
        assert_eq!(cost.operations, [30.0, 0.0, 0.0, 10.0 * 2.0 * 6.25]);
        assert_eq!(CHACHA20, 15.25);
        assert!(Motion::ALL.iter().enumerate().all(|(i, m)| *m as usize == i));
        assert!(Operation::ALL.iter().enumerate().all(|(i, o)| *o as usize == i));
    }
}
