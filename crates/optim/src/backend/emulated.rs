//! Runs the kernels for CUDA and for Metal on the CPU, to test them and what the host does for them where there is no GPU: a
//! C++ compiler builds the sources behind the stand-ins of `tests/shim`. What it cannot see are races within a block other
//! than those that the order of threads shows, and address spaces.
//!
//! All that a launch reads and writes is first moved between guards, to starts that are not aligned; it fails if a kernel
//! writes outside. With `CXXFLAGS=-fsanitize=address`, and its library preloaded, it also fails where one reads outside.

use super::device::launch::{Launch, Place};
use super::kernel::Kernel;
use super::kernel_source::{self, Language};
use candle_core::{CpuStorage, Layout, Result, Storage, Tensor, bail};
use libloading::Library;
use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::c_void;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, LazyLock, Mutex};

/// Which source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    Cuda,
    Metal,
}

thread_local!(static SOURCE: Cell<Option<Source>> = const { Cell::new(None) });

/// Runs `f` with tensors on the CPU taken for tensors on a GPU.
pub fn with<T>(source: Source, f: impl FnOnce() -> T) -> T {
    struct Off;
    impl Drop for Off {
        fn drop(&mut self) {
            SOURCE.set(None);
        }
    }
    SOURCE.set(Some(source));
    let _off = Off;
    f()
}

pub fn is_on() -> bool {
    SOURCE.get().is_some()
}

pub fn is_metal() -> bool {
    SOURCE.get() == Some(Source::Metal)
}

type Libraries = HashMap<(Source, usize), Arc<Library>>;
static LIBRARIES: LazyLock<Mutex<Libraries>> = LazyLock::new(Mutex::default);

/// The kernels of a rule, or those of `norm.h`.
fn library(source: Source, rule: Option<&'static Kernel>) -> Arc<Library> {
    let at = rule.map_or(0, Kernel::address);
    let mut libraries = LIBRARIES.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    libraries.entry((source, at)).or_insert_with(|| Arc::new(build(source, rule))).clone()
}

fn build(source: Source, rule: Option<&'static Kernel>) -> Library {
    let language = match source {
        Source::Cuda => Language::Cuda,
        Source::Metal => Language::Metal,
    };
    let text = kernel_source::of(language, rule);
    let folder = tempfile::tempdir().expect("a scratch folder");
    let (file, library) = (folder.path().join("kernels.cpp"), folder.path().join("kernels.so"));
    std::fs::write(&file, text + "\n#include \"run.h\"\n").expect("the source");
    let more = std::env::var("CXXFLAGS").unwrap_or_default();
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_string());
    let shim = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/shim");
    let mut command = Command::new(&compiler);
    command.args(["-std=c++17", "-O1", "-ffp-contract=off", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"]);
    command.args(more.split_whitespace());
    // Attributes of Metal, and pragmas of Metal and nvcc; a kernel does not use all of the arguments.
    command.args(["-Wno-attributes", "-Wno-unknown-pragmas", "-Wno-unused-parameter"]);
    command.arg("-I").arg(shim).arg(&file).arg("-o").arg(&library);
    // What is preloaded for the kernels is not for the compiler.
    let built =
        command.env_remove("LD_PRELOAD").output().unwrap_or_else(|e| panic!("{compiler}, the C++ compiler (CXX): {e}"));
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    // SAFETY: loading the library runs no code of it.
    unsafe { Library::new(&library) }.expect("a library that was just built")
}

pub(super) fn place(storage: &CpuStorage, layout: &Layout) -> Result<Place> {
    macro_rules! address {
        ($($Kind:ident),*) => {
            match storage {
                $(CpuStorage::$Kind(all) => (all.as_ptr().expose_provenance(), size_of_val(&all[..1.min(all.len())])),)*
                _ => bail!("no address of a tensor of this type"),
            }
        };
    }
    let (start, size) = address!(U8, I64, F32, F64, BF16, F16);
    Ok(Place { address: (start + layout.start_offset() * size) as u64, handle: Default::default() })
}

const GUARD: usize = 256;
const PATTERN: u8 = 0xA5;

/// A copy of memory between two guards.
struct Guarded {
    from: u64,
    len: usize,
    start: usize,
    bytes: Vec<u8>,
}

impl Guarded {
    /// `shift`: bytes by which it starts after a multiple of 16.
    fn new(from: u64, len: usize, shift: usize) -> Self {
        let mut bytes = vec![PATTERN; len + 2 * GUARD + 16];
        let start = GUARD + shift + bytes.as_ptr().addr().wrapping_neg() % 16;
        if len > 0 {
            // SAFETY: the caller took the address from a tensor that has so many bytes and that nothing writes meanwhile.
            let all = unsafe { std::slice::from_raw_parts(std::ptr::with_exposed_provenance(from as usize), len) };
            bytes[start..start + len].copy_from_slice(all);
        }
        Self { from, len, start, bytes }
    }

    fn address(&mut self) -> u64 {
        self.bytes[self.start..].as_mut_ptr().expose_provenance() as u64
    }

    fn values(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }

    fn guards(&self) -> [&[u8]; 2] {
        [&self.bytes[..self.start], &self.bytes[self.start + self.len..]]
    }

    fn check(&self, what: &str) -> Result<()> {
        if self.guards().concat().iter().any(|byte| *byte != PATTERN) {
            bail!("a kernel wrote outside of {what}");
        }
        Ok(())
    }

    fn write_back(&self) {
        if self.len > 0 {
            // SAFETY: as in `new`; the optimizer holds the lock of a parameter for writing, and owns state, sums and norms.
            let all = unsafe {
                std::slice::from_raw_parts_mut(std::ptr::with_exposed_provenance_mut(self.from as usize), self.len)
            };
            all.copy_from_slice(self.values());
        }
    }
}

fn bytes_of(tensor: &Tensor) -> Result<Guarded> {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else { bail!("not on the CPU") };
    let address = place(storage, layout)?.address;
    Ok(Guarded::new(address, tensor.elem_count() * tensor.dtype().size_in_bytes(), 0))
}

pub(super) fn launch(launch: &Launch<'_>) -> Result<()> {
    let Some(source) = SOURCE.get() else { bail!("no kernel is emulated") };
    let size = |dtype: &str| match dtype {
        "f64" => 8,
        "f32" => 4,
        _ => 2,
    };
    let mut words = launch.function.split('_');
    let kind = words.next().unwrap_or_default();
    let param_size = words.next().map_or(0, size);
    let grad_size = words.next().map_or(0, size);
    let real_size = if param_size == 8 { 8 } else { 4 };

    let mut buffers = launch.buffers.iter().map(|tensor| bytes_of(tensor)).collect::<Result<Vec<_>>>()?;
    // The tensors of the table; the others have no table.
    let mut moved = Vec::new();
    if !matches!(kind, "finish" | "factors") {
        let start = buffers[0].start;
        for (index, entry) in buffers[0].bytes[start..].chunks_exact_mut(64).enumerate() {
            let number = |at: usize| u64::from_ne_bytes(entry[at..at + 8].try_into().expect("8 bytes"));
            if moved.len() * 64 >= buffers_len(&launch.buffers) {
                break;
            }
            let [param, grad, state, len, stride] = [0, 8, 16, 24, 32].map(number);
            let mut flags = u32::from_ne_bytes(entry[52..56].try_into().expect("4 bytes"));
            let (len, has_master) = (len as usize, flags & 2 != 0);
            let rows = launch.rule.map_or(0, |rule| rule.slots.len() + usize::from(has_master));
            // Every third starts at a multiple of 16.
            let shift = index % 3;
            let mut three = [
                Guarded::new(param, len * param_size, shift * param_size),
                Guarded::new(grad, len * grad_size, shift * grad_size),
                Guarded::new(state, rows * stride as usize * real_size, 0),
            ];
            if shift != 0 {
                flags &= !1;
            } else {
                flags |= 1;
            }
            for (k, guarded) in three.iter_mut().enumerate() {
                entry[8 * k..8 * k + 8].copy_from_slice(&guarded.address().to_ne_bytes());
            }
            entry[52..56].copy_from_slice(&flags.to_ne_bytes());
            moved.push(three);
        }
    }

    let library = library(source, launch.rule);
    type Run = unsafe extern "C" fn(*const c_void, u32, i32, *const *mut c_void, *const super::device::launch::Args);
    type Guard = unsafe extern "C" fn(*const c_void, usize, i32);
    let addresses: Vec<*mut c_void> =
        buffers.iter_mut().map(|b| std::ptr::with_exposed_provenance_mut(b.address() as usize)).collect();
    let has_barriers = matches!(kind, "measure" | "squares" | "finish" | "factors");
    {
        // One at a time: the fibers of a library are static.
        static RUNNING: Mutex<()> = Mutex::new(());
        let _running = RUNNING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        // SAFETY: `run_kernel` and all kernels have these types (run.h, launch.h), and the tables say how long the buffers are.
        unsafe {
            let guard = library.get::<Guard>(b"guard").expect("run.h has it");
            let all = || moved.iter().flatten().chain(&buffers);
            all().flat_map(Guarded::guards).for_each(|part| guard(part.as_ptr().cast(), part.len(), 1));
            let run = library.get::<Run>(b"run_kernel").expect("run.h has it");
            let name = launch.function.as_bytes();
            let kernel =
                library.get::<unsafe extern "C" fn()>(name).unwrap_or_else(|e| panic!("{}: {e}", launch.function));
            let kernel = (*kernel as *const ()).cast::<c_void>();
            run(kernel, launch.blocks, i32::from(has_barriers), addresses.as_ptr(), &launch.args);
            all().flat_map(Guarded::guards).for_each(|part| guard(part.as_ptr().cast(), part.len(), 0));
        }
    }

    for (index, three) in moved.iter().enumerate() {
        for (guarded, what) in three.iter().zip(["parameter", "gradient", "state"]) {
            guarded.check(&format!("the {what} of tensor {index} ({})", launch.function))?;
        }
        // A gradient is not written: only its copy could have been.
        three[0].write_back();
        three[2].write_back();
    }
    for (guarded, what) in buffers.iter().zip(["tensors", "chunks", "rows", "norm", "sums", "out"]) {
        guarded.check(&format!("{what} ({})", launch.function))?;
    }
    for guarded in &buffers[4..] {
        guarded.write_back();
    }
    Ok(())
}

fn buffers_len(buffers: &[&Tensor; 6]) -> usize {
    buffers[0].elem_count()
}

#[path = "../../tests/devices/checks.rs"]
mod checks;

/// A test per check and source.
macro_rules! tests {
    ($($name:ident: $index:literal),*) => {
        $(mod $name {
            use super::{Source, check};

            #[test]
            fn cuda() {
                check(Source::Cuda, $index);
            }

            #[test]
            fn metal() {
                check(Source::Metal, $index);
            }
        })*

        #[test]
        fn every_check_is_run() {
            assert_eq!([$($index),*].len(), checks::CHECKS.len());
        }
    };
}
tests!(updates: 0, mixed: 1, sizes: 2, clipping: 3, not_finite: 4, sums: 5, groups: 6, state: 7, rounding: 8, twice: 9, written: 10, tiny: 11, averages: 12, own: 13, matrices: 14);

fn check(source: Source, index: usize) {
    let (name, check) = checks::CHECKS[index];
    let target = checks::Target {
        device: candle_core::Device::Cpu,
        is_metal: source == Source::Metal,
        run: &|f| with(source, f),
    };
    match check(&target) {
        Ok(line) => println!("{source:?}: {name}: {line}"),
        Err(error) => panic!("{source:?}: {name}: {error}"),
    }
}

#[test]
fn a_step_reads_nothing_back() {
    for source in [Source::Cuda, Source::Metal] {
        let run = |f: &mut dyn FnMut()| with(source, f);
        let target = checks::Target { device: candle_core::Device::Cpu, is_metal: source == Source::Metal, run: &run };
        if let Err(error) = checks::reads_nothing_back(&target, &super::tensors::read_backs) {
            panic!("{source:?}: {error}");
        }
    }
}
