//! The one integration-test binary; a module a topic.

mod accounting;
mod audit;
mod bench;
mod cli;
mod compression;
mod correlated;
mod data;
mod device_loss;
mod device_training;
mod dropout;
mod federation;
mod he;
mod kernels;
mod layering;
mod ledger;
mod matrix;
mod model;
mod protected;
mod query;
mod regression;
mod rounded;
mod sample_command;
mod samplers;
mod secagg;
mod secagg_command;
mod training;
