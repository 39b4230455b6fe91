// Convolution channel by channel at listed cells: channel c has the outputs c * each to c * each + each - 1. Bound by memory.
#include "common.cuh"
#include "lit.cuh"

// feeds[tap][a] = the position that input a feeds through the tap, or -1. rows (h, kh, 2), columns (w, kw, 2): cell, position in it.
// A thread per tap and input.
extern "C" __global__ void find_feeds(const int* __restrict__ positions, int inputs, int h, int kh, const int* __restrict__ rows, int kw,
                                      const int* __restrict__ columns, int oh, int per_cell, const int* __restrict__ cells,
                                      const int* __restrict__ cell_rows, int* __restrict__ feeds, long long n) {
  const long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (t >= n) return;
  const int a = t % inputs, tap = t / inputs, event = positions[2 * a] / h;
  const int* row = rows + 2 * (positions[2 * a] % h * kh + tap / kw);
  const int* column = columns + 2 * (positions[2 * a + 1] * kw + tap % kw);
  feeds[t] = row[0] < 0 || column[0] < 0 ? -1
           : find(cells, cell_rows, event * oh + row[0], column[0]) * per_cell + row[1] + column[1];
}

// fed_by[cell][tap] = the input that feeds the cell through the tap; at most one does. A thread per tap and input.
extern "C" __global__ void turn_lists(const int* __restrict__ feeds, int inputs, int taps, int* __restrict__ fed_by, long long n) {
  const long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (t >= n || feeds[t] < 0) return;
  fed_by[(long long)feeds[t] * taps + t / inputs] = t % inputs;
}

// A thread per output of a cell, in the order of the taps.
extern "C" __global__ void add_changes(const float* __restrict__ changes, const int* __restrict__ fed_by, const float* __restrict__ w,
                                       int taps, int channels, int each, float* __restrict__ y, long long n) {
  const long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (t >= n) return;
  const int many = channels * each, o = t % many;
  const int* by = fed_by + t / many * taps;
  float sum = y[t];
  for (int tap = 0; tap < taps; tap++)
    if (by[tap] >= 0) sum = fmaf(changes[(long long)by[tap] * channels + o / each], w[(long long)tap * many + o], sum);
  y[t] = sum;
}

// A thread per channel of an input.
extern "C" __global__ void input_gradients(const float* __restrict__ dy, const int* __restrict__ feeds, const float* __restrict__ w,
                                           int inputs, int taps, int channels, int each, float* __restrict__ dx, long long n) {
  const long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (t >= n) return;
  const int c = t % channels;
  const long long a = t / channels;
  float sum = 0;
  for (int tap = 0; tap < taps; tap++) {
    const long long cell = feeds[(long long)tap * inputs + a];
    if (cell < 0) continue;
    for (int k = 0; k < each; k++) sum = fmaf(dy[(cell * channels + c) * each + k], w[((long long)tap * channels + c) * each + k], sum);
  }
  dx[t] = sum;
}

// parts[span][tap][output] (double) = the sum over a span of inputs. A thread per number of parts.
extern "C" __global__ void weight_spans(const float* __restrict__ dy, const float* __restrict__ changes, const int* __restrict__ feeds,
                                        int inputs, int taps, int channels, int each, int span, double* __restrict__ parts, long long n) {
  const long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (t >= n) return;
  const int many = channels * each, o = t % many, tap = t / many % taps;
  const long long first = t / many / taps * span, end = min((long long)inputs, first + span);
  double sum = 0;
  for (long long a = first; a < end; a++) {
    const long long cell = feeds[(long long)tap * inputs + a];
    if (cell >= 0) sum += changes[a * channels + o / each] * dy[cell * many + o];
  }
  parts[t] = sum;
}
