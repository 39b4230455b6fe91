// Max-pooling on its own, bound by memory: a thread per output, channels innermost. POSITION: unsigned char, or int above 256 positions.
extern "C" __global__ void maxpool2d(const float* __restrict__ x, int h, int w, int c, int oh, int ow, int ph, int pw, int sh, int sw,
                                     float* __restrict__ y, POSITION* __restrict__ argmax, long long n) {
  const long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (t >= n) return;
  const int k = t % c, j = t / c % ow;
  const long long row = t / c / ow, e = row / oh;
  const int i = row % oh;
  const float* from = x + ((e * h + i * sh) * w + j * sw) * c + k;
  float best = from[0];
  int where = 0;
  for (int a = 0; a < ph; a++)
    for (int b = 0; b < pw; b++) {
      const float v = from[((long long)a * w + b) * c];
      if (v > best) best = v, where = a * pw + b;                    // strict: the first of equals wins
    }
  y[t] = best;
  argmax[t] = where;
}

// A thread per input element: it adds the gradients of the windows that hold it and had their maximum there, in raster order.
extern "C" __global__ void maxpool2d_backward(const float* __restrict__ dy, const POSITION* __restrict__ argmax, int h, int w, int c, int oh,
                                              int ow, int ph, int pw, int sh, int sw, float* __restrict__ dx, long long n) {
  const long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (t >= n) return;
  const int k = t % c, column = t / c % w;
  const long long line = t / c / w, e = line / h;
  const int row = line % h;
  const int i0 = row < ph ? 0 : (row - ph) / sh + 1, j0 = column < pw ? 0 : (column - pw) / sw + 1;      // the first that reach so far
  float sum = 0;
  for (int i = i0; i < oh && i * sh <= row; i++)
    for (int j = j0; j < ow && j * sw <= column; j++) {
      const long long o = ((e * oh + i) * ow + j) * c + k;
      if (argmax[o] == (row - i * sh) * pw + column - j * sw) sum += dy[o];
    }
  dx[t] = sum;
}
