// Conv2D -> ELU -> MaxPooling2D without the convolution's output: y = elu(max over the pool of conv(x) + b), and where the maximum was.
//
// Constants: CI, CO (channels of the packed weights, a multiple of CHANNELS), KH, KW, PH, PW; LOAD, LINE (windows.cuh); and the tile:
//   CELLS cells per thread block, their windows in shared memory, zeros outside the image;
//   GROUP threads side by side have CHANNELS channels each, and blockIdx.y counts groups;
//   SPLIT threads share a cell's pool; each takes every SPLIT-th piece of TR x TC positions, whose sums are in registers:
//   TR * TC * CHANNELS accumulators, which use one weight for TR * TC and one pixel for CHANNELS multiply-adds.
// Every sum is one chain over (ky, kx, c_in): its bits depend on nothing of the tile.
// At 5 x 5 positions x 4 channels and LOAD 4, a step of 400 FMAs loads 25 float4 of pixels (all lanes of a cell the same) and 4 of weights.
#include "windows.cuh"
#define LOWEST __int_as_float(0xff800000)                   // minus infinity

// sum[p][o] += over (ky, kx, c) of the pixel at position p times w[ky][kx][c][o]; w (KH * KW * CI, CO) from this thread's channels on.
__device__ __forceinline__ void convolve(float (&sum)[TR * TC][CHANNELS], Shared<const float> window, const float* __restrict__ w) {
#if CI == 1                                                 // a row of pixels serves all kx
#pragma unroll 1
  for (int ky = 0; ky < KH; ky++) {
    float weight[KW][CHANNELS];
#pragma unroll
    for (int kx = 0; kx < KW; kx++) load(weight[kx], w + (ky * KW + kx) * CO);
#pragma unroll
    for (int r = 0; r < TR; r++) {
      float pixel[TC + KW - 1];
#pragma unroll
      for (int i = 0; i < TC + KW - 1; i++) pixel[i] = window[(ky + r) * ROW + i];
#pragma unroll
      for (int kx = 0; kx < KW; kx++)
#pragma unroll
        for (int c = 0; c < TC; c++)
#pragma unroll
          for (int o = 0; o < CHANNELS; o++) sum[r * TC + c][o] = fmaf(pixel[kx + c], weight[kx][o], sum[r * TC + c][o]);
    }
  }
#else
  float weight[LOAD][CHANNELS], next[LOAD][CHANNELS];       // those of the next step are on their way during this one
#pragma unroll
  for (int j = 0; j < LOAD; j++) load(weight[j], w + j * CO);
  const float* ahead = w;
#pragma unroll 1
  for (int ky = 0; ky < KH; ky++) {
#pragma unroll 1
    for (int k = 0; k < KW * CI; k += LOAD) {               // (kx, c) are contiguous in a row of the window
      ahead = ky == KH - 1 && k + LOAD >= KW * CI ? w : ahead + LOAD * CO;
#pragma unroll
      for (int j = 0; j < LOAD; j++) load(next[j], ahead + j * CO);
#pragma unroll
      for (int p = 0; p < TR * TC; p++) {
        float pixel[LOAD];
        load(pixel, window + ((ky + p / TC) * ROW + p % TC * CI + k));
#pragma unroll
        for (int j = 0; j < LOAD; j++)
#pragma unroll
          for (int o = 0; o < CHANNELS; o++) sum[p][o] = fmaf(pixel[j], weight[j][o], sum[p][o]);
      }
#pragma unroll
      for (int j = 0; j < LOAD; j++)
#pragma unroll
        for (int o = 0; o < CHANNELS; o++) weight[j][o] = next[j][o];
    }
  }
#endif
}

// x (N, h, width, CI); w (KH, KW, CI, CO); b (co,). y, argmax (n, co): row t is cell t, see windows.cuh.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
conv2d_block(const float* __restrict__ x, int h, int width, int top, int left, int oh, int ow, int n,
             const float* __restrict__ w, const float* __restrict__ b, int co, float alpha, float* __restrict__ y,
             unsigned char* __restrict__ argmax) {
  DYNAMIC_SHARED(float, windows);
  const int first = blockIdx.x * CELLS, thread = threadIdx.x;
  const int part = thread / GROUP % SPLIT, cell = thread / (GROUP * SPLIT), channel = (blockIdx.y * GROUP + thread % GROUP) * CHANNELS;
  const bool works = cell < CELLS && first + cell < n && channel < CO;
  load_windows<CELLS>(x, h, width, top, left, oh, ow, first, n, windows);
  __syncthreads();

  float best[CHANNELS];
  int where[CHANNELS];
#pragma unroll
  for (int o = 0; o < CHANNELS; o++) best[o] = LOWEST, where[o] = 0;
  if (works) {
#pragma unroll 1
    for (int piece = part; piece < PH * PW / (TR * TC); piece += SPLIT) {                 // in row-major order of positions
      const int row = piece / (PW / TC) * TR, column = piece % (PW / TC) * TC;
      float sum[TR * TC][CHANNELS] = {};
      convolve(sum, windows + (cell * WINDOW + row * ROW + column * CI), w + channel);
#pragma unroll
      for (int p = 0; p < TR * TC; p++)
#pragma unroll
        for (int o = 0; o < CHANNELS; o++)
          if (sum[p][o] > best[o]) best[o] = sum[p][o], where[o] = (row + p / TC) * PW + column + p % TC;    // the first of equals
    }
  }
#if SPLIT > 1
  SHARED(float, bests, THREADS * CHANNELS);
  SHARED(int, wheres, THREADS * CHANNELS);
#pragma unroll
  for (int o = 0; o < CHANNELS; o++) bests[o * THREADS + thread] = best[o], wheres[o * THREADS + thread] = where[o];
  __syncthreads();
  if (works && part == 0)
    for (int other = 1; other < SPLIT; other++)
#pragma unroll
      for (int o = 0; o < CHANNELS; o++) {
        const float v = bests[o * THREADS + thread + other * GROUP];
        const int at = wheres[o * THREADS + thread + other * GROUP];
        if (v > best[o] || (v == best[o] && at < where[o])) best[o] = v, where[o] = at;
      }
#endif
  if (works && part == 0)
#pragma unroll
    for (int o = 0; o < CHANNELS; o++)
      if (channel + o < co) {
        const long long to = (long long)(first + cell) * co + channel + o;
        y[to] = activate(best[o] + b[channel + o], alpha);
        argmax[to] = where[o];
      }
}
