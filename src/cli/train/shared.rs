//! `veilsum train --mpi`: as one of several processes.

use super::Args;
use crate::cli::{Exit, Failure};

/// What those who start processes tell each of their number.
const SIZES: [(&str, &str); 3] =
    [("OMPI_COMM_WORLD_SIZE", "mpirun"), ("PMI_SIZE", "mpirun or srun"), ("SLURM_STEP_NUM_TASKS", "srun")];

/// Refuses to run the same experiment several times over, all in one folder.
///
/// # Errors
/// If more than one process was started.
pub(super) fn refuse_unasked() -> Result<(), Failure> {
    for (variable, starter) in SIZES {
        let size = std::env::var(variable).ok().and_then(|text| text.parse::<u32>().ok());
        if let Some(size) = size.filter(|&size| size > 1) {
            let message = format!(
                "{starter} has started {size} processes, and each of them would run the whole experiment; share it with --mpi"
            );
            return Err(Failure::new(Exit::Usage, message));
        }
    }
    Ok(())
}

/// Trains as one of the ranks. A rank that fails, or panics, ends all of them: they would wait for it.
#[cfg(feature = "mpi")]
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    use crate::sim::ranks::Ranks;
    use crate::sim::ranks::mpi::MpiRanks;

    let Some(ranks) = MpiRanks::start() else {
        return Err(Failure::new(Exit::Failure, "MPI was started before in this process"));
    };
    if ranks.size() > 1 {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            usual(panic);
            std::process::abort();
        }));
    }
    match super::train(args, &ranks, ranks.device()) {
        Ok(()) => ranks.finish(),
        Err(failure) if failure.exit == Exit::Interrupted => {
            let first = ranks.rank() == 0;
            ranks.finish();
            if first {
                return Err(failure);
            }
            // Rank 0 has said it.
            std::process::exit(Exit::Interrupted as i32);
        }
        Err(failure) if ranks.size() > 1 => {
            eprintln!("error in rank {} of {}: {failure}", ranks.rank(), ranks.size());
            ranks.abort(failure.exit as i32);
        }
        Err(failure) => return Err(failure),
    }
    Ok(())
}

/// There is no MPI in this build.
#[cfg(not(feature = "mpi"))]
pub(super) fn run(_args: &Args) -> Result<(), Failure> {
    Err(Failure::new(
        Exit::Usage,
        "this build has no MPI; build one with `cargo build --release --features mpi` (on Debian it needs the packages \
         libopenmpi-dev and libclang-dev)",
    ))
}
