// What several kernels share: the activation, shared arrays, loading several floats at once, block-wide scans.
#pragma once
#ifndef EMULATOR                                            // emulator.h has checked versions of these
template <class T> using Shared = T*;
#define SHARED(T, name, size) __shared__ T name[size]
#define DYNAMIC_SHARED(T, name)                           \
  extern __shared__ __align__(16) unsigned char shared_[]; \
  T* name = (T*)shared_
template <class V> __device__ __forceinline__ V vector_at(const float* p) { return *reinterpret_cast<const V*>(p); }
#if __CUDA_ARCH__ >= 800
// sum (16 x 8) += a (16 x 8) b (8 x 8) of a warp, in TF32: fragments as PTX lays them out for mma.m16n8k8.
__device__ __forceinline__ void mma_tf32(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
#endif
#endif
#define WHOLE_WARP 0xffffffffu

// ELU of one number: the one function that conv2d_block and elu() use, so that they agree bit for bit.
__device__ __forceinline__ float activate(float z, float alpha) { return z > 0 ? z : alpha * expm1f(z); }

// Its derivative, from its output.
__device__ __forceinline__ float slope(float y, float alpha) { return y > 0 ? 1.f : y + alpha; }

// to[0..N-1] = from[0..N-1], four or two at a time where N allows; `from` must be aligned to that.
template <int N, class P> __device__ __forceinline__ void load(float (&to)[N], P from) {
  if constexpr (N % 4 == 0) {
#pragma unroll
    for (int i = 0; i < N; i += 4) {
      const float4 v = vector_at<float4>(from + i);
      to[i] = v.x, to[i + 1] = v.y, to[i + 2] = v.z, to[i + 3] = v.w;
    }
  } else if constexpr (N % 2 == 0) {
#pragma unroll
    for (int i = 0; i < N; i += 2) {
      const float2 v = vector_at<float2>(from + i);
      to[i] = v.x, to[i + 1] = v.y;
    }
  } else {
#pragma unroll
    for (int i = 0; i < N; i++) to[i] = from[i];
  }
}
