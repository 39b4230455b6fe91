// The input windows of pooled cells, in shared memory. A cell reads PH + KH - 1 rows of PW + KW - 1 pixels of CI floats.
#pragma once
#include "common.cuh"
#define WINDOW_ROWS (PH + KH - 1)
#define ROW ((PW + KW - 1) * CI)
#define WINDOW (WINDOW_ROWS * ROW)

// Copies the windows of COUNT cells, from number `first` of n on, to windows[cell * WINDOW]: zeros outside the image and beyond n.
// Cells are numbered in row-major order, through the images of a batch.
// LOAD floats go at once (a divisor of CI), LINE threads share a row. All threads of the block call this, and wait behind it.
template <int COUNT>
__device__ __forceinline__ void load_windows(const float* __restrict__ x, int h, int width, int top, int left, int oh, int ow,
                                             int first, int n, Shared<float> windows) {
  SHARED(int, origin, 3 * COUNT);
  for (int i = threadIdx.x; i < COUNT; i += blockDim.x) {
    const int t = first + i;
    const int row = t / ow, column = t % ow;
    origin[3 * i] = t < n ? row / oh : -1;
    origin[3 * i + 1] = row % oh * PH - top;
    origin[3 * i + 2] = column * PW - left;
  }
  __syncthreads();
  for (int line = threadIdx.x / LINE; line < COUNT * WINDOW_ROWS; line += blockDim.x / LINE) {
    const int cell = line / WINDOW_ROWS, r = line % WINDOW_ROWS;
    const int image = origin[3 * cell], row = origin[3 * cell + 1] + r, column = origin[3 * cell + 2];
    const bool inside = image >= 0 && row >= 0 && row < h;
    const int low = -column * CI, high = inside ? (width - column) * CI : low;           // the part of the row within the image
    const long long from = (((long long)image * h + row) * width + column) * CI;
    for (int k = threadIdx.x % LINE * LOAD; k < ROW; k += LINE * LOAD) {
      float v[LOAD] = {};
      if (k >= low && k < high) load(v, x + from + k);
#pragma unroll
      for (int i = 0; i < LOAD; i++) windows[cell * WINDOW + r * ROW + k + i] = v[i];
    }
  }
}
