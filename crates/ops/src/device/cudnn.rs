//! Convolution by cuDNN, with sums in f32 (f64 for f64) and in a fixed order.

use crate::shape::{conv2d::Geometry, error::fail, gradients::Backward};
use candle_core::{
    CudaDevice, CudaStorage, DType, Result, Shape, Storage, Tensor, WithDType,
    cuda_backend::{
        CudaDType, DeviceId,
        cudarc::{
            cudnn::{
                ConvBackwardData, ConvBackwardFilter, ConvDescriptor, ConvForward, Cudnn, CudnnDataType,
                FilterDescriptor, TensorDescriptor,
                sys::{
                    cudnnConvolutionBwdDataAlgo_t as ByInput, cudnnConvolutionBwdFilterAlgo_t as ByWeight,
                    cudnnConvolutionFwdAlgo_t as Forward, cudnnConvolutionMode_t, cudnnMathType_t, cudnnTensorFormat_t,
                },
            },
            driver::{CudaSlice, DeviceRepr},
        },
        gemm_reduced_precision_f32,
    },
    op::BackpropOp,
};
use half::{bf16, f16};
use std::{cell::RefCell, collections::HashMap, sync::Arc};

/// The value of [`crate::conv2d()`] of x and weight, and those of its gradients that are wanted.
pub(super) fn conv2d(inputs: [Tensor; 2], g: Geometry, wanted: [bool; 2]) -> Result<(Tensor, Box<dyn Backward>)> {
    match inputs[0].dtype() {
        DType::F32 => run::<f32, f32>(inputs, g, wanted),
        DType::F64 => run::<f64, f64>(inputs, g, wanted),
        DType::BF16 => run::<bf16, f32>(inputs, g, wanted),
        DType::F16 => run::<f16, f32>(inputs, g, wanted),
        dtype => fail!("conv2d: cuDNN has none of {dtype:?}"),
    }
}

trait Number: CudaDType + WithDType + CudnnDataType + DeviceRepr {}
impl<T: CudaDType + WithDType + CudnnDataType + DeviceRepr> Number for T {}

fn run<T: Number, C: CudnnDataType + 'static>(
    [x, weight]: [Tensor; 2],
    g: Geometry,
    wanted: [bool; 2],
) -> Result<(Tensor, Box<dyn Backward>)> {
    let y = Convolution::<T, C>::new(&x, &g)?.forward(&x, &weight)?;
    let backward = move |dy: &Tensor| {
        let convolution = Convolution::<T, C>::new(&x, &g)?;
        let dx = wanted[0].then(|| convolution.by_input(&x, &weight, dy)).transpose()?;
        let dw = wanted[1].then(|| convolution.by_weight(&x, &weight, dy)).transpose()?;
        Ok(vec![dx, dw])
    };
    Ok((y, Box::new(backward)))
}

/// The algorithms of a shape, each with the bytes that it works in, once they were looked for.
#[derive(Clone, Copy, Default)]
struct Chosen {
    forward: Option<(Forward, usize)>,
    by_input: Option<(ByInput, usize)>,
    by_weight: Option<(ByWeight, usize)>,
}

type Key = (DeviceId, DType, [usize; 12]);

thread_local! {
    /// A handle is of one thread.
    static HANDLES: RefCell<HashMap<DeviceId, Arc<Cudnn>>> = RefCell::default();
    static CHOSEN: RefCell<HashMap<Key, Chosen>> = RefCell::default();
}

/// What cuDNN is told of a convolution.
struct Convolution<T, C> {
    device: CudaDevice,
    key: Key,
    operation: ConvDescriptor<C>,
    x: TensorDescriptor<T>,
    weight: FilterDescriptor<T>,
    y: TensorDescriptor<T>,
    output: Shape,
}

/// The elements of a contiguous tensor from its first on, as `$view`.
macro_rules! with_view {
    ($tensor:expr, $view:ident => $body:expr) => {{
        let (storage, layout) = $tensor.storage_and_layout();
        let Storage::Cuda(storage) = &*storage else { fail!("conv2d: a tensor is not on a GPU") };
        let $view = storage.as_cuda_slice::<T>()?.slice(layout.start_offset()..);
        $body
    }};
}

impl<T: Number, C: CudnnDataType> Convolution<T, C> {
    fn new(x: &Tensor, g: &Geometry) -> Result<Self> {
        let device = x.device().as_cuda_device()?.clone();
        let id = device.id();
        let handle = HANDLES.with_borrow_mut(|handles| -> Result<_> {
            Ok(match handles.get(&id) {
                Some(handle) => handle.clone(),
                None => handles.entry(id).insert_entry(Cudnn::new(device.cuda_stream())?).get().clone(),
            })
        })?;
        let (all_in, all_out) = (g.groups * g.in_channels, g.all_out_channels());
        let sizes = |sizes: [usize; 4]| -> Result<[i32; 4]> {
            if sizes.iter().product::<usize>() > i32::MAX as usize {
                fail!("conv2d: {sizes:?} are more elements than cuDNN takes, which is {}", i32::MAX);
            }
            Ok(sizes.map(|size| size as i32))
        };
        let both = |value: usize| [value.min(i32::MAX as usize) as i32; 2];
        let layout = cudnnTensorFormat_t::CUDNN_TENSOR_NCHW;
        let mode = cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
        let mut operation = handle.create_conv2d::<C>(both(g.padding), both(g.stride), both(g.dilation), mode)?;
        operation.set_group_count(sizes([g.groups, 1, 1, 1])?[0])?;
        operation.set_math_type(match T::DTYPE {
            // As candle's matrix products: without its leave no f32 is rounded to TF32.
            DType::F32 if !gemm_reduced_precision_f32() => cudnnMathType_t::CUDNN_FMA_MATH,
            DType::F64 => cudnnMathType_t::CUDNN_DEFAULT_MATH,
            _ => cudnnMathType_t::CUDNN_TENSOR_OP_MATH,
        })?;
        let output = g.output_shape();
        Ok(Self {
            x: handle.create_4d_tensor(layout, sizes([g.images, all_in, g.height, g.width])?)?,
            weight: handle
                .create_4d_filter(layout, sizes([all_out, g.in_channels, g.kernel_height, g.kernel_width])?)?,
            y: handle.create_4d_tensor(layout, sizes([g.images, all_out, g.out_height, g.out_width])?)?,
            operation,
            output,
            key: (
                id,
                T::DTYPE,
                [
                    g.images,
                    g.groups,
                    g.in_channels,
                    g.height,
                    g.width,
                    g.out_channels,
                    g.kernel_height,
                    g.kernel_width,
                    g.stride,
                    g.padding,
                    g.dilation,
                    gemm_reduced_precision_f32().into(),
                ],
            ),
            device,
        })
    }

    /// What `of` has of this shape, and `choose` finds where it has nothing.
    fn chosen<A: Copy>(
        &self,
        of: fn(&mut Chosen) -> &mut Option<(A, usize)>,
        choose: impl FnOnce() -> Result<(A, usize)>,
    ) -> Result<(A, CudaSlice<u8>)> {
        let known = CHOSEN.with_borrow_mut(|all| *of(all.entry(self.key).or_default()));
        let chosen = known.map_or_else(choose, Ok)?;
        CHOSEN.with_borrow_mut(|all| *of(all.entry(self.key).or_default()) = Some(chosen));
        let (algorithm, bytes) = chosen;
        // SAFETY: cuDNN reads nothing there that it did not write; memory of length 0 is none on some devices.
        Ok((algorithm, unsafe { self.device.alloc::<u8>(bytes.max(1))? }))
    }

    /// Room for the elements of a tensor, which `launch` writes.
    ///
    /// # Safety
    /// It writes all.
    unsafe fn made(&self, shape: &Shape, launch: impl FnOnce(&mut CudaSlice<T>) -> Result<()>) -> Result<Tensor> {
        // SAFETY: the caller promises that they are written.
        let mut slice = unsafe { self.device.alloc::<T>(shape.elem_count())? };
        launch(&mut slice)?;
        let storage = Storage::Cuda(CudaStorage::wrap_cuda_slice(slice, self.device.clone()));
        Ok(Tensor::from_storage(storage, shape, BackpropOp::none(), false))
    }

    fn forward(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        let pass = ConvForward { conv: &self.operation, x: &self.x, w: &self.weight, y: &self.y };
        let (algorithm, mut room) = self.chosen(
            |chosen| &mut chosen.forward,
            || {
                let algorithm = pass.pick_algorithm()?;
                Ok((algorithm, pass.get_workspace_size(algorithm)?))
            },
        )?;
        let scale = (T::one(), T::zero());
        let launch = |y: &mut CudaSlice<T>| {
            // SAFETY: the tensors have the shapes and the dtype that cuDNN was told of.
            with_view!(x, x => with_view!(weight, weight => unsafe {
                pass.launch(algorithm, Some(&mut room), scale, &x, &weight, y)?;
            }));
            Ok(())
        };
        // SAFETY: cuDNN writes all of y.
        unsafe { self.made(&self.output, launch) }
    }

    fn by_input(&self, x: &Tensor, weight: &Tensor, dy: &Tensor) -> Result<Tensor> {
        let pass = ConvBackwardData { conv: &self.operation, dx: &self.x, w: &self.weight, dy: &self.y };
        let (algorithm, mut room) = self.chosen(
            |chosen| &mut chosen.by_input,
            || {
                let algorithm = match pass.pick_algorithm()? {
                    // It adds in any order.
                    ByInput::CUDNN_CONVOLUTION_BWD_DATA_ALGO_0 => ByInput::CUDNN_CONVOLUTION_BWD_DATA_ALGO_1,
                    algorithm => algorithm,
                };
                Ok((algorithm, pass.get_workspace_size(algorithm)?))
            },
        )?;
        let scale = (T::one(), T::zero());
        let launch = |dx: &mut CudaSlice<T>| {
            // SAFETY: the tensors have the shapes and the dtype that cuDNN was told of.
            with_view!(weight, weight => with_view!(dy, dy => unsafe {
                pass.launch(algorithm, Some(&mut room), scale, dx, &weight, &dy)?;
            }));
            Ok(())
        };
        // SAFETY: cuDNN writes all of dx.
        unsafe { self.made(x.shape(), launch) }
    }

    fn by_weight(&self, x: &Tensor, weight: &Tensor, dy: &Tensor) -> Result<Tensor> {
        let pass = ConvBackwardFilter { conv: &self.operation, x: &self.x, dw: &self.weight, dy: &self.y };
        let (algorithm, mut room) = self.chosen(
            |chosen| &mut chosen.by_weight,
            || {
                let algorithm = match pass.pick_algorithm()? {
                    // They add in any order.
                    ByWeight::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_0 | ByWeight::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_3 => {
                        ByWeight::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1
                    }
                    algorithm => algorithm,
                };
                Ok((algorithm, pass.get_workspace_size(algorithm)?))
            },
        )?;
        let scale = (T::one(), T::zero());
        let launch = |dw: &mut CudaSlice<T>| {
            // SAFETY: the tensors have the shapes and the dtype that cuDNN was told of.
            with_view!(x, x => with_view!(dy, dy => unsafe {
                pass.launch(algorithm, Some(&mut room), scale, &x, dw, &dy)?;
            }));
            Ok(())
        };
        // SAFETY: cuDNN writes all of dw.
        unsafe { self.made(weight.shape(), launch) }
    }
}
