//! The one integration-test binary; a module a topic.

mod accounting;
mod asynchrony;
mod audit;
mod bench;
mod cli;
mod collective;
mod compression;
mod correlated;
mod data;
mod device_loss;
#[cfg(feature = "device-training")]
mod device_training;
mod dp_sgd;
mod dropout;
mod federation;
mod groups;
mod he;
mod kernels;
mod layering;
mod layers;
mod ledger;
mod matrix;
mod model;
#[cfg(feature = "net")]
mod network;
mod protected;
mod query;
mod ranks;
mod regression;
mod robust;
mod rounded;
mod rules;
mod sample_command;
mod samplers;
mod secagg;
mod secagg_command;
mod training;
mod two_levels;
