//! The processor: name, cores, caches.

use std::path::Path;

use serde::{Deserialize, Serialize};

/// What the measurements ran on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Model of the processor, `unknown` where the system does not say.
    pub cpu: String,
    /// Operating system and architecture.
    pub platform: String,
    /// Processors (hardware threads) that this process may use.
    pub processors: usize,
    /// First-level data cache of a core, in bytes.
    pub l1: usize,
    /// Second-level cache of a core, in bytes.
    pub l2: usize,
    /// Last cache, in bytes; shared.
    pub l3: usize,
    /// True if the system does not say how large its caches are and usual sizes were taken.
    pub caches_assumed: bool,
}

/// Sizes where the system names none: 32 KiB, 1 MiB, 32 MiB.
const USUAL: [usize; 3] = [32 << 10, 1 << 20, 32 << 20];

impl Machine {
    /// Asks the operating system.
    #[must_use]
    pub fn detect() -> Self {
        let found = caches(Path::new("/sys/devices/system/cpu/cpu0/cache"));
        let size = |level: usize| found[level].unwrap_or(USUAL[level]);
        let l1 = size(0);
        let l2 = size(1).max(l1);
        // A machine without a third level has the second as its last.
        let l3 = if found[1].is_some() && found[2].is_none() { l2 } else { size(2).max(l2) };
        Self {
            cpu: std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|t| model(&t)).unwrap_or("unknown".into()),
            platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            l1,
            l2,
            l3,
            caches_assumed: found[0].is_none(),
        }
    }

    /// The level that holds `bytes` when `threads` threads share the work: 0, 1, 2 for a cache, 3 for memory.
    /// The first two levels are private to a core, the last is shared.
    #[must_use]
    pub fn level_of(&self, bytes: f64, threads: usize) -> usize {
        let share = bytes / threads.max(1) as f64;
        match () {
            () if share <= self.l1 as f64 => 0,
            () if share <= self.l2 as f64 => 1,
            () if bytes <= self.l3 as f64 => 2,
            () => 3,
        }
    }
}

/// The processor's model from the text of `/proc/cpuinfo`.
fn model(text: &str) -> Option<String> {
    let value = |key: &str| {
        let line = text.lines().find(|l| l.split(':').next().is_some_and(|k| k.trim() == key))?;
        Some(line.split_once(':')?.1.trim().to_owned()).filter(|v| !v.is_empty())
    };
    value("model name").or_else(|| value("Model")).or_else(|| value("Hardware"))
}

/// Sizes of the data caches of levels 1, 2, 3 below a folder of `sysfs`.
fn caches(folder: &Path) -> [Option<usize>; 3] {
    let mut sizes = [None; 3];
    for index in 0..8 {
        let word = |file: &str| {
            let text = std::fs::read_to_string(folder.join(format!("index{index}")).join(file)).ok()?;
            Some(text.trim().to_owned())
        };
        let level = word("level").and_then(|l| l.parse::<usize>().ok()).filter(|l| (1..=3).contains(l));
        if let (Some(level), Some(kind), Some(size)) = (level, word("type"), word("size"))
            && kind != "Instruction"
        {
            sizes[level - 1] = bytes(&size);
        }
    }
    sizes
}

/// `48K`, `2M`, `1024` in bytes.
fn bytes(text: &str) -> Option<usize> {
    let (number, unit) = match text.strip_suffix(['K', 'M', 'G']) {
        Some(number) => (
            number,
            match text.chars().next_back() {
                Some('K') => 10,
                Some('M') => 20,
                _ => 30,
            },
        ),
        None => (text, 0),
    };
    number.parse::<usize>().ok()?.checked_mul(1 << unit).filter(|&b| b > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_the_system_are_read() {
        assert_eq!(bytes("48K"), Some(48 << 10));
        assert_eq!(bytes("2M"), Some(2 << 20));
        assert_eq!(bytes("512"), Some(512));
        for odd in ["", "K", "x", "-1K", "0K", "99999999999999999999G"] {
            assert_eq!(bytes(odd), None, "{odd}");
        }
        assert_eq!(model("processor : 0\nmodel name\t: Some CPU @ 2 GHz\n").as_deref(), Some("Some CPU @ 2 GHz"));
        assert_eq!(model("model name :\n"), None);
        assert_eq!(model(""), None);
    }

    #[test]
    fn levels_and_a_machine_that_says_nothing() {
        assert_eq!(caches(Path::new("/no/such/folder")), [None; 3]);
        let here = Machine::detect();
        assert!(here.processors > 0 && here.l1 <= here.l2 && here.l2 <= here.l3);
        let m = Machine { l1: 100, l2: 1000, l3: 10_000, ..here };
        let levels = [100.0, 101.0, 1000.0, 1001.0, 10_000.0, 10_001.0].map(|b| m.level_of(b, 1));
        assert_eq!(levels, [0, 1, 1, 2, 2, 3]);
        assert_eq!(m.level_of(200.0, 2), 0);
        assert_eq!(m.level_of(20_000.0, 2), 3);
    }
}
