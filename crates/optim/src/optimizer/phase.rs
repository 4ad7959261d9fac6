//! What may be called when: between whole steps an optimizer may hold accumulated gradients, SAM's perturbation, or both; or the
//! parameters hold what is evaluated.

use crate::error::{Error, Result};

/// What an optimizer holds between two calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing: the latest step is whole.
    Idle,
    /// Gradients at the parameters.
    Accumulating,
    /// SAM's first step was made: the parameters are where the second gradient is to be taken.
    Perturbed,
    /// The same, with gradients that were taken there.
    PerturbedAccumulating,
    /// The parameters hold what `eval` wrote.
    Evaluating,
}

/// What is called, where it depends on the phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Step,
    StepAccumulated,
    StepWith,
    FirstStep,
    FirstStepAccumulated,
    SecondStep,
    Accumulate,
    SaveOrLoad,
    Eval,
    SetAverage,
}

/// How many gradients a step of the rule takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gradients {
    One,
    /// SAM's.
    Two,
    /// As many as it needs: L-BFGS.
    Many,
}

/// The table of phases and calls. What is not in it, `discard_accumulated`, `cancel_first_step`, `train`, freezing and the other
/// settings, may be called at any time.
///
/// # Errors
/// The call has no meaning in this phase, or for a rule that is (not) SAM; the message says what to call.
pub(crate) fn check(phase: Phase, call: Call, gradients: Gradients) -> Result<()> {
    use Call::*;
    use Phase::*;
    let is_sam = gradients == Gradients::Two;
    let problem = match (call, phase) {
        (
            Step | StepAccumulated | StepWith | FirstStep | FirstStepAccumulated | SecondStep | Accumulate | SaveOrLoad
            | SetAverage,
            Evaluating,
        ) => "the parameters hold what is evaluated: call train, which restores them, first",
        (Step | StepAccumulated | FirstStep | FirstStepAccumulated | SecondStep | Accumulate, Idle)
            if gradients == Gradients::Many =>
        {
            "lbfgs evaluates the loss as often as it needs: call step_with(closure)"
        }
        (Step, Idle) if is_sam => {
            "step: sam needs two gradients: call step_with(closure), or first_step before and second_step after the second gradient"
        }
        (Step | StepWith | FirstStep, Accumulating) => {
            "gradients are accumulated: step_accumulated (for sam first_step_accumulated) uses them, discard_accumulated drops them"
        }
        (Step | SecondStep, PerturbedAccumulating) => {
            "gradients are accumulated after first_step: step_accumulated completes the step with them, discard_accumulated drops them"
        }
        (StepAccumulated, Idle | Perturbed) => {
            "step_accumulated: no gradients were accumulated: call accumulate before it"
        }
        (StepAccumulated, Accumulating) if is_sam => {
            "step_accumulated: sam needs two gradients: call first_step_accumulated, accumulate again, then step_accumulated"
        }
        (FirstStep | FirstStepAccumulated, Idle | Accumulating) if !is_sam => "first_step: the rule is not sam",
        (FirstStepAccumulated, Idle) => {
            "first_step_accumulated: no gradients were accumulated: call accumulate before it"
        }
        (FirstStep | FirstStepAccumulated, Perturbed | PerturbedAccumulating) => {
            "first_step: it was made already: call second_step (or step_accumulated), or cancel_first_step"
        }
        (StepWith, Perturbed | PerturbedAccumulating) => {
            "step_with: first_step was made already: call second_step (or step_accumulated), or cancel_first_step"
        }
        (SecondStep, Idle | Accumulating) => "second_step: first_step has to come before it",
        (SaveOrLoad, Accumulating | Perturbed | PerturbedAccumulating) => {
            "the state can be saved and loaded only between two whole steps: complete the step, or call discard_accumulated or cancel_first_step"
        }
        (Eval, Accumulating | Perturbed | PerturbedAccumulating) => {
            "eval: only between two whole steps: complete the step, or call discard_accumulated or cancel_first_step"
        }
        (Step, Idle | Perturbed)
        | (StepAccumulated, Accumulating | PerturbedAccumulating)
        | (StepWith | SaveOrLoad, Idle)
        | (Accumulate | SetAverage, Idle | Accumulating | Perturbed | PerturbedAccumulating)
        | (Eval, Idle | Evaluating)
        | (FirstStep, Idle)
        | (FirstStepAccumulated, Accumulating)
        | (SecondStep, Perturbed) => return Ok(()),
    };
    Err(Error::WrongState(problem))
}
