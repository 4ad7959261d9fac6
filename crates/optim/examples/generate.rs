//! Writes what derives from the rules: `kernels/rules/*.h` and the table in RULES.md. `cargo run --release --example
//! generate`, in the project's checkout.

use std::path::Path;

fn main() -> std::io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let headers = root.join("../../kernels/rules");
    std::fs::create_dir_all(&headers)?;
    for kernel in optim::rules::kernels() {
        std::fs::write(headers.join(format!("{}.h", kernel.name)), (kernel.header)())?;
    }
    let page = root.join("RULES.md");
    let text = std::fs::read_to_string(&page)?;
    let parts = text.split_once("<!-- rules -->\n").zip(text.split_once("<!-- end of rules -->"));
    let Some(((before, _), (_, after))) = parts else {
        return Err(std::io::Error::other("RULES.md lacks the marks of the table of rules"));
    };
    let table = optim::rules::table();
    std::fs::write(&page, format!("{before}<!-- rules -->\n{table}<!-- end of rules -->{after}"))
}
