//! The one integration-test binary; a module a topic.

mod accounting;
mod cli;
mod data;
mod federation;
mod kernels;
mod layering;
mod model;
mod samplers;
mod training;
