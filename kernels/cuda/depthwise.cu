// Convolution channel by channel: output channel o sees channel o / each. Bound by memory.

// A thread per output element.
extern "C" __global__ void depthwise(const float* __restrict__ x, const float* __restrict__ w, const float* __restrict__ b, int h, int width,
                                     int c, int oh, int ow, int co, int kh, int kw, int sh, int sw, int dh, int dw, int top, int left,
                                     float* __restrict__ y, long long n) {
  const long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (t >= n) return;
  const int o = t % co, j = t / co % ow, i = t / co / ow % oh, channel = o / (co / c);
  const long long image = t / co / ow / oh;
  float sum = 0;
  for (int ky = 0; ky < kh; ky++) {
    const int row = i * sh + ky * dh - top;
    if (row < 0 || row >= h) continue;
    for (int kx = 0; kx < kw; kx++) {
      const int column = j * sw + kx * dw - left;
      if (column < 0 || column >= width) continue;
      sum = fmaf(x[((image * h + row) * width + column) * c + channel], w[(long long)(ky * kw + kx) * co + o], sum);
    }
  }
  y[t] = sum + b[o];
}

// A thread per element of dx gathers, in the order (ky, kx, m).
extern "C" __global__ void depthwise_dx(const float* __restrict__ dy, const float* __restrict__ w, int h, int width, int c, int oh, int ow,
                                        int co, int kh, int kw, int sh, int sw, int dh, int dw, int top, int left, float* __restrict__ dx,
                                        long long n) {
  const long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (t >= n) return;
  const int channel = t % c, column = t / c % width, row = t / c / width % h, each = co / c;
  const long long image = t / c / width / h;
  float sum = 0;
  for (int ky = 0; ky < kh; ky++) {
    const int down = row + top - ky * dh, i = down / sh;
    if (down < 0 || down % sh || i >= oh) continue;
    for (int kx = 0; kx < kw; kx++) {
      const int right = column + left - kx * dw, j = right / sw;
      if (right < 0 || right % sw || j >= ow) continue;
      const float* d = dy + ((image * oh + i) * ow + j) * co + channel * each;
      const float* weight = w + (long long)(ky * kw + kx) * co + channel * each;
      for (int m = 0; m < each; m++) sum = fmaf(d[m], weight[m], sum);
    }
  }
  dx[t] = sum;
}

// parts[span][o][tap] (double): block (32, 8), a thread has one output channel and one tap (ky, kx) over a span of output pixels, added up
// in chunks of 256; the tap behind the last is the bias, whose input is 1.
extern "C" __global__ void depthwise_dw(const float* __restrict__ dy, const float* __restrict__ x, int h, int width, int c, int oh, int ow,
                                        int co, int kh, int kw, int sh, int sw, int dh, int dw, int top, int left, long long pixels,
                                        int span, double* __restrict__ parts) {
  enum { CHUNK = 256 };
  const int o = blockIdx.y * 32 + threadIdx.x, taps = kh * kw, tap = blockIdx.x * 8 + threadIdx.y;
  if (o >= co || tap > taps) return;
  const int down = tap / kw * dh - top, right = tap % kw * dw - left, channel = o / (co / c);
  const long long start = (long long)blockIdx.z * span, end = min(pixels, start + span);
  double total = 0;
  for (long long chunk = start; chunk < end; chunk += CHUNK) {
    float sum = 0;
    const long long last = min(end, chunk + CHUNK);
    for (long long pixel = chunk; pixel < last; pixel++) {
      const int row = pixel / ow % oh * sh + down, column = pixel % ow * sw + right;
      const long long image = pixel / ow / oh;
      float v = 0;
      if (tap == taps) v = 1;
      else if (row >= 0 && row < h && column >= 0 && column < width) v = x[((image * h + row) * width + column) * c + channel];
      sum = fmaf(v, dy[pixel * co + o], sum);
    }
    total += sum;
  }
  parts[((long long)blockIdx.z * co + o) * (taps + 1) + tap] = total;
}
