//! [`Expr`] records what a rule computes; [`header`] prints it as the C++ that the GPU kernels include.

use super::decay::Decay;
use super::elementwise::{Elementwise, Gives};
use super::real::Real;
use super::slots::Array;
use super::sums::{MAX_SUMS, Scope};
use std::cell::RefCell;
use std::fmt::Write;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// A value of a formula: an index into the recording of this thread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Expr(usize);

#[derive(Clone, PartialEq)]
enum Node {
    Input(String),
    /// The bits, since 0 and -0 are equal numbers.
    Constant(u64),
    Infix(&'static str, Expr, Expr),
    Call(&'static str, Vec<Expr>),
    Negative(Expr),
}

thread_local!(static NODES: RefCell<Vec<Node>> = const { RefCell::new(Vec::new()) });

fn record(node: Node) -> Expr {
    NODES.with_borrow_mut(|nodes| {
        // An expression that occurs twice is recorded once, so the printed code repeats no work.
        let known = nodes.iter().position(|n| *n == node);
        Expr(known.unwrap_or_else(|| {
            nodes.push(node);
            nodes.len() - 1
        }))
    })
}

macro_rules! infix {
    ($($Trait:ident $method:ident $sign:literal),*) => {$(
        impl $Trait for Expr {
            type Output = Expr;
            fn $method(self, other: Expr) -> Expr {
                record(Node::Infix($sign, self, other))
            }
        }
    )*};
}
infix!(Add add "+", Sub sub "-", Mul mul "*", Div div "/");

impl Neg for Expr {
    type Output = Expr;
    fn neg(self) -> Expr {
        record(Node::Negative(self))
    }
}

impl Real for Expr {
    fn constant(x: f64) -> Self {
        record(Node::Constant(x.to_bits()))
    }
    fn sqrt(self) -> Self {
        record(Node::Call("rule_sqrt", vec![self]))
    }
    fn abs(self) -> Self {
        record(Node::Call("rule_abs", vec![self]))
    }
    fn max(self, other: Self) -> Self {
        record(Node::Call("rule_max", vec![self, other]))
    }
    fn select_positive(self, then: Self, otherwise: Self) -> Self {
        record(Node::Call("rule_select_positive", vec![self, then, otherwise]))
    }
}

/// The header of a rule: `kernels/rules/<name>.h`. It needs `kernels/rule.h` before it.
pub fn header<T: Elementwise>() -> String {
    let mut out = String::new();
    let (name, l2, own) = (T::NAME, u8::from(T::DECAY == Decay::L2), u8::from(T::DECAY == Decay::Own));
    let (scalar_count, slot_count, parameter) =
        (T::SCALARS.len(), T::SLOTS.len(), u8::from(T::GIVES == Gives::Parameter));
    let squares: u32 = (0..T::SUMS.of.len()).filter(|k| T::SUMS.is_square(*k)).map(|k| 1 << k).sum();
    let (sums, factors, all) = (T::SUMS.of.len(), T::SUMS.factors, u8::from(T::SUMS.scope == Scope::All));
    let _ = write!(
        out,
        "// Printed from the rule `{name}` of the crate optim by `cargo run --release --example generate`; not edited by hand.\n\
         template <typename real> struct rule_{name} {{\n  \
           enum {{ SCALARS = {scalar_count}, SLOTS = {slot_count}, DECAY_IS_L2 = {l2}, DECAY_IS_OWN = {own}, GIVES_PARAMETER = {parameter} }};\n  \
           enum {{ SUMS = {sums}, SQUARES = {squares}, FACTORS = {factors}, SUMS_OVER_ALL = {all} }};\n"
    );

    let (scalars, state, grad, param) = inputs::<T>();
    let (direction, updated) = T::direction(scalars, grad, param, state);
    let updated: Vec<_> = updated.as_ref().iter().zip(T::SLOTS).map(|(e, slot)| (*e, format!("new_{slot}"))).collect();
    let body = Body { inputs: &[("scalar", T::SCALARS), ("slot", T::SLOTS)], others: &["param", "grad"] };
    out += "  RULE_FUNCTION static real direction(RULE_SCALARS const real *scalar, real grad, real param, RULE_LOCAL real *slot) {\n";
    out += &body.print(&updated, "slot", Some(direction));
    if T::SUMS.is_none() {
        return out + "  RULE_NO_SUMS\n};\n";
    }

    let (scalars, state, grad, param) = inputs::<T>();
    let measured: Vec<_> =
        T::measured(scalars, grad, param, state).into_iter().take(sums).map(|e| (e, String::new())).collect();
    out += "  RULE_FUNCTION static void measured(RULE_SCALARS const real *scalar, real grad, real param, RULE_LOCAL const real *slot, RULE_LOCAL real *sum) {\n";
    out += &body.print(&measured, "sum", None);

    let names: Vec<String> = (0..MAX_SUMS).map(|k| format!("sum_{k}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (scalars, ..) = inputs::<T>();
    let given: Vec<Expr> = names.iter().map(|name| input(name)).collect();
    let made = T::factors(scalars, std::array::from_fn(|k| given[k]), input("len"));
    let made: Vec<_> = made.into_iter().take(factors).map(|e| (e, String::new())).collect();
    let body = Body { inputs: &[("scalar", T::SCALARS), ("sum", &names)], others: &["len"] };
    out += "  RULE_FUNCTION static void factors(RULE_SCALARS const real *scalar, RULE_LOCAL const real *sum, real len, RULE_LOCAL real *factor) {\n";
    out += &body.print(&made, "factor", None);
    out + "};\n"
}

fn input(name: &str) -> Expr {
    record(Node::Input(name.to_string()))
}

/// The inputs of a formula, at the beginning of a new recording.
fn inputs<T: Elementwise>() -> (T::Scalars<Expr>, T::State<Expr>, Expr, Expr) {
    NODES.with_borrow_mut(Vec::clear);
    let scalars = T::Scalars::<Expr>::from_fn(|k| input(T::SCALARS[k]));
    let state = T::State::<Expr>::from_fn(|k| input(T::SLOTS[k]));
    (scalars, state, input("grad"), input("param"))
}

/// The body of a printed function: its arrays of inputs with the names of their elements, and its other arguments.
struct Body<'a> {
    inputs: &'a [(&'a str, &'a [&'a str])],
    others: &'a [&'a str],
}

impl Body<'_> {
    /// Prints what is recorded. `outputs` go to the array `to`; those with a name have it.
    fn print(&self, outputs: &[(Expr, String)], to: &str, result: Option<Expr>) -> String {
        let mut out = String::new();
        NODES.with_borrow(|nodes| {
            let live = live(nodes, outputs.iter().map(|(e, _)| *e).chain(result));
            let is_live = |name: &str| input_index(nodes, name).is_some_and(|at| live[at]);
            for (from, names) in self.inputs {
                for (k, name) in names.iter().enumerate().filter(|(_, name)| is_live(name)) {
                    let _ = writeln!(out, "    const real {name} = {from}[{k}];");
                }
            }
            let name = |e: Expr| match &nodes[e.0] {
                Node::Input(name) => name.clone(),
                Node::Constant(bits) => format!("real({:?})", f64::from_bits(*bits)),
                _ => match outputs.iter().find(|(output, name)| *output == e && !name.is_empty()) {
                    Some((_, name)) => name.clone(),
                    None => format!("x{}", e.0),
                },
            };
            for i in (0..nodes.len()).filter(|i| live[*i]) {
                let value = match &nodes[i] {
                    Node::Input(_) | Node::Constant(_) => continue,
                    Node::Infix(sign, a, b) => format!("{} {sign} {}", name(*a), name(*b)),
                    Node::Call(function, arguments) => {
                        let arguments: Vec<String> = arguments.iter().map(|a| name(*a)).collect();
                        format!("{function}({})", arguments.join(", "))
                    }
                    Node::Negative(a) => format!("-{}", name(*a)),
                };
                let _ = writeln!(out, "    const real {} = {value};", name(Expr(i)));
            }
            for (k, (e, _)) in outputs.iter().enumerate() {
                let _ = writeln!(out, "    {to}[{k}] = {};", name(*e));
            }
            let written = |array: &str| array == to && !outputs.is_empty();
            let arrays =
                self.inputs.iter().map(|(array, names)| (*array, written(array) || names.iter().any(|n| is_live(n))));
            for (name, _) in
                arrays.chain(self.others.iter().map(|name| (*name, is_live(name)))).filter(|(_, used)| !used)
            {
                let _ = writeln!(out, "    (void){name};");
            }
            if let Some(result) = result {
                let _ = writeln!(out, "    return {};", name(result));
            }
            out += "  }\n";
        });
        out
    }
}

fn input_index(nodes: &[Node], name: &str) -> Option<usize> {
    nodes.iter().position(|n| matches!(n, Node::Input(other) if other == name))
}

/// Which nodes the outputs depend on.
fn live(nodes: &[Node], outputs: impl Iterator<Item = Expr>) -> Vec<bool> {
    let mut live = vec![false; nodes.len()];
    let mut stack: Vec<Expr> = outputs.collect();
    while let Some(Expr(i)) = stack.pop() {
        if std::mem::replace(&mut live[i], true) {
            continue;
        }
        match &nodes[i] {
            Node::Infix(_, a, b) => stack.extend([*a, *b]),
            Node::Call(_, arguments) => stack.extend(arguments),
            Node::Negative(a) => stack.push(*a),
            Node::Input(_) | Node::Constant(_) => {}
        }
    }
    live
}
