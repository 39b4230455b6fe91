// Softmax over the last axis: few classes, so a thread per row.
extern "C" __global__ void softmax(const float* __restrict__ x, int c, float* __restrict__ y, long long n) {
  const long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (t >= n) return;
  const float* from = x + t * c;
  float* to = y + t * c;
  float top = from[0];
  for (int k = 1; k < c; k++) top = from[k] > top || from[k] != from[k] ? from[k] : top;         // a NaN stays one
  double total = 0;
  for (int k = 0; k < c; k++) total += to[k] = expf(from[k] - top);
  const float scale = 1 / total;
  for (int k = 0; k < c; k++) to[k] *= scale;
}

extern "C" __global__ void softmax_backward(const float* __restrict__ dy, const float* __restrict__ y, int c, float* __restrict__ dx,
                                            long long n) {
  const long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (t >= n) return;
  const float *g = dy + t * c, *after = y + t * c;
  double dot = 0;
  for (int k = 0; k < c; k++) dot += (double)g[k] * after[k];
  for (int k = 0; k < c; k++) dx[t * c + k] = after[k] * (g[k] - (float)dot);
}
