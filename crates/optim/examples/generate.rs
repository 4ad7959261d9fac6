//! Writes what derives from the rules: `kernels/rules/*.h`, the tables in RULES.md, and that in README.md. `cargo run --release --example
//! generate`, in the project's checkout.

use std::path::Path;

fn main() -> std::io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let headers = root.join("../../kernels/rules");
    std::fs::create_dir_all(&headers)?;
    for kernel in optim::rules::kernels() {
        std::fs::write(headers.join(format!("{}.h", kernel.name)), (kernel.header)())?;
    }
    for (page, table) in [("RULES.md", optim::rules::table()), ("../../README.md", optim::rules::names_by_family())] {
        let text = std::fs::read_to_string(root.join(page))?;
        let parts = text.split_once("<!-- rules -->\n").zip(text.split_once("<!-- end of rules -->"));
        let Some(((before, _), (_, after))) = parts else {
            return Err(std::io::Error::other(format!("{page} lacks the marks of the table of rules")));
        };
        std::fs::write(root.join(page), format!("{before}<!-- rules -->\n{table}<!-- end of rules -->{after}"))?;
    }
    Ok(())
}
