// Lists of positions, made on the device: marks in a mask, which is counted, scanned and listed in row-major order. No atomics.

enum { SEGMENT = 1024, THREADS = 256 };                     // places of the mask that a block counts or lists, and its threads

// mask[i] = whether any channel of pixel i differs from the background.
extern "C" __global__ void mark_pixels(const float* __restrict__ x, int channels, float background, unsigned char* __restrict__ mask,
                                       long long n) {
  const long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (i >= n) return;
  bool lit = false;
  for (int c = 0; c < channels; c++) lit |= x[i * channels + c] != background;
  mask[i] = lit;
}

#include "common.cuh"

// The sum of `value` over the threads before this one, and over all of them in `total`. For THREADS threads, all of which call it.
__device__ __forceinline__ int scan(int value, int& total) {
  SHARED(int, warps, THREADS / 32);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int sum = value;
#pragma unroll
  for (int by = 1; by < 32; by *= 2) {
    const int before = __shfl_up_sync(WHOLE_WARP, sum, by);
    if (lane >= by) sum += before;
  }
  __syncthreads();                                          // of the call before, nobody reads any more
  if (lane == 31) warps[warp] = sum;
  __syncthreads();
  int start = 0;
  total = 0;
  for (int i = 0; i < THREADS / 32; i++) {
    if (i < warp) start += warps[i];
    total += warps[i];
  }
  return start + sum - value;
}

// counts[s] = the marks in segment s.
extern "C" __global__ void count_marks(const unsigned char* __restrict__ mask, long long n, int* __restrict__ counts) {
  int mine = 0, total;
  for (long long i = (long long)blockIdx.x * SEGMENT + threadIdx.x; i < min(n, (blockIdx.x + 1LL) * SEGMENT); i += THREADS) mine += mask[i];
  scan(mine, total);
  if (threadIdx.x == 0) counts[blockIdx.x] = total;
}

// start[s] = the sum of counts before s, and start[n] that of all. One block.
extern "C" __global__ void scan_counts(const int* __restrict__ counts, int n, int* __restrict__ start) {
  int sum = 0, total;
  for (int first = 0; first < n; first += THREADS) {
    const int i = first + threadIdx.x, before = scan(i < n ? counts[i] : 0, total);
    if (i < n) start[i] = sum + before;
    sum += total;
  }
  if (threadIdx.x == 0) start[n] = sum;
}

// list[start[s] ...] = row, column of the marks of segment s; the mask is `width` wide.
extern "C" __global__ void list_marks(const unsigned char* __restrict__ mask, long long n, int width, const int* __restrict__ start,
                                      int* __restrict__ list) {
  int to = start[blockIdx.x], total;
  if (start[blockIdx.x + 1] == to) return;                  // the whole block: nothing is marked here
  for (int k = 0; k < SEGMENT; k += THREADS) {
    const long long i = (long long)blockIdx.x * SEGMENT + k + threadIdx.x;
    const bool marked = i < n && mask[i];
    const int place = to + scan(marked, total);
    if (marked) list[2 * place] = i / width, list[2 * place + 1] = i % width;
    to += total;
  }
}

// out[p] = x at position positions[p], or with `put` x there = out[p]; rows count on through the images. A thread per position and channel.
extern "C" __global__ void take_or_put(float* __restrict__ x, int w, int c, const int* __restrict__ positions, float* __restrict__ values, int put,
                                       long long n) {
  const long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (t >= n) return;
  const int k = t % c;
  const long long p = t / c, place = ((long long)positions[2 * p] * w + positions[2 * p + 1]) * c + k;
  if (put) x[place] = values[t];
  else values[t] = x[place];
}

// parts[part][r][s][c] (double) = the sum of values at the positions of row class r and column class s, for one part of the positions.
// grid: parts, class pairs; a thread per channel.
extern "C" __global__ void class_sums(const float* __restrict__ values, const int* __restrict__ positions, int n, int c, int h,
                                      const int* __restrict__ row_class, const int* __restrict__ column_class, int columns,
                                      double* __restrict__ parts) {
  const int pair = blockIdx.y;
  const int begin = (long long)n * blockIdx.x / gridDim.x, end = (long long)n * (blockIdx.x + 1) / gridDim.x;
  for (int k = threadIdx.x; k < c; k += blockDim.x) {
    double sum = 0;
    for (int t = begin; t < end; t++)
      if (row_class[positions[2 * t] % h] * columns + column_class[positions[2 * t + 1]] == pair) sum += values[(long long)t * c + k];
    parts[((long long)blockIdx.x * gridDim.y + pair) * c + k] = sum;
  }
}
