// Lists of what lit inputs feed, made on the device; see kernels/lit.py for the geometry and lit_lists.py for the lists.
#include "common.cuh"
#include "lit.cuh"

// Marks the cells that lit inputs feed. rows (h, u), columns (w, v): the cells of an input's row and column, then -1.
// Several threads may mark one cell: with the same mark. A thread per input.
extern "C" __global__ void mark_fed(const int* __restrict__ positions, int h, int oh, int ow, const int* __restrict__ rows, int u,
                                    const int* __restrict__ columns, int v, unsigned char* __restrict__ mask, long long n) {
  const long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (t >= n) return;
  const int row = positions[2 * t] % h, column = positions[2 * t + 1];
  const long long event = positions[2 * t] / h;
  for (int i = 0; i < u && rows[row * u + i] >= 0; i++)
    for (int j = 0; j < v && columns[column * v + j] >= 0; j++) mask[(event * oh + rows[row * u + i]) * ow + columns[column * v + j]] = 1;
}

// start[r] = how many of the `count` positions lie in rows before r. A thread per row, and one more.
extern "C" __global__ void row_starts(const int* __restrict__ positions, int count, int* __restrict__ start, long long n) {
  const long long row = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (row >= n) return;
  int low = 0, high = count;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (positions[2 * middle] < row) low = middle + 1;
    else high = middle;
  }
  start[row] = low;
}

// feeds[tap][input] = the position that a lit input feeds through a tap, cell * positions + position, or -1. A thread per number.
// feed_rows (h, kh, 2), feed_columns (w, kw, 2): cell and position along an axis. cell_rows: where rows of cells begin.
extern "C" __global__ void list_feeds(const int* __restrict__ positions, int inputs, int h, const int* __restrict__ feed_rows,
                                      const int* __restrict__ feed_columns, int kh, int kw, const int* __restrict__ cells,
                                      const int* __restrict__ cell_rows, int oh, int per_cell, int* __restrict__ feeds, long long n) {
  const long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (t >= n) return;
  const int input = t % inputs, tap = t / inputs, event = positions[2 * input] / h;
  const int* row = feed_rows + (positions[2 * input] % h * kh + tap / kw) * 2;
  const int* column = feed_columns + (positions[2 * input + 1] * kw + tap % kw) * 2;
  const bool fed = row[0] >= 0 && column[0] >= 0;
  feeds[t] = fed ? find(cells, cell_rows, event * oh + row[0], column[0]) * per_cell + row[1] + column[1] : -1;
}

// The pairs (lit input, position of a cell that it feeds) of each group of cells, by tap: a block per group, a warp per tap, whose lanes
// look under the tap at 32 positions at a time. It runs twice. Without group_starts it counts:
//   tap_starts[group][tap] = the pairs of the group before this tap, totals[group] = all of them.
// With group_starts it lists: inputs[], slots[] (cell in the group * positions + position), in the order of slots.
// source_rows (OH * ph, kh), source_columns (OW * pw, kw): the input that a position sees through a tap, or -1.
extern "C" __global__ void list_pairs(const int* __restrict__ positions, const int* __restrict__ rows, int h, const int* __restrict__ cells, int m,
                                      int per_group, int oh, int ph, int pw, const int* __restrict__ source_rows,
                                      const int* __restrict__ source_columns, int kh, int kw, int* __restrict__ tap_starts,
                                      int* __restrict__ totals, const int* __restrict__ group_starts, int* __restrict__ inputs,
                                      unsigned char* __restrict__ slots) {
  const int lane = threadIdx.x % 32, taps = kh * kw, per_cell = ph * pw;
  const int first_cell = blockIdx.x * per_group, count = min(per_group, m - first_cell) * per_cell;
  int* starts = tap_starts + (long long)blockIdx.x * (taps + 1);
  for (int tap = threadIdx.x / 32; tap < taps; tap += blockDim.x / 32) {
    int found = 0;
    const int base = group_starts ? group_starts[blockIdx.x] + starts[tap] : 0;
    for (int first = 0; first < count; first += 32) {
      const int slot = first + lane;
      int input = -1;
      if (slot < count) {
        const int cell = first_cell + slot / per_cell, p = slot % per_cell;
        const int event = cells[2 * cell] / oh, i = cells[2 * cell] % oh, j = cells[2 * cell + 1];
        const int row = source_rows[(i * ph + p / pw) * kh + tap / kw], column = source_columns[(j * pw + p % pw) * kw + tap % kw];
        if (row >= 0 && column >= 0) input = find(positions, rows, event * h + row, column);
      }
      const unsigned seen = __ballot_sync(WHOLE_WARP, input >= 0);
      if (group_starts && input >= 0) {
        const int to = base + found + __popc(seen & ((1u << lane) - 1));
        inputs[to] = input;
        slots[to] = slot;
      }
      found += __popc(seen);
    }
    if (!group_starts && lane == 0) starts[tap] = found;
  }
  if (group_starts) return;
  __syncthreads();
  if (threadIdx.x == 0) {
    int sum = 0;
    for (int tap = 0; tap < taps; tap++) {
      const int own = starts[tap];
      starts[tap] = sum;
      sum += own;
    }
    starts[taps] = totals[blockIdx.x] = sum;
  }
}
