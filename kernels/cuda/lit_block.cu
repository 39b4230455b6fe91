// A block at the cells that lit inputs feed: rest + changes, then the maximum.
//
//   z[q] = sums[class of q] + sum over taps, in order, of d[a] w[tap], for the lit input a that position q sees through the tap, if any
//   y[cell] = activation(max over its positions of z + b), and where the maximum was
//
// A thread block has a group of cells and `slice` channels; z of all their positions is in shared memory and nowhere else. It walks the
// taps: the pairs of one tap (lit_lists.cu) have different positions, so every z has one owner between two barriers. A thread has
// CHANNELS channels of 4 pairs at a time, or of 1 where few are left: one weight serves 4 pairs, one pixel CHANNELS channels, and the
// weights of a tap, which come through the L1 cache, all pairs of the group.
// Constants: LOAD, how many input channels are loaded at once.
#include "common.cuh"
#include "lit.cuh"
#define LOWEST __int_as_float(0xff800000)                   // minus infinity
enum { THREADS = 128, CHANNELS = 4, PAIRS = 4 };

// z[slot] += d[input] w for the pairs first, first + step, ... (N at most, before `end`) and this thread's channels. w (ci, padded): of the
// tap, from these channels on. z (slots, slice): from them on.
template <int N>
__device__ __forceinline__ void add_products(const float* __restrict__ changes, int ci, const int* __restrict__ inputs,
                                             const unsigned char* __restrict__ slots, int first, int step, int end,
                                             const float* __restrict__ w, int padded, Shared<float> z, int slice) {
  if (first >= end) return;
  const float* d[N];
  float sum[N][CHANNELS] = {};
#pragma unroll
  for (int j = 0; j < N; j++) {
    const int pair = first + j * step;
    d[j] = changes + (long long)inputs[pair < end ? pair : first] * ci;                  // of no pair: computed, and stored nowhere
  }
#pragma unroll 1
  for (int c = 0; c < ci; c += LOAD) {
    float pixel[N][LOAD];
#pragma unroll
    for (int j = 0; j < N; j++) load(pixel[j], d[j] + c);
#pragma unroll
    for (int i = 0; i < LOAD; i++) {
      float weight[CHANNELS];
      load(weight, w + (long long)(c + i) * padded);
#pragma unroll
      for (int j = 0; j < N; j++)
#pragma unroll
        for (int o = 0; o < CHANNELS; o++) sum[j][o] = fmaf(pixel[j][i], weight[o], sum[j][o]);
    }
  }
#pragma unroll
  for (int j = 0; j < N; j++)
    if (first + j * step < end) {
      Shared<float> to = z + slots[first + j * step] * slice;
#pragma unroll
      for (int o = 0; o < CHANNELS; o++) to[o] += sum[j][o];
    }
}

// changes (n, ci); w (taps, ci, padded), padded a multiple of CHANNELS; sums (R, columns, co); y, argmax (m, co).
// row_classes (OH * ph,), column_classes (OW * pw,): of positions. grid: groups of cells, slices of channels.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
lit_block(const float* __restrict__ changes, int ci, const int* __restrict__ inputs, const unsigned char* __restrict__ slots,
          const int* __restrict__ tap_starts, const int* __restrict__ group_starts, int taps, const int* __restrict__ cells, int m,
          int per_group, int oh, int ph, int pw, const int* __restrict__ row_classes, const int* __restrict__ column_classes,
          const float* __restrict__ sums, int columns, const float* __restrict__ w, int padded, const float* __restrict__ b, int co, int slice,
          float alpha, int linear, float* __restrict__ y, unsigned char* __restrict__ argmax) {
  DYNAMIC_SHARED(float, z);                                 // (positions of the group, slice)
  const int first_cell = blockIdx.x * per_group, here = min(per_group, m - first_cell), positions = ph * pw;
  const int first_channel = blockIdx.y * slice;
  for (int k = threadIdx.x; k < here * positions * slice; k += THREADS) {
    const int slot = k / slice, channel = first_channel + k % slice, cell = first_cell + slot / positions, p = slot % positions;
    const int row = row_classes[cells[2 * cell] % oh * ph + p / pw], column = column_classes[cells[2 * cell + 1] * pw + p % pw];
    z[k] = channel < co ? sums[((long long)row * columns + column) * co + channel] : 0.f;
  }
  __syncthreads();
  const int across = slice / CHANNELS, down = THREADS / across;
  const int own = threadIdx.x % across * CHANNELS, line = threadIdx.x / across;
  const bool works = line < down && first_channel + own < padded;
  const int* starts = tap_starts + (long long)blockIdx.x * (taps + 1);
  const int base = group_starts[blockIdx.x];
  for (int tap = 0; tap < taps; tap++) {
    const int end = base + starts[tap + 1];
    int first = base + starts[tap];
    if (first == end) continue;                             // the whole block
    if (works) {
      const float* weights = w + (long long)tap * ci * padded + first_channel + own;
      for (; end - first > down; first += PAIRS * down)
        add_products<PAIRS>(changes, ci, inputs, slots, first + line, down, end, weights, padded, z + own, slice);
      add_products<1>(changes, ci, inputs, slots, first + line, down, end, weights, padded, z + own, slice);
    }
    __syncthreads();                                        // the next tap's pairs give these positions to other threads
  }
  for (int k = threadIdx.x; k < here * slice; k += THREADS) {
    const int cell = k / slice, channel = first_channel + k % slice;
    if (channel >= co) continue;
    float best = LOWEST;
    int where = 0;
    for (int p = 0; p < positions; p++) {
      const float v = z[(cell * positions + p) * slice + k % slice];
      if (v > best) best = v, where = p;                    // the first of equals
    }
    const long long to = (long long)(first_cell + cell) * co + channel;
    y[to] = activate_or_not(best + b[channel], alpha, linear);
    argmax[to] = where;
  }
}
