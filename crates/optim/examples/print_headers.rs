//! Prints every rule as a header of `kernels/rules/`: `cargo run -p optim --example print_headers`.

fn main() -> std::io::Result<()> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels/rules");
    std::fs::create_dir_all(&folder)?;
    for kernel in optim::rules::kernels() {
        std::fs::write(folder.join(format!("{}.h", kernel.name)), (kernel.header)())?;
    }
    Ok(())
}
