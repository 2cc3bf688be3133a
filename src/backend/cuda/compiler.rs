//! Whether training on CUDA would work: what the framework needs beside a device, tried before anything is handed to it.
//!
//! The framework compiles its kernels with NVRTC when they are first used, in a thread of its own, which panics and goes on
//! where that fails. So one line is compiled here first, with its options and headers.

use std::ffi::{CStr, CString, c_char, c_int};
use std::path::Path;

use cudarc::nvrtc::{result, sys};

use super::probe::{CudaInfo, DRIVER_CUDA, DRIVER_RELEASE};
use super::toolkit::{Places, Toolkit, look};

/// The headers of the framework's kernels, and a kernel.
const SOURCE: &CStr = c"#include <cuda_runtime.h>\n#include <cuda_fp16.h>\n#include <cuda_bf16.h>\n\
    extern \"C\" __global__ void probe(float* x) { x[threadIdx.x] += 1.0f; }\n";

/// Most bytes of a compiler's log in an error.
const MOST_LOG: usize = 600;

/// Checks that the framework could compile kernels for `device`, the toolkit being that of this process.
///
/// # Errors
/// In one line what is missing, with the packages that hold it, or what the compiler said.
pub fn ready(device: &CudaInfo) -> Result<(), String> {
    ready_with(&look(&Places::from_env()), device)
}

/// [`ready`] with another toolkit.
///
/// # Errors
/// As for [`ready`].
pub fn ready_with(toolkit: &Toolkit, device: &CudaInfo) -> Result<(), String> {
    if let Some(missing) = toolkit.refusal() {
        return Err(format!(
            "kernels of the framework are compiled at run time, and what that takes is missing: {missing}; beside it, a driver \
             for CUDA {}.{} ({DRIVER_RELEASE} or newer)",
            DRIVER_CUDA.0, DRIVER_CUDA.1
        ));
    }
    let found = version()?;
    suits(found, device.driver)?;
    compile(&options(toolkit, device.capability))
}

/// The version of NVRTC, which is loaded by this.
fn version() -> Result<(i32, i32), String> {
    // SAFETY: loads a library by its name, as the framework would; it has no other precondition.
    if !unsafe { sys::is_culib_present() } {
        return Err("NVRTC is there, but cannot be loaded: is it of this machine's architecture, and whole?".to_owned());
    }
    let (mut major, mut minor): (c_int, c_int) = (0, 0);
    // SAFETY: the library is there, and the function only writes the two integers.
    unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) }
        .result()
        .map_err(|e| format!("NVRTC does not tell its version: {e:?}"))?;
    Ok((major, minor))
}

/// A driver takes what compilers up to its own version write.
fn suits(nvrtc: (i32, i32), driver: (i32, i32)) -> Result<(), String> {
    if nvrtc <= driver {
        return Ok(());
    }
    Err(format!(
        "NVRTC {}.{} is newer than the driver, which supports CUDA {}.{}: install NVRTC 12.8, or a newer driver",
        nvrtc.0, nvrtc.1, driver.0, driver.1
    ))
}

/// The options that the framework gives.
fn options(toolkit: &Toolkit, (major, minor): (i32, i32)) -> Vec<String> {
    // From 9.0 on it asks for what is of one architecture alone.
    let one = if major >= 9 { "a" } else { "" };
    let include = |folder: &Path| format!("--include-path={}", folder.display());
    let architecture = format!("--gpu-architecture=sm_{major}{minor}{one}");
    let folders = [&toolkit.headers, &toolkit.cccl].into_iter().flatten().map(|folder| include(folder));
    std::iter::once(architecture).chain(folders).collect()
}

/// Compiles the one line.
fn compile(options: &[String]) -> Result<(), String> {
    let said = |what: &str, reason: String| format!("NVRTC cannot {what}: {reason}");
    let program = result::create_program(SOURCE, None).map_err(|e| said("start", format!("{e:?}")))?;
    // SAFETY: the program was just made.
    let compiled = unsafe { result::compile_program(program, options) };
    // SAFETY: as above; NVRTC keeps a log of what it compiled.
    let log = if compiled.is_err() { unsafe { result::get_program_log(program) }.ok() } else { None };
    // SAFETY: destroyed once, and not used after.
    let _ = unsafe { result::destroy_program(program) };
    compiled.map_err(|e| said("compile a kernel with these headers", log.map_or(format!("{e:?}"), |log| text(&log))))
}

/// The beginning of a log, in one line.
fn text(log: &[c_char]) -> String {
    let bytes: Vec<u8> = log.iter().map(|&c| c as u8).take_while(|&c| c != 0).collect();
    let text = CString::new(bytes).unwrap_or_default();
    let text = text.to_string_lossy();
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MOST_LOG) {
        Some((end, _)) => format!("{} ...", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(capability: (i32, i32)) -> CudaInfo {
        CudaInfo {
            ordinal: 0,
            name: "card".to_owned(),
            capability,
            memory: 8 << 30,
            shared_bytes: 99 << 10,
            driver: (13, 0),
        }
    }

    #[test]
    fn a_machine_without_a_toolkit_is_told_what_to_install() {
        let root = tempfile::tempdir().unwrap();
        let places =
            Places { cuda_path: None, cuda_home: None, library_path: Vec::new(), root: root.path().to_path_buf() };
        let refusal = ready_with(&look(&places), &card((8, 6))).unwrap_err();
        for word in ["libnvrtc12", "cuda-cudart-dev-12-8", "nvidia-cuda-cccl-cu12", "CUDA 13.0 (580 or newer)"] {
            assert!(refusal.contains(word), "{refusal}");
        }
        assert!(!refusal.contains('\n'));
    }

    #[test]
    fn a_compiler_that_is_here_compiles_for_every_card() {
        let toolkit = look(&Places::from_env());
        if let Some(missing) = toolkit.refusal() {
            eprintln!("skipped: nothing to compile with at run time: {missing}");
            return;
        }
        for capability in [(8, 0), (8, 6), (8, 9), (9, 0), (12, 0)] {
            assert_eq!(ready_with(&toolkit, &card(capability)), Ok(()), "{capability:?}");
        }
        let refusal = ready_with(&toolkit, &card((1, 0))).unwrap_err();
        assert!(refusal.contains("NVRTC cannot compile") && refusal.contains("architecture"), "{refusal}");
    }

    #[test]
    fn the_compiler_gets_the_framework_s_options() {
        let toolkit = Toolkit {
            nvrtc: Some("/lib/libnvrtc.so.12".into()),
            headers: Some("/cuda/include".into()),
            cccl: Some("/cuda/include/cccl".into()),
            missing: Vec::new(),
        };
        let expected =
            ["--gpu-architecture=sm_86", "--include-path=/cuda/include", "--include-path=/cuda/include/cccl"];
        assert_eq!(options(&toolkit, (8, 6)), expected);
        assert_eq!(options(&toolkit, (9, 0))[0], "--gpu-architecture=sm_90a");
        assert_eq!(options(&toolkit, (12, 0))[0], "--gpu-architecture=sm_120a");
    }

    #[test]
    fn a_compiler_that_is_newer_than_the_driver_is_refused() {
        assert!(suits((12, 8), (13, 0)).is_ok() && suits((13, 0), (13, 0)).is_ok());
        let refusal = suits((13, 1), (13, 0)).unwrap_err();
        assert!(refusal.contains("NVRTC 13.1") && refusal.contains("CUDA 13.0"), "{refusal}");
    }

    #[test]
    fn a_log_is_one_line_of_bounded_length() {
        let log = |s: &str| text(&s.bytes().chain([0, b'x']).map(|b| b as c_char).collect::<Vec<_>>());
        assert_eq!(log("a.cu(1):\n  error: no"), "a.cu(1): error: no");
        let long = log(&"\u{e9} ".repeat(2000));
        assert!(long.ends_with(" ...") && long.chars().count() == MOST_LOG + 4, "{long}");
    }
}
