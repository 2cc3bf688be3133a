// What every kernel file includes first: CUDA under nvcc, the emulation under a C++ compiler.
//
// A kernel of veilsum
//   - is `extern "C" __global__ void __launch_bounds__(THREADS) entry(const EntryParams p, T* a, const T* b, ...)`: a struct
//     of common/params.cuh by value, then the buffers in the order that the host's `Kernel` constant and the WGSL twin have;
//   - finds its work by `group_index()`, and returns as a whole block where that is not below `p.groups`: a launch of many
//     groups is a grid of two dimensions with a ragged end;
//   - takes dynamic shared memory from `dynamic_shared<T>()`; static `__shared__` arrays stand in functions that are no
//     templates;
//   - uses no inline PTX, no texture, no cooperative launch, and waits for no other block: the emulation runs blocks one
//     after another. Fused multiply-adds are written `fmaf`; nvcc runs with -fmad=false, so that nothing else is fused;
//   - ends with `REGISTER_KERNEL(entry)` after its definition, so that the emulation finds it by name.
//
// To test one: add the file to kernels/, nothing else. The test suite compiles kernels/*.cu with
//   g++ -x c++ -std=c++17 -O2 -fPIC -shared kernels/*.cu kernels/emulation/launch.cpp
// into a shared library, and a `Device` over it joins the backends of tests/suite/kernels.rs; `scripts/cuda-build` compiles
// the same files for the GPU, where it checks registers, spills and vector loads. See emulation/cuda.h for what is emulated.
#pragma once

#ifdef __CUDACC__

#include <cstddef>
#include <cstdint>

// The shared memory that the launch asked for, on a 16-byte boundary.
template <class T>
__device__ __forceinline__ T* dynamic_shared() {
    extern __shared__ uint4 dynamic_shared_memory[];
    return reinterpret_cast<T*>(dynamic_shared_memory);
}

#define REGISTER_KERNEL(entry)

#else

#include "../emulation/cuda.h"

#endif

// The number of this block in a grid of one or two dimensions.
__device__ __forceinline__ unsigned group_index() { return blockIdx.x + blockIdx.y * gridDim.x; }
