//! The optimizer of a trial.
use anyhow::{Result, bail};
use candle_core::{Tensor, Var};
use candle_nn::Optimizer;

#[derive(Clone, Debug)]
pub struct AnyRule { pub name: String, pub lr: f64, pub momentum: f64 }
#[derive(Clone, Debug)]
pub struct Schedule { lr: f64, steps: u64 }
impl Schedule {
    pub fn at(&self, t: u64) -> f64 { self.lr * 0.5 * (1.0 + (std::f64::consts::PI * t as f64 / self.steps as f64).cos()) }
}
impl std::fmt::Display for Schedule { fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { write!(f, "cosine:lr={},steps={}", self.lr, self.steps) } }
pub fn parse(text: &str) -> Result<AnyRule> {
    let (name, rest) = text.split_once(':').unwrap_or((text, ""));
    if !["sgd", "adam", "adamw"].contains(&name) { return Err(crate::names::unknown("optimizer", name, ["sgd", "adam", "adamw"])); }
    let mut r = AnyRule { name: name.into(), lr: if name == "sgd" { 1e-2 } else { 1e-3 }, momentum: 0.0 };
    for kv in rest.split(',').filter(|s| !s.is_empty()) {
        let (k, v) = kv.split_once('=').unwrap_or((kv, ""));
        let v: f64 = v.parse()?;
        match k { "lr" => r.lr = v, "momentum" => r.momentum = v, _ => bail!("unknown key {k}") }
    }
    Ok(r)
}
impl AnyRule {
    pub fn spec(&self) -> &Self { self }
}
pub fn hyperparameters(rule: &AnyRule) -> serde_json::Map<String, serde_json::Value> { [("lr".to_string(), rule.lr.into())].into_iter().collect() }
pub fn parse_schedule(text: &str, rule: &AnyRule, steps: u64) -> Result<Schedule> {
    if text != "cosine" { bail!("unknown schedule {text}") }
    Ok(Schedule { lr: rule.lr, steps })
}
pub fn list() -> String { String::new() }
enum Inner { A(candle_nn::AdamW), S(Vec<(Var, Option<Tensor>)>, f64) }
pub struct Opt { inner: Inner, schedule: Schedule, t: u64, vars: Vec<Var>, norm: Option<f64>, measure: bool }
pub fn build(parameters: Vec<(String, Var)>, rule: &AnyRule, schedule: &Schedule) -> Result<Opt> {
    let vars: Vec<Var> = parameters.into_iter().map(|x| x.1).collect();
    let inner = match rule.name.as_str() {
        "sgd" => Inner::S(vars.iter().map(|v| (v.clone(), None)).collect(), rule.momentum),
        _ => Inner::A(candle_nn::AdamW::new(vars.clone(), candle_nn::ParamsAdamW { lr: rule.lr, weight_decay: if rule.name == "adamw" { 0.01 } else { 0.0 }, ..Default::default() })?),
    };
    Ok(Opt { inner, schedule: schedule.clone(), t: 0, vars, norm: None, measure: false })
}
impl Opt {
    pub fn measure_grad_norm(&mut self, m: bool) { self.measure = m }
    pub fn grad_norm(&self) -> Option<f64> { self.norm }
    
    pub fn step_with(&mut self, f: impl Fn(usize) -> candle_core::Result<Tensor>) -> candle_core::Result<Tensor> {
        let loss = f(0)?;
        let grads = loss.backward()?;
        let lr = self.schedule.at(self.t);
        self.t += 1;
        if self.measure {
            let mut s = 0.0;
            for v in &self.vars { s += f64::from(grads.get(v).unwrap().sqr()?.sum_all()?.to_scalar::<f32>()?); }
            self.norm = Some(s.sqrt());
        }
        match &mut self.inner {
            Inner::A(a) => { a.set_learning_rate(lr); a.step(&grads)?; }
            Inner::S(v, mu) => for (v, b) in v {
                let g = grads.get(v).unwrap().detach();
                let nb = match b { Some(b) => ((&*b * *mu)? + g)?, None => g };
                v.set(&(v.as_detached_tensor() - (&nb * lr)?)?)?;
                *b = Some(nb);
            },
        }
        Ok(loss)
    }
}

impl std::fmt::Display for AnyRule { fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { write!(f, "{}:lr={},m={}", self.name, self.lr, self.momentum) } }
