//! Ranks of MPI: the processes that `mpirun` or Slurm has started (Message Passing Interface 4.1, chapters 5 and 6).

use mpi::Threading;
use mpi::collective::SystemOperation;
use mpi::datatype::PartitionMut;
use mpi::environment::Universe;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives, Equivalence, Root};

use super::Ranks;

/// Elements of one message: counts of MPI are `int`.
const PIECE: usize = 1 << 26;

/// The ranks of this run. MPI is finished when the last handle goes.
pub struct MpiRanks {
    world: SimpleCommunicator,
    device: usize,
    universe: Option<Universe>,
}

impl std::fmt::Debug for MpiRanks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MpiRanks({} of {})", self.rank(), self.size())
    }
}

impl MpiRanks {
    /// Starts MPI; `None` if it was started before in this process. The thread that does is the one that may use it.
    #[must_use]
    pub fn start() -> Option<Self> {
        let (universe, _) = mpi::initialize_with_threading(Threading::Funneled)?;
        let world = universe.world();
        let device = usize::try_from(world.split_shared(world.rank()).rank()).unwrap_or(0);
        Some(Self { world, device, universe: Some(universe) })
    }

    /// The number of this process among those of its machine, from 0: which device it takes.
    #[must_use]
    pub const fn device(&self) -> usize {
        self.device
    }

    /// Ends the processes of all ranks at once, in whatever they are doing.
    pub fn abort(&self, code: i32) -> ! {
        self.world.abort(code)
    }

    /// Leaves MPI when all ranks do.
    pub fn finish(mut self) {
        drop(self.universe.take());
    }

    fn reduce<T: Equivalence + Copy>(&self, words: &mut [T]) {
        for piece in words.chunks_mut(PIECE) {
            let own = piece.to_vec();
            self.world.all_reduce_into(&own[..], piece, SystemOperation::sum());
        }
    }
}

impl Drop for MpiRanks {
    /// Whoever drops it without [`Self::finish`] fails while the others wait: a process that left MPI here would wait for them.
    fn drop(&mut self) {
        std::mem::forget(self.universe.take());
    }
}

impl Ranks for MpiRanks {
    fn rank(&self) -> usize {
        usize::try_from(self.world.rank()).unwrap_or(0)
    }

    fn size(&self) -> usize {
        usize::try_from(self.world.size()).unwrap_or(1)
    }

    fn broadcast(&self, bytes: &mut Vec<u8>) {
        let first = self.world.process_at_rank(0);
        let mut len = bytes.len() as u64;
        first.broadcast_into(&mut len);
        bytes.resize(len as usize, 0);
        for piece in bytes.chunks_mut(PIECE) {
            first.broadcast_into(piece);
        }
    }

    fn gather(&self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut lens = vec![0u64; self.size()];
        self.world.all_gather_into(&(bytes.len() as u64), &mut lens[..]);
        let total: u64 = lens.iter().sum();
        if total > PIECE as u64 {
            return self.gather_long(bytes, &lens);
        }
        // All counts fit, as their sum does.
        let counts: Vec<i32> = lens.iter().map(|&len| len as i32).collect();
        let begins: Vec<i32> = counts.iter().scan(0, |at, count| Some(std::mem::replace(at, *at + count))).collect();
        // An empty slice may lie at address 1, which is what some call MPI_IN_PLACE: no buffer here is without memory.
        let mut own = Vec::with_capacity(bytes.len() + 1);
        own.extend_from_slice(bytes);
        let mut all = vec![0u8; total as usize + 1];
        let mut parts = PartitionMut::new(&mut all[..total as usize], counts, begins);
        self.world.all_gather_varcount_into(&own[..], &mut parts);
        let mut rest = &all[..];
        let part = |len: &u64| {
            let (part, behind) = rest.split_at(*len as usize);
            rest = behind;
            part.to_vec()
        };
        lens.iter().map(part).collect()
    }

    fn add(&self, words: &mut [u64]) {
        self.reduce(words);
    }

    fn add_narrow(&self, words: &mut [u32]) {
        self.reduce(words);
    }
}

impl MpiRanks {
    /// The same rank by rank, in pieces.
    fn gather_long(&self, bytes: &[u8], lens: &[u64]) -> Vec<Vec<u8>> {
        let one = |(rank, &len): (usize, &u64)| {
            let mut part = if rank == self.rank() { bytes.to_vec() } else { vec![0; len as usize] };
            let root = self.world.process_at_rank(rank as i32);
            part.chunks_mut(PIECE).for_each(|piece| root.broadcast_into(piece));
            part
        };
        lens.iter().enumerate().map(one).collect()
    }
}
