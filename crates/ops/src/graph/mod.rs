//! How operations get into candle's graph, and how gradients go from one to the next.
//!
//! candle keeps the gradient of each tensor in a store: it fills one with zeros, adds there what each operation gives, and hands the
//! sum to the operation that made the tensor. Those are passes over the memory that no gradient needs, on the CPU by one thread.
//! Here candle's graph says no more than the order. Each value has a token in it, a single number without meaning, and the
//! gradient of the value waits in a slot:
//!
//! ```text
//! candle's graph:  weight --> token of a -----> token of b --> ..   its zeros and sums are of one number
//! values:          weight --> a --------------> b ----------> ..
//! gradients:       weight <-- (slot of a) <---- (slot of b) <- ..   handed on, and added where several come
//! ```
//!
//! An operation finds the token of what another has made by the tensor's id, and takes anything else (variables, what candle has
//! made) into candle's graph by itself. What it makes is a tensor of candle's as well, whose gradient goes into the slot: an
//! operation of candle's may read it. The gradients by variables candle adds up, or [`backward`] puts into the store as they are.
//! A backward pass that ends in an error may leave gradients in slots; its graph is of no more use.

use crate::cpu::tensor::{fail, sum};
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, DType, InplaceOp1, Layout, Result, Shape, Storage,
    Tensor, TensorId,
    backend::{BackendDevice, BackendStorage},
    backprop::GradStore,
};
use std::{
    cell::RefCell,
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError},
};

/// The gradients of `loss` by the variables that it depends on: `loss.backward()`, without its pass over the memory of each
/// variable's gradient. What an operation of this crate gives by a variable is put into the store as it is, and added to what candle or
/// other operations give. Gradients may share memory with each other.
///
/// # Errors
/// When an operation fails, or has no gradient.
pub fn backward(loss: &Tensor) -> Result<GradStore> {
    /// Puts back what was collected before, also if candle panics.
    struct Collecting(Option<Gradients>);
    impl Drop for Collecting {
        fn drop(&mut self) {
            COLLECTED.set(self.0.take());
        }
    }
    let variables = loss.sorted_nodes().into_iter().filter(|node| node.is_variable());
    let before = Collecting(COLLECTED.replace(Some(variables.map(|variable| (variable.id(), None)).collect())));
    let mut store = loss.backward()?;
    let collected = COLLECTED.take().unwrap_or_default();
    drop(before);
    for (id, gradient) in collected {
        let Some(gradient) = gradient else { continue };
        let gradient = match store.get_id(id) {
            Some(other) => sum(other, &gradient)?,
            None => gradient,
        };
        store.insert_id(id, gradient.contiguous()?);
    }
    Ok(store)
}

type Gradients = HashMap<TensorId, Option<Tensor>>;

thread_local! {
    /// By the variables of a pass of [`backward`]. In the midst of it this thread may be given a task with a pass of its own.
    static COLLECTED: RefCell<Option<Gradients>> = const { RefCell::new(None) };
}

/// The sum. Not within a lock: while it waits for other threads this one may be given another pass.
fn added(before: Option<Tensor>, gradient: Tensor) -> Result<Tensor> {
    match before {
        Some(before) => sum(&before, &gradient),
        None => Ok(gradient),
    }
}

/// What is left for candle to add of a gradient by a tensor of its graph.
fn left(gradient: Option<Tensor>, by: &Tensor) -> Result<Option<Tensor>> {
    fn of_pass<'a>(collected: &'a mut Option<Gradients>, by: &Tensor) -> Option<&'a mut Option<Tensor>> {
        collected.as_mut().and_then(|collected| collected.get_mut(&by.id()))
    }
    let Some(gradient) = gradient else { return Ok(None) };
    // What was there before, if it is a variable of the pass.
    let before = COLLECTED.with_borrow_mut(|collected| of_pass(collected, by).map(Option::take));
    let Some(before) = before else { return Ok(Some(gradient)) };
    let gradient = added(before, gradient)?;
    COLLECTED.with_borrow_mut(|collected| of_pass(collected, by).map(|place| place.replace(gradient)));
    Ok(None)
}

/// `tensors` outside the graph, and contiguous.
pub(crate) fn plain<const N: usize>(tensors: [&Tensor; N]) -> Result<[Tensor; N]> {
    let plain = tensors.iter().map(|tensor| tensor.detach().contiguous()).collect::<Result<Vec<_>>>()?;
    Ok(plain.try_into().expect("as many as there were"))
}

/// `y`, made of `inputs`, with its gradient: `backward(dy)` gives the gradient by each input, in order, at least those of inputs in
/// the graph. What it needs it has to keep, [`plain`]; `dy` is.
pub(crate) fn differentiable<F>(name: &'static str, inputs: &[&Tensor], y: Tensor, backward: F) -> Result<Tensor>
where
    F: Fn(&Tensor) -> Result<Vec<Option<Tensor>>> + Send + Sync + 'static,
{
    let tracked = inputs.iter().enumerate().filter(|(_, input)| input.track_op());
    let mut links: Vec<Link> = tracked.map(|(index, input)| Link::new(index, input)).collect();
    if links.is_empty() {
        return Ok(y);
    }
    // An operation of candle has three arguments at most.
    if links.len() > 3 {
        links = links.into_iter().map(Link::by_token).collect::<Result<_>>()?;
    }
    let (mut arguments, mut handed, mut given) = (Vec::new(), Vec::new(), Vec::new());
    for Link { index, argument, slot } in links {
        given.push(slot.is_none().then_some(index));
        handed.extend(slot.map(|slot| (index, slot)));
        arguments.push(argument);
    }
    while arguments.len() > 3 {
        let joined = apply(&arguments.split_off(arguments.len() - 3), Order { name })?;
        arguments.push(joined);
        given = vec![None; arguments.len()];
    }
    let slot = Slot::default();
    let token = apply(&arguments, Operation { name, slot: slot.clone(), given, handed, backward })?;

    // Of a tensor's own, since it is taken out of it.
    let y = if y.layout().start_offset() == 0 { y.contiguous()? } else { y.copy()? };
    let (shape, id, taken) = (y.shape().clone(), Arc::new(OnceLock::new()), Take::default());
    y.inplace_op1(&taken)?;
    let value = Value { name, y: taken.0, shape, slot: slot.clone(), _entry: Entry(id.clone()) };
    let y = token.apply_op1(value)?;
    lock(&TOKENS).insert(y.id(), Token { tensor: token, slot });
    let _ = id.set(y.id());
    Ok(y)
}

/// [`differentiable`] with `backward(y, dy)`.
pub(crate) fn differentiable_by_output<F>(
    name: &'static str,
    inputs: &[&Tensor],
    y: Tensor,
    backward: F,
) -> Result<Tensor>
where
    F: Fn(&Tensor, &Tensor) -> Result<Vec<Option<Tensor>>> + Send + Sync + 'static,
{
    let output = Arc::new(OnceLock::<Tensor>::new());
    let kept = output.clone();
    let y = differentiable(name, inputs, y, move |dy| match kept.get() {
        Some(y) => backward(y, dy),
        None => fail!("{name}: the output is not there yet"),
    })?;
    let _ = output.set(y.detach());
    Ok(y)
}

/// The gradient of a value, on its way from the operations that read the value to the one that made it.
#[derive(Clone, Default)]
struct Slot(Arc<Mutex<Option<Tensor>>>);

impl Slot {
    fn put(&self, gradient: Tensor) -> Result<()> {
        let before = self.take();
        *lock(&self.0) = Some(added(before, gradient)?);
        Ok(())
    }

    fn take(&self) -> Option<Tensor> {
        lock(&self.0).take()
    }
}

/// What stands for a value in candle's graph.
#[derive(Clone)]
struct Token {
    tensor: Tensor,
    slot: Slot,
}

/// Of each value that is alive.
static TOKENS: LazyLock<Mutex<HashMap<TensorId, Token>>> = LazyLock::new(Mutex::default);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes a value's token out of the table when the value is no more.
struct Entry(Arc<OnceLock<TensorId>>);

impl Drop for Entry {
    fn drop(&mut self) {
        let token = self.0.get().and_then(|id| lock(&TOKENS).remove(id));
        // With it may go the last of other values, which want the table too.
        drop(token);
    }
}

/// How an operation is linked to an input.
struct Link {
    /// Which of its inputs it is.
    index: usize,
    /// What candle's graph has: the input's token, or the input.
    argument: Tensor,
    /// Where the gradient goes, if it is not candle that adds it up.
    slot: Option<Slot>,
}

impl Link {
    fn new(index: usize, input: &Tensor) -> Self {
        let token = lock(&TOKENS).get(&input.id()).cloned();
        match token {
            Some(Token { tensor, slot }) => Self { index, argument: tensor, slot: Some(slot) },
            None => Self { index, argument: input.clone(), slot: None },
        }
    }

    fn by_token(self) -> Result<Self> {
        if self.slot.is_some() {
            return Ok(self);
        }
        let slot = Slot::default();
        Ok(Self { argument: self.argument.apply_op1(Leaf(slot.clone()))?, slot: Some(slot), ..self })
    }
}

/// Applies what makes a token of one to three arguments.
fn apply<T: CustomOp1 + CustomOp2 + CustomOp3 + Send + Sync + 'static>(arguments: &[Tensor], op: T) -> Result<Tensor> {
    match arguments {
        [a] => a.apply_op1(op),
        [a, b] => a.apply_op2(b, op),
        [a, b, c] => a.apply_op3(b, c, op),
        _ => unreachable!("there are one to three arguments"),
    }
}

fn cpu_token() -> Result<(CpuStorage, Shape)> {
    Ok((CpuStorage::F32(vec![0.0]), Shape::from(())))
}

fn cuda_token(argument: &CudaStorage) -> Result<(CudaStorage, Shape)> {
    let shape = Shape::from(());
    Ok((argument.device().zeros_impl(&shape, DType::F32)?, shape))
}

/// Implements candle's operations of one to three arguments for what makes a token.
macro_rules! makes_token {
    ([$($bounds:tt)*] $type:ty) => {
        impl<$($bounds)*> CustomOp1 for $type {
            fn name(&self) -> &'static str {
                self.name
            }
            fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
                cpu_token()
            }
            fn cuda_fwd(&self, a: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
                cuda_token(a)
            }
            fn bwd(&self, a: &Tensor, _: &Tensor, _: &Tensor) -> Result<Option<Tensor>> {
                let [a] = self.gradients([a])?;
                Ok(a)
            }
        }

        impl<$($bounds)*> CustomOp2 for $type {
            fn name(&self) -> &'static str {
                self.name
            }
            fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
                cpu_token()
            }
            fn cuda_fwd(&self, a: &CudaStorage, _: &Layout, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
                cuda_token(a)
            }
            fn bwd(&self, a: &Tensor, b: &Tensor, _: &Tensor, _: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
                let [a, b] = self.gradients([a, b])?;
                Ok((a, b))
            }
        }

        impl<$($bounds)*> CustomOp3 for $type {
            fn name(&self) -> &'static str {
                self.name
            }
            fn cpu_fwd(
                &self,
                _: &CpuStorage,
                _: &Layout,
                _: &CpuStorage,
                _: &Layout,
                _: &CpuStorage,
                _: &Layout,
            ) -> Result<(CpuStorage, Shape)> {
                cpu_token()
            }
            fn cuda_fwd(
                &self,
                a: &CudaStorage,
                _: &Layout,
                _: &CudaStorage,
                _: &Layout,
                _: &CudaStorage,
                _: &Layout,
            ) -> Result<(CudaStorage, Shape)> {
                cuda_token(a)
            }
            fn bwd(
                &self,
                a: &Tensor,
                b: &Tensor,
                c: &Tensor,
                _: &Tensor,
                _: &Tensor,
            ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
                let [a, b, c] = self.gradients([a, b, c])?;
                Ok((a, b, c))
            }
        }
    };
}

/// Makes the token of an operation's output, and in the backward pass the gradients by its inputs.
struct Operation<F> {
    name: &'static str,
    /// The output's.
    slot: Slot,
    /// Of each argument the input that it is; none where it is a token.
    given: Vec<Option<usize>>,
    /// The inputs whose gradient candle does not add up.
    handed: Vec<(usize, Slot)>,
    backward: F,
}

impl<F: Fn(&Tensor) -> Result<Vec<Option<Tensor>>>> Operation<F> {
    fn gradients<const N: usize>(&self, arguments: [&Tensor; N]) -> Result<[Option<Tensor>; N]> {
        let Some(dy) = self.slot.take() else { fail!("{}: the output has no gradient", self.name) };
        let mut gradients = (self.backward)(&dy.contiguous()?)?;
        // What several operations give is added up in place of them.
        drop(dy);
        let mut take = |index: usize| gradients.get_mut(index).and_then(Option::take);
        for (index, slot) in &self.handed {
            if let Some(gradient) = take(*index) {
                slot.put(gradient)?;
            }
        }
        let mut given = [const { None }; N];
        for ((given, argument), index) in given.iter_mut().zip(arguments).zip(&self.given) {
            *given = match index {
                Some(index) => left(take(*index), argument)?,
                None => Some(argument.detach()),
            };
        }
        Ok(given)
    }
}

makes_token!([F: Fn(&Tensor) -> Result<Vec<Option<Tensor>>>] Operation<F>);

/// Makes one token of several, all of which come before it.
struct Order {
    name: &'static str,
}

impl Order {
    fn gradients<const N: usize>(&self, arguments: [&Tensor; N]) -> Result<[Option<Tensor>; N]> {
        Ok(arguments.map(|argument| Some(argument.detach())))
    }
}

makes_token!([] Order);

/// Makes a token of a tensor that has none, and gives its gradient to candle.
struct Leaf(Slot);

impl CustomOp1 for Leaf {
    fn name(&self) -> &'static str {
        "leaf"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        cpu_token()
    }

    fn cuda_fwd(&self, argument: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        cuda_token(argument)
    }

    fn bwd(&self, argument: &Tensor, _: &Tensor, _: &Tensor) -> Result<Option<Tensor>> {
        left(self.0.take(), argument)
    }
}

/// Takes the storage out of a tensor.
#[derive(Default)]
struct Take(Mutex<Option<Storage>>);

impl InplaceOp1 for Take {
    fn name(&self) -> &'static str {
        "take"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _: &Layout) -> Result<()> {
        *lock(&self.0) = Some(Storage::Cpu(std::mem::replace(storage, CpuStorage::U8(Vec::new()))));
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, storage: &mut CudaStorage, _: &Layout) -> Result<()> {
        *lock(&self.0) = Some(Storage::Cuda(crate::device::take(storage)?));
        Ok(())
    }
}

/// Makes an output, which is there already, of its token; what candle has added up of its gradient goes into the slot.
struct Value {
    name: &'static str,
    y: Mutex<Option<Storage>>,
    shape: Shape,
    slot: Slot,
    _entry: Entry,
}

impl CustomOp1 for Value {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        match lock(&self.y).take() {
            Some(Storage::Cpu(storage)) => Ok((storage, self.shape.clone())),
            _ => fail!("{}: the output is not on the CPU", self.name),
        }
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        match lock(&self.y).take() {
            Some(Storage::Cuda(storage)) => Ok((storage, self.shape.clone())),
            _ => fail!("{}: the output is not on a GPU", self.name),
        }
    }

    fn bwd(&self, token: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        self.slot.put(dy.clone())?;
        Ok(Some(token.detach()))
    }
}

#[cfg(test)]
mod tests;
