//! Builds the CUDA kernels, for the architecture that candle is built for (`CUDA_COMPUTE_CAP`): PTX per rule, so that the
//! driver translates only what a program uses.

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
        let folder = out.join("kernels");
        fs::create_dir_all(&folder).expect("a folder below OUT_DIR");
        let mut rules: Vec<String> = fs::read_dir(kernels.join("rules"))
            .expect("kernels/rules")
            .map(|file| file.expect("a file").path().file_stem().expect("a name").to_string_lossy().into_owned())
            .collect();
        rules.sort();

        let mut sources = vec![kernels.join("norm.cu")];
        // A rule of another crate may have the name of one of these: the header says whose kernel it is.
        let mut table = String::from(
            "/// Header and PTX.\npub fn rule(name: &str) -> Option<(&'static str, &'static str)> {\n    Some(match name {\n",
        );
        for rule in &rules {
            let source = folder.join(format!("{rule}.cu"));
            let text =
                format!("#define RULE {rule}\n#define RULE_HEADER \"rules/{rule}.h\"\n#include \"elementwise.cu\"\n");
            fs::write(&source, text).expect("a file below OUT_DIR");
            sources.push(source);
            let header = fs::read_to_string(kernels.join(format!("rules/{rule}.h"))).expect("a header");
            let _ = writeln!(table, "        {rule:?} => ({header:?}, {}),", rule.to_uppercase());
        }
        table += "        _ => return None,\n    })\n}\n";

        let ptx = out.join("ptx.rs");
        cudaforge::KernelBuilder::new()
            .source_files(sources)
            .include_path(kernels)
            // The bits are to be those of the CPU, which contracts nothing.
            .args(["-std=c++17", "-O3", "-fmad=false", "-prec-div=true", "-prec-sqrt=true"])
            .no_incremental()
            .build_ptx()
            .and_then(|built| built.write(&ptx))
            .unwrap_or_else(|error| panic!("nvcc cannot build the kernels: {error}"));
        let consts = fs::read_to_string(&ptx).expect("it was just written");
        fs::write(&ptx, consts + &table).expect("a file in OUT_DIR");
    }
}
