//! The trainer on the processor: forward and backward written out for every kind of layer, no graph and no framework.
//!
//! A `Network` is an architecture with its layers' places: values go from slot to slot, one slot a
//! linear layer, convolution or pool; relu and dropout work in place. A `Workspace` is the memory of
//! one pass over up to 32 samples, over fewer where they are large: a gradient has the same bits. `conv.rs`, `linear.rs`,
//! `pool.rs`, `pointwise.rs`, `attention.rs` and `sequence.rs` hold the layers: `forward`, `backward` (what the loss says of
//! the layer's input) and, with parameters, `add_gradient`.
//!
//! `ghost.rs` sums clipped gradients without their rows, in integers.
//!
//! **Repeatable.** A client is one thread. A sample's values and gradient row have the same bits in every batch (see
//! [`crate::backend::simd`]'s products), a batch's gradient is summed in the order of its samples. Bits may differ between
//! processors with and without fused multiplication, and from those of the framework.
//!
//! **Clients stay apart.** Clients whose weights differ share no load of them, so that a leading axis would save calls and no
//! arithmetic. A step of 10 samples runs at 50 GFLOP/s in `mnist_2nn`, 37 to 55 in `mnist_mlp`, and 6 in `digits_mlp`, which is 17 us a step: there
//! calls and short rows are what costs (one thread with AVX-512, `examples/training_speed.rs MODEL 10 1 5 400`).
//!
//! **Dropout.** Value u of visit v of a call is kept if word `v U + u` of the keystream of the call's key, from byte 2^37
//! on, is below `(1 - share) 2^32`. A visit is one pass over one sample in training, counted from 0 in the order of the
//! mini-batches; U counts the values of all dropout layers of a sample, in their order.

mod attention;
mod conv;
mod ghost;
mod linear;
mod loss;
mod network;
#[cfg(all(test, feature = "device-training"))]
mod oracle;
mod pointwise;
mod pool;
mod sequence;
mod trainer;

pub use self::trainer::CpuTrainer;

/// Most samples of one pass.
const CHUNK: usize = 32;
/// Values that the memory of a pass may have, 256 MiB of them, where a sample has fewer.
const MOST_VALUES: usize = 1 << 26;
