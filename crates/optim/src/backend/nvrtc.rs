//! NVRTC, CUDA's compiler that is a library: the text of kernels in, PTX out.
//!
//! The library is opened when it is first needed and is not linked, so that a program starts without it. It is needed for a rule
//! that was not built with this crate.

use libloading::Library;
use std::ffi::{CString, c_char, c_int, c_void};
use std::fmt::Write;
use std::path::PathBuf;
use std::ptr;
use std::sync::OnceLock;

/// `nvrtcResult`, 0 for success.
type Status = c_int;
/// `nvrtcProgram`.
type Program = *mut c_void;

/// The functions of the library that are used here, which stay as long as the process.
struct Nvrtc {
    create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> Status,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> Status,
    log_size: unsafe extern "C" fn(Program, *mut usize) -> Status,
    log: unsafe extern "C" fn(Program, *mut c_char) -> Status,
    ptx_size: unsafe extern "C" fn(Program, *mut usize) -> Status,
    ptx: unsafe extern "C" fn(Program, *mut c_char) -> Status,
    destroy: unsafe extern "C" fn(*mut Program) -> Status,
}

/// The library's names, the latest version first, and below the folders that the variables of CUDA's installers name.
fn candidates() -> Vec<PathBuf> {
    const MAJORS: std::ops::RangeInclusive<u32> = 12..=16;
    let names: Vec<String> = if cfg!(windows) {
        MAJORS.rev().map(|major| format!("nvrtc64_{major}0_0.dll")).collect()
    } else {
        let versions = MAJORS.rev().map(|major| format!("libnvrtc.so.{major}"));
        versions.chain(["libnvrtc.so".to_string()]).collect()
    };
    let roots = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
    let roots = roots.chain((!cfg!(windows)).then(|| PathBuf::from("/usr/local/cuda")));
    let folders = roots.flat_map(|root| ["lib64", "lib", "bin"].map(|folder| root.join(folder)));
    // A name without a folder is searched for as the system does it.
    let folders: Vec<PathBuf> = std::iter::once(PathBuf::new()).chain(folders).collect();
    folders.iter().flat_map(|folder| names.iter().map(|name| folder.join(name))).collect()
}

/// An error where a function failed.
fn check(what: &str, status: Status) -> Result<(), String> {
    match status {
        0 => Ok(()),
        1 => Err(format!("{what}: out of memory")),
        _ => Err(format!("{what} (error {status})")),
    }
}

/// Whether a file is the library that NVRTC's opens.
fn is_beside(name: &str) -> bool {
    name.starts_with("libnvrtc-builtins.so") || name.starts_with("nvrtc-builtins64")
}

impl Nvrtc {
    /// The first of the libraries that can be opened and answers.
    fn open(candidates: &[PathBuf]) -> Result<Self, String> {
        let mut libraries = candidates.iter().filter_map(|path| {
            // It searches for another library, which is beside it, as the system does, unless that is open.
            let beside = path.parent().filter(|folder| path.is_file() && !folder.as_os_str().is_empty());
            let beside = beside.and_then(|folder| std::fs::read_dir(folder).ok()).into_iter().flatten().flatten();
            for file in beside.filter(|file| is_beside(&file.file_name().to_string_lossy())) {
                // SAFETY: as below.
                if let Ok(library) = unsafe { Library::new(file.path()) } {
                    std::mem::forget(library);
                }
            }
            // SAFETY: the libraries are NVIDIA's, by their names; what they run when they are loaded asks nothing of the process.
            unsafe { Library::new(path) }.ok()
        });
        let first = candidates.first().map(|name| name.display().to_string()).unwrap_or_default();
        libraries.find_map(Self::of).ok_or_else(|| {
            format!(
                "no library of NVRTC was found ({first} or earlier): it is part of the CUDA toolkit, and is searched for as the \
                 system does it (LD_LIBRARY_PATH), and below CUDA_HOME"
            )
        })
    }

    /// The functions of a library, which is never closed; none of a stub, which has them and does nothing.
    fn of(library: Library) -> Option<Self> {
        let library: &'static Library = Box::leak(Box::new(library));
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: the type is that of the function of this name in nvrtc.h.
                *unsafe { library.get($name) }.ok()?
            };
        }
        let version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> Status = function!(b"nvrtcVersion");
        let (mut major, mut minor) = (0, 0);
        // SAFETY: it writes two numbers.
        if unsafe { version(&mut major, &mut minor) } != 0 {
            return None;
        }
        Some(Self {
            create: function!(b"nvrtcCreateProgram"),
            compile: function!(b"nvrtcCompileProgram"),
            log_size: function!(b"nvrtcGetProgramLogSize"),
            log: function!(b"nvrtcGetProgramLog"),
            ptx_size: function!(b"nvrtcGetPTXSize"),
            ptx: function!(b"nvrtcGetPTX"),
            destroy: function!(b"nvrtcDestroyProgram"),
        })
    }

    /// The text that a function writes, whose size with the 0 at its end another one tells.
    fn text(
        &self,
        program: Program,
        size: unsafe extern "C" fn(Program, *mut usize) -> Status,
        get: unsafe extern "C" fn(Program, *mut c_char) -> Status,
    ) -> Result<String, String> {
        let mut len = 0;
        // SAFETY: the program was created and not destroyed; `len` is written.
        check("the size of its output", unsafe { size(program, &mut len) })?;
        let mut bytes = vec![0u8; len];
        if len > 0 {
            // SAFETY: the program is as above, and there is room for `len` bytes, which is what the function writes.
            check("its output", unsafe { get(program, bytes.as_mut_ptr().cast()) })?;
        }
        bytes.truncate(bytes.iter().position(|byte| *byte == 0).unwrap_or(len));
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The PTX of a source, for devices of a compute capability and later ones.
    fn ptx_of(&self, source: &str, (major, minor): (i32, i32)) -> Result<String, String> {
        let c_text = |text: &str| CString::new(text).map_err(|_| "the source has a 0 in it".to_string());
        let source = c_text(source)?;
        let options = [
            "--std=c++17",
            &format!("--gpu-architecture=compute_{major}{minor}"),
            // The bits are to be those of the CPU, which contracts nothing.
            "--fmad=false",
            "--prec-div=true",
            "--prec-sqrt=true",
        ];
        let options = options.into_iter().map(c_text).collect::<Result<Vec<_>, _>>()?;
        let pointers: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        let mut program: Program = ptr::null_mut();
        // SAFETY: the source ends with 0 and lives to the end of this function; it has no name and no headers.
        let created = unsafe { (self.create)(&mut program, source.as_ptr(), ptr::null(), 0, ptr::null(), ptr::null()) };
        check("no program", created)?;
        // SAFETY: the program was just created; there are as many options as is said, each a text that ends with 0.
        let compiled = unsafe { (self.compile)(program, pointers.len() as c_int, pointers.as_ptr()) };
        let result = match check(&format!("it does not compile for compute_{major}{minor}"), compiled) {
            Ok(()) => self.text(program, self.ptx_size, self.ptx),
            Err(mut error) => {
                let log = self.text(program, self.log_size, self.log).unwrap_or_default();
                for line in log.lines().filter(|line| line.contains("error")).take(3) {
                    let _ = write!(error, "; {}", line.trim());
                }
                Err(error)
            }
        };
        // SAFETY: the program was created, and is not used any more.
        unsafe { (self.destroy)(&mut program) };
        result
    }
}

/// The PTX of a rule's kernels, for devices of a compute capability.
///
/// # Errors
/// There is no NVRTC; it does not know the architecture, or cannot compile the source.
#[cfg_attr(not(feature = "cuda"), allow(dead_code, reason = "tests call what is within"))]
pub(super) fn compile(rule: &str, source: &str, capability: (i32, i32)) -> Result<String, String> {
    static NVRTC: OnceLock<Result<Nvrtc, String>> = OnceLock::new();
    let nvrtc = NVRTC.get_or_init(|| Nvrtc::open(&candidates()));
    nvrtc.as_ref().map_err(String::clone).and_then(|nvrtc| nvrtc.ptx_of(source, capability)).map_err(|error| {
        format!("the kernel `{rule}` is not one of those that were built with this program, and NVRTC is to compile it: {error}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::kernel_source::{self, Language};

    /// The library, where `DESCENT_NVRTC` names its folder. Tests that need it say that they are skipped elsewhere.
    fn nvrtc() -> Option<Nvrtc> {
        let folder = PathBuf::from(std::env::var_os("DESCENT_NVRTC").or_else(|| {
            println!("skipped: DESCENT_NVRTC names no folder with NVRTC's library");
            None
        })?);
        let inside: Vec<PathBuf> =
            candidates().iter().filter_map(|name| Some(folder.join(name.file_name()?))).collect();
        Some(Nvrtc::open(&inside).unwrap_or_else(|error| panic!("{}: {error}", folder.display())))
    }

    #[test]
    fn every_kernel_compiles_as_nvcc_compiles_it() {
        let Some(nvrtc) = nvrtc() else { return };
        let rules = crate::rules::kernels();
        for rule in rules.iter().map(|rule| Some(*rule)).chain([None]) {
            let name = rule.map_or("norm", |rule| rule.name);
            // The oldest that this version knows, and one for all.
            let capabilities: &[(i32, i32)] = if rule.is_some() { &[(9, 0)] } else { &[(7, 5), (9, 0)] };
            for &capability in capabilities {
                let ptx = nvrtc
                    .ptx_of(&kernel_source::of(Language::Cuda, rule), capability)
                    .unwrap_or_else(|e| panic!("{name}: {e}"));
                let target = format!(".target sm_{}{}", capability.0, capability.1);
                assert!(ptx.contains(&target), "{name}: it is not for {target}");
                let entries = ptx
                    .lines()
                    .filter_map(|line| line.split_once(".entry "))
                    .map(|(_, entry)| entry.trim_end_matches('('));
                let entries: Vec<&str> = entries.collect();
                let expected: &[&str] = if rule.is_some() {
                    &["update_f32_f32", "update_f64_f64", "update_bf16_f32", "update_f16_f16"]
                } else {
                    &["squares_f32_f32"]
                };
                for function in expected {
                    assert!(entries.contains(function), "{name} has no {function}: {entries:?}");
                }
                // Nothing is contracted or approximated.
                for inexact in [
                    "fma.rn.f",
                    "sqrt.approx",
                    "div.approx",
                    "div.full",
                    "rcp.approx",
                    "rsqrt.approx",
                    "ex2.approx",
                    "lg2.approx",
                ] {
                    assert!(!ptx.contains(inexact), "{name} has {inexact}");
                }
            }
        }
    }

    #[test]
    fn an_error_says_what_is_wrong() {
        let none = Nvrtc::open(&["libnvrtc.so.999".into(), "/nowhere/libnvrtc.so".into()]).map(drop).unwrap_err();
        assert!(none.starts_with("no library of NVRTC was found (libnvrtc.so.999 or earlier)"), "{none}");
        let Some(nvrtc) = nvrtc() else { return };
        for (source, capability, parts) in [
            (
                "extern \"C\" __global__ void f() { wrong }",
                (9, 0),
                &["it does not compile", "error: identifier \"wrong\""][..],
            ),
            ("", (1, 0), &["it does not compile", "invalid value for --gpu-architecture"]),
            ("\0", (9, 0), &["the source has a 0 in it"]),
        ] {
            let error = nvrtc.ptx_of(source, capability).unwrap_err();
            assert!(parts.iter().all(|part| error.contains(part)), "{source:?}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }
}
