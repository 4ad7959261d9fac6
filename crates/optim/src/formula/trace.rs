//! [`Expr`] records what a rule computes; [`header`] prints it as the C++ that the GPU kernels include.

use super::decay::Decay;
use super::elementwise::Elementwise;
use super::real::Real;
use super::slots::Array;
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
    NODES.with_borrow_mut(Vec::clear);
    let input = |name: &str| record(Node::Input(name.to_string()));
    let scalars = T::Scalars::<Expr>::from_fn(|k| input(T::SCALARS[k]));
    let state = T::State::<Expr>::from_fn(|k| input(T::SLOTS[k]));
    let (direction, updated) = T::direction(scalars, input("grad"), input("param"), state);

    let mut out = String::new();
    let (name, l2) = (T::NAME, u8::from(T::DECAY == Decay::L2));
    let (scalar_count, slot_count) = (T::SCALARS.len(), T::SLOTS.len());
    let _ = write!(
        out,
        "// Printed from the rule `{name}` of the crate optim by `cargo run --release --example generate`; not edited by hand.\n\
         template <typename real> struct rule_{name} {{\n  \
           enum {{ SCALARS = {scalar_count}, SLOTS = {slot_count}, DECAY_IS_L2 = {l2} }};\n  \
           RULE_FUNCTION static real direction(RULE_SCALARS const real *scalar, real grad, real param, RULE_LOCAL real *slot) {{\n"
    );
    NODES.with_borrow(|nodes| {
        let live = live(nodes, updated.as_ref().iter().copied().chain([direction]));
        for (from, names) in [("scalar", T::SCALARS), ("slot", T::SLOTS)] {
            for (k, name) in names.iter().enumerate() {
                if live[input_index(nodes, name)] {
                    let _ = writeln!(out, "    const real {name} = {from}[{k}];");
                }
            }
        }
        let name = |e: Expr| match &nodes[e.0] {
            Node::Input(name) => name.clone(),
            Node::Constant(bits) => format!("real({:?})", f64::from_bits(*bits)),
            _ => match updated.as_ref().iter().position(|u| *u == e) {
                Some(k) => format!("new_{}", T::SLOTS[k]),
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
        for (k, e) in updated.as_ref().iter().enumerate() {
            let _ = writeln!(out, "    slot[{k}] = {};", name(*e));
        }
        let unused: String = [("scalar", T::SCALARS.is_empty()), ("slot", T::SLOTS.is_empty())]
            .iter()
            .map(|(name, unused)| (*name, *unused))
            .chain([("param", !live[input_index(nodes, "param")])])
            .filter(|(_, unused)| *unused)
            .map(|(name, _)| format!("    (void){name};\n"))
            .collect();
        let _ = write!(out, "{unused}    return {};\n  }}\n}};\n", name(direction));
    });
    out
}

fn input_index(nodes: &[Node], name: &str) -> usize {
    let is_it = |n: &Node| matches!(n, Node::Input(other) if other == name);
    nodes.iter().position(is_it).expect("all inputs are recorded before the formula")
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
