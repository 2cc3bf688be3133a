//! CUDA kernels on the processor: compiled as C++ against `kernels/emulation`, once a version of their text, and called
//! through a shared library. And the mistakes that the emulation has to notice.

use std::ffi::{CString, c_char, c_int, c_uint, c_ulonglong, c_void};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use libloading::Library;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

/// The C interface of `kernels/emulation/launch.cpp`.
type LaunchFn = unsafe extern "C" fn(
    *const c_char,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    *const c_void,
    usize,
    *const *mut c_void,
    c_int,
    c_ulonglong,
    *mut c_char,
    usize,
) -> c_int;

/// A grid, the threads of a block, and the bytes of its dynamic shared memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) grid: [u32; 2],
    pub(crate) threads: u32,
    pub(crate) shared_bytes: u32,
}

/// Compiled kernels.
#[derive(Debug)]
pub(crate) struct Emulation {
    library: Library,
}

const FLAGS: [&str; 9] = [
    "-std=c++17",
    "-O2",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-unknown-pragmas",
    "-ffp-contract=off",
    "-fPIC",
    "-fvisibility=hidden",
];

fn kernels_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels")
}

/// The files of a folder with one of the extensions, sorted.
fn files_in(folder: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| extensions.iter().any(|e| found == *e)))
        .collect();
    files.sort();
    files
}

/// Runs a command and returns what it prints.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| {
        panic!("{:?}: {e}; the emulation of CUDA needs a C++ compiler: install the package g++", command.get_program())
    });
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The headers that any kernel may include, as one digest.
fn headers() -> Sha256 {
    let mut hash = Sha256::new();
    for folder in ["common", "emulation", "emulation/driver"] {
        for file in files_in(&kernels_dir().join(folder), &["cuh", "h"]) {
            hash.update(fs::read(file).unwrap());
        }
    }
    hash.update(FLAGS.concat());
    hash
}

/// Runs `make` on a temporary name unless `file` is there; whoever comes second finds a whole file.
fn once(file: &Path, make: impl FnOnce(&Path)) {
    if !file.exists() {
        let unfinished = file.with_extension(format!("{}.tmp", std::process::id()));
        make(&unfinished);
        fs::rename(unfinished, file).unwrap();
    }
}

/// The object file of a source; its name says what it was made of.
fn object(source: &Path, folder: &Path) -> PathBuf {
    let digest = headers().chain_update(fs::read(source).unwrap()).finalize();
    let stem = source.file_stem().unwrap().to_string_lossy();
    let file = folder.join(format!("{stem}-{}.o", hex::encode(&digest[..8])));
    once(&file, |out| {
        let language = ["-x", "c++", "-c"];
        run(Command::new("c++").args(FLAGS).arg("-I").arg(kernels_dir()).args(language).arg(source).arg("-o").arg(out));
    });
    file
}

/// Why the kernels cannot run here: the compiler's code has to fit this program, which scripts/neon builds for another
/// processor than the machine's, and be linked as Linux does.
pub(crate) fn unavailable() -> Option<String> {
    if !cfg!(target_os = "linux") {
        return Some("the emulation of CUDA is for Linux".to_owned());
    }
    let machine = run(Command::new("c++").arg("-dumpmachine"));
    let fits = machine.split('-').next() == Some(std::env::consts::ARCH);
    (!fits).then(|| format!("the C++ compiler makes code for {}", machine.trim()))
}

/// True where the kernels run, else says that a test is skipped.
pub(crate) fn available() -> bool {
    let why = unavailable();
    if let Some(why) = &why {
        eprintln!("SKIPPED: {why}");
    }
    why.is_none()
}

/// A shared library of the sources and of the scheduler; its name below the folder of the emulation follows from a digest
/// of what it is made of.
fn linked(sources: &[PathBuf], name: impl FnOnce(&str) -> String) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("emulation");
    fs::create_dir_all(&folder).unwrap();
    // Test processes that start together do not compile the same thing at once.
    let lock = fs::File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    let runtime = kernels_dir().join("emulation/launch.cpp");
    let objects: Vec<PathBuf> =
        sources.iter().chain([&runtime]).collect::<Vec<_>>().into_par_iter().map(|s| object(s, &folder)).collect();
    let names = objects.iter().map(|o| o.to_string_lossy()).collect::<String>();
    let file = folder.join(name(&hex::encode(&Sha256::digest(names)[..8])));
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    once(&file, |out| {
        run(Command::new("c++").arg("-shared").args(&objects).arg("-o").arg(out));
    });
    file
}

/// The folder of a `libcuda.so` that runs all kernels of the repository on the processor: `kernels/emulation/driver`.
pub(crate) fn driver_folder() -> PathBuf {
    let sources = [files_in(&kernels_dir(), &["cu"]), files_in(&kernels_dir().join("emulation/driver"), &["cpp"])];
    linked(&sources.concat(), |digest| format!("driver-{digest}/libcuda.so")).parent().unwrap().to_path_buf()
}

impl Emulation {
    /// All kernels of the repository.
    pub(crate) fn kernels() -> &'static Self {
        static KERNELS: OnceLock<Emulation> = OnceLock::new();
        KERNELS.get_or_init(|| Self::build(&files_in(&kernels_dir(), &["cu"])))
    }

    /// Compiles and loads what has changed since the last time.
    pub(crate) fn build(sources: &[PathBuf]) -> Self {
        let file = linked(sources, |digest| format!("kernels-{digest}.so"));
        // SAFETY: the library was linked here from sources of this repository; its initializers only note kernels.
        let library = unsafe { Library::new(&file) }.unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        Self { library }
    }

    /// Runs a kernel.
    ///
    /// # Safety
    /// The pointers are the kernel's buffers in order, each aligned to 16 bytes and as long as the parameters say, and
    /// nobody else uses them.
    pub(crate) unsafe fn launch(
        &self,
        entry: &str,
        shape: Shape,
        params: &[u8],
        buffers: &[*mut c_void],
        seed: u64,
    ) -> Result<(), String> {
        let name = CString::new(entry).unwrap();
        let mut error = [0u8; 512];
        // SAFETY: the symbol has this type in launch.cpp.
        let launch = unsafe { self.library.get::<LaunchFn>(b"veilsum_launch\0") }.map_err(|e| e.to_string())?;
        // SAFETY: strings end with a zero byte, lengths are those of the slices; the caller answers for the buffers.
        let status = unsafe {
            launch(
                name.as_ptr(),
                shape.grid[0],
                shape.grid[1],
                shape.threads,
                shape.shared_bytes,
                params.as_ptr().cast(),
                params.len(),
                buffers.as_ptr(),
                buffers.len() as c_int,
                seed,
                error.as_mut_ptr().cast(),
                error.len(),
            )
        };
        let end = error.iter().position(|&b| b == 0).unwrap_or(error.len());
        if status == 0 { Ok(()) } else { Err(String::from_utf8_lossy(&error[..end]).into_owned()) }
    }
}

/// The kernels of `broken.cu`.
fn broken() -> &'static Emulation {
    static BROKEN: OnceLock<Emulation> = OnceLock::new();
    BROKEN.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/kernels/broken.cu");
        Emulation::build(&[source])
    })
}

/// Runs a kernel of `broken.cu` on one block; an output of 512 words and, if asked for, an input of 64.
fn run_broken(entry: &str, threads: u32, mistake: u32, with_input: bool, seed: u64) -> Result<Vec<u32>, String> {
    let shape = Shape { grid: [1, 1], threads, shared_bytes: 256 };
    let mut out = vec![0u32; 512];
    let mut input: Vec<u32> = (100..164).collect();
    let mut buffers: Vec<*mut c_void> = vec![out.as_mut_ptr().cast()];
    if with_input {
        buffers.push(input.as_mut_ptr().cast());
    }
    let params = bytemuck::cast::<[u32; 4], [u8; 16]>([mistake, 0, 0, 0]);
    // SAFETY: the kernels of broken.cu use at most 512 and 64 words, and no 16-byte vectors.
    unsafe { broken().launch(entry, shape, &params, &buffers, seed) }?;
    Ok(out)
}

#[test]
fn a_missing_barrier_shows() {
    if !available() {
        return;
    }
    for (entry, threads) in [("mirror", 64), ("mirror_warp", 32)] {
        let expected: Vec<u32> = (100..100 + threads).rev().collect();
        let right =
            |mistake, seed| run_broken(entry, threads, mistake, true, seed).unwrap()[..threads as usize] == expected;
        for seed in 0..20 {
            assert!(right(0, seed), "{entry}, seed {seed}");
            assert!(!right(1, seed), "{entry} without its barrier, seed {seed}");
        }
    }
}

#[test]
fn what_would_hang_or_be_undefined_is_an_error_that_says_where() {
    if !available() {
        return;
    }
    let expected = [
        (1, "wait at different barriers"),
        (2, "thread 7 has ended"),
        (3, "waits for its warp"),
        (4, "reads lane 20, which is not in the mask"),
        (5, "beyond its 256 bytes of dynamic shared memory"),
    ];
    for seed in 0..10 {
        let sums = run_broken("divergent", 64, 0, false, seed).unwrap();
        assert_eq!((sums[0], sums[63]), (496, 1520));
        for (mistake, text) in expected {
            let error = run_broken("divergent", 64, mistake, false, seed).unwrap_err();
            assert!(error.contains(text), "mistake {mistake}: {error}");
        }
    }
    assert!(run_broken("absent", 64, 0, false, 0).unwrap_err().contains("no kernel absent"));
    assert!(run_broken("mirror", 64, 0, false, 0).unwrap_err().contains("takes 2 buffers, not 1"));
    assert!(run_broken("mirror", 2000, 0, true, 0).unwrap_err().contains("1 to 1024 threads"));
}

#[test]
fn lanes_exchange_what_they_should() {
    if !available() {
        return;
    }
    let out = run_broken("together", 96, 5, false, 3).unwrap();
    let x = |thread: u32| thread + 5;
    for thread in 0..96u32 {
        let (i, first, lane) = (thread as usize, thread / 32 * 32, thread % 32);
        assert_eq!(out[i], (first..first + 32).map(x).sum::<u32>());
        let ballot = (first..first + 32).filter(|&t| x(t).is_multiple_of(3)).fold(0, |b, t| b | 1u32 << (t - first));
        assert_eq!(out[i + 96], ballot);
        assert_eq!(out[i + 192], if lane == 31 { x(thread) } else { x(thread + 1) });
        if lane % 2 == 0 {
            assert_eq!(out[i + 384], x(first + 4));
        }
        assert_eq!(out[i + 288], if lane % 8 < 3 { x(thread) } else { x(thread - 3) });
    }
    assert_eq!((out[480], out[481]), ((0..96).map(x).sum(), x(95)));
}
