//! What a reader of a run's results has to know: what is protected from whom, and what is not.

use super::super::{BackendName, CipherName, Config, resolve, samples};
use crate::fl::plan::{NoisePlacement, Plan};
use crate::fl::protocol::mphe::MpheTrust;
use crate::fl::protocol::{Protocol, ServerBehavior};

/// Clients that are in league with the server know their own noise.
fn warn_of_told_noise(notes: &mut Vec<String>, plan: &Plan, corrupt: f64) {
    let told = plan.dropout.map_or(0, |dropout| dropout.colluders);
    if plan.placement == NoisePlacement::PerClient && told == 0 && corrupt > 0.0 {
        notes.push("Epsilon counts the noise of clients that are in league with the server as unknown to it (privacy.dropout.colluders).".into());
    }
}

/// Noise that somebody could compute is none to them.
fn warn_of_known_randomness(notes: &mut Vec<String>, config: &Config) {
    if config.seed.is_some() {
        notes.push(
            "The run has a seed: whoever knows it can recompute the noise. For experiments, not for releases.".into(),
        );
    }
    if config.privacy.cipher == CipherName::ChaCha8 {
        notes.push("Randomness by ChaCha8: for simulations only.".into());
    }
}

/// The notes of a run.
pub(super) fn notes(config: &Config, plan: &Plan, predicted_wrap: Option<f64>, on_device: bool) -> Vec<String> {
    let mut notes = Vec::new();
    if on_device {
        notes.push("The clients train on the device of the backend (train_on=cpu trains on the processor).".into());
    } else if config.backend == Some(BackendName::Cuda) && config.train_on.is_none() {
        notes.push("The clients train on the processor (train_on=backend trains on the device).".into());
    }
    if let (Some(compression), Ok(encode)) = (&plan.compression, plan.encode_params()) {
        let padded =
            if encode.padded == encode.dim { String::new() } else { format!(", {} with padding", encode.padded) };
        let kept = if compression.error_feedback() { "; each client keeps the rest for its next vector" } else { "" };
        let size = compression.size(plan.dim);
        notes.push(format!(
            "Compression {}: {size} values for {} parameters{padded}{kept}.",
            compression.name(),
            plan.dim
        ));
    }
    if !plan.is_private() {
        let name = plan.mechanism.name();
        let mechanism =
            if plan.is_exact() { "No mechanism".into() } else { format!("Mechanism `{name}` has no noise") };
        match &plan.samples {
            None => notes.push(format!("{mechanism}: nothing is protected.")),
            Some(samples) => {
                notes.extend(samples::notes(samples, false, config));
                warn_of_known_randomness(&mut notes, config);
            }
        }
        return notes;
    }
    if let Some(samples) = &plan.samples {
        notes.extend(samples::notes(samples, true, config));
    }
    if plan.placement == NoisePlacement::Aggregate && plan.mechanism.distributed() {
        notes.push("Noise `aggregate`: the sum of all clients' shares is drawn once from the summed law. The distribution is that of `per_client`; only a simulation may do this.".into());
    }
    if let Protocol::Masks(masks) = &plan.protocol {
        let server = match masks.server {
            ServerBehavior::Malicious => "whatever it does",
            ServerBehavior::SemiHonest => "as long as it follows the protocol",
        };
        notes.push(format!(
            "Masks: the server sees the sum alone, {server}, with up to {} of a cohort in league with it.",
            masks.corrupt
        ));
        warn_of_told_noise(&mut notes, plan, masks.corrupt);
    }
    if let Protocol::Oneshot(oneshot) = &plan.protocol {
        notes.push(format!(
            "One message a client: the server sees the sum alone, whatever it does, with up to {} of a cohort and {} of {} key holders in league with it; {} holders open.",
            oneshot.corrupt,
            oneshot.corrupt_holders,
            oneshot.holders,
            oneshot.needed()
        ));
        warn_of_told_noise(&mut notes, plan, oneshot.corrupt);
    }
    if let Protocol::Mphe(mphe) = &plan.protocol {
        let server = match mphe.trust {
            MpheTrust::SemiHonestServer => format!(
                "as long as it follows the protocol, with up to {} of a cohort and {} of {} key holders in league with it",
                mphe.corrupt(),
                mphe.corrupt_holders,
                mphe.holders
            ),
            MpheTrust::HonestRoster => format!(
                "whatever it does, with up to {} of {} key holders and no client in league with it",
                mphe.corrupt_holders, mphe.holders
            ),
        };
        notes.push(format!(
            "A collective key: the server sees the sum alone, {server}; {} holders open. {}.",
            mphe.needed(),
            match mphe.refresh {
                Some(rounds) => format!("A fresh key after {rounds} rounds"),
                None => "One key for the run, another where it is resumed".to_owned(),
            }
        ));
        warn_of_told_noise(&mut notes, plan, mphe.corrupt());
    }
    if !plan.mechanism.distributed() {
        notes.push("The noise is added once by a trusted aggregator, who sees the exact sum.".into());
    }
    if let Some((rule, first)) = &plan.adaptive {
        notes.push(format!(
            "The clip bound begins at {first} and follows the {} quantile of the clients' norms; the answers are part of the accounted release (its L2 bound is {:.6}).",
            rule.quantile,
            rule.joint_clip(*first)
        ));
    }
    if let Some(correlation) = plan.mechanism.correlation() {
        notes.push(resolve::matrix::note(&correlation));
    }
    if !plan.mechanism.certified() {
        notes.push("A bound behind this mechanism's epsilon is computed but not proved (certified: false).".into());
    }
    warn_of_known_randomness(&mut notes, config);
    if plan.delta >= 1.0 / plan.clients as f64 {
        notes.push(format!(
            "Warning: delta {:e} is not below 1/N = {:.1e}; such a delta allows one client's data to be published outright.",
            plan.delta,
            1.0 / plan.clients as f64
        ));
    }
    if let Some(wrap) = predicted_wrap.filter(|&w| w > config.privacy.wrap_limit) {
        notes.push(format!("Warning: {:.2} % of the coordinates are predicted to wrap (allow_wrap).", 100.0 * wrap));
    }
    notes
}
