// Average pooling, bound by memory. Sums of a window run in float over chunks of 256 positions, these are added in double.

// y = scale * the sum of each window: a thread per output, channels innermost.
extern "C" __global__ void window_sums(const float* __restrict__ x, int h, int w, int c, int oh, int ow, int ph, int pw, int sh, int sw,
                                       float scale, float* __restrict__ y, long long n) {
  const long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (t >= n) return;
  const int k = t % c, j = t / c % ow, i = t / c / ow % oh;
  const long long e = t / c / ow / oh;
  const float* from = x + ((e * h + i * sh) * w + j * sw) * c + k;
  double total = 0;
  float sum = 0;
  for (int p = 0; p < ph * pw; p++) {
    sum += from[((long long)(p / pw) * w + p % pw) * c];
    if (p % 256 == 255) total += sum, sum = 0;
  }
  y[t] = (total + sum) * scale;
}

// A thread per input element adds the gradients of the windows that hold it, in raster order.
extern "C" __global__ void avgpool2d_backward(const float* __restrict__ dy, int h, int w, int c, int oh, int ow, int ph, int pw, int sh,
                                              int sw, float scale, float* __restrict__ dx, long long n) {
  const long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (t >= n) return;
  const int k = t % c, column = t / c % w, row = t / c / w % h;
  const long long e = t / c / w / h;
  const int i0 = row < ph ? 0 : (row - ph) / sh + 1, j0 = column < pw ? 0 : (column - pw) / sw + 1;      // the first that reach so far
  float sum = 0;
  for (int i = i0; i < oh && i * sh <= row; i++)
    for (int j = j0; j < ow && j * sw <= column; j++) sum += dy[((e * oh + i) * ow + j) * c + k];
  dx[t] = sum * scale;
}
