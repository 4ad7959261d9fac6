//! The headers in `kernels/rules/`: fresh, complete, and equal to the rules they were printed from when a C++ compiler
//! has built them.

use optim::rule::{Decay, Gives, Kernel, MAX_FACTORS, MAX_SLOTS, MAX_SUMS, Scope, Summand};
use optim::rules;
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn kernels_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels")
}

#[test]
fn headers_are_fresh() {
    let mut expected = BTreeSet::new();
    for kernel in rules::kernels() {
        let file = kernels_folder().join(format!("rules/{}.h", kernel.name));
        let committed = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(
            committed == (kernel.header)(),
            "{} is stale: run `cargo run --release --example generate`",
            file.display()
        );
        expected.insert(file);
    }
    let found = std::fs::read_dir(kernels_folder().join("rules")).expect("the folder of headers");
    let found: BTreeSet<PathBuf> = found.map(|entry| entry.expect("an entry").path()).collect();
    assert_eq!(found, expected, "a header without a rule, or a rule without a header");
}

/// Numbers that a formula could stumble on.
const EXTREME: [f64; 15] =
    [0.0, -0.0, 1.0, -1.0, 5e-324, -5e-324, 1e-310, 1e-45, 1e-38, 1e-8, 1e150, -1e200, 1e308, f64::INFINITY, f64::NAN];

/// A generator for test inputs: any spread of signs and magnitudes does.
struct Inputs(u64);

impl Inputs {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (high, low) = (self.0 >> 32, self.0 >> 8 & 0xFFFF);
        if high % 16 == 0 {
            return EXTREME[(low % EXTREME.len() as u64) as usize];
        }
        let magnitude = 10f64.powi((high % 13) as i32 - 8);
        (low as f64 / 32_768.0 - 1.0) * magnitude
    }
}

/// Inputs of one evaluation: scalars, gradient, parameter, slots, sums, number of elements.
fn width(kernel: &Kernel) -> usize {
    kernel.scalars.len() + 2 + kernel.slots.len() + MAX_SUMS + 1
}

/// Outputs: direction, new slots, what is measured, factors.
fn outputs(kernel: &Kernel) -> usize {
    1 + kernel.slots.len() + kernel.sums.of.len() + kernel.sums.factors
}

/// Reads blocks of doubles, evaluates, writes blocks of doubles.
fn program() -> String {
    let mut source = String::from("#include <cstdio>\n#include <vector>\n#include \"rule.h\"\n");
    for kernel in rules::kernels() {
        source += &format!("#include \"rules/{}.h\"\n", kernel.name);
    }
    source += r#"
template <template <typename> class Rule, typename real> void run(long n) {
  typedef Rule<real> R;
  for (long i = 0; i < n; i++) {
    enum { IN = R::SCALARS + 2 + R::SLOTS + 4, OUT = 1 + R::SLOTS + R::SUMS + R::FACTORS };
    double in[IN], out[OUT];
    if (fread(in, sizeof(double), IN, stdin) != IN) return;
    real scalar[R::SCALARS + 1], slot[R::SLOTS + 1], value[R::SUMS + 1], sum[3], factor[R::FACTORS + 1];
    for (int k = 0; k < R::SCALARS; k++) scalar[k] = real(in[k]);
    for (int k = 0; k < R::SLOTS; k++) slot[k] = real(in[R::SCALARS + 2 + k]);
    for (int k = 0; k < 3; k++) sum[k] = real(in[R::SCALARS + 2 + R::SLOTS + k]);
    R::measured(scalar, real(in[R::SCALARS]), real(in[R::SCALARS + 1]), slot, value);
    R::factors(scalar, sum, real(in[IN - 1]), factor);
    for (int k = 0; k < R::SUMS; k++) out[1 + R::SLOTS + k] = double(value[k]);
    for (int k = 0; k < R::FACTORS; k++) out[1 + R::SLOTS + R::SUMS + k] = double(factor[k]);
    out[0] = double(R::direction(scalar, real(in[R::SCALARS]), real(in[R::SCALARS + 1]), slot));
    for (int k = 0; k < R::SLOTS; k++) out[1 + k] = double(slot[k]);
    fwrite(out, sizeof(double), OUT, stdout);
  }
}
template <typename R> void facts() {
  printf("%d %d %d %d %d %d %d %d %d", R::SCALARS, R::SLOTS, R::DECAY_IS_L2, R::DECAY_IS_OWN, R::GIVES_PARAMETER, R::SUMS, R::SQUARES, R::FACTORS, R::SUMS_OVER_ALL);
}
int main(int, char **argv) {
  long n = atol(argv[3]);
  bool single = std::string(argv[2]) == "float";
  std::string rule = argv[1];
"#;
    for kernel in rules::kernels() {
        let name = kernel.name;
        source += &format!(
            "  if (rule == \"{name}\") {{ if (single) run<rule_{name}, float>(n); else run<rule_{name}, double>(n); \
             facts<rule_{name}<float>>(); }}\n"
        );
    }
    source.replace("#include <vector>", "#include <cstdlib>\n#include <string>") + "}\n"
}

fn same(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

#[test]
fn compiled_headers_equal_the_rules_bit_by_bit() {
    const N: usize = 4_000;
    let folder = tempfile::tempdir().expect("a scratch folder");
    let (source, binary) = (folder.path().join("rules.cpp"), folder.path().join("rules"));
    std::fs::write(&source, program()).expect("the program");
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_string());
    let mut build = Command::new(&compiler);
    build.args(["-std=c++14", "-O2", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-I"]);
    let built = build.arg(kernels_folder()).arg(&source).arg("-o").arg(&binary).output();
    let built = built.unwrap_or_else(|e| panic!("{compiler}, the C++ compiler (CXX): {e}"));
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));

    for kernel in rules::kernels() {
        for single in [false, true] {
            let mut inputs = Inputs(7);
            let input: Vec<f64> = (0..N * width(kernel))
                .map(|_| inputs.next())
                .map(|x| if single { f64::from(x as f32) } else { x })
                .collect();
            let mut child = Command::new(&binary)
                .args([kernel.name, if single { "float" } else { "double" }, &N.to_string()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("the program starts");
            let bytes: Vec<u8> = input.iter().flat_map(|x| x.to_ne_bytes()).collect();
            let mut stdin = child.stdin.take().expect("its input");
            let writer = std::thread::spawn(move || stdin.write_all(&bytes));
            let output = child.wait_with_output().expect("its output").stdout;
            writer.join().expect("the writer").expect("all was read");

            let outputs = outputs(kernel);
            let (values, printed) = output.split_at(N * outputs * 8);
            let flag = |is_set: bool| usize::from(is_set);
            let squares = kernel.sums.of.iter().enumerate().map(|(k, of)| flag(*of == Summand::Square) << k).sum();
            let facts = [
                kernel.scalars.len(),
                kernel.slots.len(),
                flag(kernel.decay == Decay::L2),
                flag(kernel.decay == Decay::Own),
                flag(kernel.gives == Gives::Parameter),
                kernel.sums.of.len(),
                squares,
                kernel.sums.factors,
                flag(kernel.sums.scope == Scope::All),
            ];
            let expected = facts.map(|fact| fact.to_string()).join(" ");
            assert_eq!(String::from_utf8_lossy(printed), expected, "{}", kernel.name);
            let mut nans = 0;
            for (i, block) in values.chunks_exact(outputs * 8).enumerate() {
                let theirs: Vec<f64> =
                    block.chunks_exact(8).map(|b| f64::from_ne_bytes(b.try_into().expect("8 bytes"))).collect();
                let given = &input[i * width(kernel)..][..width(kernel)];
                let ours = evaluate(kernel, given, single);
                nans += usize::from(ours[0].is_nan());
                let equal = ours.len() == theirs.len() && ours.iter().zip(&theirs).all(|(a, b)| same(*a, *b));
                assert!(equal, "{} of {given:?}: Rust {ours:?}, C++ {theirs:?}", kernel.name);
            }
            assert!(nans > 0 && nans < N, "{}: NaN comes through, and not always", kernel.name);
        }
    }
}

/// The same in Rust.
fn evaluate(kernel: &Kernel, given: &[f64], single: bool) -> Vec<f64> {
    let (scalars, rest) = given.split_at(kernel.scalars.len());
    let count = kernel.slots.len();
    let mut slots = [0.0; MAX_SLOTS];
    slots[..count].copy_from_slice(&rest[2..2 + count]);
    let sums: [f64; MAX_SUMS] = std::array::from_fn(|k| rest[2 + count + k]);
    let len = rest[2 + count + MAX_SUMS];
    let (direction, measured, factors): (f64, [f64; MAX_SUMS], [f64; MAX_FACTORS]);
    if single {
        let scalars: Vec<f32> = scalars.iter().map(|x| *x as f32).collect();
        let mut f32s = slots.map(|x| x as f32);
        let (grad, param) = (rest[0] as f32, rest[1] as f32);
        measured = (kernel.measured_f32)(&scalars, grad, param, &f32s).map(f64::from);
        factors = (kernel.factors_f32)(&scalars, sums.map(|x| x as f32), len as f32).map(f64::from);
        direction = f64::from((kernel.direction_f32)(&scalars, grad, param, &mut f32s));
        slots = f32s.map(f64::from);
    } else {
        measured = (kernel.measured_f64)(scalars, rest[0], rest[1], &slots);
        factors = (kernel.factors_f64)(scalars, sums, len);
        direction = (kernel.direction_f64)(scalars, rest[0], rest[1], &mut slots);
    }
    let measured = &measured[..kernel.sums.of.len()];
    let factors = &factors[..kernel.sums.factors];
    [&[direction], &slots[..count], measured, factors].concat()
}
