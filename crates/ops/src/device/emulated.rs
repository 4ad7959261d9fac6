//! Runs the kernels on the CPU, to test them and what the host does for them where there is no GPU: a C++ compiler builds the
//! sources behind the stand-ins of `tests/shim` and of the optimizer's. What it cannot see are races within a block other than
//! those that the order of threads shows.
//!
//! All that a launch reads and writes is first moved between guards, to starts that are aligned and that are not in turns; it
//! fails if a kernel writes outside or to what it reads. With `CXXFLAGS=-fsanitize=address`, and its library preloaded, it also
//! fails where one reads outside.

use super::launch::{Args, Launch, POINTERS};
use crate::shape::error::fail;
use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Storage, Tensor};
use libloading::Library;
use std::{
    cell::Cell,
    collections::HashMap,
    path::Path,
    process::Command,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

thread_local! {
    static IS_ON: Cell<bool> = const { Cell::new(false) };
    static LAUNCHES: Cell<usize> = const { Cell::new(0) };
}

/// Runs `f` with tensors on the CPU taken for tensors on a GPU.
pub(super) fn with<T>(f: impl FnOnce() -> T) -> T {
    struct Off;
    impl Drop for Off {
        fn drop(&mut self) {
            IS_ON.set(false);
        }
    }
    IS_ON.set(true);
    let _off = Off;
    f()
}

pub(super) fn is_on() -> bool {
    IS_ON.get()
}

/// What cuBLAS computes: products of matrices that are contiguous or transposed, summed in f32 (f64 for f64).
pub(super) fn matmul(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    for matrix in [a, b] {
        let (dims, strides) = (matrix.dims(), matrix.stride());
        let (&[.., rows, columns], &[.., down, across]) = (dims, strides) else { fail!("{dims:?} is no matrix") };
        let is_row_major = (across == 1 || columns == 1) && (down == columns || rows == 1);
        let is_column_major = (across == rows || columns == 1) && (down == 1 || rows == 1);
        if !is_row_major && !is_column_major {
            fail!("cuBLAS takes no matrix of {dims:?} with strides {strides:?}");
        }
    }
    let wide = super::launch::real(a.dtype());
    a.to_dtype(wide)?.matmul(&b.to_dtype(wide)?)?.to_dtype(a.dtype())
}

static LIBRARIES: LazyLock<Mutex<HashMap<&'static str, Arc<Library>>>> = LazyLock::new(Mutex::default);

/// The kernels of a source.
fn library(module: &'static str) -> Arc<Library> {
    let mut libraries = LIBRARIES.lock().unwrap_or_else(PoisonError::into_inner);
    libraries.entry(module).or_insert_with(|| Arc::new(build(module))).clone()
}

fn build(module: &str) -> Library {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let (file, library) = (folder.path().join("kernels.cpp"), folder.path().join("kernels.so"));
    std::fs::write(&file, format!("#include \"ops/{module}.cu\"\n#include \"run.h\"\n")).expect("the source");
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_string());
    let ours = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(&compiler);
    command.args(["-std=c++17", "-O1", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"]);
    command.args(std::env::var("CXXFLAGS").unwrap_or_default().split_whitespace());
    // Pragmas of nvcc; what a kernel leaves out of a vector is not seen to be left out.
    command.args(["-Wno-unknown-pragmas", "-Wno-maybe-uninitialized"]);
    for folder in ["tests/shim", "../optim/tests/shim", "kernels"] {
        command.arg("-I").arg(ours.join(folder));
    }
    // What is preloaded for the kernels is not for the compiler.
    command.arg(&file).arg("-o").arg(&library).env_remove("LD_PRELOAD");
    let built = command.output().unwrap_or_else(|e| panic!("{compiler}, the C++ compiler (CXX): {e}"));
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    // SAFETY: loading the library runs no code of it.
    unsafe { Library::new(&library) }.expect("a library that was just built")
}

/// Calls `$body` with the elements of a storage as `$all`, of whatever type.
macro_rules! with_elements {
    ($storage:expr, $all:ident => $body:expr) => {
        match $storage {
            CpuStorage::U8($all) => $body,
            CpuStorage::U32($all) => $body,
            CpuStorage::F32($all) => $body,
            CpuStorage::F64($all) => $body,
            CpuStorage::BF16($all) => $body,
            CpuStorage::F16($all) => $body,
            _ => fail!("a tensor of this type is none of a kernel"),
        }
    };
}

fn bytes_of<T>(all: &[T]) -> &[u8] {
    // SAFETY: all tensors are of numbers, which are bytes without padding.
    unsafe { std::slice::from_raw_parts(all.as_ptr().cast(), size_of_val(all)) }
}

/// Overwrites a contiguous tensor.
struct Fill<'a>(&'a [u8]);

impl InplaceOp1 for Fill<'_> {
    fn name(&self) -> &'static str {
        "fill"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        with_elements!(storage, all => {
            let start = layout.start_offset() * size_of_val(&all[..1.min(all.len())]);
            assert!(start + self.0.len() <= size_of_val(all.as_slice()));
            // SAFETY: it was just asserted that they fit, and any bytes are numbers.
            unsafe {
                all.as_mut_ptr().cast::<u8>().add(start).copy_from_nonoverlapping(self.0.as_ptr(), self.0.len());
            }
        });
        Ok(())
    }
}

const GUARD: usize = 256;
const PATTERN: u8 = 0xA5;

/// A copy of a tensor's memory between two guards.
struct Guarded {
    start: usize,
    len: usize,
    bytes: Vec<u8>,
}

impl Guarded {
    /// `shift`: elements by which it starts after a multiple of 16 bytes.
    fn new(tensor: &Tensor, shift: usize) -> Result<Self> {
        let (storage, layout) = tensor.storage_and_layout();
        let Storage::Cpu(storage) = &*storage else { fail!("a tensor is not on the CPU") };
        let size = tensor.dtype().size_in_bytes();
        let len = tensor.elem_count() * size;
        let mut bytes = vec![PATTERN; len + 2 * GUARD + 16];
        let start = GUARD + shift * size + bytes.as_ptr().addr().wrapping_neg() % 16;
        with_elements!(storage, all => {
            bytes[start..start + len].copy_from_slice(&bytes_of(all)[layout.start_offset() * size..][..len]);
        });
        Ok(Self { start, len, bytes })
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
}

/// Kernels without barriers, whose threads run one after another.
const WITHOUT_BARRIERS: [&str; 4] = ["elementwise", "pool2d", "im2col", "dropout"];

/// # Safety
/// As [`Launch::run`].
pub(super) unsafe fn launch<A: Args>(launch: &Launch<'_, A>, blocks: u32) -> Result<()> {
    assert!(is_on(), "{} on the CPU", launch.name);
    let count = LAUNCHES.replace(LAUNCHES.get() + 1);
    let all = launch.inputs.iter().chain(launch.outputs).enumerate();
    let guarded = all.map(|(place, tensor)| tensor.map(|t| Guarded::new(t, (place + count) % 3)).transpose());
    let mut guarded = guarded.collect::<Result<Vec<_>>>()?;
    let before: Vec<Vec<u8>> = guarded.iter().flatten().map(|guarded| guarded.values().to_vec()).collect();
    let mut pointers = [0u64; POINTERS];
    for (pointer, guarded) in pointers.iter_mut().zip(&mut guarded) {
        *pointer = guarded.as_mut().map_or(0, Guarded::address);
    }
    let library = library(A::MODULE);
    let function = launch.function();
    {
        // One at a time: the fibers of a library are static.
        static RUNNING: Mutex<()> = Mutex::new(());
        let _running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        type Run<A> = unsafe extern "C" fn(*const (), u32, i32, *const [u64; POINTERS], *const A);
        // SAFETY: `run.h` has these functions, and all kernels are of the type that it takes; the rest is what the caller
        // promises.
        unsafe {
            let guard = library.get::<unsafe extern "C" fn(*const u8, usize, i32)>(b"guard").expect("run.h has it");
            let size = library.get::<unsafe extern "C" fn() -> usize>(b"size_of_args").expect("run.h has it")();
            assert_eq!(size, size_of::<A>(), "the arguments of {}", A::MODULE);
            let guards = || guarded.iter().flatten().flat_map(Guarded::guards);
            guards().for_each(|part| guard(part.as_ptr(), part.len(), 1));
            let run = library.get::<Run<A>>(b"run_kernel").expect("run.h has it");
            let kernel = library.get::<unsafe extern "C" fn()>(function.as_bytes());
            let kernel = *kernel.unwrap_or_else(|e| panic!("{function}: {e}")) as *const ();
            run(kernel, blocks, i32::from(!WITHOUT_BARRIERS.contains(&A::MODULE)), &pointers, &launch.args);
            guards().for_each(|part| guard(part.as_ptr(), part.len(), 0));
        }
    }
    for (place, (guarded, before)) in guarded.iter().flatten().zip(before).enumerate() {
        if guarded.guards().concat().iter().any(|byte| *byte != PATTERN) {
            fail!("{function} wrote outside of tensor {place}");
        }
        if place < launch.inputs.iter().flatten().count() && guarded.values() != before {
            fail!("{function} wrote to tensor {place}, which it reads");
        }
    }
    for (output, guarded) in launch.outputs.iter().zip(&guarded[launch.inputs.len()..]) {
        if let (Some(output), Some(guarded)) = (output, guarded) {
            output.inplace_op1(&Fill(guarded.values()))?;
        }
    }
    Ok(())
}

mod tests;
