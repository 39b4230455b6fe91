// One thread per element; bound by memory.
#include "common.cuh"
#define ELEMENT long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; if (i >= n) return

extern "C" __global__ void elu(const float* __restrict__ x, float alpha, float* __restrict__ y, long long n) {
  ELEMENT;
  y[i] = activate(x[i], alpha);
}

extern "C" __global__ void elu_backward(const float* __restrict__ dy, const float* __restrict__ y, float alpha, float* __restrict__ dx,
                                        long long n) {
  ELEMENT;
  dx[i] = dy[i] * slope(y[i], alpha);
}

extern "C" __global__ void relu(const float* __restrict__ x, float* __restrict__ y, long long n) {
  ELEMENT;
  y[i] = x[i] > 0 ? x[i] : 0.f;
}

extern "C" __global__ void relu_backward(const float* __restrict__ dy, const float* __restrict__ y, float* __restrict__ dx, long long n) {
  ELEMENT;
  dx[i] = y[i] > 0 ? dy[i] : 0.f;
}

extern "C" __global__ void dropout(const float* __restrict__ x, const unsigned char* __restrict__ keep, float scale, float* __restrict__ y,
                                   long long n) {
  ELEMENT;
  y[i] = keep[i] ? x[i] * scale : 0.f;
}
