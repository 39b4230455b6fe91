// A block at rest: its values for pairs of classes of rows and columns, of which there are a few; see kernels/lit.py.
// seen_rows (R, kh), seen_columns (S, kw): of a class of positions, the class of the input under each tap, -1 outside.
#include "common.cuh"
#include "lit.cuh"
#define LOWEST __int_as_float(0xff800000)                   // minus infinity

// parts[tap][pair][o] = rest[what the pair sees through the tap] w[tap][:][o]. A thread per number; taps come together in rest_sums.
extern "C" __global__ void rest_products(const float* __restrict__ rest, int input_columns, int ci, const int* __restrict__ seen_rows,
                                         const int* __restrict__ seen_columns, int kh, int kw, int columns, int pairs,
                                         const float* __restrict__ w, int co, float* __restrict__ parts, long long n) {
  const long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (t >= n) return;
  const int o = t % co, pair = t / co % pairs, tap = t / co / pairs;
  const int row = seen_rows[pair / columns * kh + tap / kw], column = seen_columns[pair % columns * kw + tap % kw];
  float sum = 0;
  if (row >= 0 && column >= 0) {
    const float* x = rest + ((long long)row * input_columns + column) * ci;
    const float* weights = w + (long long)tap * ci * co + o;
    for (int c = 0; c < ci; c++) sum = fmaf(x[c], weights[(long long)c * co], sum);
  }
  parts[t] = sum;
}

// sums[pair][o] = the sum over taps of parts. A thread per number.
extern "C" __global__ void rest_sums(const float* __restrict__ parts, int taps, float* __restrict__ sums, long long n) {
  const long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (t >= n) return;
  float sum = 0;
  for (int tap = 0; tap < taps; tap++) sum += parts[tap * n + t];
  sums[t] = sum;
}

// y, argmax (RC, SC, co): of the cells. pooled_rows (RC, ph), pooled_columns (SC, pw): the classes of a cell's positions.
extern "C" __global__ void rest_cells(const float* __restrict__ sums, int columns, const int* __restrict__ pooled_rows,
                                      const int* __restrict__ pooled_columns, int ph, int pw, int cell_columns, const float* __restrict__ b,
                                      int co, float alpha, int linear, float* __restrict__ y, unsigned char* __restrict__ argmax, long long n) {
  const long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (t >= n) return;
  const int o = t % co, column = t / co % cell_columns, row = t / co / cell_columns;
  float best = LOWEST;
  int where = 0;
  for (int p = 0; p < ph * pw; p++) {
    const int pair = pooled_rows[row * ph + p / pw] * columns + pooled_columns[column * pw + p % pw];
    const float v = sums[(long long)pair * co + o];
    if (v > best) best = v, where = p;                      // the first of equals
  }
  y[t] = activate_or_not(best + b[o], alpha, linear);
  argmax[t] = where;
}

// sums[pair of the maximum][o] += g and db[o] += g, for g = dy activation'(y) of every pair of classes of cells, in order. A thread per
// channel: several pairs of cells may have their maximum at one pair of positions.
extern "C" __global__ void rest_maxima(const double* __restrict__ dy, const float* __restrict__ y, const unsigned char* __restrict__ argmax,
                                       int cell_rows, int cell_columns, const int* __restrict__ pooled_rows,
                                       const int* __restrict__ pooled_columns, int ph, int pw, int columns, int co, float alpha, int linear,
                                       double* __restrict__ sums, float* __restrict__ db, long long n) {
  const long long o = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (o >= n) return;
  double total = 0;
  for (int cell = 0; cell < cell_rows * cell_columns; cell++) {
    const long long at = (long long)cell * co + o;
    const int p = argmax[at];
    const int pair = pooled_rows[cell / cell_columns * ph + p / pw] * columns + pooled_columns[cell % cell_columns * pw + p % pw];
    const double g = dy[at] * slope_or_one(y[at], alpha, linear);
    sums[(long long)pair * co + o] += g;
    total += g;
  }
  db[o] += (float)total;
}

// dw[tap][c][o] += the sum over pairs of rest[what the pair sees through the tap][c] sums[pair][o]. A thread per number.
extern "C" __global__ void rest_dw(const float* __restrict__ rest, int input_columns, int ci, const int* __restrict__ seen_rows,
                                   const int* __restrict__ seen_columns, int kh, int kw, int columns, int pairs,
                                   const double* __restrict__ sums, int co, float* __restrict__ dw, long long n) {
  const long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (t >= n) return;
  const int o = t % co, c = t / co % ci, tap = t / co / ci;
  double sum = 0;
  for (int pair = 0; pair < pairs; pair++) {
    const int row = seen_rows[pair / columns * kh + tap / kw], column = seen_columns[pair % columns * kw + tap % kw];
    if (row >= 0 && column >= 0) sum += rest[((long long)row * input_columns + column) * ci + c] * sums[(long long)pair * co + o];
  }
  dw[t] += (float)sum;
}

// parts[tap][pair][c] = the sum over o of sums[pair][o] w[tap][c][o]; turned (taps, co, ci). A thread per number.
extern "C" __global__ void rest_gradients(const double* __restrict__ sums, int pairs, const float* __restrict__ turned, int ci, int co,
                                          double* __restrict__ parts, long long n) {
  const long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (t >= n) return;
  const int c = t % ci, pair = t / ci % pairs, tap = t / ci / pairs;
  const float* weights = turned + (long long)tap * co * ci + c;
  double sum = 0;
  for (int o = 0; o < co; o++) sum += sums[(long long)pair * co + o] * weights[(long long)o * ci];
  parts[t] = sum;
}

// dx[pair of inputs][c] = the sum over the taps through which a pair of positions sees these inputs. A thread per number.
extern "C" __global__ void rest_dx(const double* __restrict__ parts, const int* __restrict__ seen_rows, const int* __restrict__ seen_columns,
                                   int kh, int kw, int columns, int pairs, int input_columns, int ci, double* __restrict__ dx, long long n) {
  const long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (t >= n) return;
  const int c = t % ci, column = t / ci % input_columns, row = t / ci / input_columns;
  double sum = 0;
  for (int tap = 0; tap < kh * kw; tap++)
    for (int pair = 0; pair < pairs; pair++)
      if (seen_rows[pair / columns * kh + tap / kw] == row && seen_columns[pair % columns * kw + tap % kw] == column)
        sum += parts[((long long)tap * pairs + pair) * ci + c];
  dx[t] = sum;
}
