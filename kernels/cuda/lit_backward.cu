// The gradients of a block at the cells that lit inputs feed. One position of a cell has a gradient in each channel, that of the maximum:
//
//   g[cell][c] = dy activation'(y), at position argmax[cell][c], which sees lit inputs a through some of the taps:
//   dw[tap][:][c] += g d[a]        dx[a] += g w[tap][:][c]        sums[class of the position][c] += g
//
// So a pair (lit input, position) has work only for the channels whose maximum is there: a warp asks 32 channels at once, and goes through
// those that answer with its lanes along the input channels. dy, y, argmax (m, co).
// Constants: SUMS, the input channels of a lane in lit_dx.
#include "common.cuh"
#include "lit.cuh"
enum { WARPS = 4, AT_ONCE = 4 };                            // warps of a block of lit_dx; loads that are on their way together

// parts[block][channel][taps * ci + 1] = sums over LINES chunks of cells: of dw by tap and input channel, behind them of g, for db.
// grid: parts, taps, slices of channels (32 a warp) x slices of `ci_slice` input channels; block: (32, warps of channels, lines).
// A line has a chunk; the lines are added up in the end, in order. A lane has the same input channels all the time; its sums for 32
// channels lie in shared memory, (lines, warps, 32, ci_slice). Pairs come in the order of cells and positions, whatever the groups: the
// bits depend on the chunk alone, which is a multiple of per_group.
extern "C" __global__ void lit_dw(const float* __restrict__ dy, const float* __restrict__ y, const unsigned char* __restrict__ argmax, int m,
                                  int co, float alpha, int linear, const float* __restrict__ changes, int ci,
                                  const int* __restrict__ inputs, const unsigned char* __restrict__ slots,
                                  const int* __restrict__ tap_starts, const int* __restrict__ group_starts, int per_group, int positions,
                                  int chunk, int ci_slice, float* __restrict__ parts) {
  DYNAMIC_SHARED(float, all_sums);
  SHARED(float, all_totals, 8 * 32);                        // of 8 warps at most
  const int lane = threadIdx.x, warp = threadIdx.y, warps = blockDim.y, line = threadIdx.z, lines = blockDim.z;
  const int taps = gridDim.y, tap = blockIdx.y, ci_slices = (ci + ci_slice - 1) / ci_slice, first_ci = blockIdx.z % ci_slices * ci_slice;
  const int first_channel = (blockIdx.z / ci_slices * warps + warp) * 32, channel = first_channel + lane, size = min(ci_slice, ci - first_ci);
  Shared<float> sums = all_sums + (line * warps + warp) * 32 * ci_slice;
  for (int i = lane; i < 32 * ci_slice; i += 32) sums[i] = 0;
  __syncwarp();
  const int begin = min(m, (int)(blockIdx.x * lines + line) * chunk), end = min(m, begin + chunk);
  for (int group = begin / per_group; begin < end && group * per_group < end; group++) {
    const int* starts = tap_starts + (long long)group * (taps + 1) + tap;
    const int first = group_starts[group] + starts[0], last = group_starts[group] + starts[1];
    for (int some = first; some < last; some += 32) {       // each lane loads one pair, then all go through them
      const int own_input = some + lane < last ? inputs[some + lane] : 0, own_slot = some + lane < last ? slots[some + lane] : 0;
      for (int k = 0; k < 32 && some + k < last; k += AT_ONCE) {
        int input[AT_ONCE];
        long long at[AT_ONCE];
        bool here[AT_ONCE];
#pragma unroll
        for (int q = 0; q < AT_ONCE; q++) {
          const int slot = __shfl_sync(WHOLE_WARP, own_slot, k + q);
          input[q] = __shfl_sync(WHOLE_WARP, own_input, k + q);
          at[q] = (long long)(group * per_group + slot / positions) * co + channel;
          here[q] = some + k + q < last && channel < co && argmax[at[q]] == slot % positions;
        }
#pragma unroll
        for (int q = 0; q < AT_ONCE; q++) {
          const float g = here[q] ? dy[at[q]] * slope_or_one(y[at[q]], alpha, linear) : 0.f;
          const float* d = changes + (long long)input[q] * ci + first_ci;
          for (unsigned hits = __ballot_sync(WHOLE_WARP, here[q]); hits; hits &= hits - 1) {
            const int c = __ffs(hits) - 1;
            const float factor = __shfl_sync(WHOLE_WARP, g, c);
            for (int i = lane; i < size; i += 32) sums[c * ci_slice + i] = fmaf(factor, d[i], sums[c * ci_slice + i]);
          }
        }
      }
    }
  }
  float total = 0;
  if (tap == 0 && first_ci == 0 && channel < co)
    for (int cell = begin; cell < end; cell++) {
      const long long at = (long long)cell * co + channel;
      total += dy[at] * slope_or_one(y[at], alpha, linear);
    }
  all_totals[(line * warps + warp) * 32 + lane] = total;
  __syncthreads();
  if (line) return;
  for (int other = 1; other < lines; other++) {
    Shared<float> more = all_sums + (other * warps + warp) * 32 * ci_slice;
    for (int i = lane; i < 32 * ci_slice; i += 32) sums[i] += more[i];
    total += all_totals[(other * warps + warp) * 32 + lane];
  }
  __syncwarp();
  const int patch = taps * ci + 1;
  float* to = parts + ((long long)blockIdx.x * co + first_channel) * patch;
  for (int c = 0; c < 32 && first_channel + c < co; c++)
    for (int i = lane; i < size; i += 32) to[(long long)c * patch + tap * ci + first_ci + i] = sums[c * ci_slice + i];
  if (tap == 0 && first_ci == 0 && channel < co) to[(long long)lane * patch + taps * ci] = total;
}

// parts[part][pair][c] (double) = the sum of g over the positions of each pair of classes, for one part of the cells. A block per part,
// a thread per channel: neighbouring cells mostly have positions of one pair, whose sum is in a register.
extern "C" __global__ void lit_sums(const float* __restrict__ dy, const float* __restrict__ y, const unsigned char* __restrict__ argmax, int m,
                                    int co, float alpha, int linear, const int* __restrict__ cells, int oh, int ph, int pw,
                                    const int* __restrict__ row_classes, const int* __restrict__ column_classes, int columns, int pairs,
                                    double* __restrict__ parts) {
  const int begin = (long long)m * blockIdx.x / gridDim.x, end = (long long)m * (blockIdx.x + 1) / gridDim.x;
  for (int c = threadIdx.x; c < co; c += blockDim.x) {
    double* to = parts + (long long)blockIdx.x * pairs * co + c;
    for (int pair = 0; pair < pairs; pair++) to[(long long)pair * co] = 0;
    int known = 0;
    double sum = 0;
    for (int cell = begin; cell < end; cell++) {
      const long long at = (long long)cell * co + c;
      const int p = argmax[at];
      const int row = row_classes[cells[2 * cell] % oh * ph + p / pw], column = column_classes[cells[2 * cell + 1] * pw + p % pw];
      const int pair = row * columns + column;
      if (pair != known) {
        to[(long long)known * co] += sum;
        known = pair, sum = 0;
      }
      sum += dy[at] * slope_or_one(y[at], alpha, linear);
    }
    to[(long long)known * co] += sum;
  }
}

// dx (n, ci): a warp per lit input and slice of 32 * SUMS input channels. Lanes first look up the cells that the input feeds through 32
// taps; then taps and channels come in order. feed_rows (H, kh, 2), feed_columns (W, kw, 2): cell and position; turned (taps, co, ci).
extern "C" __global__ void __launch_bounds__(32 * WARPS, 1)
lit_dx(const float* __restrict__ dy, const float* __restrict__ y, const unsigned char* __restrict__ argmax, int co, float alpha, int linear,
       const int* __restrict__ at, int n, int h, const int* __restrict__ feed_rows, const int* __restrict__ feed_columns, int kh, int kw,
       const int* __restrict__ cells, const int* __restrict__ cell_rows, int oh, const float* __restrict__ turned, int ci,
       float* __restrict__ dx) {
  const int lane = threadIdx.x % 32, input = blockIdx.x * WARPS + threadIdx.x / 32, first_ci = blockIdx.y * 32 * SUMS;
  if (input >= n) return;                                   // the whole warp
  const int event = at[2 * input] / h, row = at[2 * input] % h, column = at[2 * input + 1];
  float sum[SUMS] = {};
  for (int first = 0; first < kh * kw; first += 32) {
    const int tap = first + lane;
    int own_cell = -1, own_position = 0;
    if (tap < kh * kw) {
      const int* r = feed_rows + (row * kh + tap / kw) * 2;
      const int* c = feed_columns + (column * kw + tap % kw) * 2;
      if (r[0] >= 0 && c[0] >= 0) own_cell = find(cells, cell_rows, event * oh + r[0], c[0]), own_position = r[1] + c[1];
    }
    for (unsigned fed = __ballot_sync(WHOLE_WARP, own_cell >= 0); fed; fed &= fed - 1) {
      const int t = __ffs(fed) - 1, cell = __shfl_sync(WHOLE_WARP, own_cell, t), p = __shfl_sync(WHOLE_WARP, own_position, t);
      for (int o = 0; o < co; o += 32 * AT_ONCE) {
        bool here[AT_ONCE];
#pragma unroll
        for (int q = 0; q < AT_ONCE; q++) {
          const int channel = o + 32 * q + lane;
          here[q] = channel < co && argmax[(long long)cell * co + channel] == p;
        }
#pragma unroll
        for (int q = 0; q < AT_ONCE; q++) {
          const long long own = (long long)cell * co + o + 32 * q + lane;
          const float g = here[q] ? dy[own] * slope_or_one(y[own], alpha, linear) : 0.f;
          for (unsigned hits = __ballot_sync(WHOLE_WARP, here[q]); hits; hits &= hits - 1) {
            const int c = __ffs(hits) - 1;
            const float factor = __shfl_sync(WHOLE_WARP, g, c);
            const float* w = turned + ((long long)(first + t) * co + o + 32 * q + c) * ci + first_ci;
#pragma unroll
            for (int k = 0; k < SUMS; k++)
              if (first_ci + lane + 32 * k < ci) sum[k] = fmaf(factor, w[lane + 32 * k], sum[k]);
          }
        }
      }
    }
  }
#pragma unroll
  for (int k = 0; k < SUMS; k++)
    if (first_ci + lane + 32 * k < ci) dx[(long long)input * ci + first_ci + lane + 32 * k] = sum[k];
}
