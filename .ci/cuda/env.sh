# Source it: `. .ci/cuda/env.sh DIR`. Makes an environment in DIR that builds the feature `cuda` on a machine without GPU,
# driver and toolkit (x86-64 Linux with gcc and pip): nvcc 13.0 from Python wheels (104 MB), and stubs of the libraries that
# candle links, made from the names of functions in cudarc's source (so `cargo fetch` comes first). Exports CUDA_HOME, NVCC,
# PATH, CUDA_COMPUTE_CAP (90 unless set) and CUDA_STUBS.
#
# A program built with it starts where there is no driver with LD_LIBRARY_PATH=$CUDA_STUBS:$CUDA_HOME/lib: every function of a
# stub fails, so that opening a CUDA device is an error and nothing else is.
cuda_env() {
  local dir="$1"
  [ -n "$dir" ] || { echo "usage: . .ci/cuda/env.sh DIR" >&2; return 2; }
  mkdir -p "$dir" && dir="$(cd "$dir" && pwd)" || return 1
  local cuda="$dir/py/nvidia/cu13"
  if [ ! -e "$dir/done" ]; then
    rm -rf "$dir/py" "$dir/stubs"
    python3 -m venv "$dir/venv" || return 1
    "$dir/venv/bin/pip" install -q --no-cache-dir --no-deps --no-compile --only-binary=:all: --target "$dir/py" \
      nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-cuda-cccl==13.0.85 \
      nvidia-cuda-runtime==13.0.96 || return 1
    # nvcc looks for lib64, the linker for names without a version.
    ln -s lib "$cuda/lib64"
    local file
    for file in "$cuda"/lib/lib*.so.*; do
      [ -e "${file%%.so*}.so" ] || ln -s "$(basename "$file")" "${file%%.so*}.so"
    done
    cuda_stubs "$dir/stubs" "$cuda/lib/stubs" || return 1
    touch "$dir/done"
  fi
  export CUDA_HOME="$cuda" CUDA_PATH="$cuda" NVCC="$cuda/bin/nvcc" CUDA_STUBS="$dir/stubs"
  export CUDA_COMPUTE_CAP="${CUDA_COMPUTE_CAP:-90}"
  case ":$PATH:" in *":$cuda/bin:"*) ;; *) export PATH="$cuda/bin:$PATH" ;; esac
}

# Library, major version, module of cudarc and prefix of its functions.
cuda_stubs() {
  local stubs="$1" links="$2" source row library major module prefix
  source="$(ls -d "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/cudarc-0.19.* 2>/dev/null | sort -V | tail -1)"
  [ -n "$source" ] || { echo "no source of cudarc: run cargo fetch first" >&2; return 1; }
  mkdir -p "$stubs" "$links"
  for row in cuda:1:driver:cu cublas:13:cublas:cublas cublasLt:13:cublaslt:cublasLt curand:10:curand:curand \
    nvrtc:13:nvrtc:nvrtc; do
    IFS=: read -r library major module prefix <<<"$row"
    {
      grep -ohE "fn ${prefix}[A-Za-z0-9_]+\(" "$source/src/$module/sys/mod.rs" | sed -E 's/^fn //; s/\($//' | sort -u |
        grep -vE '^cuGetError(String|Name)$' | sed 's/.*/int &(void) { return 34; }/'
      if [ "$library" = cuda ]; then
        echo 'int cuGetErrorString(int e, const char **s) { *s = "no driver: this is a stub of libcuda"; return 0; }'
        echo 'int cuGetErrorName(int e, const char **s) { *s = "CUDA_ERROR_STUB_LIBRARY"; return 0; }'
      fi
    } >"$stubs/$library.c"
    gcc -shared -fPIC -w -O1 -Wl,-soname,"lib$library.so.$major" -o "$stubs/lib$library.so.$major" "$stubs/$library.c" ||
      return 1
    ln -sf "$stubs/lib$library.so.$major" "$links/lib$library.so"
  done
}
cuda_env "$@"
