// A driver of CUDA whose device is the host, so that a program built with the feature `cuda` runs where there is no GPU:
// memory is the host's, a launch of ours runs the kernel's source as C++ (crates/optim/tests/shim, crates/ops/tests/shim), and
// the few kernels of candle that the checks need, and cuBLAS's products, are below. Built by run.sh, which says what for. It
// is stricter than a GPU: memory starts as NaN, addresses and lengths of copies and the matrices of products are checked, and
// so are the borders of each block of memory when it is freed. Kernels under AddressSanitizer cannot read them either.
//
// DESCENT_PTX: the folders with the PTX of our kernels, by which a module is recognised, with colons between them;
// DESCENT_KERNELS: the folder with their libraries. `descent_copies_to_host` counts copies from the device. DESCENT_NO_LAUNCH: kernels do nothing, to time
// what the host does. DESCENT_EMPTY_FAILS: there is no memory of length 0, as some drivers have it.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dirent.h>
#include <dlfcn.h>
#include <fstream>
#include <iterator>
#include <map>
#include <mutex>
#include <sstream>
#include <string>

typedef int Status;
enum { OK = 0, INVALID_VALUE = 1, NOT_FOUND = 500, ILLEGAL_ADDRESS = 700 };
typedef void *Handle;
typedef uint64_t Address;

static std::mutex lock;
static std::map<Address, size_t> blocks;
static std::atomic<unsigned long> copies_to_host{0};
static Handle current_context = nullptr;
static char one_context, one_stream, one_generator;

static Status fail(const char *what, Status status = ILLEGAL_ADDRESS) {
  fprintf(stderr, "driver on the host: %s\n", what);
  return status;
}

// Whether a range lies within a block.
static bool is_known(Address at, size_t len) {
  std::lock_guard<std::mutex> guard(lock);
  auto block = blocks.upper_bound(at);
  if (block == blocks.begin()) return false;
  --block;
  return at + len <= block->first + block->second;
}

enum { BORDER = 512 };
static const unsigned char PATTERN = 0xA5;

// Of AddressSanitizer, where the kernels are built with it.
extern "C" {
__attribute__((weak)) void __asan_poison_memory_region(void const volatile *, size_t);
__attribute__((weak)) void __asan_unpoison_memory_region(void const volatile *, size_t);
}
static void guard_borders(unsigned char *all, size_t len, bool is_on) {
  auto *guard = is_on ? __asan_poison_memory_region : __asan_unpoison_memory_region;
  if (!guard) return;
  guard(all, BORDER);
  guard(all + BORDER + len, BORDER - 1);
}

static Status allocate(Address *to, size_t len) {
  // The documentation of cuMemAllocAsync does not say what it does.
  if (len == 0) {
    *to = 0;
    return getenv("DESCENT_EMPTY_FAILS") ? INVALID_VALUE : OK;
  }
  unsigned char *all = (unsigned char *)aligned_alloc(BORDER, (len + 3 * BORDER - 1) / BORDER * BORDER);
  if (!all) return 2;
  memset(all, PATTERN, BORDER);
  memset(all + BORDER, 0xFF, len);
  memset(all + BORDER + len, PATTERN, BORDER - 1);
  guard_borders(all, len, true);
  std::lock_guard<std::mutex> guard(lock);
  *to = (Address)(all + BORDER);
  blocks[*to] = len;
  return OK;
}

static Status release(Address at) {
  if (at == 0) return OK;
  size_t len;
  {
    std::lock_guard<std::mutex> guard(lock);
    auto block = blocks.find(at);
    if (block == blocks.end()) return fail("memory that was not allocated is freed");
    len = block->second;
    blocks.erase(block);
  }
  unsigned char *all = (unsigned char *)at - BORDER;
  guard_borders(all, len, false);
  for (size_t k = 0; k < BORDER; k++)
    if (all[k] != PATTERN || (k < BORDER - 1 && all[BORDER + len + k] != PATTERN)) {
      fail("a kernel wrote outside of its memory");
      abort();
    }
  memset(all + BORDER, 0xFF, len);
  free(all);
  return OK;
}

// ---- kernels ----

struct Module {
  std::string name, text;
  void *library;
};
struct Function {
  std::string name;
  // Of ours: the kernel and what runs it, with the tensors' tables or addresses, and the arguments.
  void *kernel;
  void (*run)(void *, unsigned, int, void *, const void *);
  bool is_op, has_barriers;
};

static std::string contents(const std::string &path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
}

// The name of the file in DESCENT_PTX with this text, without its ending; empty for a module of candle.
static std::string name_of(const std::string &text) {
  const char *folders = getenv("DESCENT_PTX");
  std::stringstream list(folders ? folders : "");
  std::string found;
  for (std::string folder; std::getline(list, folder, ':');) {
    DIR *all = opendir(folder.c_str());
    for (dirent *entry; all && (entry = readdir(all));) {
      const std::string name = entry->d_name;
      if (name.size() < 5 || name.substr(name.size() - 4) != ".ptx") continue;
      if (contents(folder + "/" + name) == text) found = name.substr(0, name.size() - 4);
    }
    if (all) closedir(all);
  }
  return found;
}

template <typename T> static T argument(void **arguments, int at) {
  T value;
  memcpy(&value, arguments[at], sizeof value);
  return value;
}

struct Bf16 {
  uint16_t bits;
  operator float() const {
    const uint32_t wide = uint32_t(bits) << 16;
    float x;
    memcpy(&x, &wide, sizeof x);
    return x;
  }
  Bf16() = default;
  Bf16(float x) {
    uint32_t wide;
    memcpy(&wide, &x, sizeof x);
    bits = x != x ? 0x7FFF : (wide + 0x7FFF + (wide >> 16 & 1)) >> 16;
  }
};
typedef _Float16 F16;

// Where element i lies in a layout of `info`: dims, then strides; contiguous without it.
struct Places {
  size_t dims;
  const size_t *sizes, *strides;
  size_t operator()(size_t i) const {
    if (!sizes) return i;
    size_t at = 0;
    for (size_t d = dims; d-- > 0;) {
      at += i % sizes[d] * strides[d];
      i /= sizes[d];
    }
    return at;
  }
};

template <typename From, typename To, typename F> static bool map(void **a, F f) {
  const size_t n = argument<size_t>(a, 0), dims = argument<size_t>(a, 1);
  const size_t *info = argument<const size_t *>(a, 2);
  const From *from = argument<const From *>(a, 3);
  To *to = argument<To *>(a, 4);
  const Places place{dims, info, info ? info + dims : nullptr};
  for (size_t i = 0; i < n; i++) to[i] = f(from ? from[place(i)] : From(to[i]));
  return true;
}

template <typename T, typename F> static bool zip(void **a, F f) {
  const size_t n = argument<size_t>(a, 0), dims = argument<size_t>(a, 1);
  const size_t *info = argument<const size_t *>(a, 2);
  const T *left = argument<const T *>(a, 3), *right = argument<const T *>(a, 4);
  T *to = argument<T *>(a, 5);
  const Places l{dims, info, info ? info + dims : nullptr}, r{dims, info, info ? info + 2 * dims : nullptr};
  for (size_t i = 0; i < n; i++) to[i] = f(left[l(i)], right[r(i)]);
  return true;
}

template <typename T> static bool affine(void **a) {
  const T mul = argument<T>(a, 5), add = argument<T>(a, 6);
  return map<T, T>(a, [=](T x) { return T(x * mul + add); });
}

template <typename T> static bool copy2d(void **a) {
  const T *from = argument<const T *>(a, 0);
  T *to = argument<T *>(a, 1);
  const size_t rows = argument<uint32_t>(a, 2), columns = argument<uint32_t>(a, 3);
  const size_t from_stride = argument<uint32_t>(a, 4), to_stride = argument<uint32_t>(a, 5);
  for (size_t i = 0; i < rows; i++) memcpy(to + i * to_stride, from + i * from_stride, columns * sizeof(T));
  return true;
}

template <typename T> static bool const_set(void **a) {
  const size_t n = argument<size_t>(a, 0), dims = argument<size_t>(a, 1);
  const size_t *info = argument<const size_t *>(a, 2);
  const T value = argument<T>(a, 3);
  T *to = argument<T *>(a, 4);
  const Places place{dims, info, info ? info + dims : nullptr};
  for (size_t i = 0; i < n; i++) to[place(i)] = value;
  return true;
}

template <typename T> static bool generic(const std::string &op, void **a) {
  if (op == "affine") return affine<T>(a);
  if (op == "copy2d") return copy2d<T>(a);
  if (op == "const_set") return const_set<T>(a);
  if (op == "ucopy") return map<T, T>(a, [](T x) { return x; });
  if (op == "usqr") return map<T, T>(a, [](T x) { return T(x * x); });
  if (op == "usqrt") return map<T, T>(a, [](T x) { return T(std::sqrt(double(x))); });
  if (op == "badd") return zip<T>(a, [](T x, T y) { return T(x + y); });
  if (op == "bsub") return zip<T>(a, [](T x, T y) { return T(x - y); });
  if (op == "bmul") return zip<T>(a, [](T x, T y) { return T(x * y); });
  if (op == "bdiv") return zip<T>(a, [](T x, T y) { return T(x / y); });
  return false;
}

template <typename From> static bool cast(const std::string &to, void **a) {
  if (to == "f32") return map<From, float>(a, [](From x) { return float(x); });
  if (to == "f64") return map<From, double>(a, [](From x) { return double(x); });
  if (to == "bf16") return map<From, Bf16>(a, [](From x) { return Bf16(float(x)); });
  if (to == "f16") return map<From, F16>(a, [](From x) { return F16(float(x)); });
  return false;
}

// A kernel of candle by its name, run over all elements.
static bool run_candle(const std::string &name, void **a) {
  const size_t last = name.rfind('_');
  std::string op = name.substr(0, last), type = name.substr(last + 1);
  if (op.substr(0, 5) == "cast_") {
    const std::string from = op.substr(5);
    if (from == "f32") return cast<float>(type, a);
    if (from == "f64") return cast<double>(type, a);
    if (from == "bf16") return cast<Bf16>(type, a);
    if (from == "f16") return cast<F16>(type, a);
    return false;
  }
  if (type == "f32") return generic<float>(op, a);
  if (type == "f64") return generic<double>(op, a);
  if (type == "bf16") return generic<Bf16>(op, a);
  if (type == "f16") return generic<F16>(op, a);
  if (type == "u32") return generic<uint32_t>(op, a);
  return false;
}

// ---- products ----

// A matrix in columns, as cuBLAS has it, of each product of a batch.
template <typename T> struct Matrix {
  const T *at;
  int64_t rows, columns, ld;
  long long stride;
  bool is_transposed;
  T operator()(int64_t batch, int64_t i, int64_t j) const {
    return at[batch * stride + (is_transposed ? j + i * ld : i + j * ld)];
  }
  // Whether cuBLAS takes it and all of it is on the device.
  bool is_valid(int64_t batches) const {
    const int64_t down = is_transposed ? columns : rows, across = is_transposed ? rows : columns;
    if (ld < std::max<int64_t>(down, 1) || Address(at) % sizeof(T)) return false;
    for (int64_t batch = 0; batch < batches; batch++)
      if (!is_known(Address(at + batch * stride), ((across - 1) * ld + down) * sizeof(T))) return false;
    return true;
  }
};

// c = a b, summed in Sum.
template <typename T, typename Sum> static Status product(Matrix<T> a, Matrix<T> b, Matrix<T> c, int batches) {
  enum { BAD_VALUE = 7 };
  if (!a.is_valid(batches) || !b.is_valid(batches) || !c.is_valid(batches))
    return fail("a product's matrix leaves its memory, or its columns overlap", BAD_VALUE);
  for (int64_t batch = 0; batch < batches; batch++)
    for (int64_t j = 0; j < c.columns; j++)
      for (int64_t i = 0; i < c.rows; i++) {
        Sum sum = 0;
        for (int64_t l = 0; l < a.columns; l++) sum += Sum(a(batch, i, l)) * Sum(b(batch, l, j));
        const_cast<T *>(c.at)[batch * c.stride + i + j * c.ld] = T(sum);
      }
  return OK;
}

template <typename T, typename Sum>
static Status gemm(int ta, int tb, int m, int n, int k, Sum alpha, const void *a, int lda, long long stride_a, const void *b,
                   int ldb, long long stride_b, Sum beta, void *c, int ldc, long long stride_c, int batches) {
  if (alpha != 1 || beta != 0) return fail("a product with factors", NOT_FOUND);
  return product<T, Sum>(Matrix<T>{(const T *)a, m, k, lda, stride_a, ta != 0},
                         Matrix<T>{(const T *)b, k, n, ldb, stride_b, tb != 0},
                         Matrix<T>{(const T *)c, m, n, ldc, stride_c, false}, batches);
}

extern "C" {
unsigned long descent_copies_to_host() { return copies_to_host; }

Status cuInit(unsigned) { return OK; }
Status cuDeviceGet(int *device, int index) { return index == 0 ? (*device = 0, OK) : 101; }
Status cuDeviceGetCount(int *count) { return *count = 1, OK; }
// Every attribute that is asked for is a 1: memory pools.
Status cuDeviceGetAttribute(int *value, int, int) { return *value = 1, OK; }
Status cuDeviceGetName(char *name, int len, int) { return snprintf(name, len, "the host"), OK; }
Status cuDevicePrimaryCtxRetain(Handle *context, int) { return *context = &one_context, OK; }
Status cuDevicePrimaryCtxRelease_v2(int) { return OK; }
Status cuCtxGetCurrent(Handle *context) { return *context = current_context, OK; }
Status cuCtxSetCurrent(Handle context) { return current_context = context, OK; }
Status cuCtxSynchronize() { return OK; }
Status cuStreamCreate(Handle *stream, unsigned) { return *stream = &one_stream, OK; }
Status cuStreamDestroy_v2(Handle) { return OK; }
Status cuStreamSynchronize(Handle) { return OK; }
Status cuStreamWaitEvent(Handle, Handle, unsigned) { return OK; }
Status cuStreamIsCapturing(Handle, int *status) { return *status = 0, OK; }
Status cuEventCreate(Handle *event, unsigned) { return *event = malloc(1), OK; }
Status cuEventDestroy_v2(Handle event) { return free(event), OK; }
Status cuEventRecord(Handle, Handle) { return OK; }
Status cuEventSynchronize(Handle) { return OK; }
Status cuMemAllocAsync(Address *to, size_t len, Handle) { return allocate(to, len); }
Status cuMemAlloc_v2(Address *to, size_t len) { return len == 0 ? INVALID_VALUE : allocate(to, len); }
Status cuMemFreeAsync(Address at, Handle) { return release(at); }
Status cuMemFree_v2(Address at) { return release(at); }
Status cuMemcpyHtoDAsync_v2(Address to, const void *from, size_t len, Handle) {
  if (len == 0) return OK;
  if (!is_known(to, len)) return fail("a copy to the device leaves its memory");
  return memcpy((void *)to, from, len), OK;
}
Status cuMemcpyDtoHAsync_v2(void *to, Address from, size_t len, Handle) {
  copies_to_host++;
  if (len == 0) return OK;
  if (!is_known(from, len)) return fail("a copy from the device leaves its memory");
  return memcpy(to, (void *)from, len), OK;
}
Status cuMemcpyDtoDAsync_v2(Address to, Address from, size_t len, Handle) {
  if (len == 0) return OK;
  if (!is_known(from, len) || !is_known(to, len)) return fail("a copy on the device leaves its memory");
  return memcpy((void *)to, (void *)from, len), OK;
}
Status cuMemsetD8Async(Address to, unsigned char byte, size_t len, Handle) {
  if (len == 0) return OK;
  if (!is_known(to, len)) return fail("filling leaves its memory");
  return memset((void *)to, byte, len), OK;
}

Status cuModuleLoadData(Handle *to, const void *image) {
  Module *made = new Module{"", (const char *)image, nullptr};
  made->name = name_of(made->text);
  if (!made->name.empty()) {
    const std::string path = std::string(getenv("DESCENT_KERNELS")) + "/" + made->name + ".so";
    made->library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!made->library) return fail(dlerror(), NOT_FOUND);
  }
  return *to = made, OK;
}
Status cuModuleUnload(Handle made) { return delete (Module *)made, OK; }
Status cuModuleGetFunction(Handle *to, Handle from, const char *name) {
  Module *made = (Module *)from;
  // A function of a module lives as long as the program.
  static std::map<std::pair<Handle, std::string>, Function> all;
  std::lock_guard<std::mutex> guard(lock);
  Function &function = all[{from, name}];
  if (!function.name.empty()) return *to = &function, OK;
  // Also a name that this stand-in would know must be in the PTX.
  if (made->text.find(std::string(".entry ") + name + "(") == std::string::npos) return fail(name, NOT_FOUND);
  function.name = name;
  if (made->library) {
    function.kernel = dlsym(made->library, name);
    *(void **)&function.run = dlsym(made->library, "run_kernel");
    if (!function.kernel || !function.run) return fail(name, NOT_FOUND);
    function.is_op = dlsym(made->library, "size_of_args") != nullptr;
    // In a module without them the threads of a block need not take turns.
    for (const char *word : {"bar.", "barrier.", "shfl."})
      function.has_barriers |= made->text.find(word) != std::string::npos;
  }
  return *to = &function, OK;
}
Status cuLaunchKernel(Handle from, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned,
                      Handle, void **arguments, void **) {
  const Function *function = (const Function *)from;
  if (gx == 0 || gy != 1 || gz != 1 || bx == 0 || by != 1 || bz != 1)
    return fail((function->name + ": a launch without blocks").c_str(), INVALID_VALUE);
  static const bool is_off = getenv("DESCENT_NO_LAUNCH") != nullptr;
  if (is_off) return OK;
  if (function->kernel) {
    enum { TABLES = 6, TENSORS = 9 };
    void *buffers[TENSORS];
    const int count = function->is_op ? TENSORS : TABLES;
    // An op has one argument of all addresses, null where there is no tensor.
    if (function->is_op) memcpy(buffers, arguments[0], sizeof buffers);
    for (int k = 0; k < count; k++) {
      if (!function->is_op) buffers[k] = argument<void *>(arguments, k);
      const bool is_missing = function->is_op && !buffers[k];
      if (!is_missing && !is_known((Address)buffers[k], 1))
        return fail((function->name + ": an address that is not on the device").c_str());
    }
    if (bx != 256) return fail((function->name + ": blocks of another size").c_str(), INVALID_VALUE);
    // Its fibers are static: one launch at a time.
    static std::mutex running;
    std::lock_guard<std::mutex> guard(running);
    function->run(function->kernel, gx, function->has_barriers, buffers, arguments[function->is_op ? 1 : TABLES]);
    return OK;
  }
  return run_candle(function->name, arguments) ? OK : fail((function->name + ": this kernel has no stand-in").c_str(), NOT_FOUND);
}

Status cublasCreate_v2(Handle *handle) { return *handle = &one_stream, OK; }
Status cublasDestroy_v2(Handle) { return OK; }
Status cublasSetStream_v2(Handle, Handle) { return OK; }
Status cublasGemmStridedBatchedEx(Handle, int ta, int tb, int m, int n, int k, const float *alpha, const void *a, int a_type,
                                  int lda, long long stride_a, const void *b, int b_type, int ldb, long long stride_b,
                                  const float *beta, void *c, int c_type, int ldc, long long stride_c, int batches,
                                  int compute_type, int) {
  enum { IN_F32 = 68, TYPE_F32 = 0, TYPE_F16 = 2, TYPE_BF16 = 14 };
  if (compute_type != IN_F32 || a_type != b_type || a_type != c_type)
    return fail("a product that is not summed in f32, or of several types", NOT_FOUND);
#define GEMM(T) gemm<T, float>(ta, tb, m, n, k, *alpha, a, lda, stride_a, b, ldb, stride_b, *beta, c, ldc, stride_c, batches)
  if (a_type == TYPE_F32) return GEMM(float);
  if (a_type == TYPE_F16) return GEMM(F16);
  if (a_type == TYPE_BF16) return GEMM(Bf16);
#undef GEMM
  return fail("a product of another type", NOT_FOUND);
}
Status cublasDgemmStridedBatched(Handle, int ta, int tb, int m, int n, int k, const double *alpha, const double *a, int lda,
                                 long long stride_a, const double *b, int ldb, long long stride_b, const double *beta, double *c,
                                 int ldc, long long stride_c, int batches) {
  return gemm<double, double>(ta, tb, m, n, k, *alpha, a, lda, stride_a, b, ldb, stride_b, *beta, c, ldc, stride_c, batches);
}
Status curandCreateGenerator(Handle *generator, int) { return *generator = &one_generator, OK; }
Status curandDestroyGenerator(Handle) { return OK; }
Status curandSetStream(Handle, Handle) { return OK; }
Status curandSetPseudoRandomGeneratorSeed(Handle, unsigned long long) { return OK; }
Status curandGenerateUniform(Handle, float *to, size_t len) {
  static uint32_t x = 1;
  for (size_t i = 0; i < len; i++) to[i] = float((x = x * 1664525u + 1013904223u) >> 8) / float(1 << 24);
  return OK;
}
}
