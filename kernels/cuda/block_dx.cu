// The block's input gradient, exactly sparse: with gz = dy * elu'(y), which belongs to the convolution output at the cell's argmax,
//
//   (the patch of dx at the cell's argmax of o) += gz[cell][o] * w[:, :, :, o], summed over channels o and cells
//
// dy, y, argmax are (n, co), row t for cell t (windows.cuh). First the gradient of every cell's window is made by one warp, then
// these are gathered: every sum has one owner.
#include "windows.cuh"

// order[cell][i], gz[cell][i]: the channels of each cell sorted by argmax, as argmax << 24 | channel, and their gradients.
// A block of threads for one cell: a channel's place is the number of those that come before it.
extern "C" __global__ void sort_channels(const float* __restrict__ dy, const float* __restrict__ y, const unsigned char* __restrict__ argmax,
                                         int co, float alpha, int* __restrict__ order, float* __restrict__ gz) {
  DYNAMIC_SHARED(unsigned char, a);
  const long long cell = (long long)blockIdx.x * co;
  for (int o = threadIdx.x; o < co; o += blockDim.x) a[o] = argmax[cell + o];
  __syncthreads();
  for (int o = threadIdx.x; o < co; o += blockDim.x) {
    const int mine = a[o];
    int place = 0;
    for (int other = 0; other < co; other++) place += a[other] < mine || (a[other] == mine && other < o);
    order[cell + place] = mine << 24 | o;
    gz[cell + place] = dy[cell + o] * slope(y[cell + o], alpha);
  }
}

// dwindow[cell][WINDOW]: the gradient of each cell's window. A warp has one cell and SLICE input channels, blockIdx.y counts slices.
// Channels with the same argmax go to the same patch: they are added up in registers, and the patch once to the window in shared memory.
// wt (CI / SLICE, co, KH * KW * SLICE).
#define SLICE_ROW (KW * SLICE)
#define SLICE_PATCH (KH * SLICE_ROW)
#define LANES_SUMS ((SLICE_PATCH + 31) / 32)
#define SLICE_WINDOW (WINDOW_ROWS * (PW + KW - 1) * SLICE)
extern "C" __global__ void __launch_bounds__(32 * WARPS)
window_gradients(const int* __restrict__ order, const float* __restrict__ gz, int n, int co, const float* __restrict__ wt,
                 float* __restrict__ dwindow) {
  DYNAMIC_SHARED(float, windows);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, cell = blockIdx.x * WARPS + warp;
  Shared<float> own = windows + warp * SLICE_WINDOW;
  if (cell < n) {
    for (int i = lane; i < SLICE_WINDOW; i += 32) own[i] = 0;
    const float* weights = wt + (long long)blockIdx.y * co * SLICE_PATCH;
    const int* channels = order + (long long)cell * co;
    const float* gradients = gz + (long long)cell * co;
    __syncwarp();
    for (int i = 0; i < co;) {
      const int a = channels[i] >> 24 & 255;
      float sum[LANES_SUMS] = {};
      for (int o = channels[i]; (o >> 24 & 255) == a;) {
        const float g = gradients[i];
        const float* w = weights + (long long)(o & 0xffffff) * SLICE_PATCH;
#pragma unroll
        for (int q = 0; q < LANES_SUMS; q++)
          if (lane + 32 * q < SLICE_PATCH) sum[q] = fmaf(g, __ldg(w + lane + 32 * q), sum[q]);
        if (++i == co) break;
        o = channels[i];
      }
      const int to = a / PW * (PW + KW - 1) * SLICE + a % PW * SLICE;
#pragma unroll
      for (int q = 0; q < LANES_SUMS; q++) {
        const int e = lane + 32 * q;
        if (e < SLICE_PATCH) own[to + e / SLICE_ROW * (PW + KW - 1) * SLICE + e % SLICE_ROW] += sum[q];
      }
      __syncwarp();
    }
    for (int i = lane; i < SLICE_WINDOW; i += 32)
      dwindow[(long long)cell * WINDOW + i / SLICE * CI + blockIdx.y * SLICE + i % SLICE] = own[i];
  }
}

// dx (N, h, width, CI) = the sum of the windows that hold each element, in row-major order of cells.
extern "C" __global__ void gather_windows(const float* __restrict__ dwindow, int h, int width, int top, int left, int oh, int ow,
                                          float* __restrict__ dx, long long n) {
  const long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (t >= n) return;
  const int c = t % CI, column = t / CI % width + left, row = t / CI / width % h + top;
  const long long image = t / CI / width / h;
  const int i0 = row < PH + KH - 1 ? 0 : (row - (PH + KH - 1)) / PH + 1, j0 = column < PW + KW - 1 ? 0 : (column - (PW + KW - 1)) / PW + 1;
  float sum = 0;
  for (int i = i0; i < oh && i * PH <= row; i++)
    for (int j = j0; j < ow && j * PW <= column; j++)
      sum += dwindow[((image * oh + i) * ow + j) * WINDOW + (row - i * PH) * ROW + (column - j * PW) * CI + c];
  dx[t] = sum;
}
