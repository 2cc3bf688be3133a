//! Whether training on CUDA would find its compiler here, without loading anything; `compiler` tries what is found.
//!
//! The framework makes its kernels at run time with NVRTC, which reads the headers of CUDA, and a worker of it panics
//! where one of the two is missing. The kernels of this crate are compiled beforehand and need neither.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

/// Major version of CUDA whose NVRTC the framework loads.
pub const NVRTC_MAJOR: u32 = 12;

/// Where the framework and the loader look.
#[derive(Clone, Debug)]
pub struct Places {
    /// `CUDA_PATH`, where the framework takes the headers from if it is set.
    pub cuda_path: Option<PathBuf>,
    /// `CUDA_HOME`, which it does not read.
    pub cuda_home: Option<PathBuf>,
    /// Folders that the loader searches before those of the system.
    pub library_path: Vec<PathBuf>,
    /// The root of the file system; another one in tests.
    pub root: PathBuf,
}

impl Places {
    /// Those of this process.
    #[must_use]
    pub fn from_env() -> Self {
        let folder = |name| std::env::var_os(name).filter(|value: &OsString| !value.is_empty()).map(PathBuf::from);
        let search = if cfg!(windows) { "PATH" } else { "LD_LIBRARY_PATH" };
        let search = std::env::var_os(search).unwrap_or_default();
        Self {
            cuda_path: folder("CUDA_PATH"),
            cuda_home: folder("CUDA_HOME"),
            library_path: std::env::split_paths(&search).filter(|p| p.is_absolute()).collect(),
            root: PathBuf::from("/"),
        }
    }

    fn system(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The folder of the toolkit that the framework takes; it does not look whether `CUDA_PATH` exists.
    fn toolkit(&self) -> Option<PathBuf> {
        if let Some(path) = &self.cuda_path {
            return Some(path.clone());
        }
        let mut usual = ["/usr/local/cuda", "/opt/cuda"].into_iter().map(|path| self.system(path));
        usual.find(|path| path.exists()).or_else(|| {
            // What a distribution installs.
            self.system("/usr/bin/nvcc").exists().then(|| self.system("/usr"))
        })
    }

    /// Where the loader looks for a library.
    fn searched(&self) -> Vec<PathBuf> {
        let mut folders = self.library_path.clone();
        folders.extend(["/lib", "/usr/lib", "/lib64", "/usr/lib64"].map(|path| self.system(path)));
        let multiarch = format!("{}-linux-gnu", std::env::consts::ARCH);
        folders.extend(["/lib", "/usr/lib"].map(|path| self.system(path).join(&multiarch)));
        folders
    }

    /// The paths of the loader's cache that end in `name`.
    fn cached(&self, name: &str) -> Vec<PathBuf> {
        let bytes = std::fs::read(self.system("/etc/ld.so.cache")).unwrap_or_default();
        let suffix = format!("/{name}");
        let strings = bytes.split(|&b| b == 0).filter_map(|s| std::str::from_utf8(s).ok());
        strings.filter(|s| s.starts_with('/') && s.ends_with(&suffix)).map(|s| self.system(s)).collect()
    }

    /// Where a toolkit keeps its libraries, whether the loader looks there or not.
    fn beside(&self) -> Vec<PathBuf> {
        let roots = [self.cuda_path.clone(), self.cuda_home.clone(), self.toolkit()];
        let folders = ["lib64", "lib", "bin", "targets/x86_64-linux/lib", "targets/sbsa-linux/lib"];
        roots.iter().flatten().flat_map(|root| folders.map(|folder| root.join(folder))).collect()
    }
}

/// A part that is missing, and where to get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// `NVRTC`, `CUDA headers` or `CCCL headers`.
    pub what: &'static str,
    /// What was looked for, where, and what was found instead.
    pub reason: String,
    /// Packages of Debian and Ubuntu, and of NVIDIA's own repository for them (`apt`).
    pub apt: &'static str,
    /// Wheels.
    pub pip: &'static str,
}

/// What there is of the compiler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolkit {
    /// The library that would be loaded.
    pub nvrtc: Option<PathBuf>,
    /// The folder of the headers that would be read, if the necessary ones are in it.
    pub headers: Option<PathBuf>,
    /// The folder of CCCL, which some kernels include.
    pub cccl: Option<PathBuf>,
    /// What is missing.
    pub missing: Vec<Missing>,
}

impl fmt::Display for Missing {
    /// One line: what is missing, why, and the packages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (apt: {}; pip: {})", self.what, self.reason, self.apt, self.pip)
    }
}

impl Toolkit {
    /// What is missing, with the packages that hold it, in one line; nothing if all is there.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        let missing: Vec<String> = self.missing.iter().map(ToString::to_string).collect();
        (!missing.is_empty()).then(|| missing.join("; "))
    }
}

/// What every kernel of the framework includes, and what those for half precision do.
const HEADERS: [&str; 4] = ["cuda_runtime.h", "crt/host_config.h", "cuda_fp16.h", "cuda_bf16.h"];

/// Looks for NVRTC and for the headers that it would be given.
#[must_use]
pub fn look(places: &Places) -> Toolkit {
    let mut missing = Vec::new();
    let mut keep = |found: Result<PathBuf, Missing>| found.map_err(|m| missing.push(m)).ok();
    let nvrtc = keep(nvrtc(places));
    let headers = keep(headers(places));
    let cccl = keep(cccl(places));
    Toolkit { nvrtc, headers, cccl, missing }
}

fn nvrtc(places: &Places) -> Result<PathBuf, Missing> {
    let names: Vec<String> = if cfg!(windows) {
        vec!["nvrtc.dll".into(), format!("nvrtc64_{NVRTC_MAJOR}0_0.dll")]
    } else {
        vec!["libnvrtc.so".into(), format!("libnvrtc.so.{NVRTC_MAJOR}")]
    };
    let found = names.iter().find_map(|name| {
        let folders = places.searched().into_iter().map(|folder| folder.join(name));
        folders.chain(places.cached(name)).find(|path| path.exists())
    });
    found.ok_or_else(|| {
        let wanted = names.join(" or ");
        let reason = match stray(places, &names) {
            Some(path) => format!(
                "{} is there, where the loader does not look: add its folder to {}",
                path.display(),
                if cfg!(windows) { "PATH" } else { "LD_LIBRARY_PATH" }
            ),
            None => format!("the loader finds no {wanted}"),
        };
        Missing {
            what: "NVRTC",
            reason,
            apt: "libnvrtc12 (Debian, Ubuntu) or cuda-nvrtc-12-8 (NVIDIA's repository)",
            pip: "nvidia-cuda-nvrtc-cu12, its folder nvidia/cuda_nvrtc/lib in LD_LIBRARY_PATH",
        }
    })
}

/// The library in a toolkit that the loader does not search.
fn stray(places: &Places, names: &[String]) -> Option<PathBuf> {
    places.beside().iter().flat_map(|folder| names.iter().map(|name| folder.join(name))).find(|path| path.exists())
}

fn headers(places: &Places) -> Result<PathBuf, Missing> {
    let include = places.toolkit().map(|path| path.join("include"));
    let absent = |folder: &Path| HEADERS.into_iter().filter(|name| !folder.join(name).exists()).collect::<Vec<_>>();
    let reason = match &include {
        Some(folder) if absent(folder).is_empty() => return Ok(folder.clone()),
        Some(folder) => format!("{} lacks {}", folder.display(), absent(folder).join(", ")),
        None => "CUDA_PATH is not set, and neither /usr/local/cuda, /opt/cuda nor /usr/bin/nvcc exists".to_owned(),
    };
    let home = places.cuda_home.as_ref().filter(|home| absent(&home.join("include")).is_empty());
    let reason = match home {
        Some(home) => format!("{reason}; CUDA_HOME has them, but CUDA_PATH is read: set it to {}", home.display()),
        None => reason,
    };
    Err(Missing {
        what: "CUDA headers",
        reason,
        apt: "nvidia-cuda-dev with CUDA_PATH=/usr (Debian, Ubuntu) or cuda-cudart-dev-12-8 and cuda-crt-12-8 (NVIDIA's \
              repository)",
        pip: "nvidia-cuda-runtime-cu12 and, for crt/, nvidia-cuda-nvcc-cu12: both include folders in one, CUDA_PATH \
              above it",
    })
}

fn cccl(places: &Places) -> Result<PathBuf, Missing> {
    let include = places.toolkit().map(|path| path.join("include"));
    let folders = include.iter().flat_map(|folder| [folder.join("cccl"), folder.clone()]);
    folders.into_iter().find(|folder| folder.join("cuda/barrier").exists()).ok_or_else(|| Missing {
        what: "CCCL headers",
        reason: match include {
            Some(folder) => {
                format!(
                    "{} has neither cccl/cuda/barrier nor cuda/barrier, which some kernels include",
                    folder.display()
                )
            }
            None => "they belong beside the CUDA headers; some kernels include them".to_owned(),
        },
        apt: "libcu++-dev (Debian, Ubuntu) or cuda-cccl-12-8 (NVIDIA's repository)",
        pip: "nvidia-cuda-cccl-cu12",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nowhere(root: &Path) -> Places {
        Places { cuda_path: None, cuda_home: None, library_path: Vec::new(), root: root.to_path_buf() }
    }

    fn touch(path: &Path) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
    }

    fn whats(toolkit: &Toolkit) -> Vec<&'static str> {
        toolkit.missing.iter().map(|m| m.what).collect()
    }

    #[test]
    fn an_empty_machine_lacks_everything_and_says_which_packages_hold_it() {
        let root = tempfile::tempdir().unwrap();
        let found = look(&nowhere(root.path()));
        assert_eq!(whats(&found), ["NVRTC", "CUDA headers", "CCCL headers"]);
        assert!(found.nvrtc.is_none() && found.headers.is_none() && found.cccl.is_none());
        assert!(found.missing[0].reason.contains("finds no"), "{:?}", found.missing[0]);
        assert!(found.missing[1].reason.contains("CUDA_PATH is not set"), "{:?}", found.missing[1]);
        assert!(found.missing.iter().all(|m| m.pip.contains("nvidia-cuda") && m.apt.contains("NVIDIA's")));
        let refusal = found.refusal().unwrap();
        for word in ["NVRTC: ", "CUDA headers: ", "CCCL headers: ", "libnvrtc12", "nvidia-cuda-cccl-cu12"] {
            assert!(refusal.contains(word), "{refusal}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn each_part_is_found_where_the_framework_looks() {
        let root = tempfile::tempdir().unwrap();
        let toolkit = root.path().join("usr/local/cuda");
        for name in HEADERS {
            let found = look(&nowhere(root.path()));
            assert!(found.headers.is_none(), "{name}");
            touch(&toolkit.join("include").join(name));
        }
        touch(&toolkit.join("include/cccl/cuda/barrier"));
        touch(&toolkit.join("lib64/libnvrtc.so.12"));
        let found = look(&nowhere(root.path()));
        assert_eq!(found.headers, Some(toolkit.join("include")));
        assert_eq!(found.cccl, Some(toolkit.join("include/cccl")));
        assert_eq!(whats(&found), ["NVRTC"]);
        assert!(found.missing[0].reason.contains("add its folder to LD_LIBRARY_PATH"), "{:?}", found.missing[0]);
        let searched = Places { library_path: vec![toolkit.join("lib64")], ..nowhere(root.path()) };
        let found = look(&searched);
        assert_eq!((found.nvrtc, found.missing), (Some(toolkit.join("lib64/libnvrtc.so.12")), Vec::new()));
        // The cache of the loader: names and paths between zero bytes.
        let cache = b"ld.so-1.7.0\0libnvrtc.so.12\0/usr/local/cuda/lib64/libnvrtc.so.12\0libz.so.1\0".to_vec();
        std::fs::create_dir_all(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("etc/ld.so.cache"), cache).unwrap();
        let found = look(&nowhere(root.path()));
        assert_eq!((found.missing.len(), found.refusal()), (0, None));
    }

    #[cfg(unix)]
    #[test]
    fn cuda_path_counts_even_if_it_leads_nowhere_and_cuda_home_does_not() {
        let root = tempfile::tempdir().unwrap();
        let home = root.path().join("home");
        HEADERS.iter().for_each(|name| touch(&home.join("include").join(name)));
        let found = look(&Places { cuda_home: Some(home.clone()), ..nowhere(root.path()) });
        assert!(found.missing[1].reason.contains("CUDA_HOME has them"), "{:?}", found.missing[1]);
        let found = look(&Places { cuda_path: Some(home.clone()), ..nowhere(root.path()) });
        assert_eq!(found.headers, Some(home.join("include")));
        HEADERS.iter().for_each(|name| touch(&root.path().join("opt/cuda/include").join(name)));
        assert!(look(&nowhere(root.path())).headers.is_some());
        let wrong = Places { cuda_path: Some(root.path().join("absent")), ..nowhere(root.path()) };
        let found = look(&wrong);
        assert!(found.headers.is_none() && found.missing[1].reason.contains("lacks cuda_runtime.h"), "{found:?}");
    }
}
