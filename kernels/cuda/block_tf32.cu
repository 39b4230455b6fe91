// The block's forward pass on tensor cores, which multiply TF32 numbers (10 bits of mantissa) and add in float32. For GPUs from sm_80 on.
//
// mma.m16n8k8 with M = 16 cells at one position of their windows, N = 8 output channels, K = 8 input channels. A warp has 16 cells, all
// PH * PW positions of their pools and 8 channels, so the maximum stays within a thread and nothing is computed twice or thrown away.
// blockIdx.x counts groups of 16 cells, and the WARPS of a block share their windows; warps count on through the output channels.
//
// Rounding: inputs are rounded to nearest; every sum runs over (chunk of 8 c_in, ky, kx) with 8 products at a time. Cells do not influence
// each other.
#include "windows.cuh"
enum { CELLS = 16, CHANNELS = 8, CHUNK = 8, COLUMNS = PW + KW - 1, STAGE = WINDOW_ROWS * COLUMNS * CELLS * CHUNK };

__device__ __forceinline__ unsigned rounded(float f) { return __float_as_uint(f) + 0x1000u; }        // the hardware cuts the rest off

// x, y, argmax as in block.cu. w (CO / 8, chunks, KH * KW, 32 lanes, 2): each lane's two weights of an mma, zeros beyond CI and co.
extern "C" __global__ void __launch_bounds__(32 * WARPS, 1)
conv2d_block_tf32(const float* __restrict__ x, int h, int width, int top, int left, int oh, int ow, int n,
                  const float* __restrict__ w, const float* __restrict__ b, int co, float alpha, float* __restrict__ y,
                  unsigned char* __restrict__ argmax) {
  DYNAMIC_SHARED(float, stage);                             // (window position, lane, 4): what each lane gives to an mma
  SHARED(int, origin, 3 * CELLS);
  const int lane = threadIdx.x % 32, group = blockIdx.y * WARPS + threadIdx.x / 32, first = blockIdx.x * CELLS;
  const bool works = group * CHANNELS < co;
  for (int i = threadIdx.x; i < CELLS; i += 32 * WARPS) {
    const int t = min(first + i, n - 1), row = t / ow, column = t % ow;
    origin[3 * i] = row / oh, origin[3 * i + 1] = row % oh * PH - top, origin[3 * i + 2] = column * PW - left;
  }
  float sum[PH * PW][4] = {};
#pragma unroll 1
  for (int chunk = 0; chunk < (CI + CHUNK - 1) / CHUNK; chunk++) {
    __syncthreads();                                        // the stage before is used up, and the origins are there
    for (int i = threadIdx.x; i < STAGE; i += 32 * WARPS) {
      const int k = i % CHUNK, cell = i / CHUNK % CELLS, p = i / (CHUNK * CELLS), c = chunk * CHUNK + k;
      const int row = origin[3 * cell + 1] + p / COLUMNS, column = origin[3 * cell + 2] + p % COLUMNS;
      float v = 0;
      if (c < CI && row >= 0 && row < h && column >= 0 && column < width)
        v = x[(((long long)origin[3 * cell] * h + row) * width + column) * CI + c];
      stage[p * 128 + (cell % 8 * 4 + k % 4) * 4 + k / 4 * 2 + cell / 8] = v;
    }
    __syncthreads();
    if (!works) continue;
    unsigned weight[KH * KW][2];
#pragma unroll
    for (int q = 0; q < KH * KW; q++) {
      float v[2];
      load(v, w + ((((long long)group * ((CI + CHUNK - 1) / CHUNK) + chunk) * (KH * KW) + q) * 32 + lane) * 2);
      weight[q][0] = rounded(v[0]), weight[q][1] = rounded(v[1]);
    }
#pragma unroll
    for (int r = 0; r < WINDOW_ROWS; r++)
#pragma unroll
      for (int s = 0; s < COLUMNS; s++) {
        float v[4];
        load(v, stage + ((r * COLUMNS + s) * 128 + lane * 4));
        const unsigned pixel[4] = {rounded(v[0]), rounded(v[1]), rounded(v[2]), rounded(v[3])};
#pragma unroll
        for (int ky = 0; ky < KH; ky++)
#pragma unroll
          for (int kx = 0; kx < KW; kx++)
            if (r - ky >= 0 && r - ky < PH && s - kx >= 0 && s - kx < PW)
              mma_tf32(sum[(r - ky) * PW + s - kx], pixel, weight[ky * KW + kx][0], weight[ky * KW + kx][1]);
      }
  }
  if (works)
#pragma unroll
    for (int j = 0; j < 4; j++) {                           // a lane has 2 cells x 2 channels of each product
      const int cell = lane / 4 + j / 2 * 8, channel = group * CHANNELS + lane % 4 * 2 + j % 2;
      float best = sum[0][j];
      int where = 0;
#pragma unroll
      for (int p = 1; p < PH * PW; p++)
        if (sum[p][j] > best) best = sum[p][j], where = p;
      if (first + cell < n && channel < co) {
        const long long to = (long long)(first + cell) * co + channel;
        y[to] = activate(best + b[channel], alpha);
        argmax[to] = where;
      }
    }
}
