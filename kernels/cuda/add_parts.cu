// dw[tap][channel] += and db[channel] += the sum over parts[part][channel][tap], the last tap being the bias: in order, in double.
// Block (32, 8): a tile of 32 channels x 32 taps is turned in shared memory, so that reading and writing both are contiguous.
#include "common.cuh"

extern "C" __global__ void add_parts(const PART* __restrict__ parts, int count, int taps, int co, float* __restrict__ dw,
                                     float* __restrict__ db) {
  SHARED(double, tile, 32 * 33);
  const int channel0 = blockIdx.x * 32, tap0 = blockIdx.y * 32;
  for (int r = threadIdx.y; r < 32; r += 8) {
    const int channel = channel0 + r, tap = tap0 + threadIdx.x;
    double sum = 0;
    if (channel < co && tap <= taps)
      for (int p = 0; p < count; p++) sum += parts[((long long)p * co + channel) * (taps + 1) + tap];
    tile[r * 33 + threadIdx.x] = sum;
  }
  __syncthreads();
  for (int r = threadIdx.y; r < 32; r += 8) {
    const int channel = channel0 + threadIdx.x, tap = tap0 + r;
    const float sum = tile[threadIdx.x * 33 + r];
    if (channel < co && tap < taps) dw[(long long)tap * co + channel] += sum;
    if (channel < co && tap == taps) db[channel] += sum;
  }
}
