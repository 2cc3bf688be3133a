//! The kernels that the crate carries, loaded when they are first launched.

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::{Mutex, PoisonError};

use cudarc::driver::sys::{self, CUfunction, CUfunction_attribute_enum as Attribute, CUmodule, CUresult};
use cudarc::driver::{DriverError, result};

use super::driver::Driver;
use crate::backend::device::{Kernel, failed};
use crate::backend::{BackendError, BackendKind};

/// Dynamic shared memory that a kernel gets without asking.
const SHARED_WITHOUT_ASKING: u32 = 48 * 1024;

/// Machine code of `kernels/FILE.cu` for all targets, made by `scripts/cuda-build`.
const IMAGES: &[(&str, &[u8])] = include!("../../../kernels/prebuilt/images.rs");

/// A kernel of a loaded module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Function(pub(super) CUfunction);

// SAFETY: a handle that the driver lets any thread use; its module stays loaded as long as the device is open.
unsafe impl Send for Function {}

/// Loaded modules and the kernels found in them.
#[derive(Debug, Default)]
pub(super) struct Modules(Mutex<Loaded>);

#[derive(Debug, Default)]
struct Loaded {
    modules: HashMap<&'static str, CUmodule>,
    functions: HashMap<(&'static str, &'static str), Function>,
}

// SAFETY: handles that the driver lets any thread use.
unsafe impl Send for Loaded {}

impl Modules {
    /// The kernel, loaded and allowed its shared memory. The context is current.
    ///
    /// # Errors
    /// A kernel that is not in the crate, and what the driver refuses.
    pub(super) fn function(&self, driver: &Driver, kernel: &'static Kernel) -> Result<Function, BackendError> {
        let mut loaded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&function) = loaded.functions.get(&(kernel.file, kernel.entry)) {
            return Ok(function);
        }
        let module = loaded.module(driver, kernel.file)?;
        let function = find(module, kernel).map_err(|e| driver.error(e))?;
        if !takes(function, kernel) {
            return Err(failed(BackendKind::Cuda, kernel.entry, "its parameters are not those of the machine code"));
        }
        loaded.functions.insert((kernel.file, kernel.entry), function);
        Ok(function)
    }

    /// Unloads everything. The context is current, and no kernel runs.
    pub(super) fn unload(&mut self) {
        let loaded = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        loaded.functions.clear();
        for (_, module) in loaded.modules.drain() {
            // SAFETY: loaded here and unloaded once. Nothing can be done about an error.
            let _ = unsafe { result::module::unload(module) };
        }
    }
}

impl Loaded {
    fn module(&mut self, driver: &Driver, file: &'static str) -> Result<CUmodule, BackendError> {
        if let Some(&module) = self.modules.get(file) {
            return Ok(module);
        }
        let Some((_, image)) = IMAGES.iter().find(|(name, _)| *name == file) else {
            return Err(failed(BackendKind::Cuda, file, "the crate has no machine code of this file"));
        };
        // The driver reads the image's header as 8-byte words.
        let mut aligned = vec![0u64; image.len().div_ceil(8)];
        bytemuck::cast_slice_mut::<u64, u8>(&mut aligned)[..image.len()].copy_from_slice(image);
        // SAFETY: a whole image, as the compiler wrote it; the driver copies what it keeps.
        let module = unsafe { result::module::load_data(aligned.as_ptr().cast()) }.map_err(|e| driver.error(e))?;
        self.modules.insert(file, module);
        Ok(module)
    }
}

fn find(module: CUmodule, kernel: &Kernel) -> Result<Function, DriverError> {
    let name = CString::new(kernel.entry).unwrap_or_default();
    // SAFETY: the module is loaded.
    let function = unsafe { result::module::get_function(module, name) }?;
    if kernel.shared_words * 4 > SHARED_WITHOUT_ASKING {
        let (what, bytes) = (Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, kernel.shared_words * 4);
        // SAFETY: the function was just found.
        unsafe { result::function::set_function_attribute(function, what, bytes as i32) }?;
    }
    Ok(Function(function))
}

/// False if the driver knows that the kernel does not take the parameters by value and then as many pointers as it has
/// buffers: of every launch it reads so many bytes, without a word if they are not there.
fn takes(function: Function, kernel: &Kernel) -> bool {
    let size = |index| {
        let (mut offset, mut bytes) = (0, 0);
        // SAFETY: the function was just found, and both numbers are written if there is such a parameter.
        let found = unsafe { sys::cuFuncGetParamInfo(function.0, index, &raw mut offset, &raw mut bytes) };
        match found {
            CUresult::CUDA_SUCCESS => Some(bytes),
            CUresult::CUDA_ERROR_INVALID_VALUE => Some(0),
            _ => None,
        }
    };
    let pointers = kernel.buffers.iter().map(|_| size_of::<sys::CUdeviceptr>());
    let expected = std::iter::once(kernel.params).chain(pointers).chain([0]);
    expected.enumerate().all(|(index, bytes)| size(index).is_none_or(|found| found == bytes))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::{Path, PathBuf};

    use sha2::{Digest, Sha256};

    use super::*;

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
    }

    fn digest(file: &Path) -> String {
        hex::encode(Sha256::digest(fs::read(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))))
    }

    /// The lines `WORD DIGEST PATH ...` of the manifest: path to digest.
    fn listed(word: &str) -> BTreeMap<String, String> {
        let text = fs::read_to_string(root().join("kernels/prebuilt/manifest")).unwrap();
        let fields = text.lines().map(|line| line.split(' ').collect::<Vec<_>>()).filter(|f| f[0] == word);
        fields.map(|f| (f[2].to_owned(), f[1].to_owned())).collect()
    }

    fn files(folder: &str, extension: &str) -> Vec<String> {
        let found = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().file_name());
        let names = found.map(|name| format!("{folder}/{}", name.to_string_lossy()));
        names.filter(|name| Path::new(name).extension().is_some_and(|e| e == extension)).collect()
    }

    #[test]
    fn the_machine_code_was_made_from_these_sources() {
        let now: BTreeMap<String, String> = files("kernels", "cu")
            .into_iter()
            .chain(files("kernels/common", "cuh"))
            .map(|name| (name.clone(), digest(&root().join(&name))))
            .collect();
        assert_eq!(listed("source"), now, "kernels have changed: run scripts/cuda-build");
    }

    #[test]
    fn the_machine_code_is_what_the_manifest_lists_and_all_of_it_is_embedded() {
        let blobs = listed("blob");
        let mut embedded: Vec<String> =
            IMAGES.iter().map(|(file, _)| format!("kernels/prebuilt/{file}.fatbin")).collect();
        embedded.sort();
        assert_eq!(blobs.keys().cloned().collect::<Vec<_>>(), embedded);
        for (file, image) in IMAGES {
            let name = format!("kernels/prebuilt/{file}.fatbin");
            assert_eq!(hex::encode(Sha256::digest(image)), blobs[&name], "{name}: run scripts/cuda-build");
        }
    }
}
