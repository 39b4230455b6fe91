// The block's weight gradient, exactly sparse: one convolution output in PH * PW has a gradient, gz = dy * elu'(y), at the cell's argmax.
//
//   dw[:, :, :, o] = sum over cells of gz[cell][o] * (the patch of x at the cell's argmax of o): KH rows of KW * CI floats
//
// dy, y, argmax are (n, co), row t for cell t (windows.cuh).
#include "windows.cuh"
#define PATCH_ROW (KW * CI)
#define PATCH (KH * PATCH_ROW)

// parts[chunk][channel][PATCH + 1] = sums over one chunk of cells, in order; behind the patch the sum of gz, for db.
// grid: chunks, groups of WARPS * CHANNELS channels, tiles of the patch. STAGE windows at a time are in shared memory. A warp has CHANNELS
// channels; its lanes lie along the patch: tiles of TILE_ROWS rows x 32 * TILE_LANES floats or, where a row is shorter than a warp, of
// TILE_LANES * 32 floats of the whole patch.
#define SUMS (TILE_ROWS * TILE_LANES)
extern "C" __global__ void __launch_bounds__(32 * WARPS, 1)
block_dw(const float* __restrict__ dy, const float* __restrict__ x, const float* __restrict__ y, const unsigned char* __restrict__ argmax,
         int h, int width, int top, int left, int oh, int ow, int n, int chunk, int co, float alpha,
         float* __restrict__ parts) {
  DYNAMIC_SHARED(float, windows);                           // STAGE windows, and room behind them that a row's last lanes read
  SHARED(float, gz, STAGE * WARPS * CHANNELS);
  SHARED(int, place, STAGE * WARPS * CHANNELS);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, first_channel = blockIdx.y * WARPS * CHANNELS;
#if PATCH_ROW >= 32
#define CELLS_AT_ONCE 1
  const int tiles = (PATCH_ROW + 32 * TILE_LANES - 1) / (32 * TILE_LANES);
  const int row0 = blockIdx.z / tiles * TILE_ROWS, lane0 = blockIdx.z % tiles * 32 * TILE_LANES + lane;
  const int base = row0 * ROW + lane0;
#define PLACE(s) (base + (s) / TILE_LANES * ROW + (s) % TILE_LANES * 32)
#define TAP(s) ((lane0 + (s) % TILE_LANES * 32 < PATCH_ROW && row0 + (s) / TILE_LANES < KH) \
                    ? (row0 + (s) / TILE_LANES) * PATCH_ROW + lane0 + (s) % TILE_LANES * 32 : PATCH)
#else
#define CELLS_AT_ONCE 4
  const int base = blockIdx.z * 32 * TILE_LANES + lane;
#define TAP(s) min(base + (s) * 32, PATCH)
#define PLACE(s) (min(base + (s) * 32, PATCH - 1) / PATCH_ROW * ROW + min(base + (s) * 32, PATCH - 1) % PATCH_ROW)
#endif
  float sum[CHANNELS][SUMS] = {}, total[CHANNELS] = {};
  const int begin = blockIdx.x * chunk, end = min(n, begin + chunk);
  for (int start = begin; start < end; start += STAGE) {
    // The barrier in load_windows, behind its first few writes, keeps the next windows from those who still read the ones before.
    load_windows<STAGE>(x, h, width, top, left, oh, ow, start, end, windows);
    for (int i = threadIdx.x; i < STAGE * WARPS * CHANNELS; i += 32 * WARPS) {
      const int cell = start + i / (WARPS * CHANNELS), channel = first_channel + i % (WARPS * CHANNELS);
      const bool there = cell < end && channel < co;
      const long long at = (long long)cell * co + channel;
      const int a = there ? argmax[at] : 0;
      gz[i] = there ? dy[at] * slope(y[at], alpha) : 0.f;
      place[i] = a / PW * ROW + a % PW * CI;
    }
    __syncthreads();
#pragma unroll CELLS_AT_ONCE
    for (int s = 0; s < STAGE && start + s < end; s++)
#pragma unroll
      for (int c = 0; c < CHANNELS; c++) {
        const int i = (s * WARPS + warp) * CHANNELS + c;
        const float g = gz[i];
        Shared<const float> patch = windows + (s * WINDOW + place[i]);
        total[c] += g;
#pragma unroll
        for (int q = 0; q < SUMS; q++) sum[c][q] = fmaf(g, patch[PLACE(q)], sum[c][q]);
      }
  }
#pragma unroll
  for (int c = 0; c < CHANNELS; c++) {
    const int channel = first_channel + warp * CHANNELS + c;
    if (channel >= co) continue;
    float* to = parts + ((long long)blockIdx.x * co + channel) * (PATCH + 1);
#pragma unroll
    for (int q = 0; q < SUMS; q++)
      if (TAP(q) < PATCH) to[TAP(q)] = sum[c][q];
    if (lane == 0 && blockIdx.z == 0) to[PATCH] = total[c];
  }
}
