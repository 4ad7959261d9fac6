//! Builds the CUDA kernels of `kernels/ops`, for the architecture that candle is built for (`CUDA_COMPUTE_CAP`): PTX per
//! source, so that the driver translates only what a program uses.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=kernels");
    #[cfg(feature = "cuda")]
    cuda::build();
}

#[cfg(feature = "cuda")]
mod cuda {
    use std::fmt::Write;
    use std::path::PathBuf;
    use std::{env, fs};

    pub fn build() {
        let variable = |name| PathBuf::from(env::var_os(name).expect("cargo sets it"));
        let (kernels, out) = (variable("CARGO_MANIFEST_DIR").join("kernels"), variable("OUT_DIR"));
        let mut sources: Vec<PathBuf> = fs::read_dir(kernels.join("ops"))
            .expect("kernels/ops")
            .map(|file| file.expect("a file").path())
            .filter(|file| file.extension().is_some_and(|extension| extension == "cu"))
            .collect();
        sources.sort();

        let mut table = String::from("pub fn module(name: &str) -> &'static str {\n    match name {\n");
        for source in &sources {
            let name = source.file_stem().expect("a name").to_string_lossy();
            let _ = writeln!(table, "        {name:?} => {},", name.to_uppercase());
        }
        table += "        _ => unreachable!(\"kernels/ops has no {name}.cu\"),\n    }\n}\n";

        let ptx = out.join("modules.rs");
        cudaforge::KernelBuilder::new()
            .source_files(sources)
            .include_path(kernels)
            .args(["-std=c++17", "-O3"])
            .no_incremental()
            .build_ptx()
            .and_then(|built| built.write(&ptx))
            .unwrap_or_else(|error| panic!("nvcc cannot build the kernels: {error}"));
        let consts = fs::read_to_string(&ptx).expect("it was just written");
        fs::write(&ptx, consts + &table).expect("a file in OUT_DIR");
    }
}
