// Convolution with any stride, dilation (dh, dw), kernel and padding, on its own: general, and plain. Networks spend their time in block.cu.

enum { PIXELS = 4, TAPS = 4, CHUNK = 256 };

// y: block (32, 8), a thread has one channel and PIXELS neighbours of one line. lines = N * OH.
extern "C" __global__ void conv2d(const float* __restrict__ x, const float* __restrict__ w, const float* __restrict__ b, int h, int width,
                                  int ci, int oh, int ow, int co, int kh, int kw, int sh, int sw, int dh, int dw, int top, int left, int lines,
                                  float* __restrict__ y) {
  const int channel = blockIdx.y * 32 + threadIdx.x, groups = (ow + PIXELS - 1) / PIXELS;
  const long long group = blockIdx.x * 8LL + threadIdx.y;
  if (group >= (long long)lines * groups || channel >= co) return;
  const int line = group / groups, first = group % groups * PIXELS, i = line % oh;
  const long long image = line / oh;
  float sum[PIXELS] = {};
  for (int ky = 0; ky < kh; ky++) {
    const int row = i * sh + ky * dh - top;
    if (row < 0 || row >= h) continue;
    for (int kx = 0; kx < kw; kx++) {
      const float* from[PIXELS];
#pragma unroll
      for (int p = 0; p < PIXELS; p++) {
        const int column = (first + p) * sw + kx * dw - left;
        from[p] = column >= 0 && column < width ? x + ((image * h + row) * width + column) * ci : nullptr;
      }
      const float* weight = w + (long long)(ky * kw + kx) * ci * co + channel;
      for (int c = 0; c < ci; c++, weight += co)
#pragma unroll
        for (int p = 0; p < PIXELS; p++)
          if (from[p]) sum[p] = fmaf(from[p][c], *weight, sum[p]);
    }
  }
#pragma unroll
  for (int p = 0; p < PIXELS; p++)
    if (first + p < ow) y[((long long)line * ow + first + p) * co + channel] = sum[p] + b[channel];
}

// dx: a thread per element gathers, in the order (ky, kx, c_out). wt is (KH, KW, C_out, C_in).
extern "C" __global__ void conv2d_dx(const float* __restrict__ dy, const float* __restrict__ wt, int h, int width, int ci, int oh, int ow,
                                     int co, int kh, int kw, int sh, int sw, int dh, int dw, int top, int left, float* __restrict__ dx, long long n) {
  const long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (t >= n) return;
  const int c = t % ci, column = t / ci % width, row = t / ci / width % h;
  const long long image = t / ci / width / h;
  float sum = 0;
  for (int ky = 0; ky < kh; ky++) {
    const int down = row + top - ky * dh, i = down / sh;
    if (down < 0 || down % sh || i >= oh) continue;
    for (int kx = 0; kx < kw; kx++) {
      const int right = column + left - kx * dw, j = right / sw;
      if (right < 0 || right % sw || j >= ow) continue;
      const float* d = dy + ((image * oh + i) * ow + j) * co;
      const float* weight = wt + (long long)(ky * kw + kx) * co * ci + c;
      for (int o = 0; o < co; o++) sum = fmaf(d[o], weight[(long long)o * ci], sum);
    }
  }
  dx[t] = sum;
}

// parts[span][channel][tap] (double): block (32, 8), a thread has one channel and TAPS taps (ky, kx, c_in) over a span of output pixels,
// added up in chunks; the tap behind the last is the bias, whose input is 1.
extern "C" __global__ void conv2d_dw(const float* __restrict__ dy, const float* __restrict__ x, int h, int width, int ci, int oh, int ow,
                                     int co, int kh, int kw, int sh, int sw, int dh, int dw, int top, int left, long long pixels, int span,
                                     double* __restrict__ parts) {
  const int channel = blockIdx.y * 32 + threadIdx.x, taps = kh * kw * ci, tap = (blockIdx.x * 8 + threadIdx.y) * TAPS;
  if (channel >= co || tap > taps) return;
  int down[TAPS], right[TAPS], c[TAPS];
#pragma unroll
  for (int t = 0; t < TAPS; t++) {
    c[t] = (tap + t) % ci;
    right[t] = (tap + t) / ci % kw * dw - left;
    down[t] = (tap + t) / ci / kw * dh - top;
  }
  double total[TAPS] = {};
  const long long start = (long long)blockIdx.z * span, end = min(pixels, start + span);
  for (long long chunk = start; chunk < end; chunk += CHUNK) {
    float sum[TAPS] = {};
    const long long last = min(end, chunk + CHUNK);
    for (long long pixel = chunk; pixel < last; pixel++) {
      const int j = pixel % ow, i = pixel / ow % oh;
      const long long image = pixel / ow / oh;
      const float d = dy[pixel * co + channel];
#pragma unroll
      for (int t = 0; t < TAPS; t++) {
        const int row = i * sh + down[t], column = j * sw + right[t];
        float v = 0;
        if (tap + t == taps) v = 1;
        else if (row >= 0 && row < h && column >= 0 && column < width) v = x[((image * h + row) * width + column) * ci + c[t]];
        sum[t] = fmaf(v, d, sum[t]);
      }
    }
#pragma unroll
    for (int t = 0; t < TAPS; t++) total[t] += sum[t];
  }
#pragma unroll
  for (int t = 0; t < TAPS; t++)
    if (tap + t <= taps) parts[((long long)blockIdx.z * co + channel) * (taps + 1) + tap + t] = total[t];
}
